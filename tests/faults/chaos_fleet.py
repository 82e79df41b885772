"""The processes of a chaos run: whatever ends is started again, whatever stops goes on later."""

import asyncio
import signal
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from random import Random

from tests.faults.chaos_plan import What
from tests.faults.processes import Child
from tests.faults.rig import Rig
from tests.faults.waiting import pause

LEASE_S = 3.0
DRAIN_S = 3.0
READY_S = 30.0
STARTS = 60
_LOOK_S = 0.05
_MARGIN_S = 0.5
_ARMED = 0.4
_POINTS = {
    "api": ("before_commit", "after_commit", "after_notify"),
    "worker": (
        "after_claim",
        "before_intent",
        "after_intent",
        "after_response",
        "before_finish_commit",
        "after_finish_commit",
        "after_delivery_claim",
        "after_delivery_200",
        "reaper_mid_batch",
        "sweeper_mid_batch",
        "tally_mid_batch",
    ),
}


@dataclass
class Tally:
    """What was done, and what went wrong beside the ledgers."""

    done: Counter[What] = field(default_factory=Counter)
    details: Counter[str] = field(default_factory=Counter)
    wrongs: list[str] = field(default_factory=list)

    def count(self, what: What, detail: str = "") -> None:
        self.done[what] += 1
        if detail:
            self.details[f"{what}: {detail}"] += 1


class Slot:
    """A place for one process. Who harms it holds `lock` until it is well again."""

    def __init__(self, rig: Rig, kind: str, chance: Random, tally: Tally) -> None:
        self.kind = kind
        self.lock = asyncio.Lock()
        self.url = ""
        self.child: Child
        self._rig = rig
        self._chance = chance
        self._tally = tally
        self._point = ""
        self._harmed: list[list[float]] = []

    async def start(self, settings: dict[str, object], *, safe: bool = False) -> None:
        """Start it until it is ready; a database that is away refuses the start."""
        self._settings = settings
        for _ in range(STARTS):
            self._launch(safe=safe)
            if await self._ready():
                self.well()
                return
            await pause(0.3)
        self._tally.wrongs.append(f"{self.child.name} did not start {STARTS} times")

    async def again(self) -> None:
        await self.start(self._settings)

    async def watch(self) -> None:
        """Go on after crash points, for ever; an end of any other cause is noted as wrong."""
        while True:
            await pause(_LOOK_S)
            if not self.lock.locked() and self.child.state in "ZT":
                async with self.lock:
                    await self._mend()

    async def stop(self) -> bool:
        """Freeze it; `False` when it has ended instead."""
        self.child.send(signal.SIGSTOP)
        while (state := self.child.state) not in "ZT":
            await pause(_LOOK_S)
        return state == "T"

    def harm(self) -> None:
        """Note that from now on it owes nobody an answer."""
        now = asyncio.get_running_loop().time()
        self._harmed.append([now - _MARGIN_S, float("inf")])

    def well(self) -> None:
        for span in self._harmed:
            span[1] = min(span[1], asyncio.get_running_loop().time() + _MARGIN_S)

    def was_harmed(self, began_at: float, ended_at: float) -> bool:
        return any(start <= ended_at and began_at <= end for start, end in self._harmed)

    def _launch(self, *, safe: bool) -> None:
        self._point = ""
        if not safe and self._chance.random() < _ARMED:
            name = self._chance.choice(_POINTS[self.kind])
            effect = "kill" if self._chance.random() < 0.65 else "stop"
            self._point = f"{name}:{effect}:{self._chance.randint(1, 12)}"
        launch: Callable[..., Child] = (
            self._rig.launch_api if self.kind == "api" else self._rig.launch_worker
        )
        self.child = launch(**self._settings, crash_point=self._point)

    async def _ready(self) -> bool:
        ends_at = asyncio.get_running_loop().time() + READY_S
        while asyncio.get_running_loop().time() < ends_at:
            if said := self.child.said(f"{self.kind}_ready"):
                self.url = str(said[0].get("url", ""))
                return True
            if self.child.state == "Z":
                if self.child.exit_code == -signal.SIGKILL and self._point:
                    self._tally.count(What.KILL_AT_POINT, self._point.partition(":")[0])
                return False
            if self.child.state == "T":
                return True
            await pause(_LOOK_S)
        self._tally.details[f"{self.kind} not ready within {READY_S:g} s"] += 1
        await self.child.kill()
        return False

    async def _mend(self) -> None:
        self.harm()
        point = self._point.partition(":")[0]
        if self.child.state == "T":
            self._tally.count(What.STOP_AT_POINT, point)
            await pause(LEASE_S * self._chance.uniform(1.1, 2.0))
            self.child.thaw()
            self.well()
            if self.kind == "api" and not self.url:
                await self._ready()
        elif self.child.state == "Z":
            if self.child.exit_code == -signal.SIGKILL and self._point:
                self._tally.count(What.KILL_AT_POINT, point)
            else:
                self._tally.wrongs.append(
                    f"{self.child.name} ended by itself with {self.child.exit_code}"
                )
            await self.again()


class Fleet:
    """Two APIs and three workers."""

    def __init__(self, rig: Rig, seed: int, tally: Tally) -> None:
        self.apis = [Slot(rig, "api", Random(f"{seed}:api:{n}"), tally) for n in range(2)]
        self.workers = [Slot(rig, "worker", Random(f"{seed}:worker:{n}"), tally) for n in range(3)]

    @property
    def slots(self) -> Sequence[Slot]:
        return (*self.apis, *self.workers)

    def a_slot(self, kind: str, chance: Random) -> Slot:
        """One of a kind, of those that are well where there are any."""
        slots = self.apis if kind == "api" else self.workers
        return chance.choice([slot for slot in slots if not slot.lock.locked()] or slots)
