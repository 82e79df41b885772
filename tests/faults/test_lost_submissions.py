"""Submissions whose API process or database answer is lost half-way."""

import asyncio

import pytest

from tests.faults.rig import Rig
from tests.faults.vendors import model_of
from tests.faults.waiting import pause

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.xdist_group("faults")]

ANSWER = model_of("answer")
STORES_A_RUN = b'"max_duration_s":'


async def test_a_run_committed_by_an_api_that_died_before_the_ring_is_swept_up(rig: Rig) -> None:
    api = await rig.api(crash_point="after_commit:kill")
    await rig.worker()

    reply = await rig.customer.submit("f2", ANSWER, key="f2")
    await api.ended()
    (stored,) = await rig.rows("SELECT id::text FROM runs")
    row = await rig.ended(stored["id"], within_s=10)
    await rig.api()
    again = await rig.customer.submit("f2", ANSWER, key="f2")

    assert 0 == reply.status
    assert "succeeded" == row["status"]
    assert (200, stored["id"]) == (again.status, again.run_id)
    assert "true" == again.headers["idempotent-replayed"]
    assert [] == await rig.verdict()


async def test_a_client_whose_answer_was_lost_gets_the_same_run_by_its_key(rig: Rig) -> None:
    api = await rig.api(crash_point="after_notify:kill")
    await rig.worker()

    reply = await rig.customer.submit("f3", ANSWER, key="f3")
    await api.ended()
    (stored,) = await rig.rows("SELECT id::text FROM runs")
    await rig.api()
    again = await rig.customer.submit("f3", ANSWER, key="f3")
    row = await rig.ended(stored["id"])

    assert 0 == reply.status
    assert (200, stored["id"]) == (again.status, again.run_id)
    assert ("succeeded", 1) == (row["status"], row["claim_no"])
    assert 1 == len(rig.vendors.calls_of(stored["id"]))
    assert [] == await rig.verdict()


@pytest.mark.parametrize("key", [None, "f4"])
async def test_a_commit_whose_answer_was_lost_is_found_under_its_own_id(
    rig: Rig, key: str | None
) -> None:
    await rig.api()
    await rig.worker()
    link = rig.to_postgres["api"]
    cuts = link.cuts

    link.lose_reply_to(STORES_A_RUN)
    reply = await rig.customer.submit("f4", ANSWER, key=key)

    assert 1 == link.cuts - cuts
    assert 200 == reply.status
    assert [reply.run_id] == [row["id"] for row in await rig.rows("SELECT id::text FROM runs")]
    assert [] == await rig.verdict()


async def test_a_commit_nobody_can_know_of_is_answered_with_the_run_s_id(rig: Rig) -> None:
    await rig.api()
    await rig.worker()

    rig.to_postgres["api"].lose_reply_to(STORES_A_RUN, times=1000)
    reply = await rig.customer.submit("f4", ANSWER, key="f4")
    await rig.to_postgres["api"].pass_on()
    again = await rig.customer.submit("f4", ANSWER, key="f4")

    assert (500, "outcome_unknown") == (reply.status, reply.document["code"])
    assert 200 == again.status
    assert again.run_id in reply.document["detail"]
    assert [again.run_id] == [row["id"] for row in await rig.rows("SELECT id::text FROM runs")]
    assert [] == await rig.verdict()


async def test_nothing_is_stored_when_the_api_dies_before_the_commit(rig: Rig) -> None:
    api = await rig.api(crash_point="before_commit:kill")

    reply = await rig.customer.submit("f1", ANSWER, key="f1")
    await api.ended()
    stored = await rig.rows("SELECT id FROM runs")
    await rig.api()
    await rig.worker()
    again = await rig.customer.submit("f1", ANSWER, key="f1")

    assert (0, []) == (reply.status, stored)
    assert 200 == again.status
    assert [] == await rig.verdict()


async def test_a_submission_is_not_called_refused_because_its_api_was_frozen(rig: Rig) -> None:
    api = await rig.api(crash_point="after_commit:stop", request_deadline_s=0.5)
    await rig.worker()

    asking = asyncio.create_task(rig.customer.submit("f21", ANSWER))
    await api.frozen()
    await pause(0.8)
    api.thaw()
    reply = await asking
    (stored,) = await rig.rows("SELECT id::text FROM runs")

    assert (500, "outcome_unknown") == (reply.status, reply.document["code"])
    assert stored["id"] in reply.document["detail"]
    assert [] == await rig.verdict()
