"""What time does: the walk over what is due, expiry, deadlines, and the turns they free."""

from typing import Any
from uuid import UUID

import pytest

from shared.domain.states import Lane
from shared.ids import RunId, new_id
from shared.store import ending, sweeping
from tests.shared.store.rig import Rig, back, base64, outcome

START = (0, UUID(int=0))


async def _walk(rig: Rig, lane: Lane, step: int) -> list[RunId]:
    """Go through a whole lane in small steps."""
    position, found = START, list[RunId]()
    while due := await sweeping.due(rig.store, lane, position, step):
        found += [run.run_id for run in due]
        position = (due[-1].at_us, due[-1].run_id)
    return found


@pytest.mark.parametrize("step", [1, 3, 100])
async def test_the_walk_meets_every_due_run_once_in_order(rig: Rig, step: int) -> None:
    ids = [await rig.queued() for _ in range(9)]
    for place, run_id in enumerate(ids):
        # three share each microsecond: the id decides among them
        await rig.change(
            run_id, f"available_at = timestamptz '2026-01-01' + {place // 3} * '1 us'::interval"
        )

    assert sorted(ids[:3]) + sorted(ids[3:6]) + sorted(ids[6:]) == await _walk(
        rig, Lane.NORMAL, step
    )


async def test_a_walk_sees_its_own_lane_and_only_what_waits_and_is_near(rig: Rig) -> None:
    near, far = await rig.queued(), await rig.queued()
    scheduled = await rig.queued(run_at="2999-01-01T00:00:00Z")
    await rig.change(near, "available_at = now() + interval '5 s'")
    await rig.change(far, "available_at = now() + interval '60 s'")
    await rig.change(scheduled, "available_at = now() - interval '1 s'")
    await rig.queued(priority="low")
    await rig.claimed()
    await rig.finished()

    assert [scheduled, near] == await _walk(rig, Lane.NORMAL, 10)


async def test_the_walk_says_whose_turn_has_come_and_passes_over_nobody(rig: Rig) -> None:
    thread = str(new_id())
    first = await rig.claimed(thread_id=thread, turns=True)
    second = await rig.queued(thread_id=thread, turns=True)
    other_channel = await rig.queued(thread_id=thread, channel="b", turns=True)
    stateless = await rig.queued(thread_id=thread)

    before = await sweeping.due(rig.store, Lane.NORMAL, START, 10)
    await rig.settle(outcome(first, attempt=0))
    after = await sweeping.due(rig.store, Lane.NORMAL, START, 10)

    waiting = [second, other_channel, stateless]
    assert list(zip(waiting, [False, True, True], strict=True)) == [
        (run.run_id, run.turn_has_come) for run in before
    ]
    assert list(zip(waiting, [True, True, True], strict=True)) == [
        (run.run_id, run.turn_has_come) for run in after
    ]


async def test_a_due_moment_is_rounded_up_to_milliseconds(rig: Rig) -> None:
    run_id = await rig.queued()
    await rig.change(run_id, "available_at = timestamptz '2026-01-01 00:00:00.000001Z'")

    (due,) = await sweeping.due(rig.store, Lane.NORMAL, START, 10)

    assert (1_767_225_600_001, 1_767_225_600_000_001) == (due.due_ms, due.at_us)


async def test_what_waited_too_long_expires_for_nothing(rig: Rig) -> None:
    run_id = await rig.queued(env_vars=base64(b"sealed"))
    waits = await rig.queued()
    started = await rig.claimed()
    await rig.settle(back(started))
    for late in (run_id, started.id):
        await rig.change(late, "expires_at = now() - interval '1 s'")

    ended = await sweeping.expire(rig.store)

    row, (event,) = await rig.row(run_id), await rig.events(run_id)
    assert (1, []) == (ended[0], ended[1])
    assert ("expired", "expired", "policy", None) == (
        row["status"],
        row["error_code"],
        row["error_origin"],
        row["env_vars"],
    )
    assert ("run.expired", 0) == (event["type"], event["data"]["run"]["cost"]["total"])
    assert ["queued", "queued"] == [await rig.status(waits), await rig.status(started.id)]
    assert (0, []) == await sweeping.expire(rig.store)


@pytest.mark.parametrize("column", ["deadline", "ends_at"])
async def test_what_waits_past_its_deadline_or_duration_fails(rig: Rig, column: str) -> None:
    run_id, running = await rig.queued(env_vars=base64(b"sealed")), await rig.claimed()
    for late in (run_id, running.id):
        await rig.change(late, f"{column} = now() - interval '1 s'")

    ended = await sweeping.end_overdue(rig.store)

    row, (event,) = await rig.row(run_id), await rig.events(run_id)
    assert (1, []) == (ended[0], ended[1])
    assert ("failed", "deadline_exceeded", "policy", None) == (
        row["status"],
        row["error_code"],
        row["error_origin"],
        row["env_vars"],
    )
    assert "run.failed" == event["type"]
    assert "running" == await rig.status(running.id)


@pytest.mark.parametrize(
    ("column", "end"), [("expires_at", sweeping.expire), ("deadline", sweeping.end_overdue)]
)
async def test_an_end_by_time_names_the_next_turn(rig: Rig, column: str, end: Any) -> None:
    thread = str(new_id())
    first, second = [await rig.queued(thread_id=thread, turns=True) for _ in range(2)]
    await rig.change(first, f"{column} = now() - interval '1 s'")

    assert (1, [(second, Lane.NORMAL)]) == await end(rig.store)


async def test_what_somebody_holds_is_left_for_the_next_time(rig: Rig) -> None:
    run_id = await rig.queued()
    await rig.change(run_id, "expires_at = now() - interval '1 s', deadline = now()")
    other = await rig.store.connect_alone()
    async with other.transaction():
        await other.execute("SELECT 1 FROM runs WHERE id = %s FOR UPDATE", (run_id,))

        assert (0, []) == await sweeping.expire(rig.store)
        assert (0, []) == await sweeping.end_overdue(rig.store)

    await other.close()
    assert (1, []) == await sweeping.expire(rig.store)


async def test_a_canceled_schedule_takes_no_turn(rig: Rig) -> None:
    run_id = await rig.queued(turns=True, run_at="2999-01-01T00:00:00Z")
    await ending.cancel(rig.store, rig.tenant.workspace_id, run_id)
    await rig.change(run_id, "available_at = now() - interval '1 s'")

    assert (0, []) == await sweeping.start_scheduled(rig.store)
