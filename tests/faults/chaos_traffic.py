"""The customers of a chaos run: a steady stream of orders, pressed on with as customers do."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from random import Random
from typing import Any
from uuid import UUID

import httpx

from shared.clock import SystemClock, rfc3339
from tests.faults.chaos_fleet import Fleet, Slot
from tests.faults.client import Reply
from tests.faults.rig import Rig
from tests.faults.vendors import model_of
from tests.faults.waiting import pause

TALK = "talk"
_TALK_BODY = {
    "model": "openai/mock-answer",
    "messages": [{"role": "user", "content": "Say {{ case }}."}],
    "memory": "read_write",
}
_TRIES = 60
_THREADS = 8
_SCRIPTS: Mapping[tuple[str, ...], int] = {
    ("answer",): 30,
    ("slow-200",): 12,
    ("slow-1000",): 12,
    ("slow-2500",): 6,
    ("429-after-1", "answer"): 5,
    ("429-after-2", "slow-200"): 3,
    ("503-after-1", "answer"): 2,
    ("529", "answer"): 2,
    ("500", "answer"): 5,
    ("500", "500", "slow-200"): 3,
    ("500",): 2,
    ("hang", "answer"): 5,
    ("hang",): 1,
    ("cut", "answer"): 4,
    ("cut-body", "slow-200"): 3,
    ("drip", "answer"): 1,
    ("bad-json", "answer"): 1,
    ("400",): 2,
    ("truncated",): 2,
    ("nul",): 1,
}


@dataclass(frozen=True)
class Asked:
    """One request and how it was answered, at moments of the loop's clock."""

    what: str
    api: str
    slot: Slot
    began_at: float
    ended_at: float
    status: int
    code: str
    text: str
    retry_after: bool

    @property
    def took_s(self) -> float:
        return self.ended_at - self.began_at

    @property
    def harmed(self) -> bool:
        """Whether its API was killed or frozen meanwhile, which may be noticed a little later."""
        return self.slot.was_harmed(self.began_at, self.ended_at)


class Traffic:
    """Orders at a steady rate. `asked` holds every request, `undecided` orders without an end."""

    def __init__(self, rig: Rig, fleet: Fleet, seed: int) -> None:
        self.asked: list[Asked] = []
        self._rig = rig
        self._fleet = fleet
        self._seed = seed
        self._clock = SystemClock()
        chance = Random(f"{seed}:threads")
        self._threads = [str(UUID(int=chance.getrandbits(128), version=4)) for _ in range(_THREADS)]

    async def prepare(self) -> None:
        """Make the prompt whose runs remember."""
        customer = self._rig.customer
        customer.url = self._fleet.apis[0].url
        made = await customer.post("/api/v1/prompts", {"name": TALK, "slug": TALK})
        added = await customer.post(f"/api/v1/prompts/{TALK}/versions", _TALK_BODY)
        assert made.status in {201, 409}, made
        assert added.accepted, added

    async def run(self, orders: int, length_s: float) -> None:
        """Place so many orders in so much time, and wait for the last to be taken or given up."""
        async with asyncio.TaskGroup() as group:
            for number in range(orders):
                await pause(length_s / orders)
                group.create_task(self._order(number))

    async def _order(self, number: int) -> None:
        chance = Random(f"{self._seed}:order:{number}")
        case = f"order-{number}"
        key = case if chance.random() < 0.6 else None
        twin = key is not None and chance.random() < 0.1
        cancels = chance.random() < 0.12
        body = self._body(chance)
        tries = [self._pressed(case, key, body, chance)]
        if twin:
            tries.append(self._pressed(case, key, body, Random(f"{self._seed}:twin:{number}")))
        replies = await asyncio.gather(*tries)
        for reply in replies:
            if cancels and reply is not None:
                await self._cancel(reply.run_id, chance)

    async def _pressed(
        self, case: str, key: str | None, body: dict[str, Any], chance: Random
    ) -> Reply | None:
        """Ask until it is taken; without a key only while certainly nothing was stored."""
        for _ in range(_TRIES):
            reply = await self._submit(case, key, body, chance)
            if reply.accepted:
                return reply
            if key is None and reply.status != 503:
                return None
            await pause(chance.uniform(0.2, 1.5))
        return None

    async def _submit(
        self, case: str, key: str | None, body: dict[str, Any], chance: Random
    ) -> Reply:
        slot, began_at = self._turn_to(chance)
        reply = await self._rig.customer.submit(case, **body, key=key)
        self._note(f"submit {case}", slot, began_at, reply)
        return reply

    async def _cancel(self, run_id: str, chance: Random) -> None:
        await pause(chance.choice((0, 0, chance.uniform(0, 3))))
        for _ in range(_TRIES):
            slot, began_at = self._turn_to(chance)
            try:
                reply = await self._rig.customer.post(f"/api/v1/runs/{run_id}/cancel", {})
            except httpx.TransportError:
                reply = Reply(0)
            self._note(f"cancel {run_id}", slot, began_at, reply)
            if reply.accepted:
                return
            await pause(chance.uniform(0.2, 1))

    def _turn_to(self, chance: Random) -> tuple[Slot, float]:
        slot = chance.choice(self._fleet.apis)
        self._rig.customer.url = slot.url
        return slot, asyncio.get_running_loop().time()

    def _note(self, what: str, slot: Slot, began_at: float, reply: Reply) -> None:
        self.asked.append(
            Asked(
                what=what,
                api=slot.child.name,
                slot=slot,
                began_at=began_at,
                ended_at=asyncio.get_running_loop().time(),
                status=reply.status,
                code=str(reply.document.get("code", "")),
                text=str(reply.document.get("text", "")),
                retry_after="retry-after" in reply.headers,
            )
        )

    def _body(self, chance: Random) -> dict[str, Any]:
        (script,) = chance.choices(list(_SCRIPTS), list(_SCRIPTS.values()))
        body: dict[str, Any] = {
            "model": model_of(*script),
            "priority": chance.choice(("onsite", "normal", "low")),
            "onUnknownOutcome": "fail" if chance.random() < 0.4 else "retry",
            "maxAttempts": chance.choice((1, 2, 3, 3, 5)),
        }
        if chance.random() < 0.15:
            body |= {"slug": TALK, "thread": chance.choice(self._threads)}
        if chance.random() < 0.08:
            run_at = self._clock.now() + timedelta(seconds=chance.uniform(0.5, 4))
            body["runAt"] = rfc3339(run_at)
        if chance.random() < 0.05:
            body["expiresIn"] = chance.randint(1, 6)
        if chance.random() < 0.1:
            body["maxDuration"] = chance.randint(4, 20)
        return body
