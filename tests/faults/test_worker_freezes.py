"""Workers that sleep past their lease and then go on as if nothing had happened."""

import pytest

from tests.faults.processes import Child
from tests.faults.rig import Rig
from tests.faults.vendors import model_of

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.xdist_group("faults")]

ANSWER = model_of("answer")
POINTS = ("after_claim", "before_intent", "after_intent", "after_response", "before_finish_commit")
CALLS = {"after_response": 2, "before_finish_commit": 2}


async def test_a_worker_that_slept_past_its_lease_changes_nothing(rig: Rig) -> None:
    await rig.api()
    sleepers: dict[str, Child] = {}
    runs: dict[str, str] = {}
    for point in POINTS:
        sleepers[point] = await rig.worker(crash_point=f"{point}:stop")
        runs[point] = await rig.customer.accepted(f"f21 {point}", ANSWER)
        await sleepers[point].frozen()
    fresh = await rig.worker()
    taken_over = {point: await rig.ended(runs[point]) for point in POINTS}

    for sleeper in sleepers.values():
        sleeper.thaw()
        await sleeper.says("session_was_reaped")
    for point in ("after_response", "before_finish_commit"):
        await sleepers[point].says("late_result")

    for point in POINTS:
        row = await rig.run(runs[point])
        assert "succeeded" == row["status"], point
        assert taken_over[point]["output"] == row["output"], point
        assert CALLS.get(point, 1) == len(rig.vendors.calls_of(runs[point])), point
        late = [attempt["late_output"] for attempt in row["tried"] if attempt["late"]]
        if point in CALLS:
            assert [row["output"]] == late, point
    assert fresh.alive
    assert [] == await rig.verdict()


async def test_under_fail_a_sleeper_s_late_answer_is_kept_and_nobody_calls_again(rig: Rig) -> None:
    await rig.api()
    sleeper = await rig.worker(crash_point="after_response:stop")
    run_id = await rig.customer.accepted("f21 fail", ANSWER, onUnknownOutcome="fail")
    await sleeper.frozen()
    await rig.worker()
    await rig.ended(run_id)

    sleeper.thaw()
    await sleeper.says("late_result")
    row = await rig.run(run_id)

    assert ("failed", "outcome_unknown") == (row["status"], row["error_code"])
    (attempt,) = row["tried"]
    assert attempt["late"]
    assert attempt["late_output"]
    assert 1 == len(rig.vendors.calls_of(run_id))
    assert [] == await rig.verdict()
