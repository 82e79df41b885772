"""The one guarded client for every address a tenant can name."""

import asyncio
import os
import socket
import ssl
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from ipaddress import ip_address

import aiohttp
import msgspec
from aiohttp.abc import AbstractResolver, ResolveResult

from shared.domain import webhook_urls
from shared.domain.webhook_urls import Policy
from shared.settings import IpNetwork, Settings

READ_BYTES = 16 * 1024
KEPT_BYTES = 2 * 1024
MAX_CONNECTIONS = 1000
MAX_ADDRESSES = 8
RESOLVER_THREADS = 32

_KEPT_HEADERS = ("retry-after", "content-type")


class FailureReason(StrEnum):
    """Why no answer arrived."""

    DNS = "dns"
    BLOCKED_ADDRESS = "blocked_address"
    CONNECT = "connect"
    TLS = "tls"
    TIMEOUT = "timeout"
    RESET = "reset"
    PROTOCOL = "protocol"


class DeliveryFailure(Exception):  # noqa: N818 (an outcome to record, not a fault of ours)
    """No answer arrived.

    `message` may be shown to the tenant. `address`, the last one dialled or refused, may not where
    the reason is `blocked_address`: it would tell what our resolver knows of the inside.
    """

    def __init__(
        self, reason: FailureReason, message: str, *, address: str | None, duration_ms: int
    ) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.address = address
        self.duration_ms = duration_ms


class Response(msgspec.Struct, frozen=True):
    """An answer: its status decides. `excerpt` is at most 2 KiB of UTF-8 without U+0000.

    `headers` are `retry-after` and `content-type`, where sent. `complete` says whether the body
    ended; what comes after 16 KiB, or after the deadline, is not waited for.
    """

    status: int
    headers: Mapping[str, str]
    excerpt: str
    complete: bool
    duration_ms: int
    address: str | None


