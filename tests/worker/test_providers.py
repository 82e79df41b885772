"""The conformance suite: what every provider that calls a vendor must do."""

import asyncio
import tracemalloc
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from shared.domain.completions import CompletionRequest, FailureClass, Message, ModelParams
from shared.domain.states import Billed, IncompleteReason
from tests.vendors import Step, VendorServer, answers, fails, gzip_bomb
from tests.worker.provider_cases import (
    HTTP_VENDORS,
    KEY,
    RUN_ID,
    a_request,
    failure_of,
    provider_at,
)
from worker.providers.base import Provider


@pytest.fixture(params=HTTP_VENDORS)
async def provider(
    request: pytest.FixtureRequest, vendors: VendorServer
) -> AsyncIterator[Provider]:
    async with provider_at(request.param, vendors.url, response_max_bytes=1_000_000) as provider:
        yield provider


async def test_an_answer_comes_back_with_its_model_and_request_id(provider: Provider) -> None:
    completion = await provider.complete(a_request())

    assert completion.text == "Here is the answer. You said: Say hello."
    assert completion.model.startswith("some-model-2026")
    assert completion.provider_request_id == "req_1"
    assert completion.incomplete is None
    assert completion.usage.input > 0
    assert completion.usage.output > 0
    assert completion.usage_raw.startswith(b'{"')


async def test_a_call_names_its_run_and_carries_the_tenants_key(
    provider: Provider, vendors: VendorServer
) -> None:
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

    await provider.complete(a_request(attempt=2, traceparent=trace))

    (call,) = vendors.ledger
    assert (call.run_id, call.attempt) == (RUN_ID, 2)
    assert call.headers["idempotency-key"] == f"{RUN_ID}-2"
    assert call.headers["traceparent"] == trace
    assert call.headers["authorization"] == f"Bearer {KEY}"
    assert call.headers["content-type"] == "application/json"
    assert "openai-organization" not in call.headers


async def test_two_tenants_calls_at_once_keep_their_keys_apart(
    provider: Provider, vendors: VendorServer
) -> None:
    keys = [f"sk-tenant-{number}" for number in range(20)]

    await asyncio.gather(*(provider.complete(a_request(api_key=key, run_id=key)) for key in keys))

    sent = {call.run_id: call.headers["authorization"] for call in vendors.ledger}
    assert {key: f"Bearer {key}" for key in keys} == sent


@pytest.mark.parametrize("key", ["", "two words", "line\nbreak", "ключ", "nul\x00"])
async def test_a_key_that_fits_no_header_is_refused_unsent(
    provider: Provider, vendors: VendorServer, key: str
) -> None:
    failure = await failure_of(provider, a_request(api_key=key))

    assert (failure.kind, failure.code) == (FailureClass.REFUSED, "provider_key_invalid")
    assert failure.credential_bad
    assert vendors.ledger == []


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, FailureClass.REFUSED),
        (401, FailureClass.REFUSED),
        (403, FailureClass.REFUSED),
        (404, FailureClass.REFUSED),
        (413, FailureClass.REFUSED),
        (422, FailureClass.REFUSED),
        (307, FailureClass.REFUSED),
        (429, FailureClass.NOT_STARTED),
        (529, FailureClass.NOT_STARTED),
        (409, FailureClass.SERVER_ERROR),
        (500, FailureClass.SERVER_ERROR),
        (502, FailureClass.SERVER_ERROR),
        (503, FailureClass.SERVER_ERROR),
        (408, FailureClass.UNKNOWN),
        (504, FailureClass.UNKNOWN),
        (524, FailureClass.UNKNOWN),
    ],
)
async def test_each_status_has_one_class_and_makes_one_call(
    provider: Provider, vendors: VendorServer, status: int, kind: FailureClass
) -> None:
    vendors.script(RUN_ID, [fails(status, headers={"location": f"{vendors.url}/v1/messages"})])

    failure = await failure_of(provider, a_request())

    assert failure.kind is kind
    assert failure.billed is (Billed.UNKNOWN if kind is FailureClass.UNKNOWN else Billed.NO)
    assert failure.credential_bad is (status in {401, 403})
    assert failure.message == f"The mock vendor answers {status}."
    assert failure.provider_request_id == "req_1"
    assert len(vendors.ledger) == 1


