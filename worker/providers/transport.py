"""The way to the vendors: plain aiohttp, bounded, and exact about what was sent.

The SDKs' own transports read answers of any length and report a reset after the send like a refused
connection; whether a call may have been billed hangs on that difference. They also cost three times
as much. So the SDKs give addresses, headers and authentication, and this sends.
"""

import asyncio
import socket
import sys
import zlib
from collections.abc import Mapping

import aiohttp
import msgspec

from shared.domain.completions import FailureClass, ProviderError
from shared.domain.states import Billed
from worker.providers import wire

ERROR_MAX_BYTES = 64 * 1024
_KEEPALIVE_S = 15.0  # below the vendors' idle limits: a connection they closed would cost a call
_CONNECT_SHARE = 0.9  # of the whole time, so that "not connected" is never taken for "no answer"
_EITHER_GZIP_OR_ZLIB = 47
_FIRST_ERROR_STATUS = 300
_KEPT_HEADERS = (
    "x-request-id",
    "request-id",
    "retry-after",
    "retry-after-ms",
    "x-should-retry",
    "date",
)
_BAD_ADDRESS = (aiohttp.InvalidURL, aiohttp.NonHttpUrlClientError)
_NOT_SENT = (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError, *_BAD_ADDRESS)


class Answer(msgspec.Struct, frozen=True):
    """What came back, whatever its status; of the headers only those that mean something to us."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def is_error(self) -> bool:
        return self.status >= _FIRST_ERROR_STATUS


class HttpClient:
    """Sends calls. Every failure to get an answer is a `ProviderError`.

    No redirects, no cookies, no proxies from the environment. Bodies arrive decompressed.
    """

    def __init__(
        self, *, connections: int, connect_timeout_s: float, response_max_bytes: int
    ) -> None:
        self._connections = connections
        self._connect_timeout_s = connect_timeout_s
        self._response_max_bytes = response_max_bytes
        self._session: aiohttp.ClientSession | None = None

    async def post(
        self, url: str, *, headers: Mapping[str, str], body: bytes, timeout_s: float
    ) -> Answer:
        """Send once and read the whole answer, whatever its status is."""
        seen: list[str | None] = [None]
        try:
            async with asyncio.timeout(timeout_s):
                response = await self._open(url, headers, body, timeout_s)
                return await self._answer(response, seen)
        except TimeoutError:
            failure = wire.unknown("provider_timeout", f"No answer came within {timeout_s:g} s.")
        except (aiohttp.ClientError, OSError):
            failure = wire.unknown(
                "provider_connection_lost", "The connection broke before the answer was complete."
            )
        failure.provider_request_id = seen[0]
        raise failure

    async def aclose(self) -> None:
        if self._session is not None:
            await self._session.close()

    async def _open(
        self, url: str, headers: Mapping[str, str], body: bytes, timeout_s: float
    ) -> aiohttp.ClientResponse:
        connect_s = min(self._connect_timeout_s, timeout_s * _CONNECT_SHARE)
        try:
            return await self._connected().post(
                url,
                data=body,
                headers=headers,
                allow_redirects=False,
                timeout=aiohttp.ClientTimeout(total=None, connect=connect_s),
            )
        except _NOT_SENT as error:
            raise ProviderError(
                FailureClass.NOT_SENT,
                code="provider_unreachable",
                message=f"The provider could not be reached: {_why(error)}.",
                billed=Billed.NO,
            ) from None  # its text names hosts

    async def _answer(self, response: aiohttp.ClientResponse, seen: list[str | None]) -> Answer:
        """Read what came; of errors only the beginning. `seen` learns the vendor's name for it."""
        kept = {
            name: response.headers[name].encode("ascii", "replace").decode()
            for name in _KEPT_HEADERS
            if name in response.headers
        }
        seen[0] = wire.request_id(response.headers)
        try:
            if response.status < _FIRST_ERROR_STATUS:
                body = await _read(response, self._response_max_bytes)
            else:
                body = await _read_error(response)
        except BaseException as error:
            response.close()
            if isinstance(error, ProviderError):
                error.provider_request_id = seen[0]
            raise
        return Answer(response.status, kept, body)

    def _connected(self) -> aiohttp.ClientSession:
        if self._session is None:  # a session wants a running loop
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(
                    limit=self._connections,
                    keepalive_timeout=_KEEPALIVE_S,
                    socket_factory=_kept_alive,
                ),
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
                trust_env=False,
            )
        return self._session


async def _read(response: aiohttp.ClientResponse, max_bytes: int) -> bytes:
    """Read a body, decompressed on the way, and give up at the first byte beyond the limit."""
    encoding = response.headers.get("content-encoding", "identity").lower()
    if encoding not in {"identity", "gzip", "deflate"}:
        raise wire.broken("The answer is compressed in a way nobody asked for.")
    unpacker = None if encoding == "identity" else zlib.decompressobj(_EITHER_GZIP_OR_ZLIB)
    parts: list[bytes] = []
    room = max_bytes
    async for chunk in response.content.iter_any():
        try:
            part = unpacker.decompress(chunk, room + 1) if unpacker else chunk
        except zlib.error:
            raise wire.broken("The answer cannot be decompressed.") from None
        room -= len(part)
        if room < 0:
            raise wire.unknown(
                "provider_response_too_large", f"The answer is longer than {max_bytes} bytes."
            )
        parts.append(part)
    if unpacker is not None and not unpacker.eof:
        raise wire.broken("The compressed answer is incomplete.")
    return b"".join(parts)


async def _read_error(response: aiohttp.ClientResponse) -> bytes:
    """Read what an error says, as far as it can be had: its status already tells the outcome."""
    try:
        return await _read(response, ERROR_MAX_BYTES)
    except (ProviderError, aiohttp.ClientError, OSError):
        response.close()
        return b""


def _kept_alive(address: aiohttp.AddrInfoType) -> socket.socket:
    """A long answer is silent for minutes: keep the way open and notice a peer that is gone."""
    family, kind, protocol, _, _ = address
    connection = socket.socket(family, kind, protocol)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    if sys.platform == "linux":
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 60)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 15)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 4)
    return connection


def _why(error: Exception) -> str:
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return "its name was not resolved"
    if isinstance(error, aiohttp.ConnectionTimeoutError):
        return "connecting took too long"
    if isinstance(error, aiohttp.ClientSSLError):
        return "TLS failed"
    if isinstance(error, _BAD_ADDRESS):
        return "its address is not valid"
    return "it does not accept connections"
