"""The rows of bad input that concern submitting and reading runs, at the routes.

What the guard alone decides about paths, header fields and bytes is in `test_guard.py`; keys are in
`test_bad_keys.py`.
"""

import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from shared.deps import Deps
from shared.ids import new_id
from tests.api.clients import client_with, without_request_id
from tests.api.refusals import BODY, RUNS, post_raw, refused, stored
from tests.factories import Tenant, a_prompt, a_tenant


@pytest.fixture(autouse=True)
async def greeting(deps: Deps, tenant: Tenant) -> None:
    """The tenant's prompt `greeting`, which asks for a name."""
    await a_prompt(deps, tenant)


@pytest.fixture
async def foreign(deps: Deps) -> AsyncIterator[httpx.AsyncClient]:
    """The API as another workspace sees it."""
    other = await a_tenant(deps)
    async with client_with(deps, other.key) as foreign:
        yield foreign


NO_JSON = [
    b"",
    b"{",
    b'{"inputs": {}} trailing',
    b'{"inputs": {}} // comment',
    b"{'inputs': {}}",
    b'\xef\xbb\xbf{"inputs": {}}',
    b'{"inputs": {"name": "\xff"}}',
    b'{"inputs": {"name": "\xc0\xaf"}}',
    b'{"inputs": {"name": "\\ud800"}}',
    b'{"inputs": {}, "expiresIn": NaN}',
    b'{"inputs": {}, "expiresIn": Infinity}',
    b'{"inputs": {}, "expiresIn": 1e400}',
    b'{"inputs": {}, "expiresIn": ' + b"9" * 5000 + b"}",
    b"[" * 1000 + b"]" * 1000,
    b"[" * 100_000 + b"]" * 100_000,
]
NO_SUBMISSION = [
    b"[]",
    b"null",
    b'"x"',
    b"1",
    b"{}",
    b"[" * 33 + b"]" * 33,
    b'{"inputs": {"name": "a\\u0000b"}}',
    b'{"inputs": {"na\\u0000me": "a"}}',
    b'{"inputs": {}, "expiresIn": 9007199254740993}',
    b'{"inputs": {}, "expiresIn": 9223372036854775808}',
    b'{"inputs": {}, "expiresIn": -9223372036854775809}',
    b'{"inputs": {}, "expiresIn": true}',
    b'{"inputs": {}, "expiresIn": "1"}',
    b'{"inputs": {"name": "Ada"}, "expiresIn": 1.0}',
    b'{"inputs": {}, "expiresIn": -0}',
]


@pytest.mark.parametrize(("bodies", "status"), [(NO_JSON, 400), (NO_SUBMISSION, 422)])
async def test_body_that_is_no_submission_isrefused(
    client: httpx.AsyncClient, deps: Deps, bodies: list[bytes], status: int
) -> None:
    answers = {body[:60]: (await post_raw(client, body)) for body in bodies}

    assert dict.fromkeys(answers, status) == {
        body: refused(answer)[0] for body, answer in answers.items()
    }
    assert 0 == await stored(deps)


async def test_an_empty_body_is_told_only_where_one_is_wanted(client: httpx.AsyncClient) -> None:
    unbuilt = f"/threads/{new_id()}/stream-token"  # that product's clients send it no body

    asked = [(RUNS, "POST"), ("/keys", "PUT"), (unbuilt, "POST"), ("/nowhere", "PATCH")]
    answers = [await client.request(method, path) for path, method in asked]
    nobodys = await client.post(RUNS, headers={"authorization": "Bearer x"})

    assert [
        (400, "empty_body"), (405, "method_not_allowed"), (404, "not_found"), (404, "not_found")
    ] == [refused(answer) for answer in answers]  # fmt: skip
    assert "GET, OPTIONS, POST" == answers[1].headers["allow"]
    assert (401, "unauthorized") == refused(nobodys)


async def test_body_cut_anywhere_isrefused(client: httpx.AsyncClient, deps: Deps) -> None:
    body = json.dumps({"inputs": {"name": "Ada" * 2000}}).encode()

    answers = [await post_raw(client, body[:length]) for length in range(0, len(body), 1000)]

    assert {400} == {refused(answer)[0] for answer in answers}
    assert 0 == await stored(deps)


async def test_duplicate_key_has_a_code_of_its_own(client: httpx.AsyncClient, deps: Deps) -> None:
    answer = await post_raw(client, b'{"inputs": {"name": "a"}, "inputs": {"name": "b"}}')

    assert (422, "duplicate_key") == refused(answer)
    assert 0 == await stored(deps)


