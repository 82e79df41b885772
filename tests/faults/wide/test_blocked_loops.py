"""Workers that live, and whose event loop stands still for longer than their lease."""

import pytest

from tests.faults.processes import Child
from tests.faults.rig import Rig
from tests.faults.vendors import model_of

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.xdist_group("faults")]

ANSWER = model_of("answer")
CALLS = {"after_claim": 1, "before_intent": 1, "after_intent": 1, "after_response": 2}
BLOCKED_S = 12


async def test_a_worker_whose_loop_stood_still_past_its_lease_changes_nothing(rig: Rig) -> None:
    await rig.api()
    blocked: dict[str, Child] = {}
    runs: dict[str, str] = {}
    for point in CALLS:
        blocked[point] = await rig.worker(crash_point=f"{point}:block={BLOCKED_S}")
        runs[point] = await rig.customer.accepted(f"f22 {point}", ANSWER)
        await rig.reached(runs[point], "running")
    await rig.worker()
    taken_over = {point: await rig.ended(runs[point]) for point in CALLS}
    early = [child.name for child in blocked.values() if child.said("session_was_reaped")]
    for child in blocked.values():
        await child.says("session_was_reaped")
    await blocked["after_response"].says("late_result")

    assert [] == early
    for point, calls in CALLS.items():
        row = await rig.run(runs[point])
        assert ("succeeded", 2) == (row["status"], row["claim_no"]), point
        assert taken_over[point]["output"] == row["output"], point
        assert calls == len(rig.vendors.calls_of(runs[point])), point
    assert all(child.alive for child in blocked.values())
    assert [] == await rig.verdict()