@pytest.mark.parametrize(
    ("step", "code"),
    [
        (fails(400, code="context_length_exceeded"), "provider_context_length"),
        (fails(413, code="request_too_large"), "provider_context_length"),
        (
            fails(400, message="prompt is too long: 210000 tokens > 200000 maximum"),
            "provider_context_length",
        ),
        (
            fails(400, message="input length and `max_tokens` exceed context limit: 1 + 2 > 3"),
            "provider_context_length",
        ),
        (
            fails(400, message="This model's maximum context length is 4096 tokens."),
            "provider_context_length",
        ),
        (
            fails(
                400, message="The input token count exceeds the maximum number of tokens allowed"
            ),
            "provider_context_length",
        ),
        (fails(400, code="content_policy_violation"), "provider_content_policy"),
        (fails(400, code="content_filter"), "provider_content_policy"),
        (
            fails(400, message="Output blocked by content filtering policy"),
            "provider_content_policy",
        ),
        (
            fails(403, message="This model requires moderation, and your input was flagged."),
            "provider_content_policy",
        ),
        (fails(404), "model_not_found"),
        (fails(403, code="model_not_found"), "model_not_found"),
        (fails(400, message="nothing/at-all is not a valid model ID"), "model_not_found"),
        (fails(400), "provider_refused"),
        (fails(403), "provider_auth_failed"),
    ],
)
async def test_what_another_model_may_take_is_told_apart_and_blames_no_key(
    provider: Provider, vendors: VendorServer, step: Step, code: str
) -> None:
    vendors.script(RUN_ID, [step])

    failure = await failure_of(provider, a_request())

    assert (FailureClass.REFUSED, code) == (failure.kind, failure.code)
    assert failure.credential_bad is (code == "provider_auth_failed")


@pytest.mark.parametrize("status", [400, 429, 500, 503])
async def test_a_vendor_that_forbids_a_retry_refuses(
    provider: Provider, vendors: VendorServer, status: int
) -> None:
    vendors.script(RUN_ID, [fails(status, headers={"x-should-retry": "false"})])

    failure = await failure_of(provider, a_request())

    assert failure.kind is FailureClass.REFUSED


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("2", 2.0),
        ("0.5", 0.5),
        ("3600", 3600.0),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 0.0),
        ("99999999999", 30 * 86_400.0),
        ("-5", None),
        ("nan", None),
        ("soon", None),
        (None, None),
    ],
)
async def test_a_rate_limit_says_when_to_come_back(
    provider: Provider, vendors: VendorServer, given: str | None, expected: float | None
) -> None:
    vendors.script(RUN_ID, [fails(429, retry_after=given)])

    failure = await failure_of(provider, a_request())

    assert failure.kind is FailureClass.NOT_STARTED
    assert failure.code == "provider_rate_limited"
    assert failure.retry_after_s == expected


@pytest.mark.parametrize("field", ["code", "type"])
async def test_an_account_without_quota_is_refused_like_a_bad_key(
    provider: Provider, vendors: VendorServer, field: str
) -> None:
    said = b'{"error":{"message":"You exceeded your quota.","%b":"insufficient_quota"}}'
    step = replace(fails(429, retry_after="1"), body=said % field.encode())
    vendors.script(RUN_ID, [step])

    failure = await failure_of(provider, a_request())

    assert (FailureClass.REFUSED, "provider_quota_exhausted") == (failure.kind, failure.code)
    assert "You exceeded your quota." == failure.message
    assert failure.credential_bad


@pytest.mark.parametrize(
    ("retry_after", "kind"),
    [
        ("7", FailureClass.NOT_STARTED),
        ("garbage", FailureClass.SERVER_ERROR),
        (None, FailureClass.SERVER_ERROR),
    ],
)
async def test_an_unavailable_vendor_has_not_started_only_when_it_says_when(
    provider: Provider, vendors: VendorServer, retry_after: str | None, kind: FailureClass
) -> None:
    vendors.script(RUN_ID, [fails(503, retry_after=retry_after)])

    failure = await failure_of(provider, a_request())

    assert failure.kind is kind


@pytest.mark.parametrize(
    "model",
    [
        "mock-cut",
        "mock-cut-body",
        "mock-bad-json",
        "mock-bad-utf8",
        "mock-bad-gzip",
        "mock-empty",
        "mock-html",
        "mock-wrong-schema",
    ],
)
async def test_a_broken_answer_leaves_the_outcome_unknown(
    provider: Provider, vendors: VendorServer, model: str
) -> None:
    failure = await failure_of(provider, a_request(model))

    assert failure.kind is FailureClass.UNKNOWN
    assert failure.billed is Billed.UNKNOWN
    assert failure.provider_request_id == (None if model == "mock-cut" else "req_1")
    assert len(vendors.ledger) == 1


@pytest.mark.parametrize("model", ["mock-hang", "mock-drip"])
async def test_an_answer_that_takes_too_long_is_unknown_and_its_connection_closed(
    provider: Provider, vendors: VendorServer, model: str
) -> None:
    failure = await failure_of(provider, a_request(model, timeout_s=0.3))

    call = await vendors.called()
    await asyncio.wait_for(call.ended.wait(), 5)
    assert (failure.kind, failure.code) == (FailureClass.UNKNOWN, "provider_timeout")
    assert call.client_left
    assert len(vendors.ledger) == 1


