"""Vendors that leave open whether they took a call: the run's policy decides, never chance."""

import pytest

from tests.faults.rig import Rig
from tests.faults.vendors import model_of

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.xdist_group("faults")]

DOUBTS = ("hang", "cut", "cut-body", "drip", "408", "504")


async def test_a_call_of_unknown_outcome_is_repeated_only_where_that_is_allowed(rig: Rig) -> None:
    await rig.api()
    await rig.worker(call_timeout_s=0.8)
    again, once = {}, {}
    for doubt in DOUBTS:
        model = model_of(doubt, "answer")
        again[doubt] = await rig.customer.accepted(f"f43 {doubt} retry", model)
        once[doubt] = await rig.customer.accepted(
            f"f43 {doubt} fail", model, onUnknownOutcome="fail"
        )

    for doubt in DOUBTS:
        retried, failed = await rig.ended(again[doubt]), await rig.ended(once[doubt])

        assert "succeeded" == retried["status"], doubt
        assert [("unknown", "unknown"), ("succeeded", "yes")] == [
            (attempt["outcome"], attempt["billed"]) for attempt in retried["tried"]
        ], doubt
        assert 2 == len(rig.vendors.calls_of(again[doubt])), doubt
        assert ("failed", "outcome_unknown") == (failed["status"], failed["error_code"]), doubt
        assert 1 == len(rig.vendors.calls_of(once[doubt])), doubt
    assert [] == await rig.verdict()


@pytest.mark.parametrize("way", ["reset", "silence"])
async def test_a_way_to_the_vendor_that_breaks_during_a_call_leaves_the_outcome_open(
    rig: Rig, way: str
) -> None:
    await rig.api()
    await rig.worker(call_timeout_s=1)
    model = model_of("slow-300", "answer")
    again = await rig.customer.accepted(f"f43 {way} retry", model)
    once = await rig.customer.accepted(f"f43 {way} fail", model, onUnknownOutcome="fail")
    for run_id in (again, once):
        await rig.called(run_id)

    if way == "reset":
        rig.to_vendors.reset()
    else:
        rig.to_vendors.blackhole()
    failed = await rig.ended(once)
    await rig.to_vendors.pass_on()
    retried = await rig.ended(again)

    assert ("failed", "outcome_unknown") == (failed["status"], failed["error_code"])
    assert "succeeded" == retried["status"]
    assert ("unknown", "unknown") == (
        retried["tried"][0]["outcome"],
        retried["tried"][0]["billed"],
    )
    assert 1 == len(rig.vendors.calls_of(once))
    assert [] == await rig.verdict()
