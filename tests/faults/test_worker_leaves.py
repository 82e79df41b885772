"""Workers that are told to go: what they finish, what they hand over, and when they are gone."""

from signal import SIGINT, SIGQUIT, SIGTERM, Signals

import pytest

from tests.faults.rig import Rig
from tests.faults.vendors import model_of
from tests.faults.waiting import pause

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.xdist_group("faults")]

ANSWER = model_of("answer")
SLOW = model_of("slow-1000")
HANGS_ONCE = model_of("hang", "answer")


@pytest.mark.parametrize("number", [SIGTERM, SIGINT], ids=["term", "int"])
async def test_a_worker_told_to_go_ends_its_call_and_claims_nothing_more(
    rig: Rig, number: Signals
) -> None:
    await rig.api()
    leaving = await rig.worker()
    under_way = await rig.customer.accepted("f24 call", SLOW)
    await rig.called(under_way)

    leaving.send(number)
    waiting = await rig.customer.accepted("f24 later", ANSWER)
    code = await leaving.ended()
    left = await rig.run(waiting)
    done = await rig.run(under_way)
    sessions = await rig.rows("SELECT id FROM worker_sessions")
    await rig.worker()
    taken = await rig.ended(waiting)

    assert 0 == code
    assert ("queued", 0) == (left["status"], left["claim_no"])
    assert ("succeeded", 1) == (done["status"], done["claim_no"])
    assert [] == sessions
    assert ("succeeded", 1) == (taken["status"], taken["claim_no"])
    assert [] == await rig.verdict()


async def test_a_run_on_the_way_to_its_call_is_carried_out_before_the_worker_goes(
    rig: Rig,
) -> None:
    await rig.api()
    leaving = await rig.worker(crash_point="before_intent:stop")
    run_id = await rig.customer.accepted("f24 intent", ANSWER)
    await leaving.frozen()

    leaving.send(SIGTERM)
    leaving.thaw()
    code = await leaving.ended()
    row = await rig.run(run_id)

    assert (0, "succeeded", 1) == (code, row["status"], row["claim_no"])
    assert 1 == len(rig.vendors.calls_of(run_id))
    assert [] == await rig.verdict()


async def test_calls_longer_than_the_drain_follow_their_runs_policy(rig: Rig) -> None:
    await rig.api()
    leaving = await rig.worker(drain_s=0.3)
    again = await rig.customer.accepted("f24 retry", HANGS_ONCE)
    once = await rig.customer.accepted("f24 fail", HANGS_ONCE, onUnknownOutcome="fail")
    for run_id in (again, once):
        await rig.called(run_id)

    leaving.send(SIGTERM)
    code = await leaving.ended()
    left, given_up = await rig.run(again), await rig.run(once)
    await rig.worker()
    retried = await rig.ended(again)

    assert (0, "queued") == (code, left["status"])
    assert [("unknown", "unknown")] == [(a["outcome"], a["billed"]) for a in left["tried"]]
    assert ("failed", "outcome_unknown") == (given_up["status"], given_up["error_code"])
    assert "succeeded" == retried["status"]
    assert [2, 1] == [len(rig.vendors.calls_of(run_id)) for run_id in (again, once)]
    assert [] == await rig.verdict()


@pytest.mark.parametrize("signals", [(SIGTERM, SIGTERM), (SIGQUIT,)], ids=["twice", "quit"])
async def test_a_worker_told_to_go_at_once_waits_for_no_call(
    rig: Rig, signals: tuple[Signals, ...]
) -> None:
    await rig.api()
    leaving = await rig.worker(drain_s=600)
    again = await rig.customer.accepted("f25 retry", HANGS_ONCE)
    once = await rig.customer.accepted("f25 fail", HANGS_ONCE, onUnknownOutcome="fail")
    for run_id in (again, once):
        await rig.called(run_id)

    for number in signals:
        leaving.send(number)
        await pause(0.1)  # two signals sent together may arrive as one
    code = await leaving.ended(within_s=5)
    left, given_up = await rig.run(again), await rig.run(once)
    await rig.worker()
    retried = await rig.ended(again)

    assert (0, "queued") == (code, left["status"])
    assert ("failed", "outcome_unknown") == (given_up["status"], given_up["error_code"])
    assert ("succeeded", 2) == (retried["status"], retried["claim_no"])
    assert [2, 1] == [len(rig.vendors.calls_of(run_id)) for run_id in (again, once)]
    assert [] == await rig.verdict()
