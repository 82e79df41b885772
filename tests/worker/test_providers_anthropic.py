"""Anthropic's own words, both ways."""

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from shared.domain.calls import ANTHROPIC_MAX_TOKENS
from shared.domain.completions import FailureClass, Message, ModelParams, Usage
from shared.domain.states import IncompleteReason
from tests.vendors import VendorServer, answers, raw
from tests.worker.provider_cases import RUN_ID, a_request, failure_at, provider_at
from worker.providers.anthropic import JSON_INSTRUCTION


@pytest.fixture
async def vendors() -> AsyncIterator[VendorServer]:
    async with VendorServer() as server:
        yield server


async def sent(vendors: VendorServer, **changes: Any) -> dict[str, Any]:
    async with provider_at("anthropic", vendors.url) as provider:
        await provider.complete(a_request("claude-sonnet-4-5", **changes))
    return dict(vendors.ledger[0].body)


async def test_all_parameters_are_sent_in_anthropics_words(vendors: VendorServer) -> None:
    params = ModelParams(
        max_completion_tokens=50,
        temperature=0.0,
        top_p=0.9,
        reasoning_effort="high",
        service_tier="default",
    )

    body = await sent(vendors, params=params)

    assert body == {
        "model": "claude-sonnet-4-5",
        "messages": [{"role": "user", "content": "Say hello."}],
        "system": "Be brief.",
        "max_tokens": 50,
        "temperature": 0.0,
        "top_p": 0.9,
        "service_tier": "standard_only",
        "output_config": {"effort": "high"},
    }
    assert "anthropic-version" in vendors.ledger[0].headers


async def test_the_length_has_a_default_because_the_api_wants_one(vendors: VendorServer) -> None:
    body = await sent(vendors)

    assert body["max_tokens"] == ANTHROPIC_MAX_TOKENS


async def test_system_texts_are_put_together_and_the_turns_kept_in_order(
    vendors: VendorServer,
) -> None:
    messages = (
        Message("system", "One."),
        Message("user", "First."),
        Message("assistant", "Yes."),
        Message("system", "Two."),
        Message("user", "Second."),
    )

    body = await sent(vendors, messages=messages)

    assert body["system"] == "One.\n\nTwo."
    assert [said["content"] for said in body["messages"]] == ["First.", "Yes.", "Second."]


async def test_a_system_text_alone_is_said_by_the_user_because_the_api_wants_one(
    vendors: VendorServer,
) -> None:
    body = await sent(vendors, messages=(Message("system", "One."), Message("system", "Two.")))

    assert [{"role": "user", "content": "One.\n\nTwo."}] == body["messages"]
    assert "system" not in body


@pytest.mark.parametrize(
    ("effort", "expected"),
    [
        ("minimal", {"output_config": {"effort": "low"}}),
        ("none", {"thinking": {"type": "disabled"}}),
        ("xhigh", {"output_config": {"effort": "xhigh"}}),
    ],
)
async def test_efforts_are_translated_where_the_word_differs(
    vendors: VendorServer, effort: str, expected: dict[str, Any]
) -> None:
    body = await sent(vendors, params=ModelParams(reasoning_effort=effort))

    assert expected.items() <= body.items()
    assert 1 == len({"output_config", "thinking"} & body.keys())


async def test_a_schema_goes_into_the_output_config(vendors: VendorServer) -> None:
    wanted = {"type": "json_schema", "name": "city", "schema": '{"type": "object"}', "strict": True}

    body = await sent(vendors, response_format=wanted)

    assert body["output_config"] == {
        "format": {"type": "json_schema", "schema": {"type": "object"}}
    }


async def test_a_json_object_is_asked_for_in_words(vendors: VendorServer) -> None:
    body = await sent(vendors, response_format={"type": "json_object"})

    assert body["system"] == f"Be brief.\n\n{JSON_INSTRUCTION}"
    assert "output_config" not in body


async def test_usage_is_taken_bucket_by_bucket(vendors: VendorServer) -> None:
    reported = {
        "input_tokens": 10,
        "cache_creation_input_tokens": 200,
        "cache_read_input_tokens": 3000,
        "output_tokens": 40,
        "output_tokens_details": {"thinking_tokens": 25},
        "service_tier": "priority",
    }
    vendors.script(RUN_ID, [answers(usage=reported)])

    async with provider_at("anthropic", vendors.url) as provider:
        completion = await provider.complete(a_request())

    expected = Usage(input=10, cache_write=200, cache_read=3000, output=40, reasoning=25)
    assert expected == completion.usage
    assert reported == json.loads(completion.usage_raw)
    assert completion.service_tier == "priority"


async def test_texts_are_joined_and_other_blocks_passed_over(vendors: VendorServer) -> None:
    body = (
        b'{"content":[{"type":"thinking","thinking":"hm","signature":"s"},'
        b'{"type":"text","text":"one "},{"type":"text","text":"two"}],'
        b'"stop_reason":"end_turn","usage":{"input_tokens":1,"output_tokens":2}}'
    )
    vendors.script(RUN_ID, [raw(body, name="blocks")])

    async with provider_at("anthropic", vendors.url) as provider:
        completion = await provider.complete(a_request())

    assert completion.text == "one two"
    assert completion.model == "some-model"


async def test_an_answer_without_content_is_whole(vendors: VendorServer) -> None:
    async with provider_at("anthropic", vendors.url) as provider:
        completion = await provider.complete(a_request("mock-empty-choices"))

    assert (completion.text, completion.incomplete) == ("", None)
    assert completion.usage == Usage(input=3)


async def test_a_full_context_window_cuts_the_answer(vendors: VendorServer) -> None:
    vendors.script(RUN_ID, [answers(finish="model_context_window_exceeded")])

    async with provider_at("anthropic", vendors.url) as provider:
        completion = await provider.complete(a_request())

    assert completion.incomplete is IncompleteReason.MAX_TOKENS


@pytest.mark.parametrize(
    "body",
    [
        b'{"content":[],"stop_reason":"end_turn"}',
        b'{"content":[],"stop_reason":"end_turn","usage":null}',
        b'{"content":[],"stop_reason":"end_turn","usage":{"input_tokens":-1}}',
        b'{"content":"text","stop_reason":"end_turn","usage":{}}',
        b'{"type":"error","error":{"message":"in a 200"}}',
    ],
)
async def test_what_the_api_does_not_promise_is_a_broken_answer(
    vendors: VendorServer, body: bytes
) -> None:
    vendors.script(RUN_ID, [raw(body, name="odd")])

    failure = await failure_at("anthropic", vendors, a_request())

    assert (failure.kind, failure.code) == (FailureClass.UNKNOWN, "provider_bad_response")
    assert failure.provider_request_id == "req_1"
