"""The guard, called in-process with the rows of bad input that concern the edge."""

import asyncio
from collections.abc import Iterable
from typing import Any

import msgspec
import pytest
import structlog
from litestar.enums import ScopeType
from litestar.types import Receive, Scope, Send
from structlog.contextvars import get_contextvars

from api.guard import Body, Guard, body_rules
from shared.settings import Settings

SETTINGS = Settings(body_max_bytes=1000, run_body_max_bytes=2000, batch_body_max_bytes=4000)
RUNS = "/api/v1/prompts/greeting/production/runs"
JSON = (b"content-type", b"application/json")


class Seen:
    """The application behind the guard: remembers what reached it."""

    def __init__(self, failure: Exception | None = None) -> None:
        self.bodies: list[bytes] = []
        self.states: list[dict[str, Any]] = []
        self.log_fields: dict[str, Any] = {}
        self.after_body: Any = None
        self._failure = failure

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] == ScopeType.HTTP
        if self._failure is not None:
            raise self._failure
        message: Any = await receive()
        self.bodies.append(message["body"])
        self.states.append(dict(scope["state"]))
        self.log_fields = get_contextvars()
        self.after_body = (await receive())["type"]
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"{}", "more_body": False})


class Answer:
    """What the guard sent back."""

    def __init__(self) -> None:
        self.status = 0
        self.fields: dict[bytes, bytes] = {}
        self.body = b""

    async def __call__(self, message: Any) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self.fields = dict(message["headers"])
        else:
            self.body += message["body"]

    @property
    def problem(self) -> Any:
        return msgspec.json.decode(self.body)


async def ask(
    app: Seen,
    target: bytes = RUNS.encode(),
    *,
    method: str = "POST",
    body: bytes | Iterable[bytes] = b"{}",
    headers: Iterable[tuple[bytes, bytes]] = (JSON,),
    announce: bool = True,
) -> Answer:
    """Send one request through the guard; a body given in pieces arrives in pieces."""
    path, _, query = target.partition(b"?")
    pieces = [body] if isinstance(body, bytes) else list(body)
    fields = list(headers)
    if announce and isinstance(body, bytes) and body:
        fields.append((b"content-length", str(len(body)).encode()))
    elif body:
        fields.append((b"transfer-encoding", b"chunked"))
    messages: list[Any] = [
        {"type": "http.request", "body": piece, "more_body": number < len(pieces)}
        for number, piece in enumerate(pieces, start=1)
    ]
    scope: Any = {
        "type": "http",
        "method": method,
        "path": path.decode("latin-1"),
        "raw_path": path,
        "query_string": query,
        "headers": fields,
    }

    async def receive() -> Any:
        return messages.pop(0) if messages else {"type": "http.disconnect"}

    answer = Answer()
    await Guard(app, body_rules(SETTINGS))(scope, receive, answer)
    return answer


def assert_is_problem(answer: Answer, status: int) -> None:
    problem = answer.problem

    assert (answer.status, problem["status"]) == (status, status)
    assert answer.fields[b"content-type"] == b"application/problem+json"
    assert answer.fields[b"x-request-id"].decode() == problem["requestId"]
    assert problem["error"] == problem["detail"]


async def test_a_good_request_reaches_the_application_unchanged() -> None:
    app = Seen()
    body = b'{"inputs": {"name": "Ada"}}'

    answer = await ask(app, body=body)

    assert (answer.status, app.bodies) == (200, [body])
    assert app.states[0]["document"] == {"inputs": {"name": "Ada"}}
    assert app.after_body == "http.disconnect"


@pytest.mark.parametrize("given", [b"a", b"A-z_0.9", b"x" * 128])
async def test_a_sane_request_id_of_the_client_is_kept_everywhere(given: bytes) -> None:
    app = Seen()

    answer = await ask(app, headers=[JSON, (b"x-request-id", given)])

    assert answer.fields[b"x-request-id"] == given
    assert app.states[0]["request_id"] == given.decode()
    assert app.log_fields["request_id"] == given.decode()


