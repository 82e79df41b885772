"""Prompts, versions and tags as a client of the API sees them."""

import asyncio
from collections import Counter
from typing import Any

import httpx
import pytest

from shared.deps import Deps
from tests.api.clients import client_with, problem, without_request_id
from tests.factories import Tenant, a_key, a_tenant

UNKNOWN_ID = "019abcde-0000-7000-8000-000000000000"
BODY: dict[str, Any] = {
    "model": "sim/echo",
    "messages": [{"role": "user", "content": "Hello {{ name }}"}],
}


async def _create(client: httpx.AsyncClient, slug: str = "greeting", versions: int = 1) -> None:
    response = await client.post("/prompts", json={"slug": slug, "name": slug})
    assert 201 == response.status_code
    for _ in range(versions):
        response = await client.post(f"/prompts/{slug}/versions", json=BODY)
        assert 201 == response.status_code


async def test_created_prompt_is_answered_whole_and_can_be_read(client: httpx.AsyncClient) -> None:
    created = await client.post(
        "/prompts", json={"slug": "greeting", "name": "Greeting", "description": "Says hello"}
    )

    assert 201 == created.status_code
    body = created.json()
    assert {"id", "slug", "name", "description", "createdAt"} == body.keys()
    assert ("greeting", "Greeting", "Says hello") == (
        body["slug"],
        body["name"],
        body["description"],
    )
    assert body == (await client.get("/prompts/greeting")).json()


async def test_slug_is_made_from_the_name_and_numbered_when_taken(
    client: httpx.AsyncClient,
) -> None:
    slugs = [
        (await client.post("/prompts", json={"name": name})).json()["slug"]
        for name in ("Größe & Farbe", "grosse   FARBE", "Größe & Farbe", "日本", "日本語")
    ]

    assert ["grosse-farbe", "grosse-farbe-2", "grosse-farbe-3", "prompt", "prompt-2"] == slugs


async def test_made_slug_leaves_the_former_slug_of_another_prompt_alone(
    client: httpx.AsyncClient,
) -> None:
    await _create(client, "greeting")
    await client.patch("/prompts/greeting", json={"slug": "welcome"})

    made = await client.post("/prompts", json={"name": "Greeting"})

    assert "greeting-2" == made.json()["slug"]
    assert "welcome" == (await client.get("/prompts/greeting")).json()["slug"]


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({}, "/name"),
        ({"name": None}, "/name"),
        ({"name": ""}, "/name"),
        ({"name": "  "}, "/name"),
        ({"name": "x" * 201}, "/name"),
        ({"name": "bell\u0007"}, "/name"),
        ({"name": "x", "slug": ""}, "/slug"),
        ({"name": "x", "slug": "a/b"}, "/slug"),
        ({"name": "x", "slug": "a b"}, "/slug"),
        ({"name": "x", "slug": "Greeting"}, "/slug"),
        ({"name": "x", "slug": "a" * 129}, "/slug"),
        ({"name": "x", "slug": "a\u200bb"}, "/slug"),
        ({"name": "x", "slug": "a\u202eb"}, "/slug"),
        ({"name": "x", "slug": "abc\n"}, "/slug"),
        ({"name": "x", "slug": "-a"}, "/slug"),
        ({"name": "x", "slug": 7}, "/slug"),
        ({"name": "x", "description": "y" * 2_001}, "/description"),
        ({"name": "x", "id": "y"}, "/id"),
        ({"Name": "x", "name": "x"}, "/Name"),
    ],
)
async def test_unacceptable_prompt_is_refused_at_its_field(
    client: httpx.AsyncClient, body: dict[str, object], pointer: str
) -> None:
    response = await client.post("/prompts", json=body)

    assert (422, "invalid", [pointer]) == problem(response)
    assert [] == (await client.get("/prompts")).json()["data"]


