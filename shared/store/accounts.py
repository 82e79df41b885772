"""Accounts and their ledger as the operator moves them, and the runs that wait for money.

Whoever changes an account locks its row first; holds and budgets of the workspace come after it.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from shared.domain.credits import LedgerKind
from shared.domain.states import Lane
from shared.ids import RunId, WorkspaceId, new_id
from shared.store import charging, database
from shared.store.database import Store, Tx

_OPEN = """
INSERT INTO accounts AS a (workspace_id) VALUES (%(workspace)s)
ON CONFLICT (workspace_id) DO UPDATE SET workspace_id = a.workspace_id
RETURNING metered, balance_nanousd, held_nanousd
"""
_METER = "UPDATE accounts SET metered = %(metered)s WHERE workspace_id = %(workspace)s"
_WATCH = """
UPDATE workspaces w SET catalog_version = catalog_version + 1, accounted =
  EXISTS (SELECT 1 FROM accounts a WHERE a.workspace_id = w.id AND a.metered)
  OR EXISTS (SELECT 1 FROM budgets b WHERE b.workspace_id = w.id)
WHERE w.id = %(workspace)s
"""
_MOVE = """
UPDATE accounts SET balance_nanousd = balance_nanousd + %(amount)s
WHERE workspace_id = %(workspace)s
"""
_LINE = """
INSERT INTO ledger (id, workspace_id, kind, amount_nanousd, run_id, attempt, comment)
VALUES (%(id)s, %(workspace)s, %(kind)s, %(amount)s, %(run)s, %(attempt)s, %(comment)s)
"""
_CAP = "UPDATE workspaces SET max_request_nanousd = %(cap)s WHERE id = %(workspace)s"
_READ = """
SELECT coalesce(a.metered, false), coalesce(a.balance_nanousd, 0), coalesce(a.held_nanousd, 0),
  w.max_request_nanousd
FROM workspaces w LEFT JOIN accounts a ON a.workspace_id = w.id WHERE w.id = %(workspace)s
"""
# Those that were woken before keep their reason until they are claimed.
_WAKE = """
UPDATE runs r SET available_at = now() FROM (
  SELECT w.id FROM runs w WHERE w.workspace_id = %(workspace)s
    AND w.status = 'queued' AND w.status_reason = 'budget_hold' AND w.available_at > now()
  ORDER BY w.available_at LIMIT %(limit)s FOR UPDATE SKIP LOCKED) AS held
WHERE r.id = held.id AND r.status = 'queued' RETURNING r.id, r.priority
"""


# Where something may have room: most often it is a call that ended, and has woken them already.
_WAITING = """
SELECT a.workspace_id FROM accounts a
WHERE NOT (a.metered AND a.balance_nanousd <= a.held_nanousd) AND EXISTS (SELECT 1 FROM runs r
  WHERE r.workspace_id = a.workspace_id AND r.status = 'queued'
    AND r.status_reason = 'budget_hold' AND r.available_at > now())
"""
# The attempts are locked before the account, as in the statement that ends them.
_SETTLE = f"""
WITH doubtful AS MATERIALIZED (
    SELECT h.run_id, h.attempt, h.workspace_id, a.billed, a.cost_nanousd
    FROM holds h JOIN attempts a ON a.run_id = h.run_id AND a.number = h.attempt
    WHERE h.settled_at IS NULL AND a.outcome IS NOT NULL
      AND a.finished_at < now() - make_interval(secs => %(older_s)s)
      AND h.workspace_id = coalesce(%(workspace)s, h.workspace_id)
    ORDER BY a.run_id, a.number LIMIT %(limit)s FOR UPDATE OF a SKIP LOCKED
  ),{charging.locked_accounts("doubtful")},
  spent AS MATERIALIZED (
    SELECT l.*, d.billed = 'unknown' AS unknown, CASE d.billed WHEN 'yes' THEN
        coalesce(d.cost_nanousd, 0) WHEN 'no' THEN 0
        ELSE CASE WHEN %(charge)s THEN l.amount_nanousd ELSE 0 END END AS cost
    FROM doubtful d JOIN account k ON k.workspace_id = d.workspace_id
      CROSS JOIN LATERAL (SELECT h.* FROM holds h WHERE h.run_id = d.run_id
        AND h.attempt = d.attempt AND h.workspace_id = k.workspace_id
        AND h.settled_at IS NULL FOR UPDATE) AS l
  ),{charging.charge("%(comment)s")},
  settled AS (
    UPDATE holds h SET settled_at = now(), settled_nanousd = s.cost FROM spent s
    WHERE h.run_id = s.run_id AND h.attempt = s.attempt
  ),
  told AS (
    UPDATE attempts a SET cost_nanousd = s.cost,
      billed = CASE WHEN s.cost > 0 THEN 'yes' ELSE 'no' END
    FROM spent s WHERE a.run_id = s.run_id AND a.number = s.attempt AND s.unknown
  )
