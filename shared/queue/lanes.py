"""The lanes in Redis: ARQ's wire format with a ring and a claim of our own (DESIGN §6)."""

from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from importlib.resources import files
from typing import Any
from uuid import UUID

import msgspec
from arq.connections import ArqRedis
from redis.asyncio import ConnectionPool, Redis
from redis.exceptions import ResponseError

from shared.domain.states import Lane
from shared.ids import RunId, parse
from shared.queue.port import Ring, Spending
from shared.queue.slots import LANES, Room

QUEUES = {lane: f"rl:{lane}" for lane in LANES}
BELLS = {lane: f"rl:bell:{lane}" for lane in LANES}
PAUSED = "rl:paused"
ALIVE = "rl:alive"
PROBE = "rl:probe"
PROBE_LIFE_MS = 60_000
CANCELS = "rl:cancel"
OVER = "rl:over"
SPENT = "rl:spent:"
RUN = "run"
"""The one function of our jobs; its one argument is the run's id."""

CHUNK = 500
MAX_TOKENS = 64
TOKEN_AHEAD_MS = 1000
BLOB_LIFE_MS = 86_400_000
BELL_S = 5.0
SUBSCRIPTION_S = 5.0

serialize = msgspec.msgpack.encode
deserialize = msgspec.msgpack.decode

_LANE_OF = {queue: lane for lane, queue in QUEUES.items()}
_LUA_NUMBER = {lane: number for number, lane in enumerate(LANES, start=1)}
_RING_KEYS = (*QUEUES.values(), *BELLS.values())
_CLAIM_KEYS = (*QUEUES.values(), *BELLS.values(), PAUSED)


class ForeignJob(msgspec.Struct, frozen=True):
    """A job of ARQ's own, taken out of a lane: a cron job or another registered function."""

    job_id: str
    function: str
    lane: Lane
    blob: bytes


class Claim(msgspec.Struct, frozen=True):
    """What one claim took, which lanes have due ids left, and when others get their first."""

    runs: Sequence[tuple[RunId, Lane]]
    foreign: Sequence[ForeignJob]
    garbage: Sequence[bytes]
    left: Mapping[Lane, bool]
    next_due_s: Mapping[Lane, float]


class _Job(msgspec.Struct):
    """ARQ's blob, as far as we read it."""

    f: str
    a: list[Any]


_read_job = msgspec.msgpack.Decoder(_Job).decode


def _blob_around_the_id() -> tuple[bytes, bytes]:
    """Cut ARQ's blob of a run into what precedes the id, and what follows up to the time."""
    placeholder = str(UUID(int=0))
    blob = serialize({"t": None, "f": RUN, "a": (placeholder,), "k": {}, "et": 2**63})
    before, _, after = blob.partition(placeholder.encode())
    return before, after[:-8]


_BLOB_BEFORE, _BLOB_AFTER = _blob_around_the_id()


