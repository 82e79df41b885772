"""Runs after their submission: read by their owner only, stopped wherever they are."""

import asyncio
from dataclasses import replace
from typing import Any

import msgspec
import pytest

from shared.deps import Deps
from shared.errors import NotFoundError
from shared.ids import RunId, WorkspaceId, new_id
from shared.queue.connection import connect
from shared.queue.lanes import Lanes
from shared.services import runs
from shared.services.keys import Principal
from tests.shared.store.rig import Rig, a_rig
from tests.worker.lane_rig import until


@pytest.fixture
async def rig(deps: Deps) -> Rig:
    return await a_rig(deps)


async def _cancel(rig: Rig, run_id: RunId, deps: Deps | None = None) -> tuple[dict[str, Any], bool]:
    shown, stopping = await runs.cancel(deps or rig.deps, rig.tenant.principal, run_id)
    return msgspec.json.decode(shown), stopping


def _stranger(rig: Rig) -> Principal:
    return msgspec.structs.replace(rig.tenant.principal, workspace_id=WorkspaceId(new_id()))


async def test_a_run_is_read_by_its_workspace_only(rig: Rig, deps: Deps) -> None:
    run_id = await rig.queued()

    for read in (runs.read, runs.read_prompt_run):
        shown = await read(deps, rig.tenant.principal, run_id)
        assert str(run_id) == msgspec.json.decode(shown)["id"]
        for principal, wanted in (
            (_stranger(rig), run_id),
            (rig.tenant.principal, RunId(new_id())),
        ):
            with pytest.raises(NotFoundError):
                await read(deps, principal, wanted)


async def test_a_waiting_run_is_canceled_at_once(rig: Rig) -> None:
    run_id = await rig.queued()

    shown, stopping = await _cancel(rig, run_id)

    assert ("canceled", True, False) == (shown["status"], shown["done"], stopping)


async def test_a_running_run_is_stopping_and_its_worker_is_told(rig: Rig, lanes: Lanes) -> None:
    run = await rig.called()
    news = lanes.cancels()
    told = asyncio.ensure_future(anext(news))
    await until(lambda: _is_heard(lanes, b"rl:cancel"))

    shown, stopping = await _cancel(rig, run.id)

    assert ("running", False, True) == (shown["status"], shown["done"], stopping)
    async with asyncio.timeout(5):
        assert run.id == await told
    await news.aclose()  # type: ignore[attr-defined] # an async generator, declared as iterator


async def _is_heard(lanes: Lanes, channel: bytes) -> bool:
    return (channel, 1) in await lanes.pubsub_numsub(channel)


async def test_a_finished_run_stays_as_it_is_however_often_it_is_canceled(rig: Rig) -> None:
    run_id = await rig.finished()
    before = await rig.row(run_id)

    answers = [await _cancel(rig, run_id) for _ in range(2)]

    assert [("succeeded", False)] * 2 == [(shown["status"], late) for shown, late in answers]
    assert before == await rig.row(run_id)


async def test_canceling_a_turn_rings_the_next(rig: Rig, lanes: Lanes) -> None:
    thread = str(new_id())
    first, second = [await rig.queued(thread_id=thread, turns=True) for _ in range(2)]

    await _cancel(rig, first)

    assert await lanes.zscore("rl:normal", str(second)) is not None


async def test_a_foreign_or_unknown_run_is_not_found_and_not_canceled(rig: Rig, deps: Deps) -> None:
    run_id = await rig.queued()

    for principal, wanted in (
        (_stranger(rig), run_id),
        (rig.tenant.principal, RunId(new_id())),
    ):
        with pytest.raises(NotFoundError):
            await runs.cancel(deps, principal, wanted)
    assert "queued" == await rig.status(run_id)


async def test_without_redis_a_cancel_is_written_all_the_same(rig: Rig, deps: Deps) -> None:
    nowhere = connect("redis://127.0.0.1:1")
    running, waiting = await rig.called(), await rig.queued()

    for run_id in (running.id, waiting):
        await _cancel(rig, run_id, replace(deps, lanes=nowhere))

    assert (await rig.row(running.id))["cancel_requested_at"] is not None
    assert "canceled" == await rig.status(waiting)
    await nowhere.aclose()