SELECT run_id FROM spent
"""


class Account(msgspec.Struct, frozen=True):
    """What a workspace has, in nano-dollars; `max_request_nanousd` caps each of its runs."""

    metered: bool
    balance_nanousd: int
    held_nanousd: int
    max_request_nanousd: int | None


async def read(store: Store, workspace_id: WorkspaceId) -> Account | None:
    """The account of a workspace as it is now; `None` where there is no such workspace."""
    rows = await store.fetch(_READ, {"workspace": workspace_id})
    return Account(*rows[0]) if rows else None


async def lock(tx: Tx, workspace_id: WorkspaceId) -> None:
    """Hold off whoever wants to move this workspace's money; opens its account if need be."""
    await database.fetch(tx, _OPEN, {"workspace": workspace_id})


async def meter(tx: Tx, workspace_id: WorkspaceId, *, metered: bool) -> None:
    """Let a locked account pay for its runs from now on, or no longer."""
    await _execute(tx, _METER, {"workspace": workspace_id, "metered": metered})
    await watch(tx, workspace_id)


async def watch(tx: Tx, workspace_id: WorkspaceId) -> None:
    """Tell submissions and claims whether there is anything to watch: a meter, a budget."""
    await _execute(tx, _WATCH, {"workspace": workspace_id})


async def enter(
    tx: Tx,
    workspace_id: WorkspaceId,
    kind: LedgerKind,
    amount_nanousd: int,
    comment: str | None,
    call: tuple[RunId, int] | None = None,
) -> None:
    """Add a line to the ledger of a locked account, and move its balance by it."""
    run_id, attempt = call or (None, None)
    line: dict[str, Any] = {"id": new_id(), "workspace": workspace_id, "kind": kind.value}
    line |= {"comment": comment, "amount": amount_nanousd, "run": run_id, "attempt": attempt}
    await _execute(tx, _LINE, line)
    await _execute(tx, _MOVE, {"workspace": workspace_id, "amount": amount_nanousd})


async def cap(tx: Tx, workspace_id: WorkspaceId, max_nanousd: int | None) -> None:
    """Say what any one run of the workspace may cost at most."""
    await _execute(tx, _CAP, {"workspace": workspace_id, "cap": max_nanousd})


async def waiting(store: Store) -> list[WorkspaceId]:
    """The workspaces that have something left and runs that wait for money."""
    return [WorkspaceId(row[0]) for row in await store.fetch(_WAITING, {})]


async def settle(
    store: Store,
    workspace_id: WorkspaceId | None,
    *,
    older_s: float,
    charge: bool,
    comment: str,
    limit: int,
) -> int:
    """Settle calls that ended so long ago without anybody knowing their cost; answers how many.

    They are charged with what is held, or with nothing.
    """
    asked = {"workspace": workspace_id, "older_s": older_s, "charge": charge, "limit": limit}
    return len(await store.fetch(_SETTLE, asked | {"comment": comment}))


async def wake(store: Store, workspace_id: WorkspaceId, limit: int) -> Sequence[tuple[RunId, Lane]]:
    """Make so many runs that wait for money due, those that tried longest ago first; ring them."""
    rows = await store.fetch(_WAKE, {"workspace": workspace_id, "limit": limit})
    return [(RunId(run_id), Lane(lane)) for run_id, lane in rows]


async def _execute(tx: Tx, statement: str, parameters: Mapping[str, Any]) -> None:
    connection = await tx.connection()
    await connection.exec_driver_sql(statement, dict(parameters))
