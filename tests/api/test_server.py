"""The web server on loopback, met by slow, greedy and confused clients."""

import asyncio
import re
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest
from litestar.enums import ScopeType
from litestar.types import Receive, Scope, Send

from api.guard import Body, BodyRule, Guard
from api.server import WebServer

TIMEOUT_S = 0.25
PATIENCE_S = 3.0
MIB = 1_048_576
JSON = b"content-type: application/json\r\n"
HEAD = b"GET /echo HTTP/1.1\r\nhost: here\r\n"


class App:
    """Answers with what it saw; `/held` waits until it is released."""

    def __init__(self) -> None:
        self.arrived = asyncio.Event()
        self.release = asyncio.Event()
        self.cancelled = asyncio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] == ScopeType.HTTP
        body = b""
        while True:
            message: Any = await receive()
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        if scope["path"] == "/held":
            self.arrived.set()
            try:
                await self.release.wait()
            except asyncio.CancelledError:
                self.cancelled.set()
                raise
        answer = msgspec.json.encode(
            {"path": scope["path"], "body": len(body), "fields": len(list(scope["headers"]))}
        )
        length = str(len(answer)).encode()
        await send(
            {
                "type": "http.response.start",
                "status": 200,
                "headers": [(b"content-length", length)],
            }
        )
        await send({"type": "http.response.body", "body": answer, "more_body": False})


Client = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Site:
    """A running server with its application."""

    def __init__(self) -> None:
        self.app = App()
        self.server = WebServer(
            Guard(self.app, _rule_for), host="127.0.0.1", port=0, receive_timeout_s=TIMEOUT_S
        )

    @asynccontextmanager
    async def client(self) -> AsyncIterator[Client]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.server.port)
        try:
            yield reader, writer
        finally:
            writer.close()

    async def ask(self, *pieces: bytes) -> bytes:
        """Send, then read until the server closes."""
        async with self.client() as (reader, writer), asyncio.timeout(PATIENCE_S):
            for piece in pieces:
                writer.write(piece)
                await writer.drain()
            return await reader.read()


def _rule_for(method: str, path: str) -> BodyRule:
    if method == "POST" and path != "/ignored":
        return BodyRule(Body.REQUIRED, 1000)
    return BodyRule(Body.IGNORED)


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    site = Site()
    await site.server.start()
    yield site
    site.app.release.set()
    await site.server.stop(grace_s=0.5)


