"""Vendors that are away, full, broken or done with us: what a run does, and what it costs."""

from datetime import timedelta
from typing import Any
from uuid import UUID

import openai
import pytest

from tests.faults.facts import Facts, RunFact
from tests.faults.referee import Case, Ledgers, SeenCall, judge
from tests.faults.rig import SETTINGS, Rig
from tests.faults.vendors import NO_QUOTA, model_of
from tests.vendors import Step, fails

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.xdist_group("faults")]

ANSWER = model_of("answer")
SERVERS_KEY = str(SETTINGS["openai_api_key"])
ONE_SLOT = {"slots": 1, "lane_floors": "[0, 0, 0]"}
TOLD_S = 2


def outcomes(row: dict[str, Any]) -> list[str]:
    return [attempt["outcome"] for attempt in row["tried"]]


async def test_what_was_never_sent_uses_up_no_call_and_is_tried_until_the_vendor_is_there(
    rig: Rig,
) -> None:
    await rig.api()
    nobody = {"anthropic_base_url": "http://vendor.invalid", "anthropic_api_key": "sk-made-up"}
    await rig.worker(connect_timeout_s=0.3, **nobody)
    await rig.to_vendors.down()
    refused = await rig.customer.accepted("f40 refused", ANSWER, maxAttempts=1)
    nameless = await rig.customer.accepted("f40 name", "anthropic/x", maxAttempts=1, maxDuration=1)

    away = await rig.waits(refused, "retry_backoff", tries=3)
    await rig.waits(nameless, "retry_backoff", tries=1)
    await rig.to_vendors.pass_on()
    answered, given_up = await rig.ended(refused), await rig.ended(nameless)

    assert {("not_sent", "no", "provider_unreachable")} == {
        (a["outcome"], a["billed"], a["error"]["code"]) for a in away["attempts"]
    }
    assert ("succeeded", 1) == (answered["status"], answered["calls"])
    assert {"not_sent"} == set(outcomes(answered)[:-1])
    assert 1 == len(rig.vendors.calls_of(refused))
    assert ("failed", "deadline_exceeded", 0) == (
        given_up["status"],
        given_up["error_code"],
        given_up["calls"],
    )
    assert {"not_sent"} == set(outcomes(given_up))
    assert [] == await rig.verdict()


async def test_a_rate_limited_run_gives_its_slot_away_and_comes_back_no_earlier_than_told(
    rig: Rig,
) -> None:
    await rig.api()
    await rig.worker(**ONE_SLOT)
    wishes = {
        "none": "429",
        "seconds": f"429-after-{TOLD_S}",
        "date": f"429-on-{TOLD_S}",
        "garbage": "429-after-soon",
        "negative": "429-after--5",
    }
    runs = {
        wish: await rig.customer.accepted(f"f41 {wish}", model_of(step, "answer"), maxAttempts=1)
        for wish, step in wishes.items()
    }
    hour = await rig.customer.accepted("f41 hour", model_of("429-after-3600"))
    week = await rig.customer.accepted("f41 week", model_of("429-after-604800"))
    endless = await rig.customer.accepted("f41 sim", "sim/429", maxDuration=1)

    parked = [await rig.waits(run_id, "provider_rate_limit") for run_id in (hour, week)]
    limited = await rig.waits(endless, "provider_rate_limit")
    at_once = await rig.ended(await rig.customer.accepted("f41 slot", ANSWER), within_s=2)
    rows = {wish: await rig.ended(run_id) for wish, run_id in runs.items()}
    overdue = await rig.ended(endless)
    for run_id in (hour, week):
        await rig.customer.cancel(run_id)

    assert [True, True] == [3590 < shown["left_s"] <= 3600 for shown in parked]
    assert limited["left_s"] <= TOLD_S
    assert ("failed", "deadline_exceeded") == (overdue["status"], overdue["error_code"])
    assert "succeeded" == at_once["status"]
    for wish, row in rows.items():
        assert ("succeeded", 1) == (row["status"], row["calls"]), wish
        assert ["not_started", "succeeded"] == outcomes(row), wish
    for wish in ("seconds", "date"):
        first, second = rig.vendors.calls_of(runs[wish])
        told = first.received_at + timedelta(seconds=TOLD_S)
        assert second.received_at >= (told.replace(microsecond=0) if wish == "date" else told)
    assert [] == await rig.verdict()


