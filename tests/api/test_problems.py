"""Errors as problem details, and what Litestar is told about bodies and queries."""

from collections.abc import AsyncIterator
from typing import Annotated, Any, Literal

import msgspec
import pytest
import structlog
from litestar import Litestar, get, post
from litestar.exceptions import (
    HTTPException,
    NotAuthorizedException,
    PermissionDeniedException,
    ServiceUnavailableException,
    TooManyRequestsException,
)
from litestar.params import FromPath, FromQuery, JSONBody, QueryParameter
from litestar.testing import AsyncTestClient

from api import errors
from api.guard import Guard, body_rules
from api.requests import QUERY_FAMILIES, StrictRequest, check_query, known_query
from shared.errors import (
    AppError,
    BadRequestError,
    ConflictError,
    Flaw,
    NotFoundError,
    UnacceptableError,
    UnauthorizedError,
    UnavailableError,
)
from shared.settings import Settings

Small = Annotated[int, msgspec.Meta(ge=1, le=20)]


class Inner(msgspec.Struct, forbid_unknown_fields=True):
    name: str


class Document(msgspec.Struct, forbid_unknown_fields=True, rename="camel"):
    inputs: dict[str, str]
    max_attempts: Small = 3
    priority: Literal["onsite", "normal", "low"] = "normal"
    items: list[Inner] = []
    in_ner: Inner | None = None


RAISED: dict[str, Exception] = {
    "conflict": ConflictError("It is taken.", flaws=[Flaw("/slug", "is taken")]),
    "unauthorized": UnauthorizedError(),
    "unavailable": UnavailableError(),
    "litestar-401": NotAuthorizedException("rl_secret"),
    "litestar-403": PermissionDeniedException("No."),
    "litestar-429": TooManyRequestsException("Slower.", headers={"Retry-After": "3"}),
    "litestar-503": ServiceUnavailableException("db.internal:5432"),
    "litestar-418": HTTPException("Tea.", status_code=418),
    "bug": ZeroDivisionError("SELECT 1 FROM secrets"),
    "deep": RecursionError("maximum recursion depth exceeded"),
}


@post("/documents", status_code=200)
async def accept(data: JSONBody[Document]) -> Document:
    return data


@get("/raise/{name:str}")
async def fail(name: FromPath[str]) -> None:
    raise RAISED[name]


@get("/list/{number:int}", opt={QUERY_FAMILIES: ("metadata",)})
async def listing(
    number: FromPath[int],
    limit: Annotated[int, QueryParameter(ge=1, le=100)] = 20,
    status: FromQuery[list[str] | None] = None,
) -> dict[str, Any]:
    return {"number": number, "limit": limit, "status": status}


@pytest.fixture
async def client() -> AsyncIterator[AsyncTestClient[Litestar]]:
    app = Litestar(
        [accept, fail, listing],
        request_class=StrictRequest,
        guards=[known_query],
        exception_handlers={Exception: errors.handle},
        openapi_config=None,
        logging_config=None,
    )
    guarded: Any = Guard(app, body_rules(Settings()))
    async with AsyncTestClient(guarded, raise_server_exceptions=False) as client:
        yield client


async def test_a_problem_has_every_field_of_the_contract(client: AsyncTestClient[Litestar]) -> None:
    answer = await client.get("/raise/conflict", headers={"X-Request-Id": "r-1"})

    assert (answer.status_code, answer.headers["content-type"]) == (409, "application/problem+json")
    assert answer.headers["x-request-id"] == "r-1"
    assert answer.json() == {
        "type": "/docs/errors#conflict",
        "title": "Conflict with the current state",
        "status": 409,
        "detail": "It is taken.",
        "code": "conflict",
        "requestId": "r-1",
        "errors": [{"pointer": "/slug", "message": "is taken"}],
        "error": "It is taken.",
    }


@pytest.mark.parametrize(
    ("name", "status", "code", "header"),
    [
        ("unauthorized", 401, "unauthorized", ("www-authenticate", "Bearer")),
        ("unavailable", 503, "unavailable", ("retry-after", "2")),
        ("litestar-401", 401, "unauthorized", ("www-authenticate", "Bearer")),
        ("litestar-403", 403, "forbidden", None),
        ("litestar-429", 429, "rate_limited", ("retry-after", "3")),
        ("litestar-503", 500, "internal_error", None),
        ("litestar-418", 400, "bad_request", None),
        ("bug", 500, "internal_error", None),
        ("deep", 500, "internal_error", None),
    ],
)
async def test_every_exception_becomes_a_problem(
    client: AsyncTestClient[Litestar],
    name: str,
    status: int,
    code: str,
    header: tuple[str, str] | None,
) -> None:
    with structlog.testing.capture_logs() as logs:
        answer = await client.get(f"/raise/{name}")

    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert header is None or answer.headers[header[0]] == header[1]
    assert len(logs) == (status == 500)
    for secret in ("SELECT", "rl_secret", "db.internal", "Traceback"):
        assert secret not in answer.text