async def test_cancelling_a_call_closes_its_connection(
    provider: Provider, vendors: VendorServer
) -> None:
    task = asyncio.create_task(provider.complete(a_request("mock-hang")))
    call = await vendors.called()

    task.cancel()

    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(task, 1)
    await asyncio.wait_for(call.ended.wait(), 5)
    assert call.client_left


async def test_a_released_call_is_answered(provider: Provider, vendors: VendorServer) -> None:
    task = asyncio.create_task(provider.complete(a_request("mock-hang")))
    await vendors.called()

    vendors.release()

    assert (await task).text.endswith("Say hello.")


@pytest.mark.parametrize("model", ["mock-huge", "mock-bomb"])
async def test_an_endless_answer_is_given_up_in_bounded_memory(
    provider: Provider, model: str
) -> None:
    gzip_bomb()  # the vendor's own memory, outside the measurement
    tracemalloc.start()

    failure = await failure_of(provider, a_request(model))

    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert failure.code == "provider_response_too_large"
    assert (failure.kind, failure.billed) == (FailureClass.UNKNOWN, Billed.UNKNOWN)
    assert peak_bytes < 5_000_000


async def test_an_endless_error_keeps_its_class(provider: Provider, vendors: VendorServer) -> None:
    headers = {"content-encoding": "gzip"}
    bomb = fails(500, headers=headers)
    vendors.script(RUN_ID, [replace(bomb, body=gzip_bomb())])

    failure = await failure_of(provider, a_request())

    assert failure.kind is FailureClass.SERVER_ERROR
    assert failure.message == "The provider answered with status 500."
    assert failure.provider_request_id == "req_1"


async def test_nul_in_an_answer_is_written_visibly(provider: Provider) -> None:
    completion = await provider.complete(a_request("mock-nul"))

    assert completion.text == "before\\u0000after"


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        ("mock-truncated", IncompleteReason.MAX_TOKENS),
        ("mock-filtered", IncompleteReason.CONTENT_FILTER),
    ],
)
async def test_a_cut_or_filtered_answer_says_so(
    provider: Provider, model: str, reason: IncompleteReason
) -> None:
    completion = await provider.complete(a_request(model))

    assert completion.incomplete is reason


async def test_the_key_is_never_part_of_an_error(provider: Provider, vendors: VendorServer) -> None:
    echo = f"Incorrect API key provided: {KEY}. \x00" + KEY * 500
    vendors.script(RUN_ID, [fails(401, message=echo)])

    failure = await failure_of(provider, a_request())

    assert failure.message.startswith("Incorrect API key provided: [key]. \\u0000[key]")
    assert len(failure.message) == 2000
    assert KEY not in failure.message
    assert failure.__context__ is None or failure.__suppress_context__
    assert KEY not in repr(a_request())


@pytest.mark.parametrize("body", [b"", b"\xff\xfe", b"[1]", b'{"error":7}', b'{"error":' * 5000])
async def test_an_error_without_words_still_has_a_message(
    provider: Provider, vendors: VendorServer, body: bytes
) -> None:
    vendors.script(RUN_ID, [replace(fails(500), body=body)])

    failure = await failure_of(provider, a_request())

    assert failure.kind is FailureClass.SERVER_ERROR
    assert failure.message != ""
    assert len(failure.message) <= 2000


async def test_a_strange_request_id_survives(provider: Provider, vendors: VendorServer) -> None:
    strange = {"x-request-id": "ü" * 300, "request-id": "ü" * 300}
    vendors.script(RUN_ID, [answers(headers=strange)])

    completion = await provider.complete(a_request())

    assert completion.provider_request_id is not None
    assert len(completion.provider_request_id) == 200


@pytest.mark.parametrize("schema", ["not json", "[1]", None])
async def test_a_schema_that_is_none_is_refused_unsent(
    provider: Provider, vendors: VendorServer, schema: str | None
) -> None:
    wanted = {"type": "json_schema", "name": "it", "schema": schema}

    failure = await failure_of(provider, a_request(response_format=wanted))

    assert (failure.kind, failure.code) == (FailureClass.REFUSED, "response_format_invalid")
    assert vendors.ledger == []


async def test_many_calls_run_at_once(provider: Provider, vendors: VendorServer) -> None:
    count = 150  # more than the hundred connections that a forgotten limit would allow

    tasks = [asyncio.create_task(provider.complete(a_request("mock-hang"))) for _ in range(count)]
    await vendors.called(count)
    vendors.release()

    assert count == len(await asyncio.gather(*tasks))


async def test_unset_parameters_are_not_sent(provider: Provider, vendors: VendorServer) -> None:
    request: CompletionRequest = a_request(params=ModelParams(), messages=(Message("user", "Hi."),))

    await provider.complete(request)

    assert {"model", "messages", "max_tokens"} >= set(vendors.ledger[0].body)
