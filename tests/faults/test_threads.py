"""Conversations under fire: the order of turns, and each of them remembered once or not at all."""

from typing import Any
from uuid import uuid4

import pytest

from tests.faults.rig import CHAT, Rig
from tests.faults.test_postgres_goes import ENDS_A_RUN
from tests.faults.vendors import model_of

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.xdist_group("faults")]

ANSWER = model_of("answer")
HANGS = model_of("hang")
TURNS = 50
OTHERS = 20

_REMEMBERED = """
SELECT run_id::text AS run, count(*) AS lines FROM messages WHERE thread_id = %(thread)s
GROUP BY run_id, turn ORDER BY turn
"""


async def _remembered(rig: Rig, thread: str) -> list[tuple[str, int]]:
    rows = await rig.rows(_REMEMBERED, thread=thread)
    return [(row["run"], row["lines"]) for row in rows]


def _said(rig: Rig, run_id: str) -> list[str]:
    """What the last call of a run brought of the conversation."""
    return [message["content"] for message in rig.vendors.calls_of(run_id)[-1].body["messages"]]


async def _say(rig: Rig, case: str, thread: str, model: str = ANSWER, **body: Any) -> str:
    return await rig.customer.accepted(case, model, slug=CHAT, thread=thread, **body)


async def test_turns_go_one_by_one_in_their_order_while_other_threads_go_on(rig: Rig) -> None:
    thread, slow = str(uuid4()), model_of("slow-20")
    await rig.api()
    cases = [f"turn {n}" for n in range(TURNS)]
    turns = await rig.customer.submit_many(cases, slow, prompt=CHAT, thread=thread)
    others = [await _say(rig, f"o{n}", str(uuid4()), slow) for n in range(OTHERS)]
    reasons = [run["statusReason"] for run in [await rig.customer.read(one) for one in turns]]

    for _ in range(2):
        await rig.worker()
    ended = [await rig.ended(run_id, within_s=60) for run_id in (*turns, *others)]

    assert [None] + ["thread_busy"] * (TURNS - 1) == reasons
    assert {"succeeded"} == {row["status"] for row in ended}
    assert [(run_id, 2) for run_id in turns] == await _remembered(rig, thread)
    calls = [rig.vendors.calls_of(run_id) for run_id in turns]
    assert [1] * TURNS == [len(found) for found in calls]
    received = [found[0].received_at for found in calls]
    assert sorted(received) == received
    assert [2 * n + 1 for n in range(TURNS)] == [len(_said(rig, run_id)) for run_id in turns]
    last_other = max(rig.vendors.calls_of(run_id)[0].received_at for run_id in others)
    assert last_other < received[-1]
    assert [] == await rig.verdict()


@pytest.mark.parametrize("point", ["after_response", "before_finish_commit", "after_finish_commit"])
async def test_a_death_between_answer_and_finish_remembers_the_turn_once(
    rig: Rig, point: str
) -> None:
    thread = str(uuid4())
    await rig.api()
    doomed = rig.launch_worker(crash_point=f"{point}:kill")
    first = await _say(rig, "first", thread)
    await doomed.ended()
    second = await _say(rig, "second", thread)

    await rig.worker()
    ended = [await rig.ended(run_id) for run_id in (first, second)]

    assert ["succeeded", "succeeded"] == [row["status"] for row in ended]
    assert [(first, 2), (second, 2)] == await _remembered(rig, thread)
    assert 3 == len(_said(rig, second))
    assert [] == await rig.verdict()


async def test_a_finish_whose_answer_is_lost_remembers_the_turn_once(rig: Rig) -> None:
    thread = str(uuid4())
    await rig.api()
    await rig.worker()
    link = rig.to_postgres["worker"]
    cuts = link.cuts

    link.lose_reply_to(ENDS_A_RUN)
    first = await _say(rig, "first", thread)
    second = await _say(rig, "second", thread)
    ended = [await rig.ended(run_id) for run_id in (first, second)]

    assert 1 == link.cuts - cuts
    assert [("succeeded", 1)] * 2 == [(row["status"], row["claim_no"]) for row in ended]
    assert [(first, 2), (second, 2)] == await _remembered(rig, thread)
    assert [] == await rig.verdict()


@pytest.mark.parametrize("end", ["failed", "canceled while it waits", "canceled", "expired"])
async def test_a_turn_that_ends_badly_blocks_nobody_and_leaves_no_trace(rig: Rig, end: str) -> None:
    thread = str(uuid4())
    await rig.api()
    before = await _say(rig, "before", thread, HANGS)
    how = {"failed": model_of("400"), "canceled": model_of("slow-10000")}
    limits = {"expiresIn": 1} if end == "expired" else {}
    bad = await _say(rig, "bad", thread, how.get(end, ANSWER), **limits)
    after = await _say(rig, "after", thread)
    await rig.worker()
    await rig.called(before)
    if end == "canceled while it waits":
        await rig.customer.cancel(bad)
    if end == "expired":
        await rig.ended(bad)
    rig.vendors.release()
    if end == "canceled":
        await rig.called(bad)
        await rig.customer.cancel(bad)

    rows = [await rig.ended(run_id) for run_id in (before, bad, after)]

    statuses = [row["status"] for row in rows]
    assert ["succeeded", end.partition(" ")[0], "succeeded"] == statuses
    assert [(before, 2), (after, 2)] == await _remembered(rig, thread)
    assert 3 == len(_said(rig, after))


async def test_one_channel_waits_for_a_hanging_call_and_another_does_not(rig: Rig) -> None:
    thread = str(uuid4())
    await rig.api()
    await rig.worker(slots=4)
    hanging = await _say(rig, "hanging", thread, HANGS)
    await rig.called(hanging)
    waiting = [await _say(rig, f"waiting {n}", thread) for n in range(8)]
    aside = await _say(rig, "aside", thread, channel="aside")
    elsewhere = await _say(rig, "elsewhere", str(uuid4()))

    done = [await rig.ended(run_id) for run_id in (aside, elsewhere)]
    reasons = {(await rig.customer.read(run_id))["statusReason"] for run_id in waiting}
    called = [rig.vendors.calls_of(run_id) for run_id in waiting]
    rig.vendors.release()
    rest = [await rig.ended(run_id) for run_id in (hanging, *waiting)]

    assert ["succeeded"] * 2 == [row["status"] for row in done]
    assert {"thread_busy"} == reasons
    assert [[]] * 8 == called
    assert {"succeeded"} == {row["status"] for row in rest}
    assert 1 == len(_said(rig, aside))
