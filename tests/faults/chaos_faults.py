"""How each fault of a chaos run is done, and undone."""

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from random import Random

from tests.faults.chaos_fleet import DRAIN_S, LEASE_S, Fleet, Slot, Tally
from tests.faults.chaos_plan import Fault, What
from tests.faults.proxy import Proxy, Way
from tests.faults.rig import HOOK, Rig
from tests.faults.waiting import pause

_LEAVES_WITHIN_S = DRAIN_S + 5.0
_PATTERNS: Mapping[str, tuple[bytes, ...]] = {
    "api": (b'"max_duration_s":', b'"idempotency_key":'),
    "worker": (
        b'"status":"succeeded"',
        b'"status":"queued"',
        b'"status":"failed"',
        b'"provider":"openai"',
        b'"delivery_id"',
    ),
    "redis": (b"EVALSHA", b"ZADD", b"BLPOP"),
    "vendors": (b"POST /v1",),
    "receiver": (b"POST /hooks",),
}
_ANSWERS: Mapping[str, bytes] = {
    "api": b"SELECT ",
    "worker": b"SELECT ",
    "redis": b"\r\n",
    "vendors": b"chat.completion",
    "receiver": b"HTTP/1.1 200",
}
_LINKS = ("api", "worker", "worker", "worker", "redis", "redis", "vendors", "vendors", "receiver")


