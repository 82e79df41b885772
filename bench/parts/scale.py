"""What more of everything costs: more workers, more runs in flight, more history."""

import asyncio

from bench import cpu, load, machine
from bench.load import Cost
from bench.parts import growth
from bench.peers import HELD
from bench.report import Result, Shown, say
from bench.rig import Rig

WORKERS, FEW_WORKERS = (1, 2, 4, 8), (1, 8)
SLOTS = 8000
SETTLE_S = 2.0


async def run(rig: Rig) -> Result:
    """Three measurements of their own."""
    by_workers = await _workers(rig)
    flight = await _in_flight(rig, rig.pick(5000, 500))
    history = await growth.measure(rig)
    one, most = by_workers[WORKERS[0]], by_workers[WORKERS[-1]]
    return Result(
        {
            "cpu_ms_per_run_by_workers": {
                str(workers): cost for workers, cost in by_workers.items()
            },
            "cpu_ratio_8_to_1": most / one,
            **flight,
            "growth": history.ratios,
            "cost_by_history": history.costs,
        },
        [_workers_table(by_workers), _flight_table(flight), history.table()],
    )


async def _workers(rig: Rig) -> dict[int, float]:
    """CPU of everything per run, by worker processes, in turns on one core."""
    counts, rounds = (FEW_WORKERS, 1) if rig.quick else (WORKERS, 2)
    found: dict[int, list[Cost]] = {workers: [] for workers in counts}
    for number in range(rounds):
        for workers in counts:
            say(f"scale: {workers} workers, round {number + 1} of {rounds}")
            with rig.runlane.running(workers=workers) as system:
                await load.outstanding(system, rig.peers, 50 * workers, 50 * workers)
                total, window = rig.pick(4000, 500), rig.pick(1000, 200)
                found[workers].append(await load.outstanding(system, rig.peers, total, window))
    return {
        workers: sum(cost.cpu_ms_per_run for cost in costs) / len(costs)
        for workers, costs in found.items()
    }


async def _in_flight(rig: Rig, runs: int) -> dict[str, float]:
    """Memory of one worker per run that waits for its provider; how soon one more starts."""
    say(f"scale: {runs} runs in flight in one worker")
    with (
        rig.servers.on_every_core(),
        rig.runlane.running(cores=(), env={"SLOTS": str(SLOTS)}) as system,
    ):
        await load.outstanding(system, rig.peers, 300, 100)
        worker = system.processes["worker"][0].pid
        before_kb = cpu.memory_kb(worker)
        rig.peers.forget()
        await load.submit(system, [rig.peers.token(HELD) for _ in range(runs)])
        await rig.peers.until(
            lambda books: len(books.called) == runs, load.STALLED_S, f"{runs} provider calls"
        )
        await asyncio.sleep(SETTLE_S)
        after_kb = cpu.memory_kb(worker)
        sent = await load.one_by_one(system, rig.peers, rig.pick(50, 20))
        called = rig.peers.books.called
        added = machine.quantiles([1000 * (called[token] - at) for token, at in sent.items()])
        rig.peers.release()
        await rig.peers.until(
            lambda books: len(books.delivered) == runs + len(sent), load.STALLED_S, "webhooks"
        )
    return {
        "in_flight": runs,
        "kb_per_run": (after_kb - before_kb) / runs,
        "worker_kb_before": before_kb,
        "added_run_starts_ms_p50": added["p50"],
        "added_run_starts_ms_max": added["max"],
    }


def _workers_table(found: dict[int, float]) -> Shown:
    shown = Shown("Worker processes on one core", ("workers", "CPU ms per run", "against one"))
    for workers, cost in found.items():
        shown.add(str(workers), f"{cost:.2f}", f"{cost / found[WORKERS[0]]:.2f}")
    return shown


def _flight_table(flight: dict[str, float]) -> Shown:
    shown = Shown("Runs in flight in one worker", ("", ""))
    shown.add("runs", round(flight["in_flight"]))
    shown.add("KB each", f"{flight['kb_per_run']:.1f}")
    shown.add("one more starts within, ms (p50)", f"{flight['added_run_starts_ms_p50']:.1f}")
    shown.add("one more starts within, ms (max)", f"{flight['added_run_starts_ms_max']:.1f}")
    return shown
