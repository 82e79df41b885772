"""What a scrape is told of the lanes, and of servers that are away."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from uuid import UUID

import httpx
import pytest

from shared import metrics
from shared.deps import Deps
from shared.domain.states import Lane
from shared.queue.connection import connect
from shared.services import operations
from shared.services.levels import Levels
from tests.factories import Tenant, a_prompt
from tests.worker.execute_rig import CutStore
from tests.worker.lane_rig import until

OLDEST = "AS l(lane)"
"""Words that only the question for the oldest runs holds."""
OLDER = "UPDATE runs SET available_at = now() - interval '90 seconds' WHERE id = %(run)s"
A_TURN = """UPDATE runs SET turn = %(turn)s, thread_id = '00000000-0000-0000-0000-000000000001'
WHERE id = %(run)s"""


@pytest.fixture(autouse=True)
async def _prompt(deps: Deps, tenant: Tenant) -> None:
    await a_prompt(deps, tenant)


async def _submit(client: httpx.AsyncClient, priority: str) -> UUID:
    body = {"inputs": {"name": "Ada"}, "priority": priority}
    response = await client.post("/prompts/greeting/1/runs", json=body)
    return UUID(response.json()["id"])


def _level(name: str, **labels: str) -> float | None:
    return metrics.REGISTRY.get_sample_value(name, labels)


async def test_a_lane_tells_how_many_wait_and_for_how_long(
    client: httpx.AsyncClient, deps: Deps
) -> None:
    oldest, _ = await _submit(client, "low"), await _submit(client, "low")
    await deps.store.execute(OLDER, {"run": oldest})
    await operations.pause(deps, Lane.LOW)

    await Levels(deps, "a pool").look()

    assert [0, 0, 2] == [_level("runlane_lane_depth", lane=lane) for lane in Lane]
    ages = [_level("runlane_lane_oldest_due_seconds", lane=lane) for lane in Lane]
    assert [0, 0, pytest.approx(90, abs=5)] == ages
    assert [0, 0, 1] == [_level("runlane_lane_paused", lane=lane) for lane in Lane]


async def test_a_run_that_waits_for_its_thread_does_not_make_a_lane_look_old(
    client: httpx.AsyncClient, deps: Deps
) -> None:
    first, second = await _submit(client, "low"), await _submit(client, "normal")
    for turn, run_id in enumerate((first, second), start=1):
        await deps.store.execute(A_TURN, {"turn": turn, "run": run_id})
    await deps.store.execute(OLDER, {"run": second})

    await Levels(deps, "a pool").look()

    assert 0 == _level("runlane_lane_oldest_due_seconds", lane="normal")
    assert 0 < (_level("runlane_lane_oldest_due_seconds", lane="low") or 0)


async def test_while_redis_is_away_the_lanes_have_no_depth_but_an_age(
    client: httpx.AsyncClient, deps: Deps
) -> None:
    await _submit(client, "low")
    away = connect("redis://127.0.0.1:1/0")

    await Levels(replace(deps, lanes=away), "a pool").look()

    await away.aclose()
    dependencies = ("redis", "postgresql")
    assert [0, 1] == [_level("runlane_dependency_up", dependency=one) for one in dependencies]
    assert _level("runlane_lane_depth", lane="low") is None
    assert _level("runlane_lane_oldest_due_seconds", lane="low") is not None


async def test_a_database_that_says_nothing_is_asked_once_and_not_waited_for(
    deps: Deps, store: CutStore
) -> None:
    answers = asyncio.Event()
    store.hold_at(OLDEST, answers)
    levels = Levels(deps, "a pool", wait_s=0.02)

    for _ in range(3):
        await levels.look()

    assert 0 == _level("runlane_dependency_up", dependency="postgresql")
    assert _level("runlane_lane_oldest_due_seconds", lane="low") is None
    answers.set()
    await until(_levels_are_there(levels))


def _levels_are_there(levels: Levels) -> Callable[[], Awaitable[bool]]:
    async def there() -> bool:
        await levels.look()
        return _level("runlane_dependency_up", dependency="postgresql") == 1

    return there


async def test_connections_are_counted_since_the_process_began(deps: Deps) -> None:
    levels = Levels(deps, "counted")
    for _ in range(2):
        await levels.look()

    sizes = [_level("runlane_pool_connections", pool="counted", state=s) for s in ("idle", "busy")]
    assert [3, 0] == sizes
    assert 0 == _level("runlane_pool_timeouts_total", pool="counted")
