"""The guard in front of everything: what is malformed or too large never reaches Litestar.

It gives every answer its request id, judges path, query and header fields, and reads the body
whole: within its limit, as strict JSON. How long head and body may take is the web server's part.
"""

import math
import re
import secrets
from collections.abc import Callable, Mapping
from enum import Enum, auto
from itertools import count
from typing import Any, Final, NamedTuple
from urllib.parse import unquote_to_bytes

from litestar.enums import ScopeType
from litestar.types import ASGIApp, Receive, Scope, Send
from litestar.types.asgi_types import Message, ReceiveMessage
from structlog.contextvars import bind_contextvars

from api import errors, strict_json
from shared.errors import (
    AppError,
    BadRequestError,
    HeadersTooLargeError,
    MethodNotAllowedError,
    NotFoundError,
    TooLargeError,
    UnsupportedMediaTypeError,
    UriTooLongError,
)
from shared.settings import Settings

PATH_MAX_BYTES: Final = 2048
QUERY_MAX_BYTES: Final = 4096
HEADERS_MAX_BYTES: Final = 16 * 1024  # names, values and four bytes around them
HEADERS_MAX_FIELDS: Final = 64
BATCH_MAX_NODES: Final = 100_000  # a thousand submissions, each far below the limit of one

ADDED: Final = "added"
"""In `scope["state"]`: header fields, as texts, that the answer gets whatever it is."""

_LENGTH_DIGITS = 15
_METHODS = {"Allow": "DELETE, GET, PATCH, POST, PUT"}
_REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,128}")
_PLAIN_PATH = re.compile(rb"(?:/[\w!$&'()*+,;=:@~-][\w.!$&'()*+,;=:@~-]*)*/?")
_BAD_ESCAPE = re.compile(rb"%(?![0-9A-Fa-f]{2})")
_NO_SEGMENT = re.compile("[\x00-\x1f\x7f-\x9f\\\\]|//|/\\.{1,2}(?:/|$)")
_JSON_TYPE = re.compile(rb'application/json\s*(?:;\s*charset\s*=\s*"?utf-8"?\s*)?;?', re.IGNORECASE)
_ONCE_ONLY = frozenset(
    {
        b"content-encoding",
        b"content-type",
        b"host",
        b"idempotency-key",
        b"if-match",
        b"if-none-match",
        b"traceparent",
        b"x-request-id",
    }
)
_PROCESS = secrets.token_hex(6)
_REQUESTS = count(1)


class Body(Enum):
    """What a route does with a body."""

    REQUIRED = auto()  # an empty one is refused by `StrictRequest`
    OPTIONAL = auto()  # an empty one counts as `{}`
    IGNORED = auto()  # not even read


class BodyRule(NamedTuple):
    """How the body of one route is to be treated."""

    presence: Body
    max_bytes: int = 0
    limits: strict_json.Limits = strict_json.DEFAULT_LIMITS


RuleFor = Callable[[str, str], BodyRule]  # method and path → rule

_NO_BODY: Final = BodyRule(Body.IGNORED)


def body_rules(settings: Settings) -> RuleFor:
    """Make the rules of our own routes; versions hold templates as large as a run's inputs."""
    ordinary = BodyRule(Body.REQUIRED, settings.body_max_bytes)
    optional = BodyRule(Body.OPTIONAL, settings.body_max_bytes)
    large = BodyRule(Body.REQUIRED, settings.run_body_max_bytes)
    batch = BodyRule(
        Body.REQUIRED, settings.batch_body_max_bytes, strict_json.Limits(nodes=BATCH_MAX_NODES)
    )
    posts = {
        "batch": batch,
        "runs": large,
        "inference": large,
        "preview": large,
        "versions": large,
        "cancel": _NO_BODY,
        **dict.fromkeys(
            ("enable", "publish", "replay", "resend", "rollback", "rotate-secret", "test"), optional
        ),
    }

    def rule_for(method: str, path: str) -> BodyRule:
        if method == "POST":
            return posts.get(path.removesuffix("/").rpartition("/")[2], ordinary)
        if method == "PUT" and path.removesuffix("/").split("/")[-2:-1] == ["versions"]:
            return large
        return ordinary if method in {"PUT", "PATCH"} else _NO_BODY

    return rule_for


def new_request_id() -> str:
    """Make an id that is unique among all requests of all processes, at next to no cost."""
    return f"{_PROCESS}-{next(_REQUESTS):x}"


class Guard:
    """ASGI middleware. Leaves in `scope["state"]`: `request_id`, and the decoded `document`."""

    def __init__(self, app: ASGIApp, rule_for: RuleFor) -> None:
        self._app = app
        self._rule_for = rule_for

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != ScopeType.HTTP:
            await self._app(scope, receive, send)
            return
        fields = scope["headers"]
        headers = dict(fields)
        request_id = _request_id(headers)
        state: dict[str, Any] = scope.setdefault("state", {})
        state["request_id"] = request_id
        state[ADDED] = ()
        bind_contextvars(request_id=request_id)
        answer = _Answer(send, state)
        try:
            _check_address(scope)
            _check_headers(fields, headers)
            rule = self._rule_for(scope["method"], scope["path"])
            body = await _body(headers, receive, rule)
            if body is None:
                return
            if body:
                state["document"] = strict_json.read(body, rule.limits)
            await self._app(scope, _Replay(body, receive), answer)
        except AppError as error:
            await answer.problem(error)
        except Exception as error:  # noqa: BLE001 (the outermost edge of a request)
            await answer.problem(errors.unexpected(error))


