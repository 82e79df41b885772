"""What is counted around calls, however they end and however they are named."""

import asyncio

import pytest

from shared import metrics
from shared.clock import SystemClock
from shared.domain.completions import (
    CompletionRequest,
    FailureClass,
    ModelParams,
    ProviderError,
    Usage,
)
from shared.domain.states import Billed
from shared.settings import Settings
from tests.worker.execute_rig import ScriptedProvider, completion, price_book
from worker.breaker import Breakers
from worker.watching import WatchedProvider, opening

NAMES = 1_000


def a_request(model: str) -> CompletionRequest:
    return CompletionRequest(
        run_id="a run",
        attempt=1,
        model=model,
        messages=(),
        params=ModelParams(),
        response_format=None,
        api_key="",
        timeout_s=1,
    )


def watched(inner: ScriptedProvider) -> WatchedProvider:
    return WatchedProvider(inner, price_book(), SystemClock())


def counted(name: str, **labels: str) -> float:
    return metrics.REGISTRY.get_sample_value(name, labels) or 0


async def test_thousands_of_names_for_models_make_a_bounded_number_of_series() -> None:
    provider = watched(ScriptedProvider("openai"))
    made_up = [f"model-{number}" for number in range(NAMES)]
    dated = [f"gpt-5-mini-2030-{number:04}" for number in range(NAMES)]

    for name in (*made_up, *dated):
        await provider.complete(a_request(name))

    models = {
        sample.labels["model"]
        for family in metrics.REGISTRY.collect()
        for sample in family.samples
        if sample.labels.get("provider") == "openai"
    }
    assert metrics.OTHER in models
    assert len(models) < 20
    unknown = {"provider": "openai", "model": metrics.OTHER, "outcome": "succeeded"}
    assert NAMES <= counted("runlane_provider_calls_total", **unknown)


def test_even_known_models_are_not_more_than_so_many() -> None:
    models = metrics.Names(most=10)

    labels = {models.label("a vendor", f"known-{number}") for number in range(NAMES)}

    assert metrics.OTHER in labels
    assert 11 == len(labels)
    assert "known-3" == models.label("a vendor", "known-3")


async def test_a_call_that_fails_is_counted_by_what_it_was_with_what_it_cost() -> None:
    inner = ScriptedProvider("anthropic")
    refusal = ProviderError(
        FailureClass.REFUSED, code="x", message="x", billed=Billed.YES, usage=Usage(input=7)
    )
    inner.script.append(refusal)
    model = {"provider": "anthropic", "model": "claude-sonnet-4-5"}
    before = counted("runlane_tokens_total", **model, kind="input")

    with pytest.raises(ProviderError):
        await watched(inner).complete(a_request("claude-sonnet-4-5"))

    assert 1 == counted("runlane_provider_calls_total", **model, outcome="refused")
    assert before + 7 == counted("runlane_tokens_total", **model, kind="input")
    assert 0 < counted("runlane_cost_usd_total", **model)


async def test_a_call_that_was_stopped_is_counted_as_canceled() -> None:
    stopped = {"provider": "sim", "model": "hang", "outcome": "canceled"}
    before = counted("runlane_provider_calls_total", **stopped)
    inner = ScriptedProvider("sim")
    inner.gate = asyncio.Event()
    call = asyncio.create_task(watched(inner).complete(a_request("hang")))
    await inner.called.wait()

    call.cancel()
    await asyncio.wait([call])

    assert before + 1 == counted("runlane_provider_calls_total", **stopped)


async def test_an_answer_is_handed_on_as_it_came() -> None:
    inner = ScriptedProvider("sim")
    inner.script.append(completion("This very text"))

    answer = await watched(inner).complete(a_request("echo"))

    assert "This very text" == answer.text


def test_a_breaker_that_opens_is_counted_and_shown() -> None:
    breakers = Breakers(Settings(), SystemClock(), opening(price_book()))
    before = counted("runlane_breaker_openings_total", provider="openai", model="gpt-5-nano")

    breakers.record(("openai", "a key", "gpt-5-nano"), failed=True, at_once=True)

    assert {"openai": 1} == breakers.open_now()
    after = counted("runlane_breaker_openings_total", provider="openai", model="gpt-5-nano")
    assert before + 1 == after
