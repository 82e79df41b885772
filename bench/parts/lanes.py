"""Fairness: a flood of `low` waits while `onsite` and `normal` arrive; then too much `onsite`.

One worker with few slots and a provider that takes half a second, half of it more or less, so
that slots are what is scarce. (Were it always exactly as long, runs that once started together
would come back together for ever.) All processes may use every core here.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from bench import load, machine
from bench.peers import Books
from bench.report import Result, Shown, say
from bench.rig import Rig
from bench.system import System

SLOTS = 100
PROVIDER_S = 0.5
PROVIDER_SPREAD = 0.5
CAPACITY_PER_S = SLOTS / PROVIDER_S
ARRIVALS = {"onsite": 0.1, "normal": 0.1}  # of the capacity
OVERLOAD = {"onsite": 1.5, "normal": 0.1}
REACHES_PROVIDER_S = 10.0


@dataclass
class Found:
    """What one scenario showed."""

    start_ms: dict[str, dict[str, float]]
    share: dict[str, float]
    starts_per_s: float


async def run(rig: Rig) -> Result:
    """Fill the low lane, then let others arrive; once within what fits, once beyond."""
    waiting, seconds = rig.pick(20_000, 1_500), rig.pick(20, 4)
    rig.peers.delay_s, rig.peers.spread = PROVIDER_S, PROVIDER_SPREAD
    with (
        rig.servers.on_every_core(),
        rig.runlane.running(workers=0, cores=()) as system,
    ):
        say(f"lanes: {waiting} low runs are submitted")
        rig.peers.forget()
        low = [rig.peers.token() for _ in range(waiting)]
        await load.submit(system, low, priority="low", connections=2 * load.CONNECTIONS)
        worker = rig.runlane.worker(system, env={"SLOTS": str(SLOTS)}, name="lanes-worker")
        try:
            await rig.peers.until(lambda books: len(books.called) >= SLOTS // 2, 20, "low runs")
            say(f"lanes: onsite and normal arrive for {seconds} s")
            flood = await _arrive(rig, system, low, ARRIVALS, seconds)
            say(f"lanes: one and a half times as much onsite as fits, for {seconds} s")
            overload = await _arrive(rig, system, low, OVERLOAD, seconds)
        finally:
            worker.kill()  # what is left of the flood is not waited for,
            await asyncio.sleep(load.REST_S)  # only what was sent already: the next part counts
            rig.peers.delay_s = rig.peers.spread = 0.0
    return Result(
        {
            "low_waiting": waiting,
            "slots": SLOTS,
            "capacity_per_s": CAPACITY_PER_S,
            "start_ms": flood.start_ms,
            "share": flood.share,
            "starts_per_s": flood.starts_per_s,
            "overload": {
                "start_ms": overload.start_ms,
                "share": overload.share,
                "starts_per_s": overload.starts_per_s,
            },
        },
        [
            _table(f"{waiting:,} low waiting, onsite and normal within what fits", flood),
            _table("One and a half times as much onsite as fits", overload),
        ],
    )


async def _arrive(
    rig: Rig, system: System, low: list[str], rates: Mapping[str, float], seconds: float
) -> Found:
    """Let runs arrive at random; shares are those of the starts while they arrived."""
    began = time.monotonic()
    async with asyncio.TaskGroup() as group:
        arrivals = {
            lane: group.create_task(
                load.at_rate(
                    system,
                    rig.peers,
                    lane,
                    per_s=rate * CAPACITY_PER_S,
                    seconds=seconds,
                    seed=place,
                )
            )
            for place, (lane, rate) in enumerate(rates.items())
        }
    ended = time.monotonic()
    sent = {lane: task.result() for lane, task in arrivals.items()}
    if max(rates.values()) < 1:
        await rig.peers.until(
            lambda books: all(token in books.called for runs in sent.values() for token in runs),
            REACHES_PROVIDER_S,
            "every onsite and normal run",
        )
    return _found(rig.peers.books, {**sent, "low": dict.fromkeys(low, began)}, (began, ended))


def _found(
    books: Books, sent: Mapping[str, Mapping[str, float]], between: tuple[float, float]
) -> Found:
    began, ended = between
    starts: Counter[str] = Counter()
    waits: dict[str, list[float]] = {lane: [] for lane in sent}
    for lane, runs in sent.items():
        for token, at in runs.items():
            called = books.called.get(token)
            if called is None or called < began:
                continue
            starts[lane] += called <= ended
            waits[lane].append(1000 * (called - at))
    waits.pop("low")  # they have waited since before
    return Found(
        start_ms={lane: machine.quantiles(found) for lane, found in waits.items()},
        share={lane: starts[lane] / starts.total() for lane in sent},
        starts_per_s=starts.total() / (ended - began),
    )


def _table(title: str, found: Found) -> Shown:
    shown = Shown(
        f"{title}: {found.starts_per_s:.0f} starts/s of {CAPACITY_PER_S:.0f}",
        ("lane", "start ms p50", "p99", "max", "share of starts"),
    )
    for lane, share in found.share.items():
        times = found.start_ms.get(lane)
        cells = ("", "", "") if times is None else tuple(times.values())
        shown.add(lane, *cells, f"{share:.1%}")
    return shown
