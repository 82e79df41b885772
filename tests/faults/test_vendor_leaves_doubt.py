"""Vendors that leave open whether they took a call: the run's policy decides, never chance."""

import pytest

from tests.faults.rig import Rig
from tests.faults.vendors import model_of

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.xdist_group("faults")]

DOUBTS = ("hang", "cut", "cut-body", "drip")


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
