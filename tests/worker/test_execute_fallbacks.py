"""Runs whose model cannot take them go on to the next one, with both vendors."""

from typing import Any

import msgspec
import pytest

from shared.deps import Deps
from shared.ids import RunId
from shared.settings import Settings
from shared.store import reading
from tests.shared.store.rig import Rig, a_rig
from tests.vendors import Step, VendorServer, answers, fails, named
from tests.worker.execute_rig import hands, with_keys

OTHER = {"openai": "anthropic", "anthropic": "openai"}
TOO_LONG = {
    "openai": fails(400, code="context_length_exceeded"),
    "anthropic": fails(400, message="prompt is too long: 210000 tokens > 200000 maximum"),
}
UNWANTED = {
    "openai": fails(400, code="content_policy_violation"),
    "anthropic": fails(400, message="Output blocked by content filtering policy"),
}
UNKNOWN = {
    "openai": fails(404, code="model_not_found"),
    "anthropic": fails(404, message="model: some-model"),
}


@pytest.fixture(name="settings")
def settings_of_a_server_with_keys(settings: Settings, vendors: VendorServer) -> Settings:
    return with_keys(settings, vendors)


@pytest.fixture
async def rig(deps: Deps, vendor: str) -> Rig:
    body = {
        "model": f"{vendor}/some-model",
        "fallbacks": [f"{OTHER[vendor]}/other-model"],
        "messages": [{"role": "user", "content": "Hello {{ name }}"}],
    }
    return await a_rig(deps, body, server_credentials=True)


async def _queued(rig: Rig, vendors: VendorServer, *steps: Step, **changes: Any) -> RunId:
    run_id = await rig.queued(**({"model": rig_model(rig)} | changes))
    vendors.script(str(run_id), list(steps))
    return run_id


def rig_model(rig: Rig) -> str:
    template = rig.target.compiled.settings
    return f"{template.provider}/{template.model}"


async def _carried(rig: Rig, deps: Deps, run_id: RunId, claims: int) -> dict[str, Any]:
    """The run as a client reads it; each claim is another worker's, which knows only the rows."""
    for _ in range(claims):
        await rig.change(run_id, "available_at = now()")
        async with hands(deps) as worker:
            await worker.carry(run_id)
    shown = await reading.run(rig.store, rig.tenant.workspace_id, run_id)
    assert shown is not None
    run: dict[str, Any] = msgspec.json.decode(shown)
    return run


def _tried(run: dict[str, Any]) -> list[tuple[str, str]]:
    return [(attempt["model"], attempt["outcome"]) for attempt in run["attempts"]]


@pytest.mark.parametrize("steps", [TOO_LONG, UNWANTED, UNKNOWN], ids=["long", "policy", "unknown"])
async def test_what_a_model_cannot_take_the_next_one_answers_at_once(
    rig: Rig, deps: Deps, vendors: VendorServer, vendor: str, steps: dict[str, Step]
) -> None:
    run_id = await _queued(rig, vendors, steps[vendor])
    waiting = await _carried(rig, deps, run_id, 1)

    run = await _carried(rig, deps, run_id, 1)

    first, other = f"{vendor}/some-model", f"{OTHER[vendor]}/other-model"
    assert ("queued", None, first) == (
        waiting["status"],
        waiting["nextAttemptAt"],
        waiting["model"],
    )
    assert ("succeeded", other) == (run["status"], run["model"])
    assert [(first, "refused"), (other, "succeeded")] == _tried(run)
    assert [vendor, OTHER[vendor]] == [call.vendor for call in vendors.ledger]
    assert [None, True] == [attempt["usage"] and True for attempt in run["attempts"]]


async def test_when_its_retries_are_used_up_a_run_goes_on_with_the_call_that_is_left(
    rig: Rig, deps: Deps, vendors: VendorServer, vendor: str
) -> None:
    run_id = await _queued(rig, vendors, named("500"), named("500"))

    run = await _carried(rig, deps, run_id, 3)

    first, other = f"{vendor}/some-model", f"{OTHER[vendor]}/other-model"
    assert ("succeeded", other) == (run["status"], run["model"])
    assert [(first, "server_error")] * 2 + [(other, "succeeded")] == _tried(run)


async def test_when_every_model_fails_the_run_fails_with_the_last_ones_error(
    rig: Rig, deps: Deps, vendors: VendorServer, vendor: str
) -> None:
    run_id = await _queued(rig, vendors, TOO_LONG[vendor], UNKNOWN[OTHER[vendor]])

    run = await _carried(rig, deps, run_id, 2)

    assert ("failed", "model_not_found") == (run["status"], run["error"]["code"])
    assert f"{vendor}/some-model" == run["model"]


