"""How many runs of an environment run at once, whoever claims."""

import asyncio
from collections.abc import Mapping
from uuid import UUID

import pytest

from shared.domain.states import Lane
from shared.ids import RunId, SessionId
from shared.store import caps, claiming
from shared.store.claiming import ClaimedRun, Later
from tests.shared.store.rig import Rig, outcome


def _caps(rig: Rig, most: int) -> Mapping[UUID, int]:
    return {rig.target.environment_id: most}


async def _claimed(
    rig: Rig, session: SessionId, ids: list[RunId], most: int
) -> dict[RunId, ClaimedRun]:
    answers = await claiming.claim(rig.store, session, ids, _caps(rig, most))
    return {run_id: one for run_id, one in answers.items() if isinstance(one, ClaimedRun)}


async def _running(rig: Rig) -> int:
    return len(await rig.rows("SELECT 1 FROM runs WHERE status = 'running'"))


async def test_workers_that_claim_at_once_take_no_more_than_may_run(rig: Rig) -> None:
    ids = [await rig.queued() for _ in range(24)]
    workers = [await rig.session() for _ in range(3)]

    taken = await asyncio.gather(
        *(_claimed(rig, one, ids[place::3], 5) for place, one in enumerate(workers))
    )

    assert (5, 5) == (sum(map(len, taken)), await _running(rig))


async def test_a_run_without_room_waits_as_backlog_and_is_rung_later(rig: Rig) -> None:
    session = await rig.session()
    first, second = await rig.queued(), await rig.queued()
    await _claimed(rig, session, [first], 1)

    answer = (await claiming.claim(rig.store, session, [second], _caps(rig, 1)))[second]

    assert isinstance(answer, Later)
    row = await rig.row(second)
    assert ("queued", "backlog", 0) == (row["status"], row["status_reason"], row["claim_no"])
    ahead = await rig.rows(
        "SELECT ceil(extract(epoch FROM available_at) * 1000) AS due, available_at - now() "
        "BETWEEN interval '19 s' AND interval '40 s' AS soon FROM runs WHERE id = %(id)s",
        id=second,
    )
    assert [{"due": answer.due_ms, "soon": True}] == ahead


async def test_the_most_urgent_and_then_the_longest_there_is_let_in_next(rig: Rig) -> None:
    session = await rig.session()
    running = await rig.queued()
    waiting = [await rig.queued(priority=lane) for lane in ("low", "normal", "onsite", "onsite")]
    await _claimed(rig, session, [running], 1)
    await _claimed(rig, session, waiting, 1)

    full = await caps.unpark(rig.store, _caps(rig, 1))
    order = [await caps.unpark(rig.store, _caps(rig, 2)) for _ in range(5)]

    assert [] == full
    assert [
        [(waiting[2], Lane.ONSITE)],
        [(waiting[3], Lane.ONSITE)],
        [(waiting[1], Lane.NORMAL)],
        [(waiting[0], Lane.LOW)],
        [],
    ] == order
    assert waiting[2] in await _claimed(rig, session, [waiting[2]], 2)


async def test_an_environment_without_a_limit_is_not_held_up_by_one_with(
    rig: Rig, other: Rig
) -> None:
    session = await rig.session()
    ours = [await rig.queued() for _ in range(3)]
    theirs = [await other.queued() for _ in range(3)]

    taken = await _claimed(rig, session, ours + theirs, 1)

    assert {*theirs, ours[0]} == taken.keys()


@pytest.mark.parametrize("most", [1, 2])
async def test_what_ended_makes_room(rig: Rig, most: int) -> None:
    session = await rig.session()
    ids = [await rig.queued() for _ in range(4)]
    taken = await _claimed(rig, session, ids, most)
    for run in taken.values():
        await rig.settle(outcome(run, attempt=0, outcome=None, billed=None))
    await caps.unpark(rig.store, _caps(rig, most))

    again = await _claimed(rig, session, ids, most)

    assert (most, most) == (len(taken), len(again))
    assert taken.keys().isdisjoint(again)


async def test_the_limit_holds_while_redis_is_away(rig: Rig) -> None:
    session = await rig.session()
    for _ in range(5):
        await rig.queued()

    taken = await claiming.claim_due(rig.store, session, Lane.NORMAL, 4, _caps(rig, 2))

    assert (2, 2) == (len(taken), await _running(rig))


async def test_limits_of_living_environments_are_known(rig: Rig) -> None:
    assert {} == await caps.known(rig.store)

    await rig.run("UPDATE environments SET max_running_runs = 7")

    assert _caps(rig, 7) == await caps.known(rig.store)
