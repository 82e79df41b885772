"""Pausing lanes: the operator's word outlives Redis."""

from shared.deps import Deps
from shared.domain.states import Lane
from shared.queue.lanes import Lanes
from shared.services import operations


async def test_a_paused_lane_is_paused_in_redis_and_shown(deps: Deps, lanes: Lanes) -> None:
    await operations.pause(deps, Lane.LOW)

    views = await operations.lanes(deps)

    assert {Lane.LOW} == await lanes.paused()
    assert {Lane.ONSITE: False, Lane.NORMAL: False, Lane.LOW: True} == {
        view.lane: view.paused for view in views
    }


async def test_an_emptied_redis_is_told_again_what_is_paused(deps: Deps, lanes: Lanes) -> None:
    await operations.pause(deps, Lane.LOW)
    await lanes.flushall()

    await operations.align(deps)

    assert {Lane.LOW} == await lanes.paused()


async def test_resuming_takes_the_pause_back_everywhere(deps: Deps, lanes: Lanes) -> None:
    await operations.pause(deps, Lane.LOW)
    await operations.resume(deps, Lane.LOW)

    await operations.align(deps)

    assert frozenset() == await lanes.paused()


async def test_a_pause_only_redis_knows_of_is_lifted(deps: Deps, lanes: Lanes) -> None:
    await lanes.pause(Lane.ONSITE)

    await operations.align(deps)

    assert frozenset() == await lanes.paused()