async def test_twenty_concurrent_creations_of_a_slug_make_one_prompt(
    client: httpx.AsyncClient,
) -> None:
    responses = await asyncio.gather(
        *(client.post("/prompts", json={"slug": "greeting", "name": "x"}) for _ in range(20))
    )

    statuses = Counter(response.status_code for response in responses)
    assert {201: 1, 409: 19} == statuses
    assert {"slug_taken"} == {r.json()["code"] for r in responses if r.status_code == 409}
    assert 1 == len((await client.get("/prompts")).json()["data"])


async def test_twenty_concurrent_creations_of_a_name_make_twenty_slugs(
    client: httpx.AsyncClient,
) -> None:
    responses = await asyncio.gather(
        *(client.post("/prompts", json={"name": "Greeting"}) for _ in range(20))
    )

    assert [201] * 20 == [response.status_code for response in responses]
    assert 20 == len({response.json()["slug"] for response in responses})


async def test_renamed_prompt_answers_to_both_slugs(client: httpx.AsyncClient) -> None:
    await _create(client)

    renamed = await client.patch("/prompts/greeting", json={"slug": "welcome", "name": "Welcome"})

    assert (200, "welcome", "Welcome") == (
        renamed.status_code,
        renamed.json()["slug"],
        renamed.json()["name"],
    )
    assert "welcome" == (await client.get("/prompts/greeting")).json()["slug"]
    assert "welcome" == (await client.get("/prompts/greeting/1")).json()["slug"]
    run = await client.post("/prompts/greeting/1/runs", json={"inputs": {"name": "Ada"}})
    assert 200 == run.status_code


async def test_prompt_can_be_renamed_back(client: httpx.AsyncClient) -> None:
    await _create(client)
    await client.patch("/prompts/greeting", json={"slug": "welcome"})

    response = await client.patch("/prompts/welcome", json={"slug": "greeting"})

    assert "greeting" == response.json()["slug"]
    assert "greeting" == (await client.get("/prompts/welcome")).json()["slug"]


async def test_rename_to_a_slug_in_use_is_a_conflict(client: httpx.AsyncClient) -> None:
    await _create(client, "greeting")
    await _create(client, "welcome")

    response = await client.patch("/prompts/greeting", json={"slug": "welcome"})

    assert (409, "slug_taken", []) == problem(response)


async def test_former_slug_of_a_prompt_is_not_given_to_another(client: httpx.AsyncClient) -> None:
    """Whoever still asks for the old slug must not be handed somebody else's prompt."""
    await _create(client, "greeting")
    await _create(client, "other")
    for slug in ("welcome", "hello"):
        await client.patch("/prompts/greeting", json={"slug": slug})

    created = [
        await client.post("/prompts", json={"slug": slug, "name": "x"})
        for slug in ("greeting", "welcome", "hello")
    ]
    renamed = await client.patch("/prompts/other", json={"slug": "greeting"})

    assert [(409, "slug_taken", [])] * 4 == [problem(answer) for answer in (*created, renamed)]
    for slug in ("greeting", "welcome", "hello"):
        assert "hello" == (await client.get(f"/prompts/{slug}")).json()["slug"]
    assert "other" == (await client.get("/prompts/other")).json()["slug"]


async def test_former_slug_is_free_once_its_prompt_is_deleted(client: httpx.AsyncClient) -> None:
    await _create(client, "greeting")
    await client.patch("/prompts/greeting", json={"slug": "welcome"})
    await client.delete("/prompts/welcome")

    await _create(client, "greeting")

    assert "greeting" == (await client.get("/prompts/greeting")).json()["slug"]


async def test_empty_change_and_nulls_change_nothing(client: httpx.AsyncClient) -> None:
    await _create(client)
    before = (await client.get("/prompts/greeting")).json()

    empty = await client.patch("/prompts/greeting", json={})
    nulls = await client.patch("/prompts/greeting", json={"slug": None, "name": None})

    assert [before, before] == [empty.json(), nulls.json()]