class _Answer:
    """The way out: adds the request id, and what was left to add, to whatever is answered."""

    def __init__(self, send: Send, state: Mapping[str, Any]) -> None:
        self._send = send
        self._state = state
        self._request_id: str = state["request_id"]
        self._started = False

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._started = True
            message["headers"] = [
                *message.get("headers", ()),
                (b"x-request-id", self._request_id.encode()),
                *[(name.lower().encode(), text.encode()) for name, text in self._state[ADDED]],
            ]
        await self._send(message)

    async def problem(self, error: AppError) -> None:
        """Answer with a problem, unless an answer is on its way already."""
        if not self._started:
            await errors.send_problem(self, error, self._request_id)


class _Replay:
    """Gives the application the body that was read, then only the client's going away."""

    def __init__(self, body: bytes, receive: Receive) -> None:
        self._body: bytes | None = body
        self._receive = receive

    async def __call__(self) -> ReceiveMessage:
        if self._body is not None:
            body, self._body = self._body, None
            return {"type": "http.request", "body": body, "more_body": False}
        while True:
            message = await self._receive()
            if message["type"] != "http.request":
                return message


def _request_id(headers: Mapping[bytes, bytes]) -> str:
    given = headers.get(b"x-request-id")
    if given is not None and _REQUEST_ID.fullmatch(given):
        return given.decode()
    return new_request_id()


def _check_address(scope: Any) -> None:
    raw_path: bytes = scope.get("raw_path") or scope["path"].encode(errors="surrogateescape")
    if len(raw_path) > PATH_MAX_BYTES:
        raise UriTooLongError(f"A path may have {PATH_MAX_BYTES:,} bytes.")
    if scope["method"] == "TRACE":
        raise MethodNotAllowedError("TRACE is not supported.", headers=_METHODS)
    if not _PLAIN_PATH.fullmatch(raw_path):
        _check_path(raw_path)
    if scope["query_string"]:
        _check_query(scope["query_string"])


def _check_path(raw: bytes) -> None:
    """Refuse whatever routers, proxies and file systems read in different ways."""
    try:
        path = unquote_to_bytes(raw).decode()
    except UnicodeDecodeError as error:
        raise NotFoundError from error
    if (
        not raw.startswith(b"/")
        or _BAD_ESCAPE.search(raw)
        or b"%2f" in raw.lower()
        or _NO_SEGMENT.search(path)
    ):
        raise NotFoundError


def _check_query(raw: bytes) -> None:
    if len(raw) > QUERY_MAX_BYTES:
        raise UriTooLongError(f"A query may have {QUERY_MAX_BYTES:,} bytes.")
    try:
        query = unquote_to_bytes(raw).decode()
    except UnicodeDecodeError as error:
        raise BadRequestError("The query is not UTF-8.") from error
    if not raw.isascii() or _BAD_ESCAPE.search(raw) or "\0" in query:
        raise BadRequestError("The query is not encoded correctly.")


def _check_headers(fields: Any, headers: Mapping[bytes, bytes]) -> None:
    if len(fields) > HEADERS_MAX_FIELDS:
        raise HeadersTooLargeError(f"A request may have {HEADERS_MAX_FIELDS} header fields.")
    if sum([len(name) + len(value) + 4 for name, value in fields]) > HEADERS_MAX_BYTES:
        raise HeadersTooLargeError(f"Header fields may have {HEADERS_MAX_BYTES:,} bytes in all.")
    if len(headers) == len(fields):
        return
    seen: set[bytes] = set()
    for name, _ in fields:
        if name in seen and name in _ONCE_ONLY:
            raise BadRequestError(f"The header {name.decode()} may be given once only.")
        seen.add(name)


async def _body(headers: Mapping[bytes, bytes], receive: Receive, rule: BodyRule) -> bytes | None:
    """Read the body a route is to see; `None` when the client left meanwhile.

    An empty one goes on: only the route knows whether there is anything to send it to.
    """
    if rule.presence is Body.IGNORED:
        return b""
    announced = headers.get(b"content-length")
    empty = announced == b"0" or (announced is None and b"transfer-encoding" not in headers)
    if not empty:
        _check_media_type(headers)
        if announced is not None and _number(announced) > rule.max_bytes:
            raise _too_large(rule.max_bytes)
    body = await _read(receive, rule.max_bytes)
    return b"{}" if body == b"" and rule.presence is Body.OPTIONAL else body


async def _read(receive: Receive, max_bytes: int) -> bytes | None:
    pieces: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return None
        piece = message.get("body", b"")
        size += len(piece)
        if size > max_bytes:
            raise _too_large(max_bytes)
        pieces.append(piece)
        if not message.get("more_body", False):
            return piece if len(pieces) == 1 else b"".join(pieces)


def _check_media_type(headers: Mapping[bytes, bytes]) -> None:
    media_type = headers.get(b"content-type", b"")
    if media_type != b"application/json" and not _JSON_TYPE.fullmatch(media_type):
        raise UnsupportedMediaTypeError("Send the body as Content-Type: application/json.")
    if b"content-encoding" in headers:
        raise UnsupportedMediaTypeError("Send the body without a Content-Encoding.")


def _too_large(max_bytes: int) -> TooLargeError:
    return TooLargeError(f"The body of this request may have {max_bytes:,} bytes.")


def _number(digits: bytes) -> float:
    return int(digits) if digits.isdigit() and len(digits) <= _LENGTH_DIGITS else math.inf
