"""OpenAI's own words, both ways."""

import json
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from shared.domain.completions import FailureClass, ModelParams, Usage
from shared.domain.states import IncompleteReason
from tests.vendors import VendorServer, answers, raw
from tests.worker.provider_cases import RUN_ID, a_request, failure_at, provider_at


@pytest.fixture
async def vendors() -> AsyncIterator[VendorServer]:
    async with VendorServer() as server:
        yield server


async def sent(vendors: VendorServer, **changes: Any) -> dict[str, Any]:
    async with provider_at("openai", vendors.url) as provider:
        await provider.complete(a_request("gpt-5-mini", **changes))
    return dict(vendors.ledger[0].body)


async def test_all_parameters_are_sent_in_openais_words(vendors: VendorServer) -> None:
    params = ModelParams(
        max_completion_tokens=50,
        temperature=0.0,
        top_p=0.9,
        verbosity="low",
        reasoning_effort="minimal",
        service_tier="flex",
        sim={"outputTokens": 3},
    )

    body = await sent(vendors, params=params)

    assert body == {
        "model": "gpt-5-mini",
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "Say hello."},
        ],
        "max_completion_tokens": 50,
        "temperature": 0.0,
        "top_p": 0.9,
        "verbosity": "low",
        "reasoning_effort": "minimal",
        "service_tier": "flex",
    }


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ({"type": "text"}, None),
        ({}, None),
        (None, None),
        ({"type": "json_object"}, {"type": "json_object"}),
        (
            {
                "type": "json_schema",
                "name": "city",
                "schema": '{"type": "object", "properties": {}}',
                "strict": True,
                "description": "A city.",
            },
            {
                "type": "json_schema",
                "json_schema": {
                    "name": "city",
                    "schema": {"type": "object", "properties": {}},
                    "strict": True,
                    "description": "A city.",
                },
            },
        ),
        (
            {"type": "json_schema", "schema": {"type": "object"}},
            {
                "type": "json_schema",
                "json_schema": {"name": "answer", "schema": {"type": "object"}},
            },
        ),
    ],
)
async def test_response_formats_are_sent_in_openais_words(
    vendors: VendorServer, wanted: dict[str, Any] | None, expected: dict[str, Any] | None
) -> None:
    body = await sent(vendors, response_format=wanted)

    assert expected == body.get("response_format")


@pytest.mark.parametrize(
    ("reported", "expected"),
    [
        (
            {
                "prompt_tokens": 1000,
                "completion_tokens": 300,
                "total_tokens": 1300,
                "prompt_tokens_details": {"cached_tokens": 600, "cache_write_tokens": 100},
                "completion_tokens_details": {"reasoning_tokens": 200},
            },
            Usage(input=300, cache_write=100, cache_read=600, output=300, reasoning=200),
        ),
        (
            {"prompt_tokens": 5, "completion_tokens": 2, "prompt_tokens_details": None},
            Usage(input=5, output=2),
        ),
        (
            {"prompt_tokens": 5, "prompt_tokens_details": {"cached_tokens": 9}},
            Usage(input=0, cache_read=5),
        ),
    ],
)
async def test_usage_falls_into_buckets_that_do_not_overlap(
    vendors: VendorServer, reported: dict[str, Any], expected: Usage
) -> None:
    vendors.script(RUN_ID, [answers(usage=reported)])

    async with provider_at("openai", vendors.url) as provider:
        completion = await provider.complete(a_request())

    assert expected == completion.usage
    assert reported == json.loads(completion.usage_raw)
    assert completion.service_tier == "default"


def _reply(**changes: Any) -> bytes:
    choice = {"message": {"content": "hi"}, "finish_reason": "stop"}
    return msgspec.json.encode({"choices": [choice], **changes})


async def test_a_compatible_server_may_leave_out_what_is_not_needed(vendors: VendorServer) -> None:
    vendors.script(RUN_ID, [raw(_reply(), name="bare"), raw(_reply(usage=None), name="null")])

    async with provider_at("openai", vendors.url) as provider:
        bare = await provider.complete(a_request())
        null = await provider.complete(a_request(attempt=2))

    assert (bare.text, bare.model, bare.usage, bare.usage_raw) == (
        "hi",
        "some-model",
        Usage(),
        b"{}",
    )
    assert null.usage_raw == b"{}"


async def test_stored_usage_is_small_and_holds_no_nul(vendors: VendorServer) -> None:
    vendors.script(
        RUN_ID,
        [
            raw(_reply(usage={"note": "\x00"}, model="m\x00"), name="nul"),
            raw(_reply(usage={"note": "a" * 20_000}), name="long"),
        ],
    )

    async with provider_at("openai", vendors.url) as provider:
        nul = await provider.complete(a_request())
        long = await provider.complete(a_request(attempt=2))

    assert nul.usage_raw == b'{"note":"\\ufffd"}'
    assert nul.model == "m\\u0000"
    assert long.usage_raw == b"{}"


async def test_a_refusal_is_the_text_of_an_incomplete_answer(vendors: VendorServer) -> None:
    choice = {"message": {"content": None, "refusal": "I will not."}, "finish_reason": "stop"}
    vendors.script(RUN_ID, [raw(_reply(choices=[choice]), name="refusal")])

    async with provider_at("openai", vendors.url) as provider:
        completion = await provider.complete(a_request())

    assert completion.text == "I will not."
    assert completion.incomplete is IncompleteReason.CONTENT_FILTER


@pytest.mark.parametrize(
    "body",
    [
        _reply(choices=[]),
        _reply(choices=[{"message": {"content": ["part"]}}]),
        _reply(usage={"prompt_tokens": -1}),
        _reply(usage={"prompt_tokens": 10**30}),
        _reply(usage=[]),
        b'{"choices":[{"message":{"content":"\\ud800"}}]}',
        b"[" * 100_000,
    ],
)
async def test_what_the_api_does_not_promise_is_a_broken_answer(
    vendors: VendorServer, body: bytes
) -> None:
    vendors.script(RUN_ID, [raw(body, name="odd")])

    failure = await failure_at("openai", vendors, a_request())

    assert (failure.kind, failure.code) == (FailureClass.UNKNOWN, "provider_bad_response")
    assert failure.provider_request_id == "req_1"
