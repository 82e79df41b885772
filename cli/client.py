"""The client of the API that all commands share: where it is, what is repeated, what is said.

CommandError          the command ends with `exit_code`, its text is for the person who typed it
├── UsageError 2       nobody said which server or which key
├── RefusedError 1     the server said no: status, code, pointers
└── UnreachableError 3 no Runlane answered in time
"""

import asyncio
import random
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, ClassVar, TypeVar
from urllib.parse import quote, urlencode, urlsplit

import aiohttp
import msgspec
import typer
from yarl import URL

from cli import dev_env

FIRST_PATIENCE_S = 1.5
"""How long a server that has not answered once is tried: nobody waits for a typing error."""
PATIENCE_S = 15.0
"""How long a server that did answer is tried."""
ANSWER_S = 30.0
CONNECT_S = 5.0
FIRST_WAIT_S = 0.2
LONGEST_WAIT_S = 5.0
PAGE = 100

_SAFE = frozenset({"GET", "PUT", "DELETE"})
_GATEWAYS = frozenset({HTTPStatus.BAD_GATEWAY, HTTPStatus.GATEWAY_TIMEOUT})

Result = TypeVar("Result")
Query = Mapping[str, str | Sequence[str] | None]


class CommandError(Exception):
    """The command cannot go on; the message is for a person."""

    exit_code: ClassVar[int] = 1


class UsageError(CommandError):
    """What was typed, or is set, will not do."""

    exit_code = 2


class UnreachableError(CommandError):
    """No Runlane answers."""

    exit_code = 3


class RefusedError(CommandError):
    """The server answered with an error. `flaws` are pairs of pointer and message."""

    def __init__(self, status: int, problem: Mapping[str, Any], url: str) -> None:
        self.status = status
        self.code = str(problem.get("code", ""))
        self.detail = str(problem.get("detail", f"The server answered {status}."))
        self.request_id = str(problem.get("requestId", ""))
        self.flaws = [
            (str(flaw.get("pointer", "")), str(flaw.get("message", "")))
            for flaw in problem.get("errors", ())
        ]
        super().__init__(_sentence(self, url))


@dataclass(frozen=True)
class Server:
    """Where the API is, and the key for it."""

    url: str
    key: str = field(repr=False)


@dataclass(frozen=True)
class Answer:
    """What came back: 2xx, or 304."""

    status: int
    document: Any
    headers: Mapping[str, str]


def run(
    url: str | None, key: str | None, work: Callable[["Client"], Coroutine[Any, Any, Result]]
) -> Result:
    """Do a command's work; an error ends the process with its sentence and its exit code."""
    try:
        return asyncio.run(_with_client(find_server(url, key), work))
    except CommandError as error:
        print(error, file=sys.stderr)
        raise typer.Exit(error.exit_code) from error


def find_server(url: str | None, key: str | None) -> Server:
    """Complete what was given with what a `runlane dev` here noted. Raises `UsageError`.

    The noted key goes to the noted address only.
    """
    if not url or not key:
        from shared.settings import Settings  # noqa: PLC0415 (half a second that few need)

        noted = dev_env.read(Settings().data_dir / "dev.env")
        url = url or noted.get("RUNLANE_URL")
        if url and not key and url.rstrip("/") == noted.get("RUNLANE_URL", "").rstrip("/"):
            key = noted.get("RUNLANE_API_KEY")
    if not url:
        raise UsageError("Which server? Set RUNLANE_URL, or start `runlane dev` in this folder.")
    if not key:
        raise UsageError(f"Set RUNLANE_API_KEY to a key of {url}.")
    if not key.isascii() or not key.isprintable():
        raise UsageError("RUNLANE_API_KEY holds characters that no key has.")
    address = complete(url)
    if not address or "?" in address or "#" in address:
        raise UsageError(f"{url!r} is no address: try http://localhost:8000.")
    return Server(address.rstrip("/"), key)