async def test_an_unknown_route_and_a_missing_object_are_told_apart_by_nobody(
    client: AsyncTestClient[Litestar],
) -> None:
    fixed = {"X-Request-Id": "r"}

    unknown = await client.get("/nowhere", headers=fixed)
    malformed = await client.get("/list/abc", headers=fixed)

    assert unknown.content == malformed.content == errors.problem(NotFoundError(), "r")


@pytest.mark.parametrize("method", ["DELETE", "PATCH", "PROPFIND"])
async def test_a_wrong_method_is_told_the_right_ones(
    client: AsyncTestClient[Litestar], method: str
) -> None:
    answer = await client.request(method, "/documents", json={})

    assert (answer.status_code, answer.headers["allow"]) == (405, "OPTIONS, POST")
    assert answer.json()["code"] == "method_not_allowed"


@pytest.mark.parametrize(
    ("body", "place"),
    [
        ({}, "/inputs"),
        ({"inputs": None}, "/inputs"),
        ({"inputs": []}, "/inputs"),
        ({"inputs": {"a": 1}}, "/inputs"),
        ({"inputs": {}, "maxAttempts": "1"}, "/maxAttempts"),
        ({"inputs": {}, "maxAttempts": True}, "/maxAttempts"),
        ({"inputs": {}, "maxAttempts": 1.0}, "/maxAttempts"),
        ({"inputs": {}, "maxAttempts": 21}, "/maxAttempts"),
        ({"inputs": {}, "priority": "urgent"}, "/priority"),
        ({"inputs": {}, "priority": None}, "/priority"),
        ({"inputs": {}, "max_attempts": 1}, "/max_attempts"),
        ({"inputs": {}, "Priority": "low"}, "/Priority"),
        ({"inputs": {}, "a/b~c": 1}, "/a~1b~0c"),
        ({"inputs": {}, "items": [{"name": "x"}, {"name": 2}]}, "/items/1/name"),
        ({"inputs": {}, "items": [{"name": "x", "y": 1}]}, "/items/0/y"),
        ({"inputs": {}, "inNer": {}}, "/inNer/name"),
    ],
)
async def test_a_body_that_does_not_fit_is_refused_with_its_place(
    client: AsyncTestClient[Litestar], body: dict[str, Any], place: str
) -> None:
    answer = await client.post("/documents", json=body)

    assert (answer.status_code, answer.json()["code"]) == (422, "invalid")
    assert [flaw["pointer"] for flaw in answer.json()["errors"]] == [place]


async def test_a_body_that_fits_arrives_decoded(client: AsyncTestClient[Litestar]) -> None:
    body = {"inputs": {"__proto__": "{{x}}"}, "maxAttempts": 20, "items": [{"name": "n"}]}

    answer = await client.post("/documents", json=body)

    assert answer.status_code == 200
    assert answer.json()["inputs"] == {"__proto__": "{{x}}"}
    assert answer.json()["maxAttempts"] == 20


@pytest.mark.parametrize(
    "query",
    [
        "limit=0",
        "limit=101",
        "limit=-1",
        "limit=abc",
        "limit=",
        "limit=1&limit=1",
        "unknown=1",
        "Limit=1",
        "limit[]=1",
        "=1",
        "metadata=1",
        "metadata[a=1",
        "metadata[a]=1&metadata[a]=2",
        "number=2",
    ],
)
async def test_queries_that_nobody_declared_are_refused(
    client: AsyncTestClient[Litestar], query: str
) -> None:
    answer = await client.get(f"/list/1?{query}")

    assert (answer.status_code, answer.json()["code"]) == (400, "bad_request")
    assert "/list/1" not in answer.text


@pytest.mark.parametrize("query", ["", "limit=100", "status=a&status=b", "metadata[a]=1&limit=2"])
async def test_declared_queries_pass(client: AsyncTestClient[Litestar], query: str) -> None:
    assert (await client.get(f"/list/1?{query}")).status_code == 200


def test_a_query_is_checked_without_litestar_as_well() -> None:
    check_query(b"a=1&b=2&b=3", allowed={"a", "b"}, repeatable={"b"})

    with pytest.raises(BadRequestError, match="'a' may be given once"):
        check_query(b"a=1&a=1", allowed={"a", "b"}, repeatable={"b"})


def test_msgspec_places_become_pointers() -> None:
    class Node(msgspec.Struct):
        children: dict[str, "list[int]"] = {}
        value: int = 0

    def place_of(body: bytes) -> Flaw:
        with pytest.raises(msgspec.ValidationError) as caught:
            msgspec.json.decode(body, type=list[Node])
        return errors.flaw_of(caught.value)

    assert place_of(b'[{},{"value":"x"}]') == Flaw("/1/value", "Expected `int`, got `str`")
    assert place_of(b'[{"children":{"k":["x"]}}]').pointer == "/0/children"
    assert place_of(b"{}") == Flaw("", "Expected `array`, got `object`")


def test_an_error_of_ours_is_taken_as_it_is() -> None:
    error: AppError = UnacceptableError("No.", code="missing_inputs")

    assert errors.as_app_error(error) is error