async def test_deleted_prompt_is_gone_and_its_slugs_are_free(client: httpx.AsyncClient) -> None:
    await _create(client)
    await client.patch("/prompts/greeting", json={"slug": "welcome"})

    first = await client.delete("/prompts/greeting")
    second = await client.delete("/prompts/greeting")

    assert [204, 404] == [first.status_code, second.status_code]
    assert b"" == first.content
    for path in ("/prompts/welcome", "/prompts/welcome/1", "/prompts/welcome/versions"):
        assert 404 == (await client.get(path)).status_code
    run = await client.post("/prompts/welcome/1/runs", json={"inputs": {"name": "Ada"}})
    assert 404 == run.status_code
    await _create(client, "greeting")
    await _create(client, "welcome")


async def test_version_is_numbered_published_and_shown_to_the_prompts_door(
    client: httpx.AsyncClient,
) -> None:
    await _create(client, versions=0)

    created = await client.post(
        "/prompts/greeting/versions",
        json={
            "model": "openai/gpt-4o-mini",
            "systemInstruction": "Be kind.",
            "messages": [{"role": "user", "content": "Hello {{ name }}, {{ a b }}"}],
            "modelParams": {"temperature": 0.5},
            "responseFormat": {"type": "json_schema", "name": "n", "schema": "{}"},
        },
    )

    assert 201 == created.status_code
    version = created.json()
    assert (1, True) == (version["number"], version["published"])
    assert 1 == len(version["warnings"])
    assert "{{ a b }}" in version["warnings"][0]
    assert version["publishedAt"].endswith("Z")
    prompt = (await client.get("/prompts/greeting")).json()
    assert {
        "id": version["id"],
        "promptId": prompt["id"],
        "memory": "stateless",
        "provider": "openai",
        "model": "gpt-4o-mini",
        "modelParams": {"temperature": 0.5},
        "responseFormat": {"type": "json_schema", "name": "n", "schema": "{}"},
        "systemInstruction": "Be kind.",
        "messages": [{"role": "user", "content": "Hello {{ name }}, {{ a b }}"}],
        "tools": [],
        "number": 1,
        "slug": "greeting",
        "tags": [],
        "inputs": ["name"],
    } == (await client.get("/prompts/greeting/1")).json()


async def test_defaults_of_a_revision_are_written_out(client: httpx.AsyncClient) -> None:
    await _create(client)

    revision = (await client.get("/prompts/greeting/__latest__")).json()

    assert ("stateless", "sim", "echo", {}, {"type": "text"}, None, []) == tuple(
        revision[name]
        for name in (
            "memory",
            "provider",
            "model",
            "modelParams",
            "responseFormat",
            "systemInstruction",
            "tools",
        )
    )


async def test_draft_is_hidden_until_it_is_published(client: httpx.AsyncClient) -> None:
    await _create(client)
    draft = await client.post("/prompts/greeting/versions", json={**BODY, "publish": False})
    assert (2, False, None) == tuple(
        draft.json()[name] for name in ("number", "published", "publishedAt")
    )

    hidden = [
        (await client.get(f"/prompts/greeting/{name}")).status_code
        for name in (2, draft.json()["id"])
    ]
    latest = (await client.get("/prompts/greeting/__latest__")).json()["number"]
    published = await client.post("/prompts/greeting/versions/2/publish")
    again = await client.post("/prompts/greeting/versions/2/publish", json={})

    assert ([404, 404], 1) == (hidden, latest)
    assert (200, True) == (published.status_code, published.json()["published"])
    assert published.json() == again.json()
    assert 2 == (await client.get("/prompts/greeting/__latest__")).json()["number"]


async def test_latest_is_what_was_published_last_not_the_highest_number(
    client: httpx.AsyncClient,
) -> None:
    await _create(client, versions=0)
    await client.post("/prompts/greeting/versions", json={**BODY, "publish": False})
    await client.post("/prompts/greeting/versions", json=BODY)
    await client.post("/prompts/greeting/versions/1/publish")

    assert 1 == (await client.get("/prompts/greeting/__latest__")).json()["number"]