def complete(address: str) -> str | None:
    """Complete an address as it is used: `localhost:8000` will do; `None` for what is none."""
    full = address if "://" in address else f"http://{address}"
    try:
        parts = urlsplit(full)
        usable = parts.scheme in {"http", "https"} and parts.hostname and parts.port != 0
    except ValueError:
        return None
    return full if usable and full.isascii() and full.isprintable() else None


def path(*parts: str) -> str:
    """Put an address below `/api/v1` together; each part is quoted."""
    return "/api/v1/" + "/".join(quote(part, safe="") for part in parts)


class Client:
    """The API as the holder of a key uses it.

    Repeats what may be repeated: reading, PUT and DELETE, and a POST that has an idempotency key
    or is `repeatable` by itself. `on_trouble` is told why there is a wait.
    """

    def __init__(self, server: Server, session: aiohttp.ClientSession) -> None:
        self.url = server.url
        self.patience_s = PATIENCE_S
        self.on_trouble: Callable[[str], None] = lambda _: None
        self._session = session
        self._answered = False

    async def get(self, where: str, query: Query | None = None, *, wait_s: int = 0) -> Any:
        """Read; `wait_s` is how long the server was asked to take."""
        return (await self.call("GET", where, query=query, wait_s=wait_s)).document

    async def post(
        self, where: str, body: Any = None, *, key: str | None = None, repeatable: bool = False
    ) -> Any:
        """Create or do something; `body` is written as JSON."""
        content = None if body is None else msgspec.json.encode(body)
        answer = await self.call("POST", where, body=content, key=key, repeatable=repeatable)
        return answer.document

    async def pages(self, where: str, query: Query, limit: int | None) -> AsyncIterator[list[Any]]:
        """The rows of a list, page by page, at most `limit` of them."""
        left, after = limit, None
        while left is None or left > 0:
            size = PAGE if left is None else min(PAGE, left)
            page = await self.get(where, {**query, "limit": str(size), "after": after})
            yield page["data"]
            if not page["hasMore"]:
                return
            after = page["nextCursor"]
            left = None if left is None else left - len(page["data"])

    async def call(  # noqa: PLR0913 (what a request is made of)
        self,
        method: str,
        where: str,
        *,
        query: Query | None = None,
        body: bytes | None = None,
        key: str | None = None,
        headers: Mapping[str, str] | None = None,
        repeatable: bool = False,
        wait_s: int = 0,
    ) -> Answer:
        """Ask until there is an answer. Raises `RefusedError`, `UnreachableError`.

        `where` is of `path`.
        """
        sent = {"Idempotency-Key": key} if key is not None else {}
        sent |= headers or {}
        if body is not None:
            sent["Content-Type"] = "application/json"
        target = URL(f"{self.url}{where}{_query(query)}", encoded=True)
        timeout = aiohttp.ClientTimeout(total=ANSWER_S + wait_s, connect=CONNECT_S)
        safe = repeatable or method in _SAFE or key is not None
        asking = _Asking(self, safe=safe)
        while True:
            try:
                async with self._session.request(
                    method, target, data=body, headers=sent, timeout=timeout, allow_redirects=False
                ) as response:
                    content = await response.read()
            except (aiohttp.ClientError, TimeoutError) as error:
                await asking.failed(error)
                continue
            self._answered = True
            answer = Answer(response.status, None, response.headers)
            if not await asking.is_to_repeat(answer, content):
                return self._read(answer, content)

    def patience(self) -> float:
        """How many seconds a call is repeated for."""
        return self.patience_s if self._answered else min(FIRST_PATIENCE_S, self.patience_s)

    def _read(self, answer: Answer, content: bytes) -> Answer:
        good = answer.status < HTTPStatus.MULTIPLE_CHOICES
        if (good and not content) or answer.status == HTTPStatus.NOT_MODIFIED:
            return answer
        try:
            document = msgspec.json.decode(content)
        except msgspec.DecodeError:
            document = None
        if good and document is not None:
            return Answer(answer.status, document, answer.headers)
        if not isinstance(document, dict) or "code" not in document:
            raise UnreachableError(
                f"What answers at {self.url} is no Runlane ({answer.status}): check RUNLANE_URL."
            )
        raise RefusedError(answer.status, document, self.url)


