"""Prompts as releases: tags rolled back, versions compared, and runs that follow at once."""

import asyncio
from random import Random
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shared import deps as shared_deps
from shared.deps import Deps
from shared.domain import tag_moves
from shared.queue.lanes import Lanes
from tests.api.clients import client_with, problem, without_request_id
from tests.factories import Tenant, a_key, a_prompt

INPUTS = {"inputs": {"name": "Ada"}}
TAG = "/prompts/greeting/tags/production"


def body(content: str, **changes: object) -> dict[str, Any]:
    """A short body with this text."""
    return {"model": "sim/echo", "messages": [{"role": "user", "content": content}], **changes}


@pytest.fixture(autouse=True)
async def greeting(deps: Deps, tenant: Tenant, client: httpx.AsyncClient) -> None:
    """The prompt `greeting` with four published versions."""
    await a_prompt(deps, tenant)
    for number in range(2, 5):
        made = await client.post("/prompts/greeting/versions", json=body(f"Hello {number}"))
        assert number == made.json()["number"]


async def _point(client: httpx.AsyncClient, *numbers: int) -> None:
    for number in numbers:
        assert 200 == (await client.put(TAG, json={"version": number})).status_code


async def _moves(client: httpx.AsyncClient) -> list[tuple[int | None, int | None]]:
    history = (await client.get(f"{TAG}/history", params={"limit": 100})).json()["data"]
    return [(move["from"], move["to"]) for move in reversed(history)]


async def test_rollback_goes_back_step_by_step_until_nothing_is_left(
    client: httpx.AsyncClient,
) -> None:
    await _point(client, 1, 3, 2)

    first = await client.post(f"{TAG}/rollback", json={"comment": "Too chatty"})
    second = await client.post(f"{TAG}/rollback")
    third = await client.post(f"{TAG}/rollback", json={})

    assert [(200, 3), (200, 1)] == [(a.status_code, a.json()["version"]) for a in (first, second)]
    assert (409, "no_earlier_version", []) == problem(third)
    assert second.json() == (await client.get(TAG)).json()
    assert second.headers["etag"] == (await client.get(TAG)).headers["etag"]
    assert [(None, 1), (1, 3), (3, 2), (2, 3), (3, 1)] == await _moves(client)


async def test_history_says_which_key_moved_the_tag_and_why(
    client: httpx.AsyncClient, deps: Deps, tenant: Tenant
) -> None:
    made = await client.post("/keys", json={"name": "release bot", "scopes": ["prompts:write"]})
    await _point(client, 1)
    async with client_with(deps, made.json()["key"]) as bot:
        await bot.put(TAG, json={"version": 2, "comment": "Shorter"})
        await bot.post(f"{TAG}/rollback", json={"comment": "Too short"})
    await client.delete(f"/keys/{made.json()['id']}")

    history = (await client.get(f"{TAG}/history")).json()["data"]

    own = str(tenant.principal.key_id)
    assert [
        (2, 1, "Too short", made.json()["id"], "release bot"),
        (1, 2, "Shorter", made.json()["id"], "release bot"),
        (None, 1, "", own, "a key"),
    ] == [
        (move["from"], move["to"], move["comment"], move["keyId"], move["keyName"])
        for move in history
    ]
    assert all(move["changedAt"].endswith("Z") for move in history)


async def test_rollback_passes_over_a_version_deleted_since(client: httpx.AsyncClient) -> None:
    await _point(client, 1, 2, 3)
    assert 204 == (await client.delete("/prompts/greeting/versions/2")).status_code

    back = await client.post(f"{TAG}/rollback")
    again = await client.post(f"{TAG}/rollback")

    assert (1, 409) == (back.json()["version"], again.status_code)


async def test_tag_set_anew_after_its_removal_has_nothing_to_go_back_to(
    client: httpx.AsyncClient,
) -> None:
    await _point(client, 1, 2)
    await client.delete(TAG)

    gone = await client.post(f"{TAG}/rollback")
    await _point(client, 3)
    anew = await client.post(f"{TAG}/rollback")

    assert [404, 409] == [gone.status_code, anew.status_code]
    assert 3 == (await client.get(TAG)).json()["version"]


@pytest.mark.parametrize(
    "sent", [{"comment": "x" * 2_001}, {"version": 1}, {"comment": 1}, {"from": 2, "to": 1}]
)
async def test_unacceptable_rollback_moves_nothing(
    client: httpx.AsyncClient, sent: dict[str, object]
) -> None:
    await _point(client, 1, 2)

    response = await client.post(f"{TAG}/rollback", json=sent)

    assert 422 == response.status_code
    assert [(None, 1), (1, 2)] == await _moves(client)


