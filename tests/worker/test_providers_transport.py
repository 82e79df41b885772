"""What happens below HTTP, and how waiting times are read."""

import asyncio
import json
import socket
import zlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.domain.completions import FailureClass
from shared.domain.states import Billed
from shared.settings import Settings
from tests.vendors import VendorServer, answers, raw
from tests.worker.provider_cases import HTTP_VENDORS, RUN_ID, a_request, failure_of, provider_at
from worker.providers import registry, wire

NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)


@pytest.fixture(params=HTTP_VENDORS)
def vendor(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@asynccontextmanager
async def mute_server() -> AsyncIterator[str]:
    """Accepts connections and says nothing. Yields host and port."""
    finished = asyncio.Event()

    async def hold(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await finished.wait()
        writer.close()

    server = await asyncio.start_server(hold, "127.0.0.1", 0)
    try:
        yield "127.0.0.1:{1}".format(*server.sockets[0].getsockname())
    finally:
        finished.set()
        server.close()
        await server.wait_closed()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


async def test_a_refused_connection_was_not_sent(vendor: str) -> None:
    async with provider_at(vendor, f"http://127.0.0.1:{free_port()}") as provider:
        failure = await failure_of(provider, a_request())

    assert (failure.kind, failure.billed) == (FailureClass.NOT_SENT, Billed.NO)
    assert failure.code == "provider_unreachable"
    assert "127.0.0.1" not in failure.message


async def test_a_name_that_does_not_resolve_was_not_sent(vendor: str) -> None:
    async with provider_at(vendor, "http://vendor.invalid") as provider:
        failure = await failure_of(provider, a_request())

    assert failure.kind is FailureClass.NOT_SENT
    assert failure.message == "The provider could not be reached: its name was not resolved."


async def test_failed_tls_was_not_sent(vendor: str) -> None:
    async with VendorServer() as plain_http:
        url = plain_http.url.replace("http:", "https:")
        async with provider_at(vendor, url) as provider:
            failure = await failure_of(provider, a_request())

    assert failure.kind is FailureClass.NOT_SENT
    assert failure.message == "The provider could not be reached: TLS failed."


@pytest.mark.parametrize(
    ("connect_timeout_s", "timeout_s"), [(0.1, 10.0), (10.0, 0.1)], ids=["connect", "total"]
)
async def test_a_handshake_that_never_ends_was_not_sent(
    vendor: str, connect_timeout_s: float, timeout_s: float
) -> None:
    async with (
        mute_server() as address,
        provider_at(vendor, f"https://{address}", connect_timeout_s=connect_timeout_s) as provider,
    ):
        failure = await failure_of(provider, a_request(timeout_s=timeout_s))

    assert failure.kind is FailureClass.NOT_SENT
    assert failure.message == "The provider could not be reached: connecting took too long."


async def test_an_address_that_is_none_was_not_sent(vendor: str) -> None:
    async with provider_at(vendor, "http://127.0.0.1:99999") as provider:
        failure = await failure_of(provider, a_request())

    assert failure.kind is FailureClass.NOT_SENT
    assert failure.message == "The provider could not be reached: its address is not valid."


async def test_a_silent_peer_after_the_send_is_unknown(vendor: str) -> None:
    async with (
        mute_server() as address,
        provider_at(vendor, f"http://{address}") as provider,
    ):
        failure = await failure_of(provider, a_request(timeout_s=0.1))

    assert (failure.kind, failure.code) == (FailureClass.UNKNOWN, "provider_timeout")


async def test_connections_are_used_again(vendor: str) -> None:
    async with VendorServer() as vendors, provider_at(vendor, vendors.url) as provider:
        for attempt in range(5):
            await provider.complete(a_request(attempt=attempt))

    assert len({call.peer for call in vendors.ledger}) == 1


async def test_a_compressed_answer_is_read(vendor: str) -> None:
    body = (
        b'{"choices":[{"message":{"content":"hi"}}],"content":[{"type":"text","text":"hi"}],'
        b'"stop_reason":null,"usage":{}}'
    )
    packer = zlib.compressobj(wbits=31)
    packed = packer.compress(body) + packer.flush()
    async with VendorServer() as vendors, provider_at(vendor, vendors.url) as provider:
        whole, cut = (raw(part, name="packed", encoding="gzip") for part in (packed, packed[:-10]))
        vendors.script(RUN_ID, [whole, cut, raw(body, name="odd", encoding="br")])

        completion = await provider.complete(a_request())
        incomplete = await failure_of(provider, a_request(attempt=2))
        unasked = await failure_of(provider, a_request(attempt=3))

    assert completion.text == "hi"
    assert vendors.ledger[0].headers["accept-encoding"] == "gzip"
    assert incomplete.message == "The compressed answer is incomplete."
    assert unasked.message == "The answer is compressed in a way nobody asked for."


async def test_no_cookie_is_kept(vendor: str) -> None:
    async with VendorServer() as vendors, provider_at(vendor, vendors.url) as provider:
        vendors.script(RUN_ID, [answers(headers={"set-cookie": "tenant=one"})])

        await provider.complete(a_request())
        await provider.complete(a_request(attempt=2))

    assert "cookie" not in vendors.ledger[1].headers


async def test_the_registry_knows_three_providers_and_closes_them() -> None:
    providers = registry.build(Settings())

    names = {name for name in ("openai", "anthropic", "sim", "other") if await providers.get(name)}
    await providers.aclose()

    assert names == {"openai", "anthropic", "sim"}


def test_a_date_is_counted_from_the_servers_own_clock() -> None:
    due = format_datetime(NOW + timedelta(hours=5), usegmt=True)
    server_now = format_datetime(NOW + timedelta(hours=4), usegmt=True)

    with_clock = wire.retry_after_s({"retry-after": due, "date": server_now}, NOW)
    without = wire.retry_after_s({"retry-after": due}, NOW)

    assert (with_clock, without) == (3600.0, 5 * 3600.0)


def test_milliseconds_win_over_seconds() -> None:
    assert wire.retry_after_s({"retry-after": "2", "retry-after-ms": "1500"}, NOW) == 1.5


@given(st.dictionaries(st.sampled_from(["retry-after", "retry-after-ms", "date"]), st.text()))
def test_any_header_gives_a_wait_that_can_be_kept_or_none(headers: dict[str, str]) -> None:
    wait_s = wire.retry_after_s(headers, NOW)

    assert wait_s is None or 0 <= wait_s <= wire.RETRY_AFTER_MAX_S


@given(st.text(), st.text(min_size=1))
def test_no_vendors_words_carry_nul_or_the_key(text: str, key: str) -> None:
    request = a_request(api_key=key)

    body = json.dumps({"error": {"message": text + key + text}}).encode()
    failure = wire.from_status(400, body, {}, request, NOW)

    assert "\x00" not in failure.message
    assert 0 < len(failure.message) <= wire.MESSAGE_MAX_CHARS