@pytest.mark.parametrize("given", [b"", b"x" * 129, b"a b", b"a\r\nb", b"\xff", b"<script>"])
async def test_any_other_request_id_is_replaced(given: bytes) -> None:
    answers = [await ask(Seen(), headers=[JSON, (b"x-request-id", given)]) for _ in range(2)]

    ids = {answer.fields[b"x-request-id"] for answer in answers}
    assert len(ids) == 2
    assert given not in ids


@pytest.mark.parametrize(
    "path",
    [
        b"/api/v1/runs/%00",
        b"/api/v1/runs/..%2f..%2fkeys",
        b"/api/v1/runs/..%2F",
        b"/api/v1/%2e%2e/keys",
        b"/api/v1/../keys",
        b"/api/./v1",
        b"/..",
        b"//api/v1/runs",
        b"/api//v1",
        b"/api/v1/runs//",
        b"/api/v1/runs/%ff",
        b"/api/v1/runs/%c0%af",
        b"/api/v1/runs/%ed%a0%80",
        b"/api/v1/runs/%zz",
        b"/api/v1/runs/%",
        b"/api/v1/runs/%0d%0ax",
        b"/api/v1/runs/a%5cb",
        b"/api/v1/runs/a\\b",
        b"/api/v1/runs/%c2%85",
        b"/api/v1/runs/\xff",
        b"*",
    ],
)
async def test_paths_that_are_read_in_different_ways_lead_nowhere(path: bytes) -> None:
    app = Seen()

    answer = await ask(app, path, method="GET", body=b"")

    assert_is_problem(answer, 404)
    assert app.bodies == []


@pytest.mark.parametrize(
    "path",
    [
        b"/",
        b"/api/v1/runs/",
        b"/.well-known/security.txt",
        b"/a...b/...",
        b"/caf%C3%A9",
        b"/latest%20",
        b"/a:b@c,d;e=f+g(h)!$&'*~",
    ],
)
async def test_ordinary_paths_pass(path: bytes) -> None:
    assert (await ask(Seen(), path, method="GET", body=b"")).status == 200


@pytest.mark.parametrize(
    ("target", "status"),
    [
        (b"/" + b"x" * 2047, 200),
        (b"/" + b"x" * 2048, 414),
        (b"/?" + b"x" * 4096, 200),
        (b"/?" + b"x" * 4097, 414),
        (b"/?a=%zz", 400),
        (b"/?a=%f", 400),
        (b"/?a=%ff", 400),
        (b"/?a=%ed%a0%80", 400),
        (b"/?a=%00", 400),
        (b"/?a=\xc3\xa9", 400),
        (b"/?a=%C3%A9&b=1+2", 200),
    ],
)
async def test_targets_are_short_and_well_encoded(target: bytes, status: int) -> None:
    answer = await ask(Seen(), target, method="GET", body=b"")

    assert answer.status == status


async def test_trace_is_never_allowed() -> None:
    answer = await ask(Seen(), method="TRACE", body=b"")

    assert_is_problem(answer, 405)
    assert answer.fields[b"allow"] == b"DELETE, GET, PATCH, POST, PUT"


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ([(b"h%d" % n, b"x") for n in range(64)], 200),
        ([(b"h%d" % n, b"x") for n in range(65)], 431),
        ([(b"same", b"x") for _ in range(65)], 431),
        ([(b"x", b"y" * 16_379)], 200),
        ([(b"x", b"y" * 16_380)], 431),
    ],
)
async def test_header_fields_are_counted_and_measured(
    fields: list[tuple[bytes, bytes]], status: int
) -> None:
    answer = await ask(Seen(), method="GET", body=b"", headers=fields)

    assert answer.status == status