async def test_versions_are_listed_newest_first_with_drafts(client: httpx.AsyncClient) -> None:
    await _create(client, versions=2)
    await client.post("/prompts/greeting/versions", json={**BODY, "publish": False})

    listing = (await client.get("/prompts/greeting/versions")).json()

    assert [(3, False), (2, True), (1, True)] == [
        (version["number"], version["published"]) for version in listing["data"]
    ]
    assert (False, None) == (listing["hasMore"], listing["nextCursor"])


async def test_concurrent_versions_get_numbers_of_their_own(client: httpx.AsyncClient) -> None:
    await _create(client, versions=0)

    responses = await asyncio.gather(
        *(client.post("/prompts/greeting/versions", json=BODY) for _ in range(10))
    )

    assert list(range(1, 11)) == sorted(response.json()["number"] for response in responses)


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({}, "/messages"),
        ({**BODY, "publish": "yes"}, "/publish"),
        ({**BODY, "publish": 1}, "/publish"),
        ({**BODY, "number": 3}, "/number"),
        ({**BODY, "modelParams": {"base_url": "http://x"}}, "/modelParams/base_url"),
        ({**BODY, "messages": [{"role": "system", "content": "x"}]}, "/messages/0/role"),
    ],
)
async def test_unacceptable_version_is_refused_at_its_field(
    client: httpx.AsyncClient, body: dict[str, object], pointer: str
) -> None:
    await _create(client, versions=0)

    response = await client.post("/prompts/greeting/versions", json=body)

    status, _, pointers = problem(response)
    assert 422 == status
    assert pointer in pointers
    assert [] == (await client.get("/prompts/greeting/versions")).json()["data"]


ODD_BODIES: list[dict[str, Any]] = [
    {"model": "openai/sim/echo", "messages": [{"role": "user", "content": "\r\n\f{{ a b }}"}]},
    {**BODY, "systemInstruction": "", "syntax": "brackets", "modelParams": {"temperature": 1}},
    {
        "entrypoint": "start",
        "templates": {
            "empty": {"text": ""},
            "start": {**BODY, "fallbacks": ["sim/slow"], "memory": None, "timeoutSeconds": 5},
            "Other.one-": {**BODY, "responseFormat": {"type": "json_object"}},
        },
    },
]


@pytest.mark.parametrize("publish", [True, False])
@pytest.mark.parametrize("body", ODD_BODIES)
async def test_body_of_a_version_posted_again_makes_an_equal_version(
    client: httpx.AsyncClient, body: dict[str, Any], publish: object
) -> None:
    await _create(client, versions=0)
    await client.post("/prompts/greeting/versions", json={**body, "publish": publish})

    first = (await client.get("/prompts/greeting/versions/1")).json()
    again = await client.post("/prompts/greeting/versions", json=first["body"])
    second = (await client.get("/prompts/greeting/versions/2")).json()

    assert 201 == again.status_code
    assert first["body"] == second["body"]
    assert (publish, True) == (first["published"], second["published"])
    listed = (await client.get("/prompts/greeting/versions")).json()["data"]
    assert listed == [
        {name: value for name, value in whole.items() if name != "body"}
        for whole in (second, first)
    ]


async def test_whole_version_posted_back_is_refused_for_what_only_we_write(
    client: httpx.AsyncClient,
) -> None:
    await _create(client)
    whole = (await client.get("/prompts/greeting/versions/1")).json()

    response = await client.post("/prompts/greeting/versions", json=whole)

    assert (422, "invalid") == problem(response)[:2]


@pytest.mark.parametrize("publish", [None, True])
async def test_version_is_published_unless_told_otherwise(
    client: httpx.AsyncClient, publish: object
) -> None:
    await _create(client, versions=0)

    response = await client.post("/prompts/greeting/versions", json={**BODY, "publish": publish})

    assert True is response.json()["published"]


@pytest.mark.parametrize(
    "version",
    ["0", "-1", "2", "01", "99999999999999999999", "latest", "latest%20", "main", "1.0", "%31x"],
)
async def test_unknown_version_is_not_found(client: httpx.AsyncClient, version: str) -> None:
    await _create(client)

    read = await client.get(f"/prompts/greeting/{version}")
    published = await client.post(f"/prompts/greeting/versions/{version}/publish")

    assert [404, 404] == [read.status_code, published.status_code]


