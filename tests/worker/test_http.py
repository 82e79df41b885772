"""The guarded client: where it refuses to go, and what a hostile receiver can make it do."""

import asyncio
import gzip
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from ipaddress import ip_network
from pathlib import Path

import pytest
import uvloop
from aiohttp.abc import AbstractResolver, ResolveResult
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from shared.clock import SystemClock
from shared.settings import Settings
from worker.http import DeliveryFailure, FailureReason, GuardedClient, Response, ThreadResolver

DEV = Settings(dev_mode=True, webhook_timeout_s=5)
HASTY = Settings(dev_mode=True, webhook_timeout_s=0.3)
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"

Answer = Callable[[asyncio.StreamWriter], Awaitable[None]]


@dataclass
class Receiver:
    """A scripted server on loopback and all it was sent."""

    port: int = 0
    connections: int = 0
    requests: list[bytes] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hook"


@asynccontextmanager
async def receiver(answer: Answer, tls: ssl.SSLContext | None = None) -> AsyncIterator[Receiver]:
    """Serve `answer` after each request, on as many connections as come."""
    state, tasks = Receiver(), set[asyncio.Task[None]]()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        state.connections += 1
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            while not writer.is_closing():
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
                state.requests.append(head + await reader.readexactly(length))
                await answer(writer)

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(serve(reader, writer))
        tasks.add(task)
        task.add_done_callback(lambda _: writer.close())

    server = await asyncio.start_server(accept, "127.0.0.1", 0, ssl=tls)
    state.port = server.sockets[0].getsockname()[1]
    try:
        yield state
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await server.wait_closed()


@asynccontextmanager
async def client(
    settings: Settings = DEV,
    resolver: AbstractResolver | None = None,
    tls: ssl.SSLContext | None = None,
) -> AsyncIterator[GuardedClient]:
    guarded = GuardedClient(settings, resolver=resolver, tls=tls)
    try:
        yield guarded
    finally:
        await guarded.aclose()


class Names(AbstractResolver):
    """A resolver that gives each answer once, the last one for ever: addresses, or an error.

    Without any answer it never answers.
    """

    def __init__(self, *answers: Sequence[str] | OSError) -> None:
        self._answers = list(answers)
        self.asked = 0

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        self.asked += 1
        if not self._answers:
            await asyncio.Event().wait()
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        if isinstance(answer, OSError):
            raise answer
        return [
            ResolveResult(hostname=host, host=ip, port=port, family=family, proto=0, flags=0)
            for ip in answer
        ]

    async def close(self) -> None:
        pass


def answering(*pieces: bytes) -> Answer:
    async def answer(writer: asyncio.StreamWriter) -> None:
        for piece in pieces:
            writer.write(piece)
            await writer.drain()

    return answer


async def post(guarded: GuardedClient, url: str) -> Response:
    return await guarded.post(
        url, headers={"Content-Type": "application/json", "webhook-id": "evt"}, body=b'{"a":1}'
    )


async def failed(guarded: GuardedClient, url: str) -> DeliveryFailure:
    with pytest.raises(DeliveryFailure) as failure:
        await post(guarded, url)
    assert failure.value.duration_ms >= 0
    return failure.value


async def test_the_bytes_given_are_the_bytes_sent() -> None:
    async with receiver(answering(OK)) as target, client() as guarded:
        response = await post(guarded, target.url)

    head, _, body = target.requests[0].partition(b"\r\n\r\n")
    assert body == b'{"a":1}'
    assert b"webhook-id: evt" in head
    assert b"Accept-Encoding: identity" in head
    assert b"Cookie" not in head
    assert (
        response.status,
        response.excerpt,
        response.complete,
        response.address,
    ) == (200, "ok", True, "127.0.0.1")


async def test_loopback_is_refused_by_default_and_nothing_is_dialled() -> None:
    async with receiver(answering(OK)) as target, client(Settings()) as guarded:
        failure = await failed(guarded, target.url)

    assert (failure.reason, failure.address) == (FailureReason.BLOCKED_ADDRESS, "127.0.0.1")
    assert "127" not in failure.message
    assert target.connections == 0