class Lanes(ArqRedis):
    """Implements `Dispatcher` over Redis; every method may raise `redis.RedisError`.

    `patient` is the pool of connections that wait for long: bells and the cancel channel. Its
    socket timeout has to be longer than `BELL_S`.
    """

    def __init__(self, pool: ConnectionPool, *, patient: ConnectionPool | None = None) -> None:
        super().__init__(
            pool,
            job_serializer=serialize,
            job_deserializer=deserialize,
            default_queue_name=QUEUES[Lane.NORMAL],
        )
        self._patient = Redis(connection_pool=patient or pool)
        self._ring = self.register_script(_lua("ring.lua"))
        self._claim = self.register_script(_lua("claim.lua"))
        self._spend = self.register_script(_lua("spend.lua"))

    async def ring(self, ring: Ring) -> None:
        await self.ring_many([ring])

    async def ring_many(self, rings: Sequence[Ring]) -> None:
        for chunk in _chunks(rings):
            args: list[str | bytes | int] = [
                MAX_TOKENS,
                TOKEN_AHEAD_MS,
                BLOB_LIFE_MS,
                _BLOB_BEFORE,
                _BLOB_AFTER,
            ]
            for ring in chunk:
                due = "" if ring.due_ms is None else ring.due_ms
                args += (_LUA_NUMBER[ring.lane], str(ring.run_id), due)
            await self._ring(keys=_RING_KEYS, args=args)

    async def cancel(self, run_id: RunId) -> None:
        await self.publish(CANCELS, str(run_id))

    async def announce(self, run_ids: Sequence[RunId]) -> None:
        await self.publish(OVER, b"".join(run_id.bytes for run_id in run_ids))

    async def announced(self) -> AsyncIterator[Sequence[RunId]]:
        async for data in self._messages(OVER):
            yield [
                RunId(UUID(bytes=data[place : place + 16]))
                for place in range(0, len(data) - 15, 16)
            ]

    async def waiting(self) -> Mapping[Lane, int]:
        async with self.pipeline(transaction=False) as pipe:
            for queue in QUEUES.values():
                pipe.zcard(queue)
            return dict(zip(LANES, await pipe.execute(), strict=True))

    async def writable(self) -> bool:
        try:
            await self.set(PROBE, b"1", px=PROBE_LIFE_MS)
        except ResponseError:
            return False
        return True

    async def missing(self, rings: Sequence[Ring]) -> Sequence[Ring]:
        missing: list[Ring] = []
        for lane, queue in QUEUES.items():
            for chunk in _chunks([ring for ring in rings if ring.lane is lane]):
                scores = await self.zmscore(queue, [str(ring.run_id) for ring in chunk])
                missing += [
                    ring for ring, score in zip(chunk, scores, strict=True) if score is None
                ]
        return missing

    async def spend(self, spendings: Sequence[Spending]) -> Sequence[float]:
        keys = [SPENT + one.name for one in spendings]
        later_us = [round(one.seconds * 1_000_000) for one in spendings]
        return [ahead / 1_000_000 for ahead in await self._spend(keys=keys, args=later_us)]

    async def emptied(self) -> bool:
        return bool(await self.set(ALIVE, b"1", nx=True))

    async def pause(self, lane: Lane) -> None:
        """Let no worker of ours claim from this lane; rings still enter it."""
        await _do(self, "SADD", PAUSED, QUEUES[lane])

    async def resume(self, lane: Lane) -> None:
        async with self.pipeline(transaction=True) as pipe:
            pipe.srem(PAUSED, QUEUES[lane])
            pipe.rpush(BELLS[lane], b"1")
            await pipe.execute()

    async def paused(self) -> frozenset[Lane]:
        members = await _do(self, "SMEMBERS", PAUSED)
        return frozenset(lane for queue, lane in _LANE_OF.items() if queue.encode() in members)

    async def claim(self, room: Room, limit: int) -> Claim:
        """Take due ids out of the lanes, as many as there is room for.

        The reply lost with its connection loses the ids as well: the sweeper rings them again.
        Raises `OutOfMemoryError` when there is nothing to take and no ring could enter either.
        """
        args = (limit, room.shared, *room.floors, *room.weights, *room.used)
        return _read_claim(await self._claim(keys=_CLAIM_KEYS, args=args))

    async def answer_bell(self, lane: Lane) -> bool:
        """Wait up to `BELL_S` for a ring in this lane, on a connection of its own."""
        return await _do(self._patient, "BLPOP", BELLS[lane], BELL_S) is not None

    async def pass_on(self, lane: Lane) -> None:
        """Give a bell's token back, for a worker that has room."""
        await _do(self, "RPUSH", BELLS[lane], b"1")

    async def cancels(self) -> AsyncIterator[RunId]:
        """Yield the ids that `cancel` names from now on, for ever."""
        async for data in self._messages(CANCELS):
            run_id = parse(data.decode("ascii", "replace"))
            if run_id is not None:
                yield RunId(run_id)

    async def _messages(self, channel: str) -> AsyncIterator[bytes]:
        """Whatever is said from now on; an empty one first, that we hear."""
        async with self._patient.pubsub(ignore_subscribe_messages=True) as subscription:
            await subscription.subscribe(channel)
            yield b""
            while True:
                message = await subscription.get_message(timeout=SUBSCRIPTION_S)
                if message is not None:
                    yield message["data"]

    async def aclose(self, close_connection_pool: bool | None = True) -> None:  # noqa: FBT001, FBT002 (redis-py's signature)
        """Close every connection; the pools are the lanes' own."""
        await self._patient.aclose(close_connection_pool=close_connection_pool)
        await super().aclose(close_connection_pool=close_connection_pool)


async def _do(client: Redis, *command: str | bytes | float) -> Any:
    """Run a command that redis-py declares as "awaitable or not"."""
    return await client.execute_command(*command)  # type: ignore[no-untyped-call] # as shipped


def _lua(name: str) -> str:
    return files("shared.queue").joinpath(name).read_text()


def _chunks(rings: Sequence[Ring]) -> Iterator[Sequence[Ring]]:
    for first in range(0, len(rings), CHUNK):
        yield rings[first : first + CHUNK]


def _read_claim(answer: Iterable[Sequence[Any]]) -> Claim:
    runs: list[tuple[RunId, Lane]] = []
    foreign: list[ForeignJob] = []
    garbage: list[bytes] = []
    left: dict[Lane, bool] = {}
    next_due_s: dict[Lane, float] = {}
    for lane, (more, wait_ms, *members) in zip(LANES, answer, strict=True):
        left[lane] = bool(more)
        if wait_ms >= 0:
            next_due_s[lane] = wait_ms / 1000
        for job_id, blob in zip(members[::2], members[1::2], strict=True):
            found = _identify(job_id, blob, lane)
            if isinstance(found, UUID):
                runs.append((RunId(found), lane))
            elif found is not None:
                foreign.append(found)
            else:
                garbage.append(job_id)
    return Claim(runs, foreign, garbage, left, next_due_s)


def _identify(job_id: bytes, blob: bytes | None, lane: Lane) -> UUID | ForeignJob | None:
    """Say what waited under this id; an id whose blob is gone still names its run."""
    try:
        if blob is None:
            return parse(job_id.decode("ascii"))
        job = _read_job(blob)
        if job.f != RUN:
            return ForeignJob(job_id.decode(), job.f, lane, blob)
    except (UnicodeDecodeError, msgspec.DecodeError):
        return None
    match job.a:
        case [str(argument)]:
            return parse(argument)
        case _:
            return None