@pytest.mark.parametrize(
    "media_type",
    ["text/plain", "", "multipart/form-data; boundary=x", "application/x-www-form-urlencoded",
     "application/xml", "application/msgpack", "application/json; charset=latin-1"],
)  # fmt: skip
async def test_only_json_is_read(client: httpx.AsyncClient, deps: Deps, media_type: str) -> None:
    answer = await client.post(
        RUNS, content=json.dumps(BODY).encode(), headers={"content-type": media_type}
    )

    assert (415, "unsupported_media_type") == refused(answer)
    assert 0 == await stored(deps)


def _many(count: int, value: object = "x") -> dict[str, object]:
    return {f"KEY_{number}": value for number in range(count)}


BAD_FIELDS: list[tuple[str, dict[str, Any]]] = [
    ("/inputs", {"inputs": None}),
    ("/inputs", {"inputs": []}),
    ("/inputs", {"inputs": {"name": 1}}),
    ("/inputs", {"inputs": {"name": None}}),
    ("/Inputs", {"Inputs": {}}),
    ("/status", {"status": "queued"}),
    ("/env_id", {"env_id": "x"}),
    ("/id", {"id": "01a203e5-a9a4-75ae-bb37-30ef3a56db02"}),
    ("/thread", {"thread": "no-uuid"}),
    ("/priority", {"priority": "urgent"}),
    ("/priority", {"priority": "ONSITE"}),
    ("/environment", {"environment": "nowhere"}),
    ("/environment", {"environment": ""}),
    ("/maxDuration", {"maxDuration": 0}),
    ("/maxDuration", {"maxDuration": -1}),
    ("/maxDuration", {"maxDuration": 1_000_000_000}),
    ("/maxDuration", {"maxDuration": "10"}),
    ("/maxAttempts", {"maxAttempts": 0}),
    ("/maxAttempts", {"maxAttempts": 100}),
    ("/onUnknownOutcome", {"onUnknownOutcome": "maybe"}),
    ("/runAt", {"runAt": "2026-02-30T00:00:00Z"}),
    ("/runAt", {"runAt": "2026-11-22T12:00:00"}),
    ("/runAt", {"runAt": "9999-01-01T00:00:00Z"}),
    ("/runAt", {"runAt": 1}),
    ("/deadline", {"deadline": "2020-01-01T00:00:00Z"}),
    ("/metadata", {"metadata": _many(51)}),
    ("/metadata/key", {"metadata": {"key": "x" * 513}}),
    ("/metadata", {"metadata": {"key": {"nested": "x"}}}),
    ("/metadata", {"metadata": {"key": 1}}),
    ("/metadata/key", {"metadata": {"key": ["x"] * 21}}),
    ("/metadata", {"metadata": {"a\x01b": "x"}}),
    ("/envVars", {"envVars": _many(51)}),
    ("/envVars", {"envVars": {"KEY": "x" * 65_536}}),
    ("/envVars/lowercase", {"envVars": {"lowercase": "x"}}),
    ("/envVars/A=B", {"envVars": {"A=B": "x"}}),
    ("/tags", {"tags": ["x"] * 11}),
    ("/tags/0", {"tags": ["x" * 129]}),
    ("/params/base_url", {"params": {"base_url": "http://127.0.0.1"}}),
    ("/params/api_key", {"params": {"api_key": "sk"}}),
    ("/params/extra_headers", {"params": {"extra_headers": {}}}),
    ("/params/temperature", {"params": {"temperature": 3}}),
    ("/model", {"model": ""}),
]


async def test_field_that_will_not_do_is_named(client: httpx.AsyncClient, deps: Deps) -> None:
    answers = [(fields, await client.post(RUNS, json=BODY | fields)) for _, fields in BAD_FIELDS]

    assert [(422, *row) for row in BAD_FIELDS] == [
        (answer.status_code, _first_pointer(answer), fields) for fields, answer in answers
    ]
    assert 0 == await stored(deps)


async def test_missing_input_is_named(client: httpx.AsyncClient, deps: Deps) -> None:
    answer = await client.post(RUNS, json={"inputs": {"nme": "Ada"}})

    assert (422, "missing_inputs") == refused(answer)
    assert ["/inputs/name"] == [flaw["pointer"] for flaw in answer.json()["errors"]]
    assert 0 == await stored(deps)


async def test_unknown_environment_has_a_code_of_its_own(client: httpx.AsyncClient) -> None:
    answer = await client.post(RUNS, json=BODY | {"environment": "nowhere"})

    assert (422, "unknown_environment") == refused(answer)