async def test_one_allowed_call_is_one_call(
    rig: Rig, deps: Deps, vendors: VendorServer, vendor: str
) -> None:
    run_id = await _queued(rig, vendors, TOO_LONG[vendor], max_attempts=1)

    run = await _carried(rig, deps, run_id, 1)

    assert ("failed", "provider_context_length") == (run["status"], run["error"]["code"])
    assert 1 == len(vendors.ledger)


async def test_who_names_a_model_is_answered_by_it_or_not_at_all(
    rig: Rig, deps: Deps, vendors: VendorServer, vendor: str
) -> None:
    model = f"{vendor}/chosen"
    run_id = await _queued(rig, vendors, UNKNOWN[vendor], model=model, model_overridden=True)

    run = await _carried(rig, deps, run_id, 1)

    assert ("failed", model) == (run["status"], run["model"])
    assert 1 == len(vendors.ledger)


async def test_after_an_unknown_outcome_under_fail_no_other_model_is_called(
    rig: Rig, deps: Deps, vendors: VendorServer, vendor: str
) -> None:
    run_id = await _queued(rig, vendors, named("cut"), on_unknown_outcome="fail")

    run = await _carried(rig, deps, run_id, 1)

    assert ("failed", "outcome_unknown") == (run["status"], run["error"]["code"])
    assert 1 == len(vendors.ledger)


async def test_a_request_that_no_model_takes_is_not_passed_on(
    rig: Rig, deps: Deps, vendors: VendorServer, vendor: str
) -> None:
    run_id = await _queued(rig, vendors, named("400"))

    run = await _carried(rig, deps, run_id, 1)

    assert ("failed", "provider_refused") == (run["status"], run["error"]["code"])


async def test_runs_pass_over_a_model_whose_breaker_is_open_and_wait_when_all_are(
    rig: Rig, deps: Deps, vendors: VendorServer, vendor: str
) -> None:
    first, second, third = [
        await _queued(rig, vendors, *steps)
        for steps in ([named("401"), named("401")], [named("401")], [])
    ]
    async with hands(deps) as worker:
        await worker.carry(first)
        opened = [call.model for call in vendors.ledger]
        vendors.script(str(second), [])
        await worker.carry(second)
        await worker.carry(first)
        await worker.carry(third)

    rows = [await rig.row(run_id) for run_id in (first, second, third)]
    assert ["some-model"] == opened
    assert ["some-model", "other-model", "other-model"] == [call.model for call in vendors.ledger]
    assert ["failed", "succeeded", "queued"] == [row["status"] for row in rows]
    assert "circuit_open" == rows[2]["status_reason"]


async def test_a_fallback_nobody_has_a_key_for_is_passed_over(
    deps: Deps, vendors: VendorServer, vendor: str
) -> None:
    body = {
        "model": f"{vendor}/some-model",
        "fallbacks": [f"{OTHER[vendor]}/other-model", f"{vendor}/last-model"],
        "messages": [{"role": "user", "content": "Hello"}],
    }
    rig = await a_rig(deps, body)
    variable = {f"{vendor.upper()}_API_KEY": "sk-of-the-tenant-0123456789"}
    run_id = await _queued(rig, vendors, UNKNOWN[vendor])
    place = ("runs", "env_vars", run_id, rig.tenant.workspace_id)
    sealed = deps.vault.seal(msgspec.json.encode(variable), *place)
    await rig.run("UPDATE runs SET env_vars = %(v)s WHERE id = %(id)s", v=sealed, id=run_id)

    run = await _carried(rig, deps, run_id, 2)

    assert ("succeeded", f"{vendor}/last-model") == (run["status"], run["model"])


PRICED, ALSO_PRICED = "openai/gpt-4o-mini", "openai/gpt-4o"
UNPRICED = "openai/nobody-knows"
GOOD, BAD = answers('{"a": 1}'), answers("[1]")


@pytest.mark.parametrize(
    ("first", "second", "is_known"),
    [(PRICED, UNPRICED, False), (UNPRICED, PRICED, False), (PRICED, ALSO_PRICED, True)],
)
async def test_a_run_s_cost_is_known_when_all_that_was_paid_for_has_a_price(
    deps: Deps, vendors: VendorServer, first: str, second: str, *, is_known: bool
) -> None:
    body = {
        "model": first,
        "fallbacks": [second],
        "responseFormat": {"type": "json_object"},
        "messages": [{"role": "user", "content": "Hello"}],
    }
    rig = await a_rig(deps, body, server_credentials=True)
    run_id = await _queued(rig, vendors, BAD, TOO_LONG["openai"], GOOD)

    run = await _carried(rig, deps, run_id, 3)

    assert ("succeeded", second) == (run["status"], run["model"])
    prices = [attempt["cost"] for attempt in run["attempts"]]
    assert [first != UNPRICED, False, second != UNPRICED] == [price is not None for price in prices]
    assert is_known == (run["cost"] is not None)
    if is_known:
        total = prices[0]["total"] + prices[2]["total"]
        assert pytest.approx(total) == run["cost"]["total"]
