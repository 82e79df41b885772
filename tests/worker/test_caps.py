"""A worker and the number of runs that an environment lets run at once."""

import asyncio
from functools import partial
from uuid import UUID

from shared.deps import Deps
from shared.domain.states import Lane
from shared.ids import RunId
from shared.queue.lanes import Lanes
from shared.queue.port import Ring
from shared.store import reading
from tests.shared.store.rig import a_rig
from tests.worker.execute_rig import ScriptedProvider, hands
from tests.worker.lane_rig import until


async def test_the_end_of_a_run_lets_the_next_one_of_its_environment_in(
    deps: Deps, lanes: Lanes
) -> None:
    rig = await a_rig(deps)
    await rig.run("UPDATE environments SET max_running_runs = 1")
    first, second = await rig.queued(), await rig.queued()

    provider = ScriptedProvider()
    provider.gate = asyncio.Event()
    async with hands(deps, provider) as worker:
        await worker.executor.caps.look()
        task = await worker.start(first)
        refused = (await worker.executor.take([second])).get(second)
        waiting = await reading.run(rig.store, rig.tenant.workspace_id, second)
        provider.gate.set()
        await task

        async def rung_now() -> bool:
            due_ms = await lanes.zscore("rl:normal", str(second))
            seconds, _ = await lanes.time()
            return due_ms is not None and due_ms <= 1000 * (seconds + 1)

        await until(rung_now)
        await worker.carry(second)

    assert refused is None
    assert '"statusReason" : "backlog"' in (waiting or "")
    assert ["succeeded", "succeeded"] == [await rig.status(one) for one in (first, second)]


async def test_whoever_ends_while_another_is_parked_nobody_is_forgotten(
    deps: Deps, lanes: Lanes
) -> None:
    rig = await a_rig(deps)
    await rig.run("UPDATE environments SET max_running_runs = 1")
    ids = [await rig.queued() for _ in range(12)]

    async with hands(deps, ScriptedProvider()) as worker:
        await worker.executor.caps.look()

        async def all_over() -> bool:
            due = await lanes.zrangebyscore("rl:normal", "-inf", "+inf")
            seconds, _ = await lanes.time()
            rung = [RunId(UUID(one.decode())) for one in due]
            soon = [one for one in rung if await _due_ms(lanes, one) <= 1000 * (seconds + 1)]
            for run_id in soon or ids[:1]:
                await lanes.zrem("rl:normal", str(run_id))
                claimed = (await worker.executor.take([run_id])).get(run_id)
                if claimed is not None:
                    worker.running.slots.take(Lane.NORMAL)
                    worker.running.start(Lane.NORMAL, run_id, partial(worker.executor.run, claimed))
            return {"succeeded"} == {await rig.status(one) for one in ids}

        for run_id in ids:
            await deps.lanes.ring(Ring(run_id, Lane.NORMAL))
        await until(all_over, 15)


async def _due_ms(lanes: Lanes, run_id: RunId) -> float:
    return await lanes.zscore("rl:normal", str(run_id)) or 0.0
