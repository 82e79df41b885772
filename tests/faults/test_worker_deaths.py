"""Workers that die in the middle of a run: what is called again, and what never is."""

from typing import Any

import pytest

from tests.faults.rig import Rig
from tests.faults.vendors import model_of

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.xdist_group("faults")]

ANSWER = model_of("answer")
HANGS_ONCE = model_of("hang", "answer")


def outcomes(row: dict[str, Any]) -> list[str]:
    return [attempt["outcome"] for attempt in row["tried"]]


async def test_a_run_whose_worker_died_before_the_intent_is_called_exactly_once(rig: Rig) -> None:
    await rig.api()
    first = rig.launch_worker(crash_point="before_intent:kill")
    run_id = await rig.customer.accepted("f16", ANSWER)
    await first.ended()

    await rig.worker()
    row = await rig.ended(run_id)

    assert ("succeeded", 2, 1) == (row["status"], row["claim_no"], row["deaths"])
    assert 1 == len(rig.vendors.calls_of(run_id))
    assert [] == await rig.verdict()


@pytest.mark.parametrize(("point", "before"), [("after_intent", 0), ("after_response", 1)])
async def test_a_death_between_the_intent_and_the_finish_follows_the_run_s_policy(
    rig: Rig, point: str, before: int
) -> None:
    await rig.api()
    runs = {}
    for policy in ("retry", "fail"):
        doomed = rig.launch_worker(crash_point=f"{point}:kill")
        case = f"{point} {policy}"
        runs[policy] = await rig.customer.accepted(case, ANSWER, onUnknownOutcome=policy)
        await doomed.ended()

    await rig.worker()
    again, once = await rig.ended(runs["retry"]), await rig.ended(runs["fail"])

    assert ("succeeded", ["lost", "succeeded"]) == (again["status"], outcomes(again))
    assert before + 1 == len(rig.vendors.calls_of(runs["retry"]))
    assert ("failed", "outcome_unknown") == (once["status"], once["error_code"])
    assert ["lost"] == outcomes(once)
    assert before == len(rig.vendors.calls_of(runs["fail"]))
    assert [] == await rig.verdict()


async def test_a_call_cut_short_by_its_worker_s_death_follows_the_run_s_policy(rig: Rig) -> None:
    await rig.api()
    first = await rig.worker()
    again = await rig.customer.accepted("f18 retry", HANGS_ONCE)
    once = await rig.customer.accepted("f18 fail", HANGS_ONCE, onUnknownOutcome="fail")
    for run_id in (again, once):
        await rig.called(run_id)
    await first.kill()

    await rig.worker()
    retried, given_up = await rig.ended(again), await rig.ended(once)

    assert "succeeded" == retried["status"]
    assert [("lost", "unknown"), ("succeeded", "yes")] == [
        (attempt["outcome"], attempt["billed"]) for attempt in retried["tried"]
    ]
    assert 2 == len(rig.vendors.calls_of(again))
    assert ("failed", "outcome_unknown") == (given_up["status"], given_up["error_code"])
    assert [("lost", "unknown")] == [
        (attempt["outcome"], attempt["billed"]) for attempt in given_up["tried"]
    ]
    assert 1 == len(rig.vendors.calls_of(once))
    assert [] == await rig.verdict()


async def test_another_worker_delivers_what_a_dead_one_had_finished(rig: Rig) -> None:
    await rig.api()
    first = rig.launch_worker(crash_point="after_finish_commit:kill")
    run_id = await rig.customer.accepted("f20", ANSWER)
    await first.ended()
    settled = await rig.run(run_id)

    await rig.worker()
    await rig.hooked(run_id)

    assert ("succeeded", 1) == (settled["status"], settled["claim_no"])
    assert 1 == len(rig.vendors.calls_of(run_id))
    assert [] == await rig.verdict()
    assert 1 == len(rig.receiver.hooks_of(run_id))


async def test_a_webhook_sent_just_before_a_death_is_sent_again_with_the_same_id(rig: Rig) -> None:
    await rig.api()
    first = rig.launch_worker(crash_point="after_delivery_200:kill")
    run_id = await rig.customer.accepted("f49", ANSWER)
    await first.ended()

    await rig.worker()
    await rig.hooked(run_id, 2)

    assert [] == await rig.verdict()
    hooks = rig.receiver.hooks_of(run_id)
    assert 2 == len(hooks)
    assert 1 == len({(hook.id, hook.body) for hook in hooks})