@pytest.mark.parametrize("name", [b"idempotency-key", b"content-type", b"host", b"traceparent"])
async def test_headers_that_decide_something_may_not_be_repeated(name: bytes) -> None:
    answer = await ask(Seen(), headers=[JSON, (name, b"a"), (name, b"b")])

    assert_is_problem(answer, 400)


async def test_other_headers_may_be_repeated() -> None:
    fields = [JSON, (b"accept", b"a"), (b"accept", b"b"), (b"authorization", b"c")]

    assert (await ask(Seen(), headers=fields)).status == 200


@pytest.mark.parametrize(
    ("media_type", "status"),
    [
        (b"application/json", 200),
        (b"application/json; charset=utf-8", 200),
        (b'Application/JSON;charset="UTF-8"', 200),
        (b"application/json;", 200),
        (b"application/json; charset=latin-1", 415),
        (b"application/json; x=y", 415),
        (b"application/json, text/plain", 415),
        (b"application/problem+json", 415),
        (b"text/plain", 415),
        (b"text/json", 415),
        (b"multipart/form-data; boundary=x", 415),
        (b"application/x-www-form-urlencoded", 415),
        (b"application/xml", 415),
        (b"application/msgpack", 415),
        (b"", 415),
        (None, 415),
    ],
)
async def test_a_body_is_json_and_says_so(media_type: bytes | None, status: int) -> None:
    app = Seen()
    headers = [] if media_type is None else [(b"content-type", media_type)]

    answer = await ask(app, headers=headers)

    assert answer.status == status
    assert len(app.bodies) == (status == 200)


@pytest.mark.parametrize("encoding", [b"gzip", b"br", b"deflate", b"identity", b""])
async def test_an_encoded_body_is_refused_unread(encoding: bytes) -> None:
    answer = await ask(Seen(), body=b"\x1f\x8b", headers=[JSON, (b"content-encoding", encoding)])

    assert_is_problem(answer, 415)


@pytest.mark.parametrize(
    ("target", "method", "limit"),
    [
        (RUNS, "POST", 2000),
        (RUNS + "/", "POST", 2000),
        ("/api/v1/flows/greeting/runs", "POST", 2000),
        ("/api/v1/prompts/a/b/preview", "POST", 2000),
        ("/api/v1/prompts/a/versions", "POST", 2000),
        ("/api/v1/runs/batch", "POST", 4000),
        ("/api/v1/prompts", "POST", 1000),
        ("/api/v1/runs/1/replay", "POST", 1000),
        ("/api/v1/prompts/runs", "PATCH", 1000),
        ("/api/v1/environments/a/variables/KEY", "PUT", 1000),
    ],
)
@pytest.mark.parametrize("form", ["announced", "chunked", "in pieces"])
async def test_a_body_may_be_as_long_as_its_route_allows(
    target: str, method: str, limit: int, form: str
) -> None:
    async def status_of(size: int) -> int:
        whole = b'{"a":"' + b"x" * (size - 8) + b'"}'
        body = [whole[:500], whole[500:]] if form == "in pieces" else whole
        answer = await ask(
            Seen(), target.encode(), method=method, body=body, announce=form == "announced"
        )
        return answer.status

    assert (await status_of(limit), await status_of(limit + 1)) == (200, 413)


async def test_reading_stops_where_the_limit_is_passed() -> None:
    taken: list[bytes] = []

    def endless() -> Iterable[bytes]:
        for _ in range(100):
            taken.append(b" " * 500)
            yield taken[-1]

    pieces = iter(endless())
    answer = Answer()

    async def receive() -> Any:
        return {"type": "http.request", "body": next(pieces), "more_body": True}

    scope: Any = {
        "type": "http",
        "method": "POST",
        "path": RUNS,
        "raw_path": RUNS.encode(),
        "query_string": b"",
        "headers": [JSON, (b"transfer-encoding", b"chunked")],
    }
    await Guard(Seen(), body_rules(SETTINGS))(scope, receive, answer)

    assert (answer.status, len(taken)) == (413, 5)