class Faults:
    """Injects faults into a rig. Two faults of one thing wait for each other."""

    def __init__(self, rig: Rig, fleet: Fleet, tally: Tally) -> None:
        self._rig = rig
        self._fleet = fleet
        self._tally = tally
        self._postgres = asyncio.Lock()
        self._valkey = asyncio.Lock()
        self._links: Mapping[str, tuple[Proxy, asyncio.Lock]] = {
            "api": (rig.to_postgres["api"], asyncio.Lock()),
            "worker": (rig.to_postgres["worker"], asyncio.Lock()),
            "redis": (rig.to_redis, asyncio.Lock()),
            "vendors": (rig.to_vendors, asyncio.Lock()),
            "receiver": (rig.to_receiver, asyncio.Lock()),
        }
        self._ways: Mapping[What, Callable[[Random], Awaitable[str]]] = {
            What.KILL_WORKER: lambda chance: self._kill("worker", chance),
            What.KILL_API: lambda chance: self._kill("api", chance),
            What.STOP_WORKER: lambda chance: self._stop("worker", chance),
            What.STOP_API: lambda chance: self._stop("api", chance),
            What.DRAIN_WORKER: lambda chance: self._drain("worker", chance),
            What.DRAIN_API: lambda chance: self._drain("api", chance),
            What.CRASH_POSTGRES: self._crash_postgres,
            What.POSTGRES_AWAY: self._postgres_away,
            What.STOP_BACKEND: self._stop_backend,
            What.END_BACKENDS: self._end_backends,
            What.FLUSH: self._flush,
            What.KILL_VALKEY: self._kill_valkey,
            What.EMPTY_VALKEY: self._empty_valkey,
            What.STOP_VALKEY: self._stop_valkey,
            What.FILL_VALKEY: self._fill_valkey,
            What.NETWORK: self._network,
            What.BAD_RECEIVER: self._bad_receiver,
        }

    async def inject(self, fault: Fault) -> None:
        """Do it, and undo it."""
        detail = await self._ways[fault.what](Random(fault.seed))
        if detail:
            self._tally.count(fault.what, "" if detail == "done" else detail)

    # Processes

    async def _kill(self, kind: str, chance: Random) -> str:
        slot = self._fleet.a_slot(kind, chance)
        async with slot.lock:
            if not slot.child.alive:
                self._tally.details["died before its SIGKILL"] += 1
            slot.harm()
            await slot.child.kill()
            await pause(chance.uniform(0, 1))
            await slot.again()
        return "done"

    async def _stop(self, kind: str, chance: Random) -> str:
        slot = self._fleet.a_slot(kind, chance)
        async with slot.lock:
            slot.harm()
            if not await slot.stop():
                await slot.again()
                return ""
            await pause(LEASE_S * chance.uniform(1.1, 2.2))
            if chance.random() < 0.2:
                await slot.child.kill()
                await slot.again()
                return "and never thawed"
            slot.child.thaw()
            slot.well()
        return "done"

    async def _drain(self, kind: str, chance: Random) -> str:
        slot = self._fleet.a_slot(kind, chance)
        twice = chance.random() < 0.25
        async with slot.lock:
            slot.harm()
            slot.child.send(signal.SIGTERM)
            if twice:
                await pause(chance.uniform(0.1, 2))
                slot.child.send(signal.SIGTERM)
            # the second one may find the process past its own handlers, already on its way out
            await self._gone(slot, {0, -signal.SIGTERM} if twice else {0})
            await slot.again()
        return "twice" if twice else "done"

    async def _gone(self, slot: Slot, codes: set[int]) -> None:
        """Wait for its orderly end; a crash point may stop it on the way."""
        loop = asyncio.get_running_loop()
        ends_at = loop.time() + _LEAVES_WITHIN_S
        while (state := slot.child.state) != "Z":
            await pause(0.05)
            if state == "T":
                slot.child.thaw()
            if loop.time() > ends_at:
                self._tally.wrongs.append(
                    f"{slot.child.name} did not end within {_LEAVES_WITHIN_S:g} s of SIGTERM"
                )
                await slot.child.kill()
        if slot.child.exit_code not in codes | {-signal.SIGKILL}:
            self._tally.wrongs.append(
                f"{slot.child.name} answered SIGTERM with exit code {slot.child.exit_code}"
            )

    # PostgreSQL

    async def _crash_postgres(self, chance: Random) -> str:
        async with self._postgres:
            await asyncio.to_thread(self._rig.servers.postgres.stop, "immediate")
            await pause(chance.uniform(0, 1))
            await asyncio.to_thread(self._rig.servers.postgres.start)
        return "done"

    async def _postgres_away(self, chance: Random) -> str:
        async with self._postgres:
            await asyncio.to_thread(self._rig.servers.postgres.stop)
            await pause(LEASE_S * chance.uniform(0.5, 2.5))
            await asyncio.to_thread(self._rig.servers.postgres.start)
        return "done"

    async def _stop_backend(self, chance: Random) -> str:
        async with self._postgres:
            pids = await self._backends()
            if not pids:
                return ""
            pid = chance.choice(pids)
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGSTOP)
                try:
                    await pause(LEASE_S * chance.uniform(0.3, 2))
                finally:
                    os.kill(pid, signal.SIGCONT)
        return "done"

    async def _end_backends(self, chance: Random) -> str:
        async with self._postgres:
            pids = await self._backends()
            chosen = chance.sample(pids, min(len(pids), chance.randint(1, 6)))
            await self._rig.rows(
                "SELECT pg_terminate_backend(pid) FROM unnest(%s::int[]) AS pid", chosen
            )
        return "done"

    async def _backends(self) -> list[int]:
        found = await self._rig.rows(
            "SELECT pid FROM pg_stat_activity WHERE application_name = 'runlane' ORDER BY pid"
        )
        return [row["pid"] for row in found]

    # Valkey

    async def _flush(self, _: Random) -> str:
        async with self._valkey:
            await self._rig.flush_redis()
        return "done"

    async def _kill_valkey(self, chance: Random) -> str:
        async with self._valkey:
            await asyncio.to_thread(self._rig.servers.valkey.kill)
            await pause(chance.uniform(0, 3))
            await asyncio.to_thread(self._rig.servers.valkey.start)
        return "done"

    async def _empty_valkey(self, chance: Random) -> str:
        valkey = self._rig.servers.valkey
        async with self._valkey:
            await asyncio.to_thread(valkey.kill)
            self._rig.replace_redis_files()
            await pause(chance.uniform(0, 2))
            await asyncio.to_thread(valkey.start)
        return "done"

    async def _stop_valkey(self, chance: Random) -> str:
        async with self._valkey:
            with self._rig.frozen_redis():
                await pause(chance.uniform(0.5, 5))
        return "done"

    async def _fill_valkey(self, chance: Random) -> str:
        async with self._valkey, self._rig.full_redis():
            await pause(chance.uniform(0.5, 5))
        return "done"

    # The network

    async def _network(self, chance: Random) -> str:
        name = chance.choice(_LINKS)
        proxy, lock = self._links[name]
        ways: Mapping[str, Callable[[], object]] = {
            "reset": proxy.reset,
            "blackhole": proxy.blackhole,
            "delay": lambda: proxy.delay(chance.uniform(0.05, 0.5)),
            "slice": lambda: proxy.slice(chance.randint(1, 40)),
            "cut after": lambda: proxy.cut_after(chance.randint(500, 30_000)),
            "cut on": lambda: proxy.cut_on(_ANSWERS[name], Way.BACK, times=chance.randint(1, 5)),
            "lose reply": lambda: proxy.lose_reply_to(
                chance.choice(_PATTERNS[name]), times=chance.randint(1, 6)
            ),
        }
        way = chance.choice(("down", "lose reply", "cut on", *ways))
        async with lock:
            try:
                if way == "down":
                    await proxy.down()
                else:
                    ways[way]()
                await pause(chance.uniform(0.3, 2 * LEASE_S))
            finally:
                await proxy.pass_on()
        return f"{name}, {way}"

    async def _bad_receiver(self, chance: Random) -> str:
        statuses = [
            chance.choice((200, 302, 404, 429, 500, 502, 503)) for _ in range(chance.randint(1, 20))
        ]
        self._rig.receiver.script(HOOK, statuses)
        return "done"