async def test_loopback_is_reached_when_its_network_is_allowed() -> None:
    allowed = Settings(webhook_allow_cidrs=(ip_network("127.0.0.1/32"),))
    async with receiver(answering(OK)) as target, client(allowed) as guarded:
        assert (await post(guarded, target.url)).status == 200


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "127.1",
        "2130706433",
        "0x7f000001",
        "0x7f.1",
        "0177.0.0.1",
        "0",
        "0.0.0.0",  # noqa: S104 (refused here)
        "localhost",
        "①②⑦.⓪.⓪.①",
        "１２７.０.０.１",  # noqa: RUF001 (full-width digits)
        "[::1]",
        "[::]",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
        "[::127.0.0.1]",
        "[64:ff9b::7f00:1]",
        "169.254.169.254",
        "10.0.0.1",
        "100.64.0.1",
        "224.0.0.1",
        "[fe80::1]",
    ],
)
async def test_no_spelling_of_an_inner_address_is_dialled(host: str) -> None:
    async with receiver(answering(OK)) as target, client(Settings()) as guarded:
        failure = await failed(guarded, f"http://{host}:{target.port}/")

    # aiohttp itself refuses some spellings before any socket is made.
    assert failure.reason in {FailureReason.BLOCKED_ADDRESS, FailureReason.PROTOCOL}
    assert target.connections == 0


async def test_a_name_that_means_an_inner_address_is_refused() -> None:
    names = Names(["127.0.0.1"])
    async with receiver(answering(OK)) as target, client(Settings(), names) as guarded:
        failure = await failed(guarded, f"http://public.example:{target.port}/")

    assert (failure.reason, target.connections) == (FailureReason.BLOCKED_ADDRESS, 0)


