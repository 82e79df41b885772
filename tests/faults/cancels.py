"""Cancellations that race a run's claim, intent and finish, at moments drawn from a seed."""

import asyncio
from collections import Counter
from random import Random

from tests.faults.client import Reply
from tests.faults.rig import Rig
from tests.faults.vendors import model_of
from tests.faults.waiting import pause

LATEST_S = 0.12
AT_ONCE = 12
_MODELS = (
    model_of("answer"),
    model_of("slow-10"),
    model_of("slow-40"),
    model_of("500", "slow-10"),
    model_of("429", "answer"),
    model_of("cut", "slow-10"),
)


async def race(rig: Rig, count: int, seed: int) -> "Counter[tuple[str, str]]":
    """Submit and cancel so many runs; counts pairs of what the first cancel said and the end."""
    chance = Random(seed)
    places = asyncio.Semaphore(AT_ONCE)

    async def one(number: int, model: str, moments_s: list[float], policy: str) -> tuple[str, str]:
        async with places:
            case = f"f48 {seed} {number}"
            run_id = await rig.customer.accepted(case, model, onUnknownOutcome=policy)
            replies = await asyncio.gather(*(_cancel(rig, run_id, s) for s in moments_s))
        assert {True} == {reply.status in {200, 202} for reply in replies}, replies
        return run_id, _said(replies[0])

    plans = [
        (
            number,
            chance.choice(_MODELS),
            [chance.uniform(0, LATEST_S) for _ in range(chance.choice((1, 1, 2, 3)))],
            chance.choice(("retry", "fail")),
        )
        for number in range(count)
    ]
    said = dict(await asyncio.gather(*(one(*plan) for plan in plans)))
    await rig.quiet()
    ended = await rig.rows("SELECT id::text, status, attempts FROM runs")
    for row in chance.sample(ended, min(count, 30)):
        again = await rig.customer.cancel(row["id"])
        assert (200, row["status"]) == (again.status, again.document["status"])
    return Counter((said[row["id"]], _end(row["status"], row["attempts"])) for row in ended)


async def _cancel(rig: Rig, run_id: str, after_s: float) -> Reply:
    await pause(after_s)
    return await rig.customer.cancel(run_id)


def _said(reply: Reply) -> str:
    return "stopping" if reply.status == 202 else str(reply.document["status"])


def _end(status: str, attempts: int) -> str:
    return status if attempts else f"{status} uncalled"