ODD_INPUTS = {
    "__proto__": "a",
    "constructor": "b",
    "$ref": "c",
    "{{x}}": "d",
    "name": "{{other}} {% raw %} ${x} %s \f \x1b \u202e",
}
ODD_FIELDS: list[dict[str, Any]] = [
    {"runAt": "2020-01-01T00:00:00Z"},
    {"params": {"temperature": -0.0}},
    {"thread": None, "priority": None, "environment": None, "envVars": None, "metadata": None},
    {"metadata": {"constructor": "x", "list": ["a", "b"]}},
    {"envVars": _many(50)},
]


async def test_odd_but_good_submissions_are_accepted(client: httpx.AsyncClient) -> None:
    answers = [await client.post(RUNS, json=BODY | fields) for fields in ODD_FIELDS]

    assert [200] * len(ODD_FIELDS) == [answer.status_code for answer in answers]


async def test_inputs_are_data_and_come_back_unchanged(client: httpx.AsyncClient) -> None:
    submitted = await client.post(RUNS, json={"inputs": ODD_INPUTS})

    run = await client.get(f"/runs/{submitted.json()['id']}")

    assert ODD_INPUTS == run.json()["inputs"]


PATHS = [
    "/prompts/nothing/1/runs",
    "/prompts/greeting/2/runs",
    "/prompts/greeting/0/runs",
    "/prompts/greeting/-1/runs",
    "/prompts/greeting/01/runs",
    "/prompts/greeting/1.0/runs",
    "/prompts/greeting/99999999999999999999/runs",
    "/prompts/greeting/latest%20/runs",
    "/prompts/greeting/staging/runs",
    "/prompts/Greeting/1/runs",
    "/prompts/greeting%00/1/runs",
    "/prompts/gr%C3%A9eting/1/runs",
    "/prompts/%E2%80%AEgreeting/1/runs",
    f"/prompts/{'x' * 300}/1/runs",
]


async def test_prompt_or_version_that_is_not_there_is_a_404(
    client: httpx.AsyncClient, deps: Deps
) -> None:
    answers = {path: await client.post(path, json=BODY) for path in PATHS}

    assert dict.fromkeys(PATHS, (404, "not_found")) == {
        path: refused(answer) for path, answer in answers.items()
    }
    assert 0 == await stored(deps)


async def test_id_that_is_no_runs_id_is_a_404(client: httpx.AsyncClient) -> None:
    submitted = (await client.post(RUNS, json=BODY)).json()
    version = (await client.get(f"/runs/{submitted['id']}")).json()["prompt"]["versionId"]
    ids = ["x", "1", "%00", "a" * 1000, submitted["thread"], version, str(new_id())]
    doors = ["/runs/", "/promptruns/"]

    answers = {door + each: await client.get(door + each) for door in doors for each in ids}
    cancels = {each: await client.post(f"/runs/{each}/cancel") for each in ids}

    assert {(404, "not_found")} == {
        refused(answer) for answer in (*answers.values(), *cancels.values())
    }
    too_long = await client.get("/runs/" + "a" * 5000)
    assert (414, "uri_too_long") == refused(too_long)


async def test_another_workspaces_things_are_like_unknown_ones(
    client: httpx.AsyncClient, foreign: httpx.AsyncClient, deps: Deps
) -> None:
    run_id = (await client.post(RUNS, json=BODY)).json()["id"]
    unknown = new_id()

    pairs = [
        (await foreign.get(f"/runs/{run_id}"), await foreign.get(f"/runs/{unknown}")),
        (await foreign.get(f"/promptruns/{run_id}"), await foreign.get(f"/promptruns/{unknown}")),
        (
            await foreign.post(f"/runs/{run_id}/cancel"),
            await foreign.post(f"/runs/{unknown}/cancel"),
        ),
        (await foreign.post(RUNS, json=BODY), await foreign.post("/prompts/no/1/runs", json=BODY)),
    ]

    for theirs, nobodys in pairs:
        assert (404, "not_found") == refused(theirs)
        assert without_request_id(nobodys) == without_request_id(theirs)
    assert 1 == await stored(deps)
    assert "queued" == (await client.get(f"/runs/{run_id}")).json()["status"]


async def test_output_document_is_no_submission(client: httpx.AsyncClient, deps: Deps) -> None:
    run_id = (await client.post(RUNS, json=BODY)).json()["id"]
    documents = [(await client.get(f"/{door}/{run_id}")).json() for door in ("runs", "promptruns")]

    answers = [await client.post(RUNS, json=document) for document in documents]

    assert [422, 422] == [refused(answer)[0] for answer in answers]
    assert 1 == await stored(deps)


def _first_pointer(answer: httpx.Response) -> str | None:
    flaws = answer.json().get("errors")
    return str(flaws[0]["pointer"]) if flaws else None