async def flood(writer: asyncio.StreamWriter, size: int) -> None:
    """Send one chunk of a body after another."""
    async with asyncio.timeout(PATIENCE_S):
        for _ in range(size // MIB):
            writer.write(b"100000\r\n" + b" " * MIB + b"\r\n")
            await writer.drain()


async def read_answer(reader: asyncio.StreamReader) -> tuple[int, dict[str, str], Any]:
    async with asyncio.timeout(PATIENCE_S):
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        fields = {
            name.lower(): value
            for name, _, value in (line.partition(": ") for line in head[1:] if line)
        }
        body = await reader.readexactly(int(fields["content-length"]))
    return int(head[0].split()[1]), fields, msgspec.json.decode(body)


async def _rest_of(reader: asyncio.StreamReader) -> bytes:
    try:
        return await reader.read()
    except ConnectionResetError:
        return b""


def statuses(answers: bytes) -> list[int]:
    return [int(status) for status in re.findall(rb"HTTP/1\.1 (\d{3}) ", answers)]


def assert_is_problem(answer: bytes, status: int, code: str) -> None:
    head, _, body = answer.partition(b"\r\n\r\n")
    fields = dict(line.split(b": ", 1) for line in head.split(b"\r\n")[1:])
    document = msgspec.json.decode(body)

    assert statuses(answer) == [status]
    assert fields[b"content-type"] == b"application/problem+json"
    assert (document["status"], document["code"]) == (status, code)
    assert fields[b"x-request-id"].decode() == document["requestId"]


async def test_the_port_asked_for_as_zero_is_known_after_the_start(site: Site) -> None:
    async with site.client() as (reader, writer):
        writer.write(HEAD + b"\r\n")

        status, fields, document = await read_answer(reader)

    assert (status, document["path"]) == (200, "/echo")
    assert {"date", "x-request-id"} <= fields.keys()


async def test_a_taken_port_is_an_os_error(site: Site) -> None:
    second = WebServer(
        site.app, host="127.0.0.1", port=site.server.port, receive_timeout_s=TIMEOUT_S
    )

    with pytest.raises(OSError, match="in use"):
        await second.start()


async def test_a_socket_bound_before_is_served() -> None:
    sock = socket.create_server(("127.0.0.1", 0))
    server = WebServer(App(), host="", port=0, receive_timeout_s=TIMEOUT_S, sock=sock)

    await server.start()

    assert server.port == sock.getsockname()[1]
    await server.stop(grace_s=0.1)


async def test_a_connection_serves_one_request_after_another(site: Site) -> None:
    async with site.client() as (reader, writer):
        for number in range(3):
            writer.write(b"GET /%d HTTP/1.1\r\nhost: here\r\n\r\n" % number)
            _, _, document = await read_answer(reader)
            assert document["path"] == f"/{number}"


async def test_pipelined_requests_are_answered_in_order(site: Site) -> None:
    async with site.client() as (reader, writer):
        writer.write(b"".join(b"GET /%d HTTP/1.1\r\nhost: here\r\n\r\n" % n for n in range(20)))

        paths = [(await read_answer(reader))[2]["path"] for _ in range(20)]

    assert paths == [f"/{n}" for n in range(20)]


@pytest.mark.parametrize(
    "sent",
    [
        HEAD,
        b"G",
        HEAD + b"x: " + b"y" * 500,
        b"POST /echo HTTP/1.1\r\ncontent-length: 10\r\ncontent-type: application/json\r\n\r\n{1234",
        b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n" + JSON + b"\r\n5\r\n{1234",
    ],
)
async def test_half_a_request_is_timed_out_and_closed(site: Site, sent: bytes) -> None:
    answer = await site.ask(sent)

    assert_is_problem(answer, 408, "request_timeout")


@pytest.mark.parametrize("sent", [b"", b"\r\n", b"\r\n\r\n\r\n"])
async def test_a_client_that_asks_nothing_is_closed(site: Site, sent: bytes) -> None:
    assert await site.ask(sent) == b""


async def test_a_head_that_drips_in_is_closed_in_the_same_time(site: Site) -> None:
    loop = asyncio.get_running_loop()
    async with site.client() as (reader, writer), asyncio.timeout(PATIENCE_S):
        began = loop.time()
        reading = asyncio.create_task(reader.read())
        for byte in HEAD * 100:
            if reading.done():
                break
            writer.write(bytes([byte]))
            await asyncio.wait([reading], timeout=0.02)
        answer = await reading

    assert_is_problem(answer, 408, "request_timeout")
    assert loop.time() - began < TIMEOUT_S * 3


async def test_time_spent_answering_does_not_count_as_slowness(site: Site) -> None:
    async with site.client() as (reader, writer):
        writer.write(b"GET /held HTTP/1.1\r\nhost: here\r\n\r\n")
        await asyncio.wait_for(site.app.arrived.wait(), PATIENCE_S)
        still_open = asyncio.create_task(read_answer(reader))
        await asyncio.wait([still_open], timeout=TIMEOUT_S * 2)
        site.app.release.set()

        status, _, _ = await still_open

    assert status == 200


async def test_an_idle_connection_is_kept_beyond_the_time_for_a_request(site: Site) -> None:
    async with site.client() as (reader, writer):
        writer.write(HEAD + b"\r\n")
        await read_answer(reader)
        closed = asyncio.create_task(reader.read())
        done, _ = await asyncio.wait([closed], timeout=TIMEOUT_S * 2)
        closed.cancel()

    assert done == set()


@pytest.mark.parametrize(
    ("head", "status", "code"),
    [
        (b"x: " + b"y" * 20_000 + b"\r\n", 431, "headers_too_large"),
        (b"".join(b"h%d: x\r\n" % n for n in range(64)), 431, "headers_too_large"),
        (b"x: " + b"y" * 5_000_000 + b"\r\n", 431, "headers_too_large"),
        (b"".join(b"h%d: x\r\n" % n for n in range(200_000)), 431, "headers_too_large"),
    ],
)
async def test_large_heads_are_refused(site: Site, head: bytes, status: int, code: str) -> None:
    async with site.client() as (reader, writer):
        writer.write(HEAD + head + b"\r\n")

        answered, fields, document = await read_answer(reader)

    assert (answered, document["code"]) == (status, code)
    assert fields["x-request-id"] == document["requestId"]


@pytest.mark.parametrize(
    ("target", "status"),
    [
        (b"/" + b"x" * 2047, 200),
        (b"/" + b"x" * 2048, 414),
        (b"/a?" + b"x" * 4096, 200),
        (b"/a?" + b"x" * 4097, 414),
        (b"/" + b"x" * 20_000, 414),
    ],
)
async def test_long_targets_are_refused(site: Site, target: bytes, status: int) -> None:
    async with site.client() as (reader, writer):
        writer.write(b"GET " + target + b" HTTP/1.1\r\nhost: here\r\n\r\n")

        assert (await read_answer(reader))[0] == status


@pytest.mark.parametrize(
    "request_",
    [
        b"GARBAGE\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00",
        b"GET /caf\xc3\xa9 HTTP/1.1\r\nhost: here\r\n\r\n",
        b"GET /echo HTTP/1.1\r\nx: a\x00b\r\n\r\n",
        b"CONNECT here:443 HTTP/1.1\r\nhost: here\r\n\r\n",
        b"POST /echo HTTP/1.1\r\ncontent-length: 3\r\ncontent-length: 4\r\n\r\nabcd",
        b"POST /echo HTTP/1.1\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\nabc",
        b"POST /echo HTTP/1.1\r\ncontent-length: -1\r\n\r\n",
        b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n" + JSON + b"\r\nxyz\r\n",
    ],
)
async def test_what_is_not_http_gets_a_problem_and_is_closed(site: Site, request_: bytes) -> None:
    answer = await site.ask(request_)

    assert_is_problem(answer, 400, "bad_request")


async def test_garbage_behind_a_request_does_not_spoil_its_answer(site: Site) -> None:
    answer = await site.ask(HEAD + b"\r\nGARBAGE\r\n\r\n")

    assert statuses(answer) == [200]


async def test_an_announced_body_over_the_limit_is_refused_before_it_is_sent(site: Site) -> None:
    async with site.client() as (reader, writer):
        writer.write(
            b"POST /echo HTTP/1.1\r\nhost: here\r\ncontent-type: application/json\r\n"
            b"content-length: 1001\r\n\r\n"
        )
        status, _, document = await read_answer(reader)
        writer.write(b" " * 1001 + HEAD + b"\r\n")
        following, _, _ = await read_answer(reader)

    assert (status, document["code"]) == (413, "too_large")
    assert following == 200


async def test_a_client_that_sends_all_before_it_reads_sees_the_refusal(site: Site) -> None:
    async with site.client() as (reader, writer):
        writer.write(
            b"POST /echo HTTP/1.1\r\nhost: here\r\ncontent-type: application/json\r\n"
            b"content-length: 8388609\r\n\r\n"
        )
        async with asyncio.timeout(PATIENCE_S):
            for _ in range(8):
                writer.write(b" " * MIB)
                await writer.drain()
        writer.write(b" ")

        assert (await read_answer(reader))[0] == 413


async def test_a_chunked_body_over_the_limit_is_refused_and_reading_stops(site: Site) -> None:
    async with site.client() as (reader, writer):
        writer.write(
            b"POST /echo HTTP/1.1\r\nhost: here\r\ncontent-type: application/json\r\n"
            b"transfer-encoding: chunked\r\n\r\n"
        )
        writer.write(b"400\r\n" + b" " * 1024 + b"\r\n")
        status, _, _ = await read_answer(reader)
        with pytest.raises(ConnectionError):
            await flood(writer, 200 * MIB)

    assert status == 413


async def test_a_refused_client_waiting_for_100_continue_is_closed(site: Site) -> None:
    answer = await site.ask(
        b"POST /echo HTTP/1.1\r\nhost: here\r\ncontent-type: application/json\r\n"
        b"content-length: 1001\r\nexpect: 100-continue\r\n\r\n"
    )

    assert_is_problem(answer, 413, "too_large")


async def test_a_body_waited_for_by_100_continue_is_asked_for(site: Site) -> None:
    async with site.client() as (reader, writer), asyncio.timeout(PATIENCE_S):
        writer.write(
            b"POST /echo HTTP/1.1\r\nhost: here\r\ncontent-type: application/json\r\n"
            b"content-length: 2\r\nexpect: 100-continue\r\n\r\n"
        )
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(b"{}")

        assert (await read_answer(reader))[0] == 200


@pytest.mark.parametrize("rest", [b"", b"xyz\r\n"])
async def test_an_answered_request_is_not_answered_twice(site: Site, rest: bytes) -> None:
    async with site.client() as (reader, writer), asyncio.timeout(PATIENCE_S):
        writer.write(
            b"POST /echo HTTP/1.1\r\ntransfer-encoding: chunked\r\ncontent-type: text/plain\r\n\r\n"
        )
        status, _, _ = await read_answer(reader)
        writer.write(rest)

        assert (status, await _rest_of(reader)) == (415, b"")


async def test_half_a_second_request_is_timed_out_after_the_first_was_answered(site: Site) -> None:
    answer = await site.ask(HEAD + b"\r\n" + HEAD)

    assert statuses(answer) == [200, 408]


async def test_trailers_never_become_headers(site: Site) -> None:
    async with site.client() as (reader, writer):
        writer.write(
            b"POST /echo HTTP/1.1\r\ncontent-type: application/json\r\n"
            b"transfer-encoding: chunked\r\ntrailer: authorization\r\n\r\n"
            b"2\r\n{}\r\n0\r\nauthorization: Bearer x\r\n\r\n"
        )

        _, _, document = await read_answer(reader)

    assert document["fields"] == 3


async def test_an_ignored_body_does_not_hurt_the_next_request(site: Site) -> None:
    async with site.client() as (reader, writer):
        writer.write(b"POST /ignored HTTP/1.1\r\ncontent-length: 100000\r\n\r\n" + b"x" * 100_000)
        first = await read_answer(reader)
        writer.write(HEAD + b"\r\n")
        second = await read_answer(reader)

    assert (first[0], first[2]["body"], second[0]) == (200, 0, 200)


UPGRADE = b"connection: upgrade, http2-settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABk\r\n"


async def test_an_offer_to_upgrade_is_ignored_but_ends_the_connection(site: Site) -> None:
    answer = await site.ask(HEAD + UPGRADE + b"\r\n" + HEAD + b"\r\n")

    assert statuses(answer) == [200]


async def test_a_body_behind_an_offer_to_upgrade_is_never_taken_for_a_request(site: Site) -> None:
    answer = await site.ask(
        b"POST /echo HTTP/1.1\r\ncontent-length: 33\r\n" + JSON + UPGRADE + b"\r\n",
        HEAD + b"\r\n",
    )

    assert_is_problem(answer, 400, "bad_request")


async def test_stopping_lets_a_request_finish_and_takes_no_new_one(site: Site) -> None:
    async with site.client() as (reader, writer), site.client() as (idle, _):
        writer.write(b"GET /held HTTP/1.1\r\nhost: here\r\n\r\n")
        await asyncio.wait_for(site.app.arrived.wait(), PATIENCE_S)

        stopping = asyncio.create_task(site.server.stop(grace_s=PATIENCE_S))
        assert await asyncio.wait_for(idle.read(), PATIENCE_S) == b""
        with pytest.raises(OSError, match="Connect"):
            await asyncio.open_connection("127.0.0.1", site.server.port)
        site.app.release.set()
        status, _, _ = await read_answer(reader)
        await asyncio.wait_for(stopping, PATIENCE_S)

    assert status == 200


async def test_stopping_cuts_off_what_outlasts_the_grace(site: Site) -> None:
    async with site.client() as (reader, writer):
        writer.write(b"GET /held HTTP/1.1\r\nhost: here\r\n\r\n")
        await asyncio.wait_for(site.app.arrived.wait(), PATIENCE_S)

        await asyncio.wait_for(site.server.stop(grace_s=0.05), PATIENCE_S)

        assert await reader.read() == b""
    assert site.app.cancelled.is_set()


async def test_waiting_ends_when_somebody_stops_the_server(site: Site) -> None:
    waiting = asyncio.create_task(site.server.wait())

    await site.server.stop(grace_s=0.1)

    await asyncio.wait_for(waiting, PATIENCE_S)
