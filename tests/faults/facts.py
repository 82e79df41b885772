"""What the store says happened: rows, and what a witness in the database saw of every change."""

from collections.abc import Sequence
from datetime import datetime
from typing import TypeVar
from uuid import UUID

import msgspec
import psycopg
from psycopg import sql
from psycopg.rows import dict_row

# The witness writes in the transaction it sees, so that what was rolled back was never seen.
WITNESS = """
CREATE SCHEMA witness;
CREATE TABLE witness.moves (seq bigserial, run_id uuid, at timestamptz, tx xid8, was text,
  became text, claim_was int, claim_no int, session_was uuid, session_id uuid,
  due_at timestamptz, meddled boolean);
CREATE TABLE witness.intents (run_id uuid, number int, claim_no int, session_id uuid);
CREATE FUNCTION witness.saw_run() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO witness.moves (run_id, at, tx, was, became, claim_was, claim_no, session_was,
    session_id, due_at, meddled)
  VALUES (NEW.id, now(), pg_current_xact_id(), OLD.status, NEW.status, OLD.claim_no, NEW.claim_no,
    OLD.session_id, NEW.session_id, OLD.available_at, OLD.finished_at IS NOT NULL AND
    (OLD.status, OLD.output, OLD.token_usage::text, OLD.cost::text, OLD.error_code, OLD.finished_at)
      IS DISTINCT FROM
    (NEW.status, NEW.output, NEW.token_usage::text, NEW.cost::text, NEW.error_code,
      NEW.finished_at));
  RETURN NULL;
END $$;
CREATE FUNCTION witness.saw_intent() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO witness.intents VALUES (NEW.run_id, NEW.number, NEW.claim_no, NEW.session_id);
  RETURN NULL;
END $$;
CREATE TRIGGER saw_run AFTER UPDATE ON runs FOR EACH ROW EXECUTE FUNCTION witness.saw_run();
CREATE TRIGGER saw_intent AFTER INSERT ON attempts FOR EACH ROW
  EXECUTE FUNCTION witness.saw_intent();
"""
FORGET = "TRUNCATE witness.moves, witness.intents"


class RunFact(msgspec.Struct, frozen=True):
    id: UUID
    status: str
    case: str | None
    max_attempts: int
    on_unknown_outcome: str
    claim_no: int
    session_id: UUID | None
    ends_at: datetime | None
    finished_at: datetime | None


class AttemptFact(msgspec.Struct, frozen=True):
    run_id: UUID
    number: int
    claim_no: int
    session_id: UUID
    outcome: str | None
    billed: str | None
    late: bool
    sent_back: bool = False  # it missed its schema, and a correction was asked for


class IntentFact(msgspec.Struct, frozen=True):
    """An attempt's row as it was born; `committed_at` is the commit's own moment."""

    run_id: UUID
    number: int
    committed_at: datetime


class MoveFact(msgspec.Struct, frozen=True):
    """One change of a run. `due_at` is when it could be claimed before; `meddled`: it was over."""

    run_id: UUID
    at: datetime
    tx: str
    was: str
    became: str
    claim_was: int
    claim_no: int
    session_id: UUID | None
    due_at: datetime
    meddled: bool


class EventFact(msgspec.Struct, frozen=True):
    id: UUID
    run_id: UUID
    type: str
    tx: str
    environment_id: UUID
    created_at: datetime


class EndpointFact(msgspec.Struct, frozen=True):
    id: UUID
    name: str
    events: Sequence[str]
    environment_ids: Sequence[UUID]
    created_at: datetime
    deleted_at: datetime | None
    disabled_at: datetime | None


class DeliveryFact(msgspec.Struct, frozen=True):
    id: UUID
    event_id: UUID
    endpoint_id: UUID
    status: str


class TryFact(msgspec.Struct, frozen=True):
    delivery_id: UUID
    number: int
    started_at: datetime
    duration_ms: int
    status_code: int | None


class MoneyFact(msgspec.Struct, frozen=True):
    """A place where two books do not say the same; there should be none."""

    what: str
    place: str
    says: int | None
    should_say: int | None


class Facts(msgspec.Struct, frozen=True):
    """The whole store, as far as the referee looks."""

    runs: Sequence[RunFact] = ()
    attempts: Sequence[AttemptFact] = ()
    intents: Sequence[IntentFact] = ()
    moves: Sequence[MoveFact] = ()
    events: Sequence[EventFact] = ()
    endpoints: Sequence[EndpointFact] = ()
    deliveries: Sequence[DeliveryFact] = ()
    tries: Sequence[TryFact] = ()
    money: Sequence[MoneyFact] = ()


