"""Every route against every thing of another workspace, and of an environment out of reach."""

from collections.abc import AsyncIterator, Iterator
from typing import Any, NamedTuple

import httpx
import pytest

from api.openapi import Operation
from shared.deps import Deps
from tests.api import world
from tests.api.clients import client_with, without_request_id
from tests.api.world import World, a_world

# What names a thing in bodies and queries, by field: theirs, and what nobody has.
NAMES = {
    "environment": ("theirs-env", "nobodys-env"),
    "environments": (["theirs-env"], ["nobodys-env"]),
    "prompt": ("theirs-prompt", "nobodys-prompt"),
    "version": (3, 99),
    "tag": ("theirs-tag", "nobodys-tag"),
}


class Meeting(NamedTuple):
    """Two workspaces, and the API as the first one sees it."""

    ours: World
    theirs: World
    client: httpx.AsyncClient


@pytest.fixture
async def meeting(deps: Deps) -> AsyncIterator[Meeting]:
    ours = await a_world(deps, "ours")
    theirs = await a_world(deps, "theirs", versions=3)
    async with client_with(deps, ours.tenant.key) as client:
        yield Meeting(ours, theirs, client)


async def test_things_of_another_workspace_are_like_things_that_nobody_has(
    meeting: Meeting, deps: Deps
) -> None:
    before = await world.contents(deps)
    asked, wrong = 0, {}

    for one in world.operations():
        body = world.example(one)
        for name, path, nowhere in world.replaced(one, meeting.ours, meeting.theirs.things):
            theirs = await _ask(meeting.client, one, path, body)
            nobodys = await _ask(meeting.client, one, nowhere, body)
            asked += 1
            if theirs.status_code != 404 or _as_sent(theirs) != _as_sent(nobodys):
                wrong[one.id, name, path] = theirs.text, nobodys.text

    assert {} == wrong
    assert before == await world.contents(deps)
    assert asked >= len([one for one in world.operations() if world.parameters(one)])


async def test_names_of_another_workspace_in_a_body_are_like_names_that_nobody_has(
    meeting: Meeting, deps: Deps
) -> None:
    strangers = (meeting.theirs.tenant.workspace_id,)
    before = await _rows_of(deps, *strangers)
    wrong, asked = {}, set()

    for one in world.operations():
        for name, theirs, nobodys in _bodies(one):
            path = meeting.ours.path(one)
            answers = [await _ask(meeting.client, one, path, body) for body in (theirs, nobodys)]
            asked.add((one.id, name))
            told = [_unnamed(world.told(answer)) for answer in answers]
            if told[0] != told[1] or answers[0].is_success:
                wrong[one.id, name] = told

    assert {} == wrong
    assert before == await _rows_of(deps, *strangers)
    assert {("submitRun", "environment"), ("submitBatch", "prompt"), ("createKey", "environments"),
            ("createWebhook", "environments"), ("setTag", "version")} <= asked  # fmt: skip


async def test_a_thread_of_another_workspace_is_a_new_thread_here(
    meeting: Meeting, deps: Deps
) -> None:
    async with client_with(deps, meeting.theirs.tenant.key) as them:
        run = await them.get(f"/runs/{meeting.theirs.things['run_id'][0]}")
    thread = run.json()["thread"]
    before = await _rows_of(deps, meeting.theirs.tenant.workspace_id)

    made = await meeting.client.post(
        "/prompts/ours-prompt/1/runs", json={"inputs": {"name": "Ada"}, "thread": thread}
    )
    listed = await meeting.client.get("/runs", params={"thread": thread})

    assert (200, thread) == (made.status_code, made.json()["thread"])
    assert [made.json()["id"]] == [run["id"] for run in listed.json()["data"]]
    assert before == await _rows_of(deps, meeting.theirs.tenant.workspace_id)


async def test_filters_by_names_of_another_workspace_find_what_unknown_names_find(
    meeting: Meeting,
) -> None:
    wrong, asked = {}, set()

    for one in world.operations():
        for name in sorted(NAMES.keys() & _queries(one)):
            path = meeting.ours.path(one)
            answers = [
                await meeting.client.get(path, params={name: str(value)}) for value in NAMES[name]
            ]
            asked.add((one.id, name))
            told = [_unnamed(world.told(answer)) for answer in answers]
            if told[0] != told[1] or answers[0].json().get("data", []):
                wrong[one.id, name] = told

    assert {} == wrong
    assert {("listRuns", "prompt"), ("listEvents", "environment")} <= asked


async def test_no_answer_mentions_anything_of_another_workspace(
    meeting: Meeting, deps: Deps
) -> None:
    strange = await world.ids_of(deps, meeting.theirs.tenant.workspace_id)
    strange |= {"theirs-"}
    reads = [one for one in world.operations() if one.method == "get"]

    answers = {
        one.id: await meeting.client.get(
            meeting.ours.path(one), params=world.query(one, "ours-env")
        )
        for one in reads
    }

    assert {200} == {answer.status_code for answer in answers.values()}, answers
    assert {} == {
        name: found
        for name, answer in answers.items()
        if (found := [one for one in strange if one in answer.text])
    }


