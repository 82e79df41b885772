"""Redis loses everything, again and again: only time is lost with it."""

import pytest

from tests.faults.rig import HOOK, Rig
from tests.faults.vendors import model_of
from tests.faults.waiting import until

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.xdist_group("faults")]

QUICK = model_of("slow-20")
LONG = model_of("slow-1500")
FAILS_FIRST = model_of("500", "429-after-1", "answer")


async def test_emptying_redis_while_runs_wait_in_every_way_loses_none(rig: Rig) -> None:
    await rig.api()
    await rig.worker(slots=4)
    rig.receiver.script(HOOK, [500] * 30)
    for number in range(3):
        await rig.customer.accepted(f"f8 long {number}", LONG)
        await rig.customer.accepted(f"f8 deferred {number}", FAILS_FIRST)
    for number in range(40):
        await rig.customer.accepted(f"f8 quick {number}", QUICK, priority="low")
    flushes = 0

    async def over() -> bool:
        nonlocal flushes
        flushes += 1
        await rig.flush_redis()
        (left,) = await rig.rows("SELECT count(*) FROM runs WHERE finished_at IS NULL")
        return bool(left["count"] == 0)

    await until(over, "every run ends although Redis forgets", within_s=30)

    assert flushes >= 20
    assert {"succeeded"} == {row["status"] for row in await rig.rows("SELECT status FROM runs")}
    assert [] == await rig.verdict(within_s=30)