async def test_rollback_is_held_back_by_a_move_its_caller_has_not_seen(
    client: httpx.AsyncClient,
) -> None:
    await _point(client, 1, 2)
    seen = (await client.get(TAG)).headers["etag"]
    await _point(client, 3)

    response = await client.post(f"{TAG}/rollback", headers={"If-Match": seen})

    assert (412, "precondition_failed", []) == problem(response)
    assert 3 == (await client.get(TAG)).json()["version"]


async def test_five_rollbacks_at_once_of_one_state_go_back_one_step(
    client: httpx.AsyncClient,
) -> None:
    await _point(client, 1, 2, 3, 4)
    seen = (await client.get(TAG)).headers["etag"]

    answers = await asyncio.gather(
        *(client.post(f"{TAG}/rollback", headers={"If-Match": seen}) for _ in range(5))
    )

    assert [200, 412, 412, 412, 412] == sorted(answer.status_code for answer in answers)
    assert 3 == (await client.get(TAG)).json()["version"]


@given(steps=st.lists(st.sampled_from([1, 2, 3, 4, "back", "remove"]), max_size=8))
@settings(
    max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
async def test_any_sequence_of_moves_and_rollbacks_is_answered_as_its_history_says(
    client: httpx.AsyncClient, steps: list[int | str]
) -> None:
    await client.delete(TAG)
    moves: list[int | None] = []
    for step in steps:
        present = moves[-1] if moves else None
        if step == "remove":
            answer = await client.delete(TAG)
            expected: tuple[int, int | None] = (404 if present is None else 204, None)
        elif step == "back":
            answer = await client.post(f"{TAG}/rollback")
            before = tag_moves.before(moves)
            expected = (404 if present is None else 409 if before is None else 200, before)
        else:
            answer = await client.put(TAG, json={"version": step})
            expected = (200, int(step))

        assert expected[0] == answer.status_code
        if answer.is_success and expected[1] != present:
            moves.append(expected[1])
        read = await client.get(TAG)
        assert (moves[-1] if moves else None) == read.json().get("version")


async def test_moved_tag_changes_the_next_run_of_every_api_process_and_no_earlier_one(
    client: httpx.AsyncClient, deps: Deps, lanes: Lanes, tenant: Tenant
) -> None:
    """Each process remembers what tags point at: here two, that both remember the old version."""
    second = shared_deps.build(deps.settings, deps.clock, Random(8), deps.store, lanes)
    await _point(client, 1)
    path = "/prompts/greeting/production/runs"
    async with client_with(second, tenant.key) as other:
        old = [await api.post(path, json=INPUTS) for api in (client, other)]

        await _point(client, 2)
        moved = [await api.post(path, json=INPUTS) for api in (other, client)]
        await other.post(f"{TAG}/rollback")
        back = [await api.post(path, json=INPUTS) for api in (client, other)]

    versions = [
        (await client.get(f"/runs/{run.json()['id']}")).json()["prompt"]["version"]
        for run in (*old, *moved, *back)
    ]
    assert [1, 1, 2, 2, 1, 1] == versions


async def test_renamed_prompt_goes_on_under_its_old_slug_everywhere(
    client: httpx.AsyncClient, deps: Deps, lanes: Lanes, tenant: Tenant
) -> None:
    second = shared_deps.build(deps.settings, deps.clock, Random(8), deps.store, lanes)
    async with client_with(second, tenant.key) as other:
        await other.post("/prompts/greeting/1/runs", json=INPUTS)
        await client.patch("/prompts/greeting", json={"slug": "welcome"})

        answers = [
            await other.put(TAG, json={"version": 2}),
            await other.post("/prompts/greeting/production/runs", json=INPUTS),
            await other.post("/prompts/greeting/1/runs", json=INPUTS),
            await other.get("/prompts/greeting/production"),
            await other.get("/prompts/greeting/versions"),
            await other.get("/prompts/greeting/versions/1"),
            await other.get("/prompts/greeting/versions/1/diff/production"),
            await other.get(f"{TAG}/history"),
            await other.post("/prompts/greeting/versions", json=body("Hi", publish=False)),
            await other.put("/prompts/greeting/versions/5", json=body("Hi")),
            await other.post("/prompts/greeting/versions/5/publish"),
        ]

    assert {200, 201} == {answer.status_code for answer in answers}
    assert [5, 4, 3, 2, 1] == [
        version["number"]
        for version in (await client.get("/prompts/welcome/versions")).json()["data"]
    ]


async def test_comparison_shows_each_place_that_changed(client: httpx.AsyncClient) -> None:
    draft = body("Hello\n2", systemInstruction="Be kind.", publish=False)
    await client.post("/prompts/greeting/versions", json=draft)
    listed = (await client.get("/prompts/greeting/versions")).json()["data"]

    answer = await client.get("/prompts/greeting/versions/2/diff/5")

    content = "/templates/main/messages/0/content"
    assert 200 == answer.status_code
    assert {
        "from": listed[3],
        "to": listed[0],
        "changes": [
            {
                "pointer": content,
                "before": "Hello 2",
                "after": "Hello\n2",
                "diff": f"--- 2{content}\n+++ 5{content}\n@@ -1 +1,2 @@\n-Hello 2\n"
                "\\ No newline at end of file\n+Hello\n+2\n\\ No newline at end of file\n",
            },
            {
                "pointer": "/templates/main/systemInstruction",
                "before": None,
                "after": "Be kind.",
                "diff": None,
            },
        ],
    } == {**answer.json(), "changes": sorted(answer.json()["changes"], key=lambda c: c["pointer"])}


async def test_versions_are_compared_by_number_tag_id_or_as_the_latest(
    client: httpx.AsyncClient,
) -> None:
    await _point(client, 2)
    version_id = (await client.get("/prompts/greeting/2")).json()["id"]

    answers = [
        (await client.get(f"/prompts/greeting/versions/{a}/diff/{b}")).json()
        for a, b in (("2", "4"), ("production", "__latest__"), (version_id, "4"), ("4", "2"))
    ]

    assert [(2, 4), (2, 4), (2, 4), (4, 2)] == [
        (answer["from"]["number"], answer["to"]["number"]) for answer in answers
    ]
    assert [("Hello 2", "Hello 4")] * 3 + [("Hello 4", "Hello 2")] == [
        (change["before"], change["after"]) for answer in answers for change in answer["changes"]
    ]


async def test_versions_that_say_the_same_do_not_differ(client: httpx.AsyncClient) -> None:
    long = {"entrypoint": "main", "templates": {"main": body("Hello 4")}, "syntax": "braces"}
    await client.post("/prompts/greeting/versions", json=long)

    same = [
        (await client.get(f"/prompts/greeting/versions/{a}/diff/{b}")).json()["changes"]
        for a, b in ((4, 5), (4, 4), (5, "__latest__"))
    ]

    assert [[], [], []] == same


@pytest.mark.parametrize("name", ["0", "-1", "9", "latest", "nothing", "01", "a.b", "%00x", "1.0"])
async def test_comparison_with_an_unknown_version_is_not_found(
    client: httpx.AsyncClient, name: str
) -> None:
    unknown = await client.get("/prompts/unknown/versions/1/diff/2")

    answers = [
        await client.get(f"/prompts/greeting/versions/{a}/diff/{b}")
        for a, b in ((name, "1"), ("1", name))
    ]

    assert [404, 404] == [answer.status_code for answer in answers]
    assert {"not_found"} == {answer.json()["code"] for answer in (unknown, *answers)}


async def test_prompt_without_a_published_version_has_no_latest_to_compare(
    client: httpx.AsyncClient,
) -> None:
    await client.post("/prompts", json={"name": "new", "slug": "new"})
    for _ in range(2):
        await client.post("/prompts/new/versions", json=body("x", publish=False))

    latest = await client.get("/prompts/new/versions/1/diff/__latest__")
    drafts = await client.get("/prompts/new/versions/1/diff/2")

    assert [404, 200] == [latest.status_code, drafts.status_code]


async def test_versions_full_of_lines_made_to_be_slow_are_compared(
    client: httpx.AsyncClient,
) -> None:
    random = Random(3)
    for _ in range(2):
        lines = random.choices([f"{number}\n" for number in range(150)], k=65_000)
        added = await client.post("/prompts/greeting/versions", json=body("".join(lines)))
        assert 201 == added.status_code

    answer = await client.get("/prompts/greeting/versions/5/diff/6")

    assert 200 == answer.status_code
    (change,) = answer.json()["changes"]
    assert change["diff"].startswith("--- 5/templates/main/messages/0/content\n")


async def test_foreign_versions_and_tags_are_as_unknown_as_none(
    client: httpx.AsyncClient, deps: Deps, tenant: Tenant
) -> None:
    await _point(client, 1, 2)
    reader, _ = await a_key(deps, tenant.workspace_id, ("prompts:read",))
    stranger = await client.post("/prompts", json={"name": "other", "slug": "other"})
    foreign = (await client.get("/prompts/greeting/1")).json()["id"]

    crossed = await client.get(f"/prompts/other/versions/{foreign}/diff/{foreign}")
    unknown = await client.get("/prompts/nothing/versions/1/diff/1")
    async with client_with(deps, reader) as limited:
        seen = await limited.get("/prompts/greeting/versions/1/diff/2")
        moved = await limited.post(f"{TAG}/rollback")

    assert 201 == stranger.status_code
    assert without_request_id(crossed) == without_request_id(unknown)
    assert [200, 403] == [seen.status_code, moved.status_code]
