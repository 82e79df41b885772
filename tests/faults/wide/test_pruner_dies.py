"""Pruners that die, freeze, and work beside each other: each run goes once, and whole."""

from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import datetime
from uuid import UUID

import pytest
import pytest_asyncio

from tests.faults.rig import Rig
from tests.faults.vendors import model_of
from tests.faults.waiting import until
from worker.prune import LEADER_LOCK

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.xdist_group("faults")]

BATCH = 3
OLD = 4 * BATCH + 1
YOUNG = 4
PRUNER = {"prune_s": 0.1, "prune_batch": BATCH, "prune_share": 1.0}
TALLIER = {"tally_s": 0.1, "tally_lag_s": 0.5}
LEFT = {
    "contents": "SELECT id FROM runs WHERE contents_erased_at IS NULL",
    "runs": "SELECT id FROM runs",
}
_KEEP = "UPDATE environments SET retain_contents_days = %(contents)s, retain_runs_days = %(runs)s"
_AGE = "UPDATE runs SET finished_at = now() - interval '2 days' WHERE id = ANY(%(ids)s::uuid[])"
# What takes its lock from a frozen leader soon: a lease would, after as long.
_DEPOSE = """
SELECT pg_terminate_backend(pid) FROM pg_locks
WHERE locktype = 'advisory' AND (classid::bigint << 32 | objid::bigint) = %(lock)s
"""
_STAMPS = "SELECT id, contents_erased_at FROM runs WHERE contents_erased_at IS NOT NULL"
# All that there is of some runs, as text.
_WHOLE = """
SELECT r::text, (SELECT json_agg(a ORDER BY a.number)::text FROM attempts a WHERE a.run_id = r.id),
  v::text, d::text, (SELECT json_agg(t)::text FROM delivery_tries t WHERE t.delivery_id = d.id)
FROM runs r JOIN events v ON v.run_id = r.id JOIN deliveries d ON d.event_id = v.id
WHERE r.id = ANY(%(ids)s::uuid[]) ORDER BY r.id
"""
# Runs that may not go yet: what their calls cost is still to be added up.
_NOT_ADDED_UP = """
SELECT a.run_id AS id FROM attempts a LEFT JOIN usage_marks m ON m.workspace_id = a.workspace_id
WHERE m.until IS NULL OR a.started_at >= m.until
"""
_ORPHANS = """
SELECT id FROM events v WHERE NOT EXISTS (SELECT 1 FROM runs WHERE id = v.run_id)
"""


@pytest_asyncio.fixture(loop_scope="session")
async def days(rig: Rig) -> AsyncIterator[Callable[..., Awaitable[object]]]:
    """Says for how many days the tenant's runs are kept; for ever again afterwards."""

    async def keep(**days: int) -> None:
        await rig.rows(_KEEP, **{"contents": None, "runs": None, **days})

    yield keep
    await keep()


async def _history(rig: Rig) -> tuple[set[UUID], set[UUID]]:
    """Runs that ended long ago, and runs that have just ended, all of them told to the receiver."""
    await rig.api()
    worker = await rig.worker(**TALLIER)
    cases = [f"run {number}" for number in range(OLD + YOUNG)]
    made = await rig.customer.submit_many(cases, model_of("answer"))
    await rig.quiet()

    async def added_up() -> bool:
        return set() == await _ids(rig, _NOT_ADDED_UP)

    await until(added_up, "every call is added up")
    await worker.kill()
    await rig.rows(_AGE, ids=list(made[:OLD]))
    return {UUID(one) for one in made[:OLD]}, {UUID(one) for one in made[OLD:]}


async def _ids(rig: Rig, statement: str) -> set[UUID]:
    return {row["id"] for row in await rig.rows(statement)}


async def _stamps(rig: Rig) -> dict[UUID, datetime]:
    return {row["id"]: row["contents_erased_at"] for row in await rig.rows(_STAMPS)}


@pytest.mark.parametrize("kind", ["contents", "runs"])
async def test_pruners_that_die_freeze_and_meet_take_each_run_once_and_no_other(
    rig: Rig, days: Callable[..., Awaitable[object]], kind: str
) -> None:
    old, young = await _history(rig)
    kept = await rig.rows(_WHOLE, ids=list(young))
    await days(**{kind: 1})

    first = rig.launch_worker(crash_point="pruner_mid_batch:kill", **PRUNER)
    await first.ended()
    without_one_batch = await _ids(rig, LEFT[kind])
    second = await rig.worker(crash_point="pruner_mid_batch:stop", **PRUNER)
    await second.frozen()
    without_two, stamps = await _ids(rig, LEFT[kind]), await _stamps(rig)
    await rig.rows(_DEPOSE, lock=LEADER_LOCK)
    third = await rig.worker(**PRUNER)
    second.thaw()

    async def done() -> bool:
        return young == await _ids(rig, LEFT[kind])

    await until(done, "all that is old is gone")
    await third.says("pruned")

    assert OLD == len(old)
    assert [OLD + YOUNG - BATCH, OLD + YOUNG - 2 * BATCH] == [
        len(without_one_batch),
        len(without_two),
    ]
    assert old | young > without_one_batch > without_two > young
    assert kept == await rig.rows(_WHOLE, ids=list(young))
    assert stamps.items() <= (await _stamps(rig)).items()
    assert set() == await _ids(rig, _ORPHANS)