_RUNS = """
SELECT id, status, metadata->>'case' AS case, max_attempts, on_unknown_outcome, claim_no,
  session_id, least(ends_at, deadline) AS ends_at, finished_at FROM runs
"""
_ATTEMPTS = """
SELECT run_id, number, claim_no, session_id, outcome, billed, late,
  coalesce(error_code = 'schema_mismatch' AND late_output IS NOT NULL, false) AS sent_back
FROM attempts
"""
_INTENTS = (
    "SELECT run_id, number, pg_xact_commit_timestamp(xmin) AS committed_at FROM witness.intents"
)
_MOVES = """
SELECT run_id, at, tx::text AS tx, was, became, claim_was, claim_no, session_id, due_at, meddled
FROM witness.moves ORDER BY seq
"""
_EVENTS = "SELECT id, run_id, type, tx::text AS tx, environment_id, created_at FROM events"
_ENDPOINTS = """
SELECT id, regexp_replace(url, '.*/', '') AS name, events, environment_ids, created_at, deleted_at,
  disabled_at FROM webhook_endpoints
"""
_DELIVERIES = "SELECT id, event_id, endpoint_id, status FROM deliveries"
_TRIES = """
SELECT delivery_id, number, started_at, duration_ms, status_code FROM delivery_tries
ORDER BY delivery_id, number
"""
# Each pair of books that has to agree: ledger, attempts, runs, holds, accounts. What was charged
# before the tables were emptied is the account's alone.
_MONEY = """
SELECT 'the ledger does not say what a call cost' AS what, a.run_id || '/' || a.number AS place,
  l.amount::bigint AS says, -coalesce(a.cost_nanousd, 0) AS should_say
FROM attempts a JOIN accounts m ON m.workspace_id = a.workspace_id AND m.metered
  LEFT JOIN LATERAL (SELECT coalesce(sum(amount_nanousd), 0) AS amount FROM ledger
    WHERE run_id = a.run_id AND attempt = a.number) AS l ON true
WHERE l.amount <> -coalesce(a.cost_nanousd, 0)
UNION ALL
SELECT 'a call was charged twice', run_id || '/' || attempt, count(*), 1
FROM ledger WHERE run_id IS NOT NULL GROUP BY run_id, attempt HAVING count(*) > 1
UNION ALL
SELECT 'a run does not say what its calls cost', r.id::text, r.cost_nanousd, c.cost
FROM runs r JOIN LATERAL (SELECT sum(cost_nanousd)::bigint AS cost FROM attempts
  WHERE run_id = r.id AND NOT late) AS c ON true
WHERE r.finished_at IS NOT NULL AND coalesce(r.cost_nanousd, 0) <> coalesce(c.cost, 0)
UNION ALL
SELECT 'the balance is not the sum of the ledger', m.workspace_id::text, m.balance_nanousd,
  (SELECT sum(amount_nanousd)::bigint FROM ledger WHERE workspace_id = m.workspace_id)
FROM accounts m WHERE m.balance_nanousd <> (SELECT coalesce(sum(amount_nanousd), 0) FROM ledger
  WHERE workspace_id = m.workspace_id)
UNION ALL
SELECT 'what is held is not the sum of the holds', m.workspace_id::text, m.held_nanousd,
  (SELECT sum(amount_nanousd)::bigint FROM holds WHERE workspace_id = m.workspace_id)
FROM accounts m WHERE m.held_nanousd <> (SELECT coalesce(sum(amount_nanousd), 0) FROM holds
  WHERE workspace_id = m.workspace_id AND metered AND settled_at IS NULL)
UNION ALL
SELECT 'a call of which the cost is known still holds', h.run_id || '/' || h.attempt,
  h.amount_nanousd, 0
FROM holds h JOIN attempts a ON a.run_id = h.run_id AND a.number = h.attempt
WHERE a.billed <> 'unknown' AND h.settled_at IS NULL
"""

Fact = TypeVar("Fact")


async def read(url: str) -> Facts:
    """Read everything as of one moment."""
    async with await psycopg.AsyncConnection.connect(url, row_factory=dict_row) as connection:
        await connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")

        async def rows(statement: str, kind: type[Fact]) -> list[Fact]:
            cursor = await connection.execute(sql.SQL(statement))
            return msgspec.convert(await cursor.fetchall(), list[kind])  # type: ignore[valid-type] # a type given as a value

        return Facts(
            runs=await rows(_RUNS, RunFact),
            attempts=await rows(_ATTEMPTS, AttemptFact),
            intents=await rows(_INTENTS, IntentFact),
            moves=await rows(_MOVES, MoveFact),
            events=await rows(_EVENTS, EventFact),
            endpoints=await rows(_ENDPOINTS, EndpointFact),
            deliveries=await rows(_DELIVERIES, DeliveryFact),
            tries=await rows(_TRIES, TryFact),
            money=await rows(_MONEY, MoneyFact),
        )