class _Asking:
    """One call's tries and the waits between them."""

    def __init__(self, client: Client, *, safe: bool) -> None:
        self._client = client
        self._safe = safe
        self._wait_s = FIRST_WAIT_S
        self._began_s = asyncio.get_running_loop().time()

    async def failed(self, error: Exception) -> None:
        """Wait before the next try, or raise `UnreachableError`."""
        text = f"No Runlane answers at {self._client.url} ({reason(error)})"
        unsent = isinstance(error, aiohttp.ClientConnectorError)
        if not (self._safe or unsent):
            raise UnreachableError(
                f"{text}. What was asked may have been done: look before you repeat it."
            ) from error
        if not await self._pause(0, text):
            raise UnreachableError(
                f"{text}. Is it running? RUNLANE_URL or --url says where."
            ) from error

    async def is_to_repeat(self, answer: Answer, content: bytes) -> bool:
        """Wait, where the same request may get a better answer later."""
        after_s = _seconds(answer.headers.get("Retry-After"))
        match answer.status:
            case HTTPStatus.TOO_MANY_REQUESTS:
                hopeful = True
            case HTTPStatus.SERVICE_UNAVAILABLE | HTTPStatus.CONFLICT:
                hopeful = self._safe and after_s is not None
            case HTTPStatus.INTERNAL_SERVER_ERROR:
                hopeful = self._safe and b'"outcome_unknown"' in content
            case status:
                hopeful = self._safe and status in _GATEWAYS
        text = f"{self._client.url} answers {answer.status}"
        return hopeful and await self._pause(after_s or 0, text)

    async def _pause(self, at_least_s: float, text: str) -> bool:
        loop = asyncio.get_running_loop()
        wait_s = max(at_least_s, random.uniform(self._wait_s / 2, self._wait_s))  # noqa: S311 (jitter)
        if loop.time() + wait_s > self._began_s + self._client.patience():
            return False
        self._wait_s = min(self._wait_s * 2, LONGEST_WAIT_S)
        self._client.on_trouble(text)
        await asyncio.sleep(wait_s)
        return True


def reason(error: Exception) -> str:
    """Say in a few words why there was no answer."""
    match error:
        case TimeoutError():
            return "no answer in time"
        case aiohttp.ClientConnectorDNSError():
            return "no such host"
        case aiohttp.ClientConnectorError() if isinstance(error.os_error, ConnectionRefusedError):
            return "connection refused, nothing listens there"
        case aiohttp.ServerDisconnectedError():
            return "connection closed without an answer"
        case _:
            return str(error) or type(error).__name__


async def _with_client(
    server: Server, work: Callable[[Client], Coroutine[Any, Any, Result]]
) -> Result:
    headers = {"Authorization": f"Bearer {server.key}", "User-Agent": "runlane"}
    async with aiohttp.ClientSession(headers=headers) as session:
        return await work(Client(server, session))


def _sentence(error: RefusedError, url: str) -> str:
    known = ", ".join(one for one in (error.code, f"request {error.request_id}") if one)
    if error.status == HTTPStatus.UNAUTHORIZED:
        return (
            f"{url} does not accept the key in RUNLANE_API_KEY: it is wrong, expired, revoked,"
            f" or of another server ({known})."
        )
    lines = [f"{error.detail} ({known})"]
    lines += [
        f"  {pointer}: {message}"
        for pointer, message in error.flaws
        if pointer and message.rstrip(".") not in error.detail
    ]
    return "\n".join(lines)


def _query(query: Query | None) -> str:
    given = {name: value for name, value in (query or {}).items() if value is not None}
    return f"?{urlencode(given, doseq=True)}" if given else ""


def _seconds(text: str | None) -> float | None:
    """The seconds of `Retry-After`; a date, which Runlane never sends, counts as none."""
    return float(text) if text is not None and text.isascii() and text.isdigit() else None
