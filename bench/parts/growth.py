"""What submitting, claiming, polling and listing cost as finished runs pile up (part of `scale`).

Databases with a short and a long past lie side by side and are measured in turns. Submitting,
polling and listing are CPU of API, PostgreSQL and Redis; a claim is the time of its statement.
"""

import asyncio
import statistics
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from uuid import UUID

from bench import client, history, load
from bench.client import Connection, Connections
from bench.errors import BenchError
from bench.load import Cost, Meter
from bench.report import Shown, say
from bench.rig import Rig
from bench.system import System
from shared.ids import RunId, SessionId, new_id
from shared.store import claiming, sessions
from shared.store.database import Store

OPERATIONS = ("submit", "claim", "poll", "list")
CLAIM_BATCH = 20
LEASE_S = 600


@dataclass(frozen=True)
class Found:
    """`costs` by operation, then by the number of finished runs; milliseconds each."""

    costs: dict[str, dict[str, float]]

    @property
    def ratios(self) -> dict[str, float]:
        """The longest past against the shortest."""
        return {
            operation: list(by_size.values())[-1] / next(iter(by_size.values()))
            for operation, by_size in self.costs.items()
        }

    def table(self) -> Shown:
        sizes = list(self.costs["submit"])
        columns = ("ms each", *(f"{int(size):,} finished" for size in sizes), "longest/shortest")
        shown = Shown("Cost as history grows", columns)
        for operation, by_size in self.costs.items():
            cells = (f"{cost:.3f}" for cost in by_size.values())
            shown.add(operation, *cells, f"{self.ratios[operation]:.2f}")
        return shown


async def measure(rig: Rig) -> Found:
    """Make the pasts, then measure them in turns; of the rounds the median counts."""
    sizes = (1_000, 10_000) if rig.quick else (1_000, 100_000, 1_000_000)
    rounds = rig.pick(3, 1)
    taken: dict[str, dict[str, list[float]]] = {name: {} for name in OPERATIONS}
    with ExitStack() as stack:
        urls = {
            size: stack.enter_context(rig.runlane.database(f"runlane_past_{size}"))
            for size in sizes
        }
        for size, url in urls.items():
            await _make_past(rig, url, size)
        for number in range(rounds):
            for size, url in urls.items():
                say(f"scale: {size:,} finished runs, round {number + 1} of {rounds}")
                for name, cost in (await _one_round(rig, url)).items():
                    taken[name].setdefault(str(size), []).append(cost)
    return Found(
        {
            name: {size: statistics.median(costs) for size, costs in by_size.items()}
            for name, by_size in taken.items()
        }
    )


async def _make_past(rig: Rig, url: str, size: int) -> None:
    with rig.runlane.running(database_url=url) as system:
        await load.outstanding(system, rig.peers, 1, 1)
    for so_far in history.lengthen(url, size):
        if so_far % 200_000 == 0:
            say(f"scale: {so_far:,} of {size:,} finished runs made")


async def _one_round(rig: Rig, url: str) -> dict[str, float]:
    reads, lists, total = rig.pick(2000, 300), rig.pick(600, 60), rig.pick(2000, 300)
    ids = history.some_ids(url, reads)
    with rig.runlane.running(workers=0, database_url=url) as system:
        polls = [client.request("GET", f"/api/v1/promptruns/{one}", system.key) for one in ids]
        pages = [client.request("GET", "/api/v1/runs?limit=20", system.key)] * lists
        await _asked(system, polls[:100])
        await _asked(system, pages[:20])
        poll = await _asked(system, polls)
        page = await _asked(system, pages)
        await load.submissions(system, rig.peers, 100)
        submit = await load.submissions(system, rig.peers, total)
    claim_ms = await _claims(url, total)
    await _forget_the_new(url)
    return {
        "submit": submit.cpu_ms_per_run,
        "claim": claim_ms,
        "poll": poll.cpu_ms_per_run,
        "list": page.cpu_ms_per_run,
    }


async def _asked(system: System, requests: Sequence[bytes]) -> Cost:
    waiting = iter(requests)

    async def some(connection: Connection) -> None:
        for request in waiting:
            answer = await connection.ask(request)
            if answer.status != 200:
                raise BenchError(f"{request[:80]!r} was answered {answer.status}")

    async with Connections(system.url, 8) as opened:
        meter = Meter(system)
        async with asyncio.TaskGroup() as group:
            for connection in opened.all:
                group.create_task(some(connection))
        meter.stop_clock()
    return meter.cost(len(requests))


async def _claims(url: str, count: int) -> float:
    """The time of a claim of some runs; the median of many."""
    store = Store(url, size=1)
    await store.open(wait_s=10)
    session = SessionId(new_id())
    await sessions.open_session(store, session, host="bench", pid=0, lease_s=LEASE_S)
    rows = await store.fetch(
        "SELECT id FROM runs WHERE status = 'queued' ORDER BY id LIMIT %(n)s", {"n": count}
    )
    ids = [RunId(UUID(str(row[0]))) for row in rows]
    taken: list[float] = []
    for first in range(0, len(ids), CLAIM_BATCH):
        began = time.perf_counter()
        await claiming.claim(store, session, ids[first : first + CLAIM_BATCH])
        taken.append(1000 * (time.perf_counter() - began))
    await store.close()
    return statistics.median(taken)


async def _forget_the_new(url: str) -> None:
    """Take the round's own runs away again: the next round has to find the same past."""
    store = Store(url, size=1, statement_timeout_s=60)
    await store.open(wait_s=10)
    await store.execute("DELETE FROM runs WHERE finished_at IS NULL", {})
    await store.execute("VACUUM (ANALYZE) runs", {})
    await store.close()
