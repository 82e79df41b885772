"""After a disaster: a worker killed in the middle of calls, and a Redis that forgot everything."""

import time
from typing import Any

from bench import load, machine
from bench.peers import HELD
from bench.report import Result, Shown, say
from bench.rig import Rig

SHORT = {"LEASE_S": "3", "RENEW_S": "0.5", "SELF_FENCE_S": "2.4", "REAP_S": "0.5", "SWEEP_S": "1"}
WAITS_S = 120.0
FEW_SLOTS = 20


async def run(rig: Rig) -> Result:
    """Kill a worker, then empty Redis; with the default leases, or short ones where time is."""
    env = SHORT if rig.quick else {}
    killed = await _killed_worker(rig, env, rig.pick(500, 50))
    emptied = await _emptied_redis(rig, env, rig.pick(3000, 500))
    shown = Shown(
        f"Recovery in ms, {'short leases' if env else 'default settings'}",
        ("", "runs", "first", "p50", "last"),
    )
    shown.add("SIGKILL → called by another worker", *killed.values())
    shown.add("FLUSHALL → the waiting start again", *emptied.values())
    return Result({"settings": env, "sigkill": killed, "flushall": emptied}, [shown])


async def _killed_worker(rig: Rig, env: dict[str, str], runs: int) -> dict[str, Any]:
    """Every call of the dead worker is made again by the other; the default of a run."""
    say(f"recovery: a worker is killed in the middle of {runs} calls")
    rig.peers.forget()
    tokens = [rig.peers.token(HELD) for _ in range(runs)]
    with rig.runlane.running(env=env, cores=()) as system:
        await load.submit(system, tokens)
        await rig.peers.until(lambda books: len(books.called) == runs, WAITS_S, "the calls")
        other = rig.runlane.worker(system, env=env, name="other-worker")
        try:
            killed_at = time.monotonic()
            system.processes["worker"][0].kill()
            await rig.peers.until(
                lambda books: len(books.called_again) == runs, WAITS_S, "the calls made again"
            )
            rig.peers.release()
            await rig.peers.until(lambda books: len(books.delivered) == runs, WAITS_S, "webhooks")
        finally:
            other.stop()
    again = [1000 * (at - killed_at) for at in rig.peers.books.called_again.values()]
    return _spread(again)


async def _emptied_redis(rig: Rig, env: dict[str, str], runs: int) -> dict[str, Any]:
    """Runs wait in Redis for the few slots there are; it forgets them, the database does not."""
    say(f"recovery: Redis forgets {runs} runs that wait")
    rig.peers.forget()
    with rig.runlane.running(env={**env, "SLOTS": str(FEW_SLOTS)}, cores=()) as system:
        await load.submit(system, [rig.peers.token(HELD) for _ in range(FEW_SLOTS)])
        await rig.peers.until(lambda books: len(books.called) > FEW_SLOTS // 2, WAITS_S, "calls")
        tokens = [rig.peers.token() for _ in range(runs)]
        await load.submit(system, tokens)
        rig.servers.flush_redis()
        emptied_at = time.monotonic()
        waited = [token for token in tokens if token not in rig.peers.books.called]
        rig.peers.release()  # the slots are free again, and nothing is known to wait
        await rig.peers.until(
            lambda books: all(token in books.called for token in waited), WAITS_S, "the waiting"
        )
        rig.peers.release()
        await rig.peers.until(
            lambda books: len(books.delivered) == runs + FEW_SLOTS, WAITS_S, "webhooks"
        )
    return _spread([1000 * (rig.peers.books.called[token] - emptied_at) for token in waited])


def _spread(values: list[float]) -> dict[str, Any]:
    found = machine.quantiles(values)
    return {
        "runs": len(values),
        "first_ms": min(values),
        "p50_ms": found["p50"],
        "last_ms": found["max"],
    }
