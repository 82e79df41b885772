"""What a doctor asks the database: counts of what should never be, and their repair."""

from uuid import UUID

from shared.domain.states import Lane
from shared.ids import RunId
from shared.store.database import Store
from shared.store.ending import ending
from shared.store.run_json import LIVE_SQL, NO_EARLIER_TURN
from shared.store.sweeping import LEADER_LOCK

_CLOCK = "SELECT extract(epoch FROM clock_timestamp())::float8"
_WORKERS = """
SELECT count(*) FILTER (WHERE reaped_at IS NULL AND lease_expires_at > now()),
  (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND granted
    AND (classid::bigint << 32 | objid::bigint) = %(lock)s)
FROM worker_sessions
"""
_ORPHANS = """
SELECT count(*) FROM runs r LEFT JOIN worker_sessions s ON s.id = r.session_id
WHERE r.status = 'running' AND (s.id IS NULL OR s.reaped_at IS NOT NULL
  OR s.lease_expires_at < now())
"""
_WAITING = f"""
SELECT r.id, r.priority, ceil(extract(epoch FROM r.available_at) * 1000)::bigint
FROM runs r WHERE r.status IN ('queued', 'scheduled') AND r.available_at <= now()
  AND NOT r.needs_turn AND {NO_EARLIER_TURN} AND r.id > %(after)s ORDER BY r.id LIMIT 5000
"""
_EVENTLESS = f"""runs r WHERE r.status NOT IN {LIVE_SQL}
  AND NOT EXISTS (SELECT 1 FROM events v WHERE v.run_id = r.id)"""
_COUNT_EVENTLESS = f"SELECT count(*) FROM {_EVENTLESS}"
_MAKE_EVENTS = f"""
WITH moved AS MATERIALIZED (
    SELECT r.* FROM {_EVENTLESS} ORDER BY r.id LIMIT 500 FOR UPDATE SKIP LOCKED
  ),
{ending()}
SELECT count(*) FROM moved
"""
# A restored dump brings the numbers of transactions of the server it was made on. Those above the
# present ones would keep their events out of the feed until this server has come so far.
_FOREIGN = "events v WHERE v.tx >= pg_snapshot_xmax(pg_current_snapshot())"
_COUNT_FOREIGN = f"SELECT count(*) FROM {_FOREIGN}"
_SETTLE_EVENTS = f"""
UPDATE events SET tx = '0' WHERE id IN (
  SELECT v.id FROM {_FOREIGN} ORDER BY v.id LIMIT 5000 FOR UPDATE)
"""
_OVERDUE = """
SELECT count(*) FROM deliveries y WHERE y.status = 'pending'
  AND y.next_try_at < now() - interval '10 minutes'
  AND NOT EXISTS (SELECT 1 FROM failing_endpoints f
    WHERE f.endpoint_id = y.endpoint_id AND f.paused_until IS NOT NULL)
"""
# Calls that only a budget watches are held on no account, settled ones on none any more.
_BOOKS = """
SELECT (SELECT count(*) FROM accounts),
  (SELECT count(*) FROM accounts a WHERE a.balance_nanousd <> (
    SELECT coalesce(sum(l.amount_nanousd), 0) FROM ledger l WHERE l.workspace_id = a.workspace_id)),
  (SELECT count(*) FROM accounts a WHERE a.held_nanousd <> (
    SELECT coalesce(sum(h.amount_nanousd), 0) FROM holds h
    WHERE h.workspace_id = a.workspace_id AND h.metered AND h.settled_at IS NULL)),
  (SELECT count(*) FROM budgets b WHERE b.held_nanousd <> (
    SELECT coalesce(sum(h.amount_nanousd), 0) FROM holds h
    WHERE h.workspace_id = b.workspace_id AND b.id = ANY(h.budget_ids) AND h.settled_at IS NULL))
"""
_SECRETS = """
SELECT 'webhook_secrets', s.id::text, s.workspace_id, s.sealed FROM webhook_secrets s
ORDER BY s.id DESC LIMIT 1
"""


async def seconds(store: Store) -> float:
    """The database's clock, as Unix seconds."""
    return float((await store.fetch(_CLOCK, {}))[0][0])


async def workers(store: Store) -> tuple[int, bool]:
    """How many workers hold a lease, and whether one of them leads."""
    live, leaders = (await store.fetch(_WORKERS, {"lock": LEADER_LOCK}))[0]
    return live, leaders > 0


async def orphans(store: Store) -> int:
    """Runs that run nowhere: their worker's lease is gone."""
    return int((await store.fetch(_ORPHANS, {}))[0][0])


async def waiting(store: Store, after: UUID) -> list[tuple[RunId, Lane, int]]:
    """Up to 5,000 runs that could start now, by id, behind `after`: id, lane, due (Unix ms)."""
    rows = await store.fetch(_WAITING, {"after": after})
    return [(RunId(run_id), Lane(lane), due_ms) for run_id, lane, due_ms in rows]


async def eventless(store: Store) -> int:
    """Runs that ended without their event."""
    return int((await store.fetch(_COUNT_EVENTLESS, {}))[0][0])


async def make_events(store: Store) -> int:
    """Give up to 500 of them their event and deliveries; answers how many."""
    return int((await store.fetch(_MAKE_EVENTS, {}))[0][0])


async def foreign_events(store: Store) -> int:
    """Events numbered by a server with a longer past, which the feed does not show."""
    return int((await store.fetch(_COUNT_FOREIGN, {}))[0][0])


async def settle_events(store: Store) -> int:
    """Let up to 5,000 of them be older than all others, in their order; answers how many."""
    return await store.execute(_SETTLE_EVENTS, {})


async def overdue_deliveries(store: Store) -> int:
    """Deliveries that should have been tried ten minutes ago, and whose endpoint is not paused."""
    return int((await store.fetch(_OVERDUE, {}))[0][0])


async def books(store: Store) -> tuple[int, int, int, int]:
    """Accounts; those whose balance or whose holds do not add up; and budgets that do not.

    One statement: what moves meanwhile moves in all of them.
    """
    accounts, balances, held, budgets = (await store.fetch(_BOOKS, {}))[0]
    return accounts, balances, held, budgets


async def newest_secret(store: Store) -> tuple[tuple[object, ...], bytes] | None:
    """A sealed secret with its place, for trying the master key."""
    rows = await store.fetch(_SECRETS, {})
    if not rows:
        return None
    table, secret_id, workspace_id, sealed = rows[0]
    return (table, secret_id, workspace_id), bytes(sealed)