async def test_tag_points_at_a_version_and_moves_and_tells_its_history(
    client: httpx.AsyncClient, deps: Deps, tenant: Tenant
) -> None:
    await _create(client, versions=2)

    first = await client.put("/prompts/greeting/tags/production", json={"version": 1})
    second = await client.put(
        "/prompts/greeting/tags/production", json={"version": 2, "comment": "better"}
    )
    same = await client.put("/prompts/greeting/tags/production", json={"version": 2})
    revision = (await client.get("/prompts/greeting/production")).json()
    removed = await client.delete("/prompts/greeting/tags/production")

    assert [(200, 1), (200, 2), (200, 2)] == [
        (answer.status_code, answer.json()["version"]) for answer in (first, second, same)
    ]
    assert (2, ["production"]) == (revision["number"], revision["tags"])
    assert revision["id"] == second.json()["versionId"]
    assert 204 == removed.status_code
    assert 404 == (await client.delete("/prompts/greeting/tags/production")).status_code
    assert 404 == (await client.get("/prompts/greeting/production")).status_code
    history = (await client.get("/prompts/greeting/tags/production/history")).json()["data"]
    assert [(2, None, ""), (1, 2, "better"), (None, 1, "")] == [
        (move["from"], move["to"], move["comment"]) for move in history
    ]
    assert {str(tenant.principal.key_id)} == {move["keyId"] for move in history}


async def test_tag_can_be_set_by_version_id(client: httpx.AsyncClient) -> None:
    await _create(client, versions=2)
    version_id = (await client.get("/prompts/greeting/1")).json()["id"]

    response = await client.put("/prompts/greeting/tags/prod", json={"version": version_id})

    assert (200, 1) == (response.status_code, response.json()["version"])


async def test_submission_follows_a_moved_tag_at_once(client: httpx.AsyncClient) -> None:
    await _create(client, versions=2)
    numbers = []
    for number in (1, 2):
        await client.put("/prompts/greeting/tags/prod", json={"version": number})
        run = await client.post("/prompts/greeting/prod/runs", json={"inputs": {"name": "Ada"}})
        read = await client.get(f"/runs/{run.json()['id']}")
        numbers.append(read.json()["prompt"]["version"])

    assert [1, 2] == numbers


@pytest.mark.parametrize(
    "tag",
    [
        *("1", "123", "latest", "versions", "tags", "runs", "__x", "Prod", "a.b", "a%20b"),
        *("a" * 65, "%E2%80%8Bx", UNKNOWN_ID, "a0000000-0000-4000-8000-000000000000"),
    ],
)
async def test_tag_with_a_misleading_name_is_refused(client: httpx.AsyncClient, tag: str) -> None:
    await _create(client)

    response = await client.put(f"/prompts/greeting/tags/{tag}", json={"version": 1})

    assert (422, "invalid", ["/tag"]) == problem(response)
    assert 404 == (await client.delete(f"/prompts/greeting/tags/{tag}")).status_code


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({}, 422),
        ({"version": None}, 422),
        ({"version": "1"}, 422),
        ({"version": True}, 422),
        ({"version": 1, "to": 2}, 422),
        ({"version": 1, "comment": "x" * 2_001}, 422),
        ({"version": 0}, 404),
        ({"version": -1}, 404),
        ({"version": 9}, 404),
        ({"version": 2**31}, 404),
        ({"version": 2**53}, 404),
        ({"version": UNKNOWN_ID}, 404),
    ],
)
async def test_tag_needs_a_version_of_its_prompt(
    client: httpx.AsyncClient, body: dict[str, object], status: int
) -> None:
    await _create(client)

    response = await client.put("/prompts/greeting/tags/prod", json=body)

    assert status == response.status_code
    assert [] == (await client.get("/prompts/greeting/tags")).json()["data"]