async def test_a_name_that_changes_its_mind_is_judged_at_each_dial() -> None:
    closing = answering(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
    allowed = Settings(webhook_allow_cidrs=(ip_network("127.0.0.1/32"),))
    names = Names(["127.0.0.1"], ["169.254.169.254"])
    async with receiver(closing) as target, client(allowed, names) as guarded:
        url = f"http://rebinding.example:{target.port}/"
        first = await post(guarded, url)
        second = await failed(guarded, url)

    assert (first.status, second.reason) == (200, FailureReason.BLOCKED_ADDRESS)
    assert (names.asked, target.connections) == (2, 1)


async def test_of_several_addresses_only_the_allowed_are_dialled() -> None:
    names = Names(["10.0.0.1", "fe80::1", "127.0.0.1"])
    async with receiver(answering(OK)) as target, client(DEV, names) as guarded:
        response = await post(guarded, f"http://mixed.example:{target.port}/")

    assert response.address == "127.0.0.1"


async def test_a_name_with_thousands_of_addresses_is_refused_quickly() -> None:
    many = [f"10.{number // 250}.{number % 250}.1" for number in range(5000)]
    async with client(HASTY, Names(many)) as guarded:
        failure = await failed(guarded, "http://many.example/")

    assert failure.reason == FailureReason.BLOCKED_ADDRESS


async def test_requests_at_the_same_time_do_not_confuse_their_addresses() -> None:
    allowed = Settings(webhook_allow_cidrs=(ip_network("127.0.0.1/32"),))
    async with receiver(answering(OK)) as target, client(allowed, Names(["10.0.0.1"])) as guarded:
        refused = [failed(guarded, f"http://n{number}.example/") for number in range(20)]
        reached = [post(guarded, target.url) for _ in range(20)]
        failures, responses = await asyncio.gather(
            asyncio.gather(*refused), asyncio.gather(*reached)
        )

    assert {"10.0.0.1"} == {failure.address for failure in failures}
    assert {FailureReason.BLOCKED_ADDRESS} == {failure.reason for failure in failures}
    assert {"127.0.0.1"} == {response.address for response in responses}


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_is_an_answer_and_not_followed(status: int) -> None:
    async with receiver(answering(OK)) as inner:
        head = f"HTTP/1.1 {status} Go\r\nLocation: {inner.url}\r\nContent-Length: 0\r\n\r\n"
        async with receiver(answering(head.encode())) as target, client() as guarded:
            response = await post(guarded, target.url)

    assert (status, 0) == (response.status, inner.connections)


async def test_proxy_variables_are_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    async with receiver(answering(OK)) as proxy, receiver(answering(OK)) as target:
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
        async with client() as guarded:
            await post(guarded, target.url)

    assert (proxy.connections, target.connections) == (0, 1)


async def test_cookies_are_not_kept() -> None:
    cookie = b"HTTP/1.1 200 OK\r\nSet-Cookie: a=b\r\nContent-Length: 0\r\n\r\n"
    async with receiver(answering(cookie)) as target, client() as guarded:
        await post(guarded, target.url)
        await post(guarded, target.url)

    assert b"ookie" not in target.requests[1]


async def test_kept_headers_are_lower_case_and_few() -> None:
    busy = b"HTTP/1.1 503 Busy\r\nRetry-After: 7\r\nX-Other: 1\r\nContent-Length: 0\r\n\r\n"
    async with receiver(answering(busy)) as target, client() as guarded:
        response = await post(guarded, target.url)

    assert response.headers == {"retry-after": "7"}


async def test_connections_are_kept_between_deliveries() -> None:
    async with receiver(answering(OK)) as target, client() as guarded:
        responses = [await post(guarded, target.url) for _ in range(5)]

    assert (len(target.requests), target.connections) == (5, 1)
    assert {"127.0.0.1"} == {response.address for response in responses}


async def test_a_kept_connection_that_was_closed_is_replaced() -> None:
    answers = [answering(OK), answering(OK)]

    async def answer(writer: asyncio.StreamWriter) -> None:
        if len(target.requests) == 2:
            writer.transport.abort()
        else:
            await answers.pop()(writer)

    async with receiver(answer) as target, client() as guarded:
        first, second = await post(guarded, target.url), await post(guarded, target.url)

    assert (first.status, second.status) == (200, 200)
    assert (len(target.requests), target.connections) == (3, 2)


async def test_a_receiver_that_never_answers_meets_the_deadline() -> None:
    async def silent(writer: asyncio.StreamWriter) -> None:
        await asyncio.Event().wait()

    async with receiver(silent) as target, client(HASTY) as guarded:
        failure = await failed(guarded, target.url)

    assert (failure.reason, failure.address) == (FailureReason.TIMEOUT, "127.0.0.1")
    assert 250 <= failure.duration_ms < 2000


async def dripping(writer: asyncio.StreamWriter) -> None:
    """Send a byte of the body now and then, as often as anybody listens."""
    writer.write(b"HTTP/1.1 500 Oops\r\nContent-Length: 100000\r\n\r\n")
    await drip(writer, b"x")


async def drip(writer: asyncio.StreamWriter, piece: bytes) -> None:
    gone = asyncio.create_task(writer.wait_closed())
    try:
        while not gone.done():
            writer.write(piece)
            await asyncio.wait([gone], timeout=0.01)
    finally:
        gone.cancel()
        await asyncio.gather(gone, return_exceptions=True)


async def test_a_dripping_body_is_left_at_the_deadline_and_its_status_counts() -> None:
    async with receiver(dripping) as target, client(HASTY) as guarded:
        response = await post(guarded, target.url)

    assert (response.status, response.complete) == (500, False)
    assert set(response.excerpt) == {"x"}
    assert 250 <= response.duration_ms < 2000


async def test_dripping_headers_meet_the_deadline() -> None:
    async def answer(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nX-Slow: ")
        await drip(writer, b"x")

    async with receiver(answer) as target, client(HASTY) as guarded:
        assert (await failed(guarded, target.url)).reason == FailureReason.TIMEOUT


async def test_interim_answers_without_end_meet_a_limit() -> None:
    async def answer(writer: asyncio.StreamWriter) -> None:
        await drip(writer, b"HTTP/1.1 103 Early Hints\r\n\r\n")

    async with receiver(answer) as target, client(HASTY) as guarded:
        assert (await failed(guarded, target.url)).reason == FailureReason.TIMEOUT


async def test_a_look_up_that_hangs_meets_the_connect_timeout() -> None:
    hasty = Settings(dev_mode=True, webhook_connect_timeout_s=0.1)
    async with client(hasty, Names()) as guarded:
        failure = await failed(guarded, "http://hanging.example/")

    assert (failure.reason, failure.message) == (FailureReason.TIMEOUT, "No connection in time.")


async def test_ten_megabytes_are_not_read() -> None:
    sent = 0

    async def answer(writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 10000000\r\n\r\n")
        for _ in range(1000):
            writer.write(b"x" * 10_000)
            await writer.drain()
            sent += 10_000

    async with receiver(answer) as target, client() as guarded:
        response = await post(guarded, target.url)

    assert (response.status, response.excerpt, response.complete) == (200, "x" * 2048, False)
    assert sent < 10_000_000


async def test_a_compressed_body_is_not_unpacked() -> None:
    bomb = gzip.compress(bytes(10_000_000))
    head = f"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: {len(bomb)}\r\n\r\n"
    async with receiver(answering(head.encode() + bomb)) as target, client() as guarded:
        response = await post(guarded, target.url)

    assert (200, f"[{len(bomb)} bytes, encoded]") == (response.status, response.excerpt)


@pytest.mark.parametrize(
    ("body", "excerpt"),
    [
        (b"a\x00b", "a\\u0000b"),
        (b"\xff\xfe", "\ufffd\ufffd"),
        (b"", ""),
        (b"\xff" * 3000, "\ufffd" * (2048 // 3)),
        (b"\x00" * 3000, ("\\u0000" * 3000)[:2048]),
        ("é".encode() * 3000, "é" * 1024),
    ],
)
async def test_an_excerpt_can_always_be_stored(body: bytes, excerpt: str) -> None:
    head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    async with receiver(answering(head + body)) as target, client() as guarded:
        response = await post(guarded, target.url)

    assert excerpt == response.excerpt


async def test_a_body_that_breaks_off_leaves_the_status_standing() -> None:
    async def answer(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")
        await writer.drain()
        writer.close()

    async with receiver(answer) as target, client() as guarded:
        response = await post(guarded, target.url)

    assert (response.status, response.excerpt, response.complete) == (200, "half", False)


async def test_a_reset_is_reported_as_such() -> None:
    async def answer(writer: asyncio.StreamWriter) -> None:
        writer.transport.abort()

    async with receiver(answer) as target, client() as guarded:
        failure = await failed(guarded, target.url)

    assert (failure.reason, failure.address) == (FailureReason.RESET, "127.0.0.1")
    assert (len(target.requests), target.connections) == (1, 1)


async def test_a_closed_port_is_a_failure_to_connect() -> None:
    async with receiver(answering(OK)) as target:
        pass
    async with client() as guarded:
        failure = await failed(guarded, target.url)

    assert failure.reason == FailureReason.CONNECT
    assert failure.message == "Connecting failed: Connection refused."


@pytest.mark.parametrize("answer", [socket.gaierror(socket.EAI_NONAME, "unknown"), ()])
async def test_an_unknown_name_is_a_failure_of_dns(answer: Sequence[str] | OSError) -> None:
    async with client(DEV, Names(answer)) as guarded:
        failure = await failed(guarded, "http://unknown.example/")

    assert (failure.reason, failure.address) == (FailureReason.DNS, None)


@pytest.mark.parametrize(
    "answer",
    [
        b"SSH-2.0-OpenSSH\r\n\r\n",
        b"HTTP/1.1 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"x" * 100_000 + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 10_000 + b"\r\n",
    ],
)
async def test_what_is_not_http_is_a_failure_of_protocol(answer: bytes) -> None:
    async with receiver(answering(answer)) as target, client() as guarded:
        assert (await failed(guarded, target.url)).reason == FailureReason.PROTOCOL


async def test_headers_and_urls_that_cannot_be_sent_are_failures_not_crashes() -> None:
    async with receiver(answering(OK)) as target, client() as guarded:
        with pytest.raises(DeliveryFailure) as failure:
            await guarded.post(target.url, headers={"X": "a\r\nHost: b"}, body=b"")
        others = [await failed(guarded, url) for url in ("http://", "ftp://h/", "http://h:99999/")]

    assert {FailureReason.PROTOCOL} == {each.reason for each in (failure.value, *others)}
    assert target.requests == []


async def test_a_certificate_nobody_trusts_is_refused(tmp_path: Path) -> None:
    server, _ = a_certificate("receiver.example", tmp_path)
    names = Names(["127.0.0.1"])
    async with receiver(answering(OK), server) as target, client(DEV, names) as guarded:
        failure = await failed(guarded, f"https://receiver.example:{target.port}/")

    assert (
        failure.reason,
        failure.message,
    ) == (FailureReason.TLS, "TLS failed: self-signed certificate.")
    assert target.requests == []


async def test_a_certificate_for_another_name_is_refused(tmp_path: Path) -> None:
    server, trusting = a_certificate("receiver.example", tmp_path)
    names = Names(["127.0.0.1"])
    async with receiver(answering(OK), server) as target, client(DEV, names, trusting) as guarded:
        right = await post(guarded, f"https://receiver.example:{target.port}/")
        wrong = await failed(guarded, f"https://other.example:{target.port}/")

    assert (right.status, wrong.reason) == (200, FailureReason.TLS)
    assert "Hostname mismatch" in wrong.message


async def test_tls_to_a_port_without_it_is_a_failure_of_tls() -> None:
    async with receiver(answering(OK)) as target, client(HASTY) as guarded:
        url = target.url.replace("http://", "https://")
        failure = await failed(guarded, url)

    assert failure.reason in {FailureReason.TLS, FailureReason.CONNECT, FailureReason.TIMEOUT}
    assert target.requests == []


async def test_a_cancelled_post_leaves_nothing_behind() -> None:
    arrived = asyncio.Event()

    async def answer(writer: asyncio.StreamWriter) -> None:
        arrived.set()
        await asyncio.Event().wait()

    async with receiver(answer) as target, client() as guarded:
        task = asyncio.create_task(post(guarded, target.url))
        await asyncio.wait_for(arrived.wait(), 5)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


async def test_the_systems_resolver_knows_localhost() -> None:
    resolver = ThreadResolver()
    try:
        found = await resolver.resolve("localhost", 80, socket.AF_INET)
    finally:
        await resolver.close()

    assert "127.0.0.1" in {result["host"] for result in found}


def test_the_guard_holds_on_the_workers_own_event_loop() -> None:
    async def both() -> tuple[FailureReason, int]:
        async with receiver(answering(OK)) as target:
            async with client(Settings()) as guarded:
                refused = await failed(guarded, f"http://localhost:{target.port}/")
            async with client() as guarded:
                return refused.reason, (await post(guarded, target.url)).status

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        assert runner.run(both()) == (FailureReason.BLOCKED_ADDRESS, 200)


def a_certificate(name: str, folder: Path) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """Make a server's context with its own certificate, and a client's that trusts it."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = SystemClock().now()
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    path = folder / "certificate.pem"
    encoding = serialization.Encoding.PEM
    path.write_bytes(
        key.private_bytes(encoding, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        + certificate.public_bytes(encoding)
    )
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server.load_cert_chain(path)
    return server, ssl.create_default_context(cafile=str(path))
