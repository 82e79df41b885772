"""The simulated vendor."""

import asyncio
from typing import Any

import pytest

from shared.domain import simulated
from shared.domain.completions import Completion, FailureClass, Message, ModelParams
from shared.domain.states import Billed, IncompleteReason
from tests.worker.provider_cases import a_request, failure_of
from worker.providers import sim
from worker.providers.sim import SimProvider

SAID = "Say “hello”\n{{ exactly }} so."


async def complete(model: str, *, attempt: int = 1, **sim_params: Any) -> Completion:
    request = a_request(
        model,
        attempt=attempt,
        messages=(
            Message("system", "Be brief."),
            Message("user", "First."),
            Message("assistant", "Yes."),
            Message("user", SAID),
        ),
        params=ModelParams(sim=sim_params or None),
        api_key="",
    )
    return await SimProvider().complete(request)


@pytest.mark.parametrize("model", ["echo", "slow", "flaky", "truncated", "nul", "schema-broken"])
async def test_every_answer_repeats_what_the_user_said_and_counts_tokens(model: str) -> None:
    completion = await complete(model, attempt=2, delaySeconds=0)

    assert SAID in completion.text
    assert "\x00" not in completion.text
    assert completion.usage.input > 0
    assert completion.usage.output > 0
    assert completion.provider_request_id is not None


async def test_an_echo_is_the_same_every_time() -> None:
    assert await complete("echo") == await complete("echo")


async def test_an_echo_without_a_user_message_still_counts_tokens() -> None:
    completion = await SimProvider().complete(a_request("echo", messages=()))

    assert completion.usage.input > 0
    assert completion.usage.output > 0


async def test_the_count_of_output_tokens_can_be_set() -> None:
    completion = await complete("echo", outputTokens=1234)

    assert completion.usage.output == 1234


async def test_a_delay_beyond_the_time_of_the_call_is_a_timeout() -> None:
    request = a_request("slow", timeout_s=0.05)

    failure = await failure_of(SimProvider(), request)

    assert (failure.kind, failure.billed) == (FailureClass.UNKNOWN, Billed.UNKNOWN)


async def test_hang_says_nothing_until_the_time_is_up() -> None:
    failure = await failure_of(SimProvider(), a_request("hang", timeout_s=0.05))

    assert (failure.kind, failure.code) == (FailureClass.UNKNOWN, "provider_timeout")
    assert failure.provider_request_id is not None


async def test_hang_can_be_cancelled() -> None:
    task = asyncio.create_task(SimProvider().complete(a_request("hang")))
    _, pending = await asyncio.wait({task}, timeout=0.05)

    task.cancel()

    assert pending == {task}
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(task, 1)


async def test_flaky_bills_the_first_attempt_and_answers_the_second() -> None:
    failure = await failure_of(SimProvider(), a_request("flaky"))
    completion = await complete("flaky", attempt=2)

    assert (failure.kind, failure.billed) == (FailureClass.SERVER_ERROR, Billed.YES)
    assert failure.usage is not None
    assert failure.usage.output > 0
    assert completion.incomplete is None


@pytest.mark.parametrize(
    ("model", "kind", "billed"),
    [
        ("429", FailureClass.NOT_STARTED, Billed.NO),
        ("500", FailureClass.SERVER_ERROR, Billed.NO),
        ("disconnect", FailureClass.UNKNOWN, Billed.UNKNOWN),
        ("gpt-5-mini", FailureClass.REFUSED, Billed.NO),
        ("\x00", FailureClass.REFUSED, Billed.NO),
    ],
)
async def test_failures_have_their_class(model: str, kind: FailureClass, billed: Billed) -> None:
    failure = await failure_of(SimProvider(), a_request(model))

    assert (failure.kind, failure.billed) == (kind, billed)
    assert "\x00" not in failure.message


async def test_a_truncated_answer_is_incomplete() -> None:
    completion = await complete("truncated")

    assert completion.incomplete is IncompleteReason.MAX_TOKENS


async def test_nul_is_written_visibly() -> None:
    completion = await complete("nul")

    assert "before\\u0000after" in completion.text


@pytest.mark.parametrize(
    "given",
    [{"delaySeconds": -1}, {"delaySeconds": "2"}, {"outputTokens": 0}, {"outputToken": 1}],
)
async def test_parameters_that_make_no_sense_are_refused(given: dict[str, Any]) -> None:
    request = a_request("echo", params=ModelParams(sim=given))

    failure = await failure_of(SimProvider(), request)

    assert (failure.kind, failure.code) == (FailureClass.REFUSED, "sim_params_invalid")


def test_all_models_that_are_told_of_exist() -> None:
    assert set(sim.MODELS) == set(simulated.MODELS)