@pytest.mark.parametrize("length", [b"99999999999999999999999999", b"9" * 5000, b"-1", b"x"])
async def test_a_senseless_length_is_too_large(length: bytes) -> None:
    answer = await ask(Seen(), announce=False, headers=[JSON, (b"content-length", length)])

    assert_is_problem(answer, 413)


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b" ", 400, "invalid_json"),
        (b"{", 400, "invalid_json"),
        (b"[" * 1500, 400, "invalid_json"),
        (b"[]", 422, "invalid"),
        (b'{"a":1,"a":2}', 422, "duplicate_key"),
        (rb'{"a":"\u0000"}', 422, "invalid"),
    ],
)
async def test_a_body_that_is_no_good_never_reaches_the_application(
    body: bytes, status: int, code: str
) -> None:
    app = Seen()

    answer = await ask(app, body=body)

    assert_is_problem(answer, status)
    assert (answer.problem["code"], app.bodies) == (code, [])


@pytest.mark.parametrize("headers", [[], [JSON], [(b"content-length", b"0")]])
@pytest.mark.parametrize("action", ["publish", "enable", "test", "resend", "replay"])
async def test_an_empty_body_is_an_empty_object_where_no_field_is_needed(
    action: str, headers: list[tuple[bytes, bytes]]
) -> None:
    app = Seen()

    answer = await ask(app, f"/api/v1/things/1/{action}".encode(), body=b"", headers=headers)

    assert (answer.status, app.bodies) == (200, [b"{}"])


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/api/v1/runs"), ("DELETE", "/api/v1/keys/1"), ("POST", "/api/v1/runs/1/cancel")],
)
async def test_a_body_nobody_asked_for_is_ignored(method: str, path: str) -> None:
    app = Seen()
    headers = [(b"content-type", b"text/plain"), (b"content-encoding", b"gzip")]

    answer = await ask(app, path.encode(), method=method, body=b"{" * 9999, headers=headers)

    assert (answer.status, app.bodies, app.after_body) == (200, [b""], "http.disconnect")


async def test_a_client_that_leaves_in_the_middle_of_its_body_gets_and_costs_nothing() -> None:
    app, answer = Seen(), Answer()
    messages: list[Any] = [
        {"type": "http.request", "body": b"{", "more_body": True},
        {"type": "http.disconnect"},
    ]

    async def receive() -> Any:
        return messages.pop(0)

    scope: Any = {
        "type": "http",
        "method": "POST",
        "path": RUNS,
        "raw_path": RUNS.encode(),
        "query_string": b"",
        "headers": [JSON, (b"content-length", b"10")],
    }
    await Guard(app, body_rules(SETTINGS))(scope, receive, answer)

    assert (answer.status, app.bodies) == (0, [])


async def test_an_unforeseen_failure_is_a_500_that_says_nothing_and_is_logged() -> None:
    app = Seen(failure=ValueError("SELECT secret FROM db.internal"))

    with structlog.testing.capture_logs() as logs:
        answer = await ask(app)

    assert_is_problem(answer, 500)
    assert answer.problem["code"] == "internal_error"
    assert b"secret" not in answer.body
    assert [entry["event"] for entry in logs] == ["request_failed"]


async def test_other_scopes_pass_untouched() -> None:
    passed = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        passed.set()

    async def receive() -> Any:
        return {"type": "lifespan.startup"}

    scope: Any = {"type": "lifespan"}
    await Guard(app, body_rules(SETTINGS))(scope, receive, Answer())

    assert passed.is_set()


def test_a_batch_may_hold_a_thousand_submissions() -> None:
    rule_for = body_rules(SETTINGS)

    assert rule_for("POST", "/api/v1/runs/batch").limits.nodes == 100_000
    assert rule_for("POST", RUNS).limits.nodes == 10_000
    assert rule_for("GET", RUNS).presence is Body.IGNORED