async def test_tag_cannot_point_at_another_prompts_version_or_a_draft(
    client: httpx.AsyncClient,
) -> None:
    await _create(client, "greeting")
    await _create(client, "other")
    foreign = (await client.get("/prompts/other/1")).json()["id"]
    await client.post("/prompts/greeting/versions", json={**BODY, "publish": False})

    other = await client.put("/prompts/greeting/tags/prod", json={"version": foreign})
    draft = await client.put("/prompts/greeting/tags/prod", json={"version": 2})

    assert 404 == other.status_code
    assert (409, "version_not_published", []) == problem(draft)


async def test_history_of_a_tag_that_never_was_is_not_found(client: httpx.AsyncClient) -> None:
    await _create(client)

    response = await client.get("/prompts/greeting/tags/prod/history")

    assert 404 == response.status_code


PATHS = [
    ("GET", "/prompts/{slug}", None),
    ("PATCH", "/prompts/{slug}", {"name": "mine"}),
    ("DELETE", "/prompts/{slug}", None),
    ("POST", "/prompts/{slug}/versions", BODY),
    ("GET", "/prompts/{slug}/versions", None),
    ("GET", "/prompts/{slug}/versions/1", None),
    ("PUT", "/prompts/{slug}/versions/1", BODY),
    ("DELETE", "/prompts/{slug}/versions/1", None),
    ("POST", "/prompts/{slug}/versions/1/publish", {}),
    ("GET", "/prompts/{slug}/versions/1/diff/1", None),
    ("GET", "/prompts/{slug}/1", None),
    ("GET", "/prompts/{slug}/tags", None),
    ("GET", "/prompts/{slug}/tags/prod", None),
    ("PUT", "/prompts/{slug}/tags/prod", {"version": 1}),
    ("POST", "/prompts/{slug}/tags/prod/rollback", {}),
    ("DELETE", "/prompts/{slug}/tags/prod", None),
    ("GET", "/prompts/{slug}/tags/prod/history", None),
]


@pytest.mark.parametrize(("method", "path", "body"), PATHS)
async def test_foreign_prompt_is_not_found_like_an_unknown_one(
    client: httpx.AsyncClient, deps: Deps, method: str, path: str, body: object
) -> None:
    await _create(client)
    await client.put("/prompts/greeting/tags/prod", json={"version": 1})
    stranger = await a_tenant(deps)

    async with client_with(deps, stranger.key) as other:
        foreign = await other.request(method, path.format(slug="greeting"), json=body)
        unknown = await other.request(method, path.format(slug="unknown"), json=body)
        odd = await other.request(method, path.format(slug="Odd%20One"), json=body)

    assert [404, 404, 404] == [r.status_code for r in (foreign, unknown, odd)]
    assert without_request_id(foreign) == without_request_id(unknown) == without_request_id(odd)
    assert "greeting" == (await client.get("/prompts/greeting")).json()["name"]


async def test_foreign_version_id_leads_nowhere(client: httpx.AsyncClient, deps: Deps) -> None:
    await _create(client)
    version_id = (await client.get("/prompts/greeting/1")).json()["id"]
    stranger = await a_tenant(deps)

    async with client_with(deps, stranger.key) as other:
        await _create(other)
        read = await other.get(f"/prompts/greeting/{version_id}")
        tagged = await other.put("/prompts/greeting/tags/prod", json={"version": version_id})

    assert [404, 404] == [read.status_code, tagged.status_code]


async def test_reading_scope_reads_and_does_not_write(
    client: httpx.AsyncClient, deps: Deps, tenant: Tenant
) -> None:
    await _create(client)
    key, _ = await a_key(deps, tenant.workspace_id, ("prompts:read",))

    async with client_with(deps, key) as reader:
        answers = [
            await reader.request(method, path.format(slug="greeting"), json=body)
            for method, path, body in PATHS
        ]

    allowed = [answer.status_code != 403 for answer in answers]
    assert [method == "GET" for method, _, _ in PATHS] == allowed