async def test_cursors_of_another_workspace_are_refused(meeting: Meeting, deps: Deps) -> None:
    wrong, lists = {}, [one for one in world.operations() if "after" in _queries(one)]

    async with client_with(deps, meeting.theirs.tenant.key) as them:
        for one in lists:
            listed = await them.get(
                meeting.theirs.path(one), params={"limit": 1, **world.query(one, "theirs-env")}
            )
            cursor = listed.json()["nextCursor"]
            assert cursor, f"tests/api/world.py must make two of what {one.id} lists"
            for side in sorted({"after", "before"} & _queries(one)):
                path = meeting.ours.path(one)
                asked = {side: cursor, **world.query(one, "ours-env")}
                answer = await meeting.client.get(path, params=asked)
                if (400, "invalid_cursor") != (answer.status_code, answer.json().get("code")):
                    wrong[one.id, side] = answer.text

    assert {} == wrong
    assert len(lists) >= 10


async def test_a_key_of_one_environment_reaches_nothing_of_another(
    meeting: Meeting, deps: Deps
) -> None:
    body = {"name": "narrow", "scopes": ["admin"], "environments": ["ours-other"]}
    key = (await meeting.client.post("/keys", json=body)).json()["key"]
    ours = meeting.ours
    things = {name: values[0] for name, values in ours.things.items()}
    out_of_reach = {name: things[name] for name in ours.elsewhere}
    before = await world.contents(deps)
    wrong, asked = {}, set()

    async with client_with(deps, key) as narrow:
        for one in world.operations():
            names = world.parameters(one)
            if not names or names[0] not in out_of_reach:
                continue
            path = world.filled(one, things)
            answer = await _ask(narrow, one, path, world.example(one))
            asked.add(names[0])
            if answer.status_code not in {403, 404}:
                wrong[one.id] = answer.text

    assert {} == wrong
    assert before == await world.contents(deps)
    assert asked == {"name", "run_id", "webhook_id", "delivery_id", "key_id", "thread_id"}


async def test_a_key_of_one_environment_is_shown_nothing_of_another(
    meeting: Meeting, deps: Deps
) -> None:
    body = {"name": "narrow", "scopes": ["admin"], "environments": ["ours-other"]}
    key = (await meeting.client.post("/keys", json=body)).json()["key"]
    ours = meeting.ours
    names = ("run_id", "webhook_id", "delivery_id", "key_id", "thread_id")
    hidden = [ours.things[name][0] for name in names]
    shown = [ours.elsewhere[name] for name in names]
    things = {name: values[0] for name, values in ours.things.items()} | dict(ours.elsewhere)
    reads = [one for one in world.operations() if one.method == "get"]

    async with client_with(deps, key) as narrow:
        answers = {
            one.id: await narrow.get(
                world.filled(one, things), params=world.query(one, "ours-other")
            )
            for one in reads
        }

    assert {200} == {answer.status_code for answer in answers.values()}, answers
    seen = "".join(answer.text for answer in answers.values())
    assert [] == [one for one in (*hidden, '"ours-env"') if one in seen]
    assert [] == [one for one in shown if one not in seen]


async def _ask(
    client: httpx.AsyncClient, operation: Operation, path: str, body: Any
) -> httpx.Response:
    return await client.request(operation.method.upper(), path, json=body)


def _as_sent(answer: httpx.Response) -> tuple[object, ...]:
    """All of a problem but its request id: body, and header fields in their order."""
    fields = [pair for pair in answer.headers.multi_items() if pair[0] != "x-request-id"]
    return answer.status_code, without_request_id(answer), fields


def _queries(operation: Operation) -> set[str]:
    entry = world.document()["paths"][operation.path][operation.method]
    return {one["name"] for one in entry["parameters"] if one["in"] == "query"}


def _bodies(operation: Operation) -> Iterator[tuple[str, Any, Any]]:
    """The documented body with each field that names a thing: of theirs, then of nobody."""
    body = world.example(operation)
    if body is None:
        return
    entry = world.document()["paths"][operation.path][operation.method]
    schema = entry["requestBody"]["content"]["application/json"]["schema"]
    home = _within(body)
    for name in sorted(NAMES.keys() & _fields(schema)):
        yield name, *(_with(home, name, value) for value in NAMES[name])


def _within(body: Any) -> Any:
    """The same body about our own things."""
    for name, value in (("prompt", "ours-prompt"), ("version", 1), ("environments", ["ours-env"])):
        body = _with(body, name, value, everywhere=False)
    return body


def _with(body: Any, name: str, value: Any, *, everywhere: bool = True) -> Any:
    """Set a field: in the items of a batch, else at the top."""
    for key, inner in body.items():
        if isinstance(inner, list) and inner and isinstance(inner[0], dict) and key == "runs":
            return body | {key: [_with(one, name, value, everywhere=everywhere) for one in inner]}
    return body | {name: value} if everywhere or name in body else body


def _fields(schema: Any) -> set[str]:
    """The names of a schema's fields, those of items included."""
    components = world.document()["components"]["schemas"]
    while "$ref" in schema:
        schema = components[schema["$ref"].rpartition("/")[2]]
    found = set(schema.get("properties", ()))
    for inner in (*schema.get("anyOf", ()), *schema.get("properties", {}).values()):
        found |= _fields(inner["items"]) if "items" in inner else set()
    return found


def _unnamed(told: tuple[int, str]) -> tuple[int, str]:
    """An answer may repeat the name that it was asked about."""
    status, text = told
    for values in NAMES.values():
        for value in values:
            name = value[0] if isinstance(value, list) else str(value)
            if not name.isdigit():
                text = text.replace(name, "*")
    return status, text


async def _rows_of(deps: Deps, *workspaces: object) -> list[str]:
    """Every row that mentions a workspace."""
    found = await world.contents(deps)
    return [
        f"{table} {row}"
        for table, rows in found.items()
        for row in rows
        if any(str(one) in row for one in workspaces)
    ]
