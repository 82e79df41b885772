"""Sending runs: so many outstanding, all at once, one by one, or at a rate; and what it cost."""

import asyncio
import resource
import time
from collections.abc import Iterable
from dataclasses import dataclass
from random import Random

from bench import cpu
from bench.client import Connection, Connections
from bench.errors import BenchError
from bench.peers import Peers
from bench.system import Submission, System

CONNECTIONS = 32
REST_S = 0.3  # what a platform still writes down after its last webhook
STALLED_S = 60.0


@dataclass(frozen=True)
class Cost:
    """What some runs cost. `driver_busy` is the share of its core that our own side used."""

    runs: int
    wall_s: float
    cpu_ms: dict[str, float]
    driver_busy: float

    @property
    def cpu_ms_per_run(self) -> float:
        return sum(self.cpu_ms.values()) / self.runs

    @property
    def runs_per_s(self) -> float:
        return self.runs / self.wall_s


class Meter:
    """Measures CPU and time between `start` and `stop`."""

    def __init__(self, system: System) -> None:
        self._groups = system.groups()
        self._before = cpu.cpu_ms(self._groups)
        self._own_s = _own_cpu_s()
        self._began = time.monotonic()
        self._ended = self._began

    def stop_clock(self) -> None:
        self._ended = time.monotonic()

    def cost(self, runs: int) -> Cost:
        """The cost since the meter was made; the clock is read at `stop_clock`."""
        after = cpu.cpu_ms(self._groups)
        wall_s = self._ended - self._began
        return Cost(
            runs=runs,
            wall_s=wall_s,
            cpu_ms={name: after[name] - before for name, before in self._before.items()},
            driver_busy=(_own_cpu_s() - self._own_s) / wall_s,
        )


async def outstanding(system: System, peers: Peers, total: int, window: int) -> Cost:
    """Send runs, never more than `window` without their webhook; wait for all of them."""
    peers.forget()
    room = asyncio.Semaphore(window)
    peers.on_delivered = lambda _: room.release()
    tokens = [peers.token() for _ in range(total)]
    meter = Meter(system)
    await submit(system, tokens, room=room)
    await _all_delivered(peers, total)
    meter.stop_clock()
    await asyncio.sleep(REST_S)
    if peers.books.repeated_deliveries or len(peers.books.calls) != total:
        raise BenchError(f"{system.name} repeated or lost something: the figures mean nothing.")
    return meter.cost(total)


async def submissions(system: System, peers: Peers, total: int) -> Cost:
    """Send runs as fast as they are accepted; nobody executes them."""
    tokens = [peers.token() for _ in range(total)]
    meter = Meter(system)
    await submit(system, tokens, connections=2 * CONNECTIONS)
    meter.stop_clock()
    await asyncio.sleep(REST_S)
    return meter.cost(total)


async def submit(
    system: System,
    tokens: Iterable[str],
    *,
    priority: str = "normal",
    room: asyncio.Semaphore | None = None,
    connections: int = CONNECTIONS,
) -> None:
    """Submit a run for each token over several connections."""
    waiting = iter(tokens)
    submission = system.submission(priority)

    async def one_by_one(connection: Connection) -> None:
        for token in waiting:
            if room is not None:
                async with asyncio.timeout(STALLED_S):
                    await room.acquire()
            await send(connection, submission, token)

    async with Connections(system.url, connections) as opened, asyncio.TaskGroup() as group:
        for connection in opened.all:
            group.create_task(one_by_one(connection))


async def send(connection: Connection, submission: Submission, token: str) -> None:
    answer = await connection.ask(submission.of(token))
    if answer.status != 200:
        raise BenchError(f"A submission was answered {answer.status}: {answer.body[:300]!r}")


async def one_by_one(
    system: System, peers: Peers, count: int, *, pause_s: float = 0.02
) -> dict[str, float]:
    """Send single runs into silence; answers when each token was sent."""
    sent: dict[str, float] = {}
    submission = system.submission()
    async with Connections(system.url, 1) as opened:
        for _ in range(count):
            token = peers.token()
            sent[token] = time.monotonic()
            await send(opened.all[0], submission, token)
            await peers.until(lambda books: token in books.delivered, STALLED_S, "one webhook")  # noqa: B023 (awaited before the next turn)
            await asyncio.sleep(pause_s)
    return sent


async def at_rate(
    system: System,
    peers: Peers,
    priority: str,
    *,
    per_s: float,
    seconds: float,
    seed: int = 7,
) -> dict[str, float]:
    """Send runs at random moments, whatever becomes of them; answers when each was sent."""
    chance = Random(seed)  # noqa: S311 (repeatable on purpose)
    sent: dict[str, float] = {}
    submission = system.submission(priority)
    async with Connections(system.url, CONNECTIONS) as opened, asyncio.TaskGroup() as group:
        free: asyncio.Queue[Connection] = asyncio.Queue()
        for connection in opened.all:
            free.put_nowait(connection)

        async def send_one(connection: Connection, token: str) -> None:
            await send(connection, submission, token)
            free.put_nowait(connection)

        due = began = time.monotonic()
        while (due := due + chance.expovariate(per_s)) < began + seconds:
            await asyncio.sleep(max(due - time.monotonic(), 0))
            token = peers.token()
            sent[token] = due  # not when a connection was free: a slow answer delays nobody else
            group.create_task(send_one(await free.get(), token))
    return sent


async def _all_delivered(peers: Peers, total: int) -> None:
    """Wait for the webhooks; give up when none has come for a while."""
    seen = -1
    while len(peers.books.delivered) < total:
        seen = len(peers.books.delivered)
        await peers.until(
            lambda books: len(books.delivered) > seen,  # noqa: B023 (awaited before the next turn)
            STALLED_S,
            f"{total} webhooks",
        )


def _own_cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime
