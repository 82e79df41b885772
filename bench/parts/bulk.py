"""Submission in batches: many runs in one request, nobody works."""

import asyncio

from bench import client, load
from bench.client import Connection, Connections
from bench.errors import BenchError, SkippedError
from bench.load import Cost, Meter
from bench.report import Result, Shown, say
from bench.rig import Rig
from bench.system import System

PATH = "/api/v1/runs/batch"
BATCH = 500
CONNECTIONS = 4


async def run(rig: Rig) -> Result:
    """Submit in batches, and one by one, in the same run."""
    total = rig.pick(30_000, 4_000)
    with rig.runlane.running(workers=0) as system:
        async with client.connected(system.url) as connection:
            answer = await connection.ask(_batch(rig, system, 1))
        if answer.status in {404, 405}:
            raise SkippedError("there is no batch submission yet")
        say(f"bulk: {total} runs in batches of {BATCH}")
        together = await _in_batches(rig, system, total)
        single = await load.submissions(system, rig.peers, total // 5)
    shown = Shown("Submission in batches", ("", "runs/s", "CPU ms per run", "driver busy"))
    for name, cost in ((f"batches of {BATCH}", together), ("one by one", single)):
        shown.add(name, cost.runs_per_s, f"{cost.cpu_ms_per_run:.3f}", f"{cost.driver_busy:.0%}")
    return Result(
        {
            "runs_per_s": together.runs_per_s,
            "cpu_ms_per_run": together.cpu_ms_per_run,
            "single_runs_per_s": single.runs_per_s,
            "single_cpu_ms_per_run": single.cpu_ms_per_run,
            "batch": BATCH,
        },
        [shown],
    )


async def _in_batches(rig: Rig, system: System, total: int) -> Cost:
    requests = iter([_batch(rig, system, BATCH) for _ in range(total // BATCH)])

    async def some(connection: Connection) -> None:
        for request in requests:
            answer = await connection.ask(request)
            if answer.status != 200:
                raise BenchError(f"A batch was answered {answer.status}: {answer.body[:300]!r}")

    async with Connections(system.url, CONNECTIONS) as opened:
        meter = Meter(system)
        async with asyncio.TaskGroup() as group:
            for connection in opened.all:
                group.create_task(some(connection))
        meter.stop_clock()
    await asyncio.sleep(load.REST_S)
    return meter.cost(total // BATCH * BATCH)


def _batch(rig: Rig, system: System, count: int) -> bytes:
    runs = [
        {
            "prompt": "greeting",
            "version": "production",
            "inputs": {"name": f"#{rig.peers.token()}#"},
            "priority": "low",
        }
        for _ in range(count)
    ]
    return client.request("POST", PATH, system.key, {"runs": runs})