class GuardedClient:
    """Posts to tenants' URLs. One per process, made inside its event loop.

    An address is judged when a socket is made for it, whatever spelling, DNS answer or family led
    there (aiohttp asks no resolver about literal addresses). Redirects are not followed, proxy
    variables not read, cookies not kept, bodies not decompressed. Connections are kept.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        resolver: AbstractResolver | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._deadline_s = settings.webhook_timeout_s
        self._resolver = _BoundedResolver(resolver or ThreadResolver())
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                limit=MAX_CONNECTIONS,
                limit_per_host=0,  # one host may serve many endpoints; each has its own limit
                resolver=self._resolver,
                # A name is looked up for every dial, but once for all who dial it just then.
                ttl_dns_cache=0,
                socket_factory=_Guard(Policy.of(settings).allow_cidrs),
                ssl=tls or True,
            ),
            timeout=aiohttp.ClientTimeout(total=None, connect=settings.webhook_connect_timeout_s),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={"User-Agent": "Runlane-Webhooks/1", "Accept-Encoding": "identity"},
            response_class=_ResponseOfDial,
            trust_env=False,
            auto_decompress=False,
            read_bufsize=READ_BYTES,
        )

    async def post(self, url: str, *, headers: Mapping[str, str], body: bytes) -> Response:
        """Send once, within one deadline over look-up, connection, headers and body.

        Raises `DeliveryFailure` when no status arrived; a body that breaks off afterwards is only
        not complete. A kept connection that the receiver had closed meanwhile is replaced.
        """
        loop = asyncio.get_running_loop()
        started = loop.time()
        dial = _Dial()
        token = _dials.set(dial)
        try:
            async with asyncio.timeout_at(started + self._deadline_s):
                response = await self._send(url, headers, body, dial)
        except (aiohttp.ClientError, OSError, ValueError) as error:
            reason = _reason(error, dial)
            raise DeliveryFailure(
                reason,
                _message(reason, error),
                address=dial.address,
                duration_ms=_since_ms(started, loop),
            ) from error
        finally:
            _dials.reset(token)
        read, complete = await _read(response, started + self._deadline_s)
        return Response(
            status=response.status,
            headers={
                name: response.headers[name] for name in _KEPT_HEADERS if name in response.headers
            },
            excerpt=_excerpt(read, response.headers.get("content-encoding", "identity")),
            complete=complete,
            duration_ms=_since_ms(started, loop),
            address=dial.address,
        )

    async def aclose(self) -> None:
        """Close every connection."""
        await self._session.close()
        await self._resolver.close()

    async def _send(
        self, url: str, headers: Mapping[str, str], body: bytes, dial: "_Dial"
    ) -> aiohttp.ClientResponse:
        while True:
            try:
                return await self._session.post(
                    url, headers=headers, data=body, allow_redirects=False
                )
            except aiohttp.ClientConnectorError:
                raise
            except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError, ConnectionError):
                # Without a dial the connection was a kept one; each fails at most once.
                if dial.dialled:
                    raise


class ThreadResolver(AbstractResolver):
    """Asks the system's resolver, in threads of its own.

    The event loop's few threads serve everybody: a slow name server of one tenant would stop all.
    """

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(RESOLVER_THREADS, thread_name_prefix="dns")

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """Look a name up; raises `socket.gaierror`."""
        ask = partial(socket.getaddrinfo, host, port, family, socket.SOCK_STREAM)
        found = await asyncio.get_running_loop().run_in_executor(self._threads, ask)
        return [
            ResolveResult(
                hostname=host,
                host=str(sockaddr[0]),
                port=port,
                family=found_family,
                proto=proto,
                flags=socket.AI_NUMERICHOST,
            )
            for found_family, _, proto, _, sockaddr in found
        ]

    async def close(self) -> None:
        """Let the threads end; a look-up under way is not waited for."""
        self._threads.shutdown(wait=False, cancel_futures=True)


class _BoundedResolver(AbstractResolver):
    """Gives at most 8 addresses of a name: aiohttp tries them all, and all again after each."""

    def __init__(self, resolver: AbstractResolver) -> None:
        self._resolver = resolver

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        found = await self._resolver.resolve(host, port, family)
        if not found:
            raise socket.gaierror(socket.EAI_NONAME, "The name has no address.")
        return found[:MAX_ADDRESSES]

    async def close(self) -> None:
        await self._resolver.close()


@dataclass(slots=True)
class _Dial:
    """What one request learns of its connection. Tasks started for it see the same object."""

    address: str | None = None
    dialled: bool = False
    blocked: bool = False


_dials: ContextVar[_Dial] = ContextVar("_dials")


class _Guard:
    """Makes sockets, but only for addresses that may be reached."""

    def __init__(self, allow_cidrs: tuple[IpNetwork, ...]) -> None:
        self._allow_cidrs = allow_cidrs

    def __call__(self, addr_info: aiohttp.AddrInfoType) -> socket.socket:
        family, kind, proto, _, sockaddr = addr_info
        dial = _dials.get()
        dial.address = str(sockaddr[0])
        if not webhook_urls.address_allowed(ip_address(dial.address), self._allow_cidrs):
            dial.blocked = True
            raise OSError("The address may not be reached.")
        dial.dialled = True
        return socket.socket(family, kind, proto)


class _ResponseOfDial(aiohttp.ClientResponse):
    """Notes whose answer is awaited: of several addresses one won, or the connection was kept."""

    async def start(self, connection: aiohttp.connector.Connection) -> aiohttp.ClientResponse:
        peer = connection.transport and connection.transport.get_extra_info("peername")
        if peer:
            _dials.get().address = str(peer[0])
        return await super().start(connection)


async def _read(response: aiohttp.ClientResponse, ends: float) -> tuple[bytes, bool]:
    """Read up to 16 KiB until the moment given, and say whether that was all."""
    read = bytearray()
    try:
        async with asyncio.timeout_at(ends):
            while len(read) < READ_BYTES:
                chunk = await response.content.read(READ_BYTES - len(read))
                if not chunk:
                    return bytes(read), True
                read += chunk
    except (aiohttp.ClientError, OSError):
        pass  # The status has arrived, and it decides.
    finally:
        # A whole body has already given its connection back; what is left unread would come
        # before the next answer, so such a connection ends here.
        response.close()
    return bytes(read), False


def _excerpt(read: bytes, encoding: str) -> str:
    if encoding != "identity":
        return f"[{len(read)} bytes, encoded]"
    text = read[:KEPT_BYTES].decode(errors="replace").replace("\x00", "\\u0000")
    return text.encode()[:KEPT_BYTES].decode(errors="ignore")


def _reason(error: Exception, dial: _Dial) -> FailureReason:
    if dial.blocked and not dial.dialled:
        return FailureReason.BLOCKED_ADDRESS
    for kinds, reason in _REASONS:
        if isinstance(error, kinds):
            return reason
    return FailureReason.PROTOCOL


# The first that matches; aiohttp's errors of look-up and TLS are errors of connecting, too.
_REASONS: tuple[tuple[tuple[type[Exception], ...], FailureReason], ...] = (
    ((aiohttp.ClientConnectorDNSError,), FailureReason.DNS),
    ((aiohttp.ClientSSLError, ssl.SSLError), FailureReason.TLS),
    ((TimeoutError,), FailureReason.TIMEOUT),
    ((aiohttp.ClientConnectorError,), FailureReason.CONNECT),
    (
        (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError, ConnectionError),
        FailureReason.RESET,
    ),
)


def _message(reason: FailureReason, error: Exception) -> str:
    """Say what happened in words of our own: the library's repeat addresses."""
    match reason:
        case FailureReason.CONNECT:
            number = error.errno if isinstance(error, OSError) else None
            return f"Connecting failed: {os.strerror(number) if number else 'no address answered'}."
        case FailureReason.TLS:
            cause = getattr(error, "certificate_error", None) or error.__cause__ or error
            said = getattr(cause, "verify_message", None) or getattr(cause, "reason", None)
            return f"TLS failed: {said or 'the handshake broke off'}."
        case FailureReason.TIMEOUT:
            connecting = isinstance(error, aiohttp.ConnectionTimeoutError)
            return f"No {'connection' if connecting else 'answer'} in time."
        case FailureReason.PROTOCOL if isinstance(error, ValueError):
            return "The URL or a header cannot be sent."
        case _:
            return _MESSAGES[reason]


_MESSAGES = {
    FailureReason.DNS: "The host's name could not be looked up.",
    FailureReason.BLOCKED_ADDRESS: "The host's address may not be reached.",
    FailureReason.RESET: "The connection was closed before an answer.",
    FailureReason.PROTOCOL: "What came back is not HTTP.",
}


def _since_ms(started: float, loop: asyncio.AbstractEventLoop) -> int:
    return round((loop.time() - started) * 1000)
