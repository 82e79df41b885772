"""The sweeper: whatever Redis forgets is rung, whatever time ends is ended, the dead are reaped."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from shared.deps import Deps
from shared.domain.states import Lane
from shared.ids import RunId, new_id
from shared.queue.connection import connect
from shared.queue.lanes import Lanes
from shared.queue.port import Ring
from shared.settings import Settings
from shared.store import submitting
from shared.store.submitting import Stored
from shared.tasks import end
from tests.shared.store.rig import LEASE_IS_OVER, Rig, a_rig
from tests.worker.lane_rig import until
from worker.sweep import BATCH, Sweeper

NOBODY = "redis://127.0.0.1:1"


@pytest.fixture(name="settings")
def settings_with_quick_sweeps(settings: Settings) -> Settings:
    return settings.model_copy(update={"sweep_s": 0.02, "reap_s": 0.02, "lease_s": 0.3})


@pytest.fixture
async def rig(deps: Deps) -> Rig:
    return await a_rig(deps)


@asynccontextmanager
async def _sweeping(deps: Deps) -> AsyncIterator[Sweeper]:
    sweeper = Sweeper(deps)
    task = asyncio.create_task(sweeper.run_forever())
    try:
        yield sweeper
    finally:
        await end([task])
        await sweeper.close()


async def _many(rig: Rig, count: int, **changes: object) -> list[RunId]:
    stored = await submitting.insert(rig.store, [rig.new(**changes) for _ in range(count)])
    return [one.run_id for one in stored if isinstance(one, Stored)]


async def _rung(lanes: Lanes, ids: Iterable[RunId]) -> bool:
    scores = await lanes.zmscore("rl:normal", [str(run_id) for run_id in ids])
    return None not in scores


async def test_after_redis_was_emptied_everything_is_rung_in_one_sweep(
    rig: Rig, lanes: Lanes
) -> None:
    once = replace(rig.deps, settings=rig.deps.settings.model_copy(update={"sweep_s": 600.0}))
    ids = await _many(rig, 2 * BATCH + 1)

    async with _sweeping(once):
        await until(lambda: _rung(lanes, ids))


async def test_what_redis_forgets_later_is_rung_again(rig: Rig, lanes: Lanes) -> None:
    ids = await _many(rig, 5)
    async with _sweeping(rig.deps):
        await until(lambda: _rung(lanes, ids))

        await lanes.flushall()

        await until(lambda: _rung(lanes, ids))


async def test_of_a_long_thread_only_the_turn_that_has_come_is_rung(rig: Rig, lanes: Lanes) -> None:
    thread = str(new_id())
    turns = await _many(rig, BATCH + 20, thread_id=thread, turns=True)
    behind = await _many(rig, 2)

    async with _sweeping(rig.deps):
        await until(lambda: _rung(lanes, behind))
        waiting = await lanes.zrange("rl:normal", 0, -1)
        await rig.change(turns[0], "status = 'expired', finished_at = now()")
        await until(lambda: _rung(lanes, [turns[1]]))

    assert {str(run_id).encode() for run_id in (turns[0], *behind)} == set(waiting)


async def test_a_single_missing_ring_is_found(rig: Rig, lanes: Lanes) -> None:
    ids = await _many(rig, 5)
    async with _sweeping(rig.deps):
        await until(lambda: _rung(lanes, ids))

        await lanes.zrem("rl:normal", str(ids[3]))

        await until(lambda: _rung(lanes, ids))


async def test_the_walk_goes_on_where_the_last_sweep_ended(rig: Rig, lanes: Lanes) -> None:
    settings = rig.deps.settings.model_copy(update={"sweep_limit": 1})
    await lanes.emptied()  # nothing was forgotten, as far as the sweeper knows
    ids = await _many(rig, 2 * BATCH + 1)

    async with _sweeping(replace(rig.deps, settings=settings)):
        await until(lambda: _rung(lanes, ids))
        await lanes.zrem("rl:normal", str(ids[0]), str(ids[-1]))
        await until(lambda: _rung(lanes, ids))


async def test_what_is_due_later_is_rung_for_its_moment(rig: Rig, lanes: Lanes) -> None:
    soon, far = await _many(rig, 2)
    await rig.change(soon, "available_at = now() + interval '8 s'")
    await rig.change(far, "available_at = now() + interval '60 s'")

    async with _sweeping(rig.deps):
        await until(lambda: _rung(lanes, [soon]))

    (due,) = await rig.rows(
        "SELECT ceil(extract(epoch FROM available_at) * 1000)::bigint AS ms FROM runs"
        " WHERE id = %(id)s",
        id=soon,
    )
    assert due["ms"] == await lanes.zscore("rl:normal", str(soon))
    assert await lanes.zscore("rl:normal", str(far)) is None


async def test_time_ends_what_waited_too_long_and_frees_the_next_turn(
    rig: Rig, lanes: Lanes
) -> None:
    thread = str(new_id())
    late, next_turn = [await rig.queued(thread_id=thread, turns=True) for _ in range(2)]
    overdue = await rig.queued()
    await rig.change(late, "expires_at = now()")
    await rig.change(overdue, "deadline = now()")

    async with _sweeping(rig.deps):
        await until(lambda: _rung(lanes, [next_turn]))
        await until(lambda: _is(rig, late, "expired"))
        await until(lambda: _is(rig, overdue, "failed"))


async def test_all_scheduled_runs_that_are_due_start_in_one_sweep(rig: Rig, lanes: Lanes) -> None:
    once = replace(rig.deps, settings=rig.deps.settings.model_copy(update={"sweep_s": 600.0}))
    ids = await _many(rig, BATCH + 1, turns=True, run_at="2999-01-01T00:00:00Z")
    await rig.run("UPDATE runs SET available_at = now() - interval '1 s'")

    async with _sweeping(once):
        await until(lambda: _rung(lanes, ids))

    assert [] == await rig.rows("SELECT 1 FROM runs WHERE status = 'scheduled'")


async def test_the_runs_of_the_dead_are_queued_and_rung(rig: Rig, lanes: Lanes) -> None:
    run = await rig.called()
    await rig.run(LEASE_IS_OVER, id=run.session_id)

    async with _sweeping(rig.deps):
        await until(lambda: _rung(lanes, [run.id]))

    assert "queued" == await rig.status(run.id)


async def test_nobody_is_reaped_before_a_lease_has_passed_since_the_connection(
    rig: Rig, lanes: Lanes
) -> None:
    patient = replace(rig.deps, settings=rig.deps.settings.model_copy(update={"lease_s": 600.0}))
    run = await rig.claimed()
    await rig.run(LEASE_IS_OVER, id=run.session_id)
    late = await rig.queued()
    await rig.change(late, "expires_at = now()")

    async with _sweeping(patient):
        await until(lambda: _is(rig, late, "expired"))
        await rig.change(second := await rig.queued(), "expires_at = now()")
        await until(lambda: _is(rig, second, "expired"))

    assert "running" == await rig.status(run.id)


async def _is(rig: Rig, run_id: RunId, status: str) -> bool:
    return await rig.status(run_id) == status


async def test_without_redis_time_goes_on_and_the_dead_are_reaped(rig: Rig) -> None:
    lanes = connect(NOBODY)
    alone = replace(rig.deps, lanes=lanes)
    run, late = await rig.called(), await rig.queued()
    await rig.change(late, "expires_at = now()")
    await rig.run(LEASE_IS_OVER, id=run.session_id)

    async with _sweeping(alone):
        await until(lambda: _is(rig, late, "expired"))
        await until(lambda: _is(rig, run.id, "queued"))

    await lanes.aclose()


async def test_one_leads_and_another_takes_over_when_it_leaves(rig: Rig, lanes: Lanes) -> None:
    async with _sweeping(rig.deps):
        await until(lambda: _leads(rig))
        (first,) = await _leaders(rig)

        async with _sweeping(rig.deps):
            ids = await _many(rig, 3)
            await until(lambda: _rung(lanes, ids))
            together = await _leaders(rig)
            await rig.rows("SELECT pg_terminate_backend(%(pid)s)", pid=first)
            await until(lambda: _leads(rig, instead_of=first))
            await lanes.flushall()
            await until(lambda: _rung(lanes, ids))

    assert [first] == together


async def _leaders(rig: Rig) -> list[int]:
    rows = await rig.rows(
        "SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND granted AND database ="
        " (SELECT oid FROM pg_database WHERE datname = current_database())"
    )
    return [row["pid"] for row in rows]


async def _leads(rig: Rig, instead_of: int | None = None) -> bool:
    return bool(set(await _leaders(rig)) - {instead_of})


async def test_a_ring_that_waits_already_keeps_its_moment(rig: Rig, lanes: Lanes) -> None:
    (run_id,) = await _many(rig, 1)
    await lanes.ring(Ring(run_id, Lane.NORMAL, 123))
    others = await _many(rig, 1)

    async with _sweeping(rig.deps):
        await until(lambda: _rung(lanes, others))

    assert 123 == await lanes.zscore("rl:normal", str(run_id))