@pytest.mark.parametrize(
    ("step", "code"),
    [(fails(401), "provider_auth_failed"), (NO_QUOTA, "provider_quota_exhausted")],
    ids=["revoked", "no quota"],
)
async def test_a_dead_credential_fails_its_run_at_once_and_holds_up_only_its_own_runs(
    rig: Rig, step: Step, code: str
) -> None:
    await rig.api()
    await rig.worker(breaker_open_s=1)
    rig.vendors.of_keys[SERVERS_KEY] = step
    other_key = {"OPENAI_API_KEY": "sk-of-the-customer"}

    failed = await rig.ended(await rig.customer.accepted("f47 first", ANSWER), within_s=1)
    second = await rig.customer.accepted("f47 second", ANSWER)
    shown = await rig.waits(second, "circuit_open")
    others = {
        "key": await rig.customer.accepted("f47 key", ANSWER, envVars=other_key),
        "sim": await rig.customer.accepted("f47 sim", "sim/echo"),
    }
    done = {name: await rig.ended(run_id, within_s=1) for name, run_id in others.items()}
    rig.vendors.of_keys.clear()
    cured = await rig.ended(second)

    assert ("failed", code, ["refused"], 1) == (
        failed["status"],
        failed["error_code"],
        outcomes(failed),
        failed["calls"],
    )
    assert ([], True) == (shown["attempts"], shown["left_s"] <= 1)
    assert {"key": "succeeded", "sim": "succeeded"} == {n: r["status"] for n, r in done.items()}
    assert ("succeeded", ["succeeded"]) == (cured["status"], outcomes(cured))
    assert [] == await rig.verdict()


async def test_a_server_error_is_tried_again_and_no_more_often_than_allowed(rig: Rig) -> None:
    await rig.api()
    await rig.worker()
    cured = await rig.customer.accepted("f42 cured", model_of("500", "500", "answer"))
    broken = await rig.customer.accepted("f42 broken", model_of("500"))

    first, second = await rig.ended(cured), await rig.ended(broken)

    assert ("succeeded", 3) == (first["status"], len(rig.vendors.calls_of(cured)))
    assert ["server_error", "server_error", "succeeded"] == outcomes(first)
    assert ("failed", "provider_server_error") == (second["status"], second["error_code"])
    assert 3 == len(rig.vendors.calls_of(broken))
    assert [] == await rig.verdict()


REPEATED_BY_SDKS = ("408", "409", "429-after-0", "500", "502", "503", "504", "529", "cut", "hang")


async def test_one_intent_leads_to_one_call_whatever_the_sdks_would_repeat(rig: Rig) -> None:
    await rig.api()
    await rig.worker(
        call_timeout_s=1, anthropic_base_url=rig.vendors.url, anthropic_api_key="sk-made-up"
    )
    runs = [
        await rig.customer.accepted(f"f45 {vendor} {step}", f"{vendor}/mock-{step}-then-answer")
        for vendor in ("openai", "anthropic")
        for step in REPEATED_BY_SDKS
    ]

    rows = [await rig.ended(run_id) for run_id in runs]

    assert {"succeeded"} == {row["status"] for row in rows}
    assert {2} == {len(row["tried"]) for row in rows}
    assert [[1, 2]] * len(runs) == [
        [call.attempt for call in rig.vendors.calls_of(run_id)] for run_id in runs
    ]
    assert [] == await rig.verdict()


async def test_a_vendors_own_client_left_to_its_defaults_would_be_caught(rig: Rig) -> None:
    run_id = "01930000-0000-7000-8000-000000000045"
    headers = {"x-runlane-run": run_id, "x-runlane-attempt": "1"}
    async with openai.AsyncOpenAI(api_key="sk-made-up", base_url=rig.vendors.openai_url) as sdk:
        with pytest.raises(openai.InternalServerError):
            await sdk.chat.completions.create(
                model="mock-500",
                messages=[{"role": "user", "content": "Hello"}],
                extra_headers=headers,
            )

    calls = [
        SeenCall(call.run_id, call.attempt, call.model, call.received_at)
        for call in rig.vendors.calls_of(run_id)
    ]
    facts = Facts(runs=[RunFact(UUID(run_id), "failed", None, 3, "retry", 1, None, None, None)])
    found = judge(Case(facts, Ledgers(calls=calls)))

    assert [1, 1, 1] == [call.attempt for call in calls]
    assert (9, "one intent, several calls") in {(v.invariant, v.what) for v in found}
