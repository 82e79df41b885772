"""A vendor that is away for long: left alone but for probes, and no run fails for it."""

import asyncio

import pytest

from shared.clock import SystemClock
from tests.faults.rig import Rig
from tests.faults.vendors import model_of
from tests.faults.waiting import pause

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.xdist_group("faults")]

ANSWER = model_of("answer")
FAILURES, OPEN_S, PERIODS = 5, 0.5, 20  # ten minutes of half a minute each, made short


async def tries(rig: Rig) -> int:
    (found,) = await rig.rows("SELECT count(*) FROM attempts WHERE provider = 'openai'")
    return int(found["count"])


async def test_the_runs_of_a_vendor_that_is_away_wait_and_those_of_others_do_not(rig: Rig) -> None:
    clock = SystemClock()
    await rig.api()
    await rig.worker(
        breaker_failures=FAILURES,
        breaker_open_s=OPEN_S,
        retry_backoff_max_s=0.1,
        anthropic_base_url=rig.vendors.url,
        anthropic_api_key="sk-made-up",
    )
    await rig.to_vendors.down()
    first = await rig.customer.accepted("f46 first", ANSWER)
    began_at = clock.monotonic()
    await rig.waits(first, "circuit_open")
    waiting = await asyncio.gather(
        *(rig.customer.accepted(f"f46 {number}", ANSWER) for number in range(50))
    )
    parked = [await rig.waits(run_id, "circuit_open") for run_id in waiting]
    elsewhere = await rig.ended(await rig.customer.accepted("f46 other", "anthropic/x"), within_s=1)
    other_model = await rig.customer.accepted("f46 model", model_of("answer", "answer"))
    tried = await rig.waits(other_model, "retry_backoff")

    await pause(PERIODS * OPEN_S)
    made, periods = await tries(rig), (clock.monotonic() - began_at) / OPEN_S
    other_model_s = len((await rig.run(other_model))["tried"])
    failed = await rig.rows("SELECT id FROM runs WHERE status = 'failed'")
    await rig.to_vendors.pass_on()
    done = [await rig.ended(run_id, within_s=5) for run_id in (first, *waiting, other_model)]

    assert {True} == {shown["left_s"] <= OPEN_S for shown in parked}
    assert "succeeded" == elsewhere["status"]
    assert "not_sent" == tried["attempts"][0]["outcome"]
    assert FAILURES + PERIODS / 2 <= made - other_model_s <= FAILURES + periods + 1
    assert [] == failed
    assert {("succeeded", 1)} == {(row["status"], row["calls"]) for row in done}
    assert [] == await rig.verdict()
