"""Lists: pages in both directions, limits, and cursors that fit one list only."""

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.paging import Asked, Cursors, Listing
from shared.deps import Deps
from shared.errors import InvalidCursorError
from shared.ids import new_id
from tests.api.clients import client_with, problem
from tests.factories import Tenant, a_prompt, a_tenant

CURSORS = Cursors(new_id(), "things")
names = st.lists(st.text(min_size=1, max_size=5), unique=True, max_size=12).map(sorted)


async def _prompts(client: httpx.AsyncClient, count: int) -> list[str]:
    """Make prompts; answers their slugs, newest first."""
    for number in range(count):
        await client.post("/prompts", json={"name": "x", "slug": f"p{number}"})
    return [f"p{number}" for number in reversed(range(count))]


async def test_list_is_walked_forward_page_by_page(client: httpx.AsyncClient) -> None:
    slugs = await _prompts(client, 5)
    seen: list[list[str]] = []
    query = {"limit": "2"}
    more = True
    while more and len(seen) < 5:
        page = (await client.get("/prompts", params=query)).json()
        seen.append([prompt["slug"] for prompt in page["data"]])
        more = page["hasMore"]
        query["after"] = page["nextCursor"]

    assert [slugs[:2], slugs[2:4], slugs[4:]] == seen
    assert query["after"] is None


async def test_list_is_walked_back_page_by_page(client: httpx.AsyncClient) -> None:
    slugs = await _prompts(client, 6)
    first = (await client.get("/prompts", params={"limit": 5})).json()

    nearest = (
        await client.get("/prompts", params={"limit": 2, "before": first["nextCursor"]})
    ).json()
    further = (
        await client.get("/prompts", params={"limit": 2, "before": nearest["nextCursor"]})
    ).json()

    assert slugs[2:4] == [prompt["slug"] for prompt in nearest["data"]]
    assert slugs[0:2] == [prompt["slug"] for prompt in further["data"]]
    assert [(True, False), (False, True)] == [
        (page["hasMore"], page["nextCursor"] is None) for page in (nearest, further)
    ]


async def test_full_last_page_has_no_more(client: httpx.AsyncClient) -> None:
    await _prompts(client, 2)

    page = (await client.get("/prompts", params={"limit": 2})).json()

    assert (2, False, None) == (len(page["data"]), page["hasMore"], page["nextCursor"])


async def test_twenty_are_shown_unless_told_otherwise(client: httpx.AsyncClient) -> None:
    await _prompts(client, 22)

    default = (await client.get("/prompts")).json()
    most = (await client.get("/prompts", params={"limit": "100"})).json()

    assert [(20, True), (22, False)] == [
        (len(page["data"]), page["hasMore"]) for page in (default, most)
    ]


async def test_new_rows_do_not_shift_a_page(client: httpx.AsyncClient) -> None:
    slugs = await _prompts(client, 4)
    first = (await client.get("/prompts", params={"limit": 2})).json()
    await client.post("/prompts", json={"name": "x", "slug": "newest"})
    await client.delete(f"/prompts/{slugs[1]}")

    second = (await client.get("/prompts", params={"after": first["nextCursor"]})).json()

    assert slugs[2:] == [prompt["slug"] for prompt in second["data"]]


LISTS = [
    "/prompts",
    "/prompts/greeting/versions",
    "/prompts/greeting/tags",
    "/prompts/greeting/tags/prod/history",
    "/environments",
    "/environments/production/variables",
    "/webhooks",
    "/keys",
]


@pytest.fixture
async def filled(client: httpx.AsyncClient, deps: Deps, tenant: Tenant) -> httpx.AsyncClient:
    """The tenant's client, with two rows in every list."""
    await a_prompt(deps, tenant)
    await a_prompt(deps, tenant, "other")
    version = {"model": "sim/echo", "messages": [{"role": "user", "content": "x"}]}
    await client.post("/prompts/greeting/versions", json=version)
    for tag, number in (("prod", 1), ("prod", 2), ("beta", 1)):
        await client.put(f"/prompts/greeting/tags/{tag}", json={"version": number})
    await client.post("/environments", json={"name": "staging"})
    for key in ("A", "B"):
        await client.put(f"/environments/production/variables/{key}", json={"value": "x"})
        await client.post("/webhooks", json={"url": "https://example.com/"})
    await client.post("/keys", json={"name": "x", "scopes": ["admin"]})
    return client


@pytest.mark.parametrize("path", LISTS)
async def test_every_list_pages(filled: httpx.AsyncClient, path: str) -> None:
    both = (await filled.get(path)).json()
    first = (await filled.get(path, params={"limit": 1})).json()
    second = (await filled.get(path, params={"limit": 1, "after": first["nextCursor"]})).json()
    back = await filled.get(path, params={"before": first["nextCursor"]})

    assert (2, False, None) == (len(both["data"]), both["hasMore"], both["nextCursor"])
    assert both["data"] == [*first["data"], *second["data"]]
    assert [(True, False), (False, True)] == [
        (page["hasMore"], page["nextCursor"] is None) for page in (first, second)
    ]
    assert [] == back.json()["data"]


BAD_QUERIES = [
    *("limit=0", "limit=101", "limit=-1", "limit=abc", "limit=", "limit=1&limit=1"),
    *("limit=1.0", "limit=%2B1", "limit=01", "limit=%D9%A1", "limit=1e1", "limit=%201"),
    *("page=1", "Limit=1", "limit=1&sort=name", "limit=9999999999"),
]


@pytest.mark.parametrize("path", LISTS)
async def test_bad_limit_or_unknown_parameter_is_refused(
    filled: httpx.AsyncClient, path: str
) -> None:
    for query in BAD_QUERIES:
        response = await filled.get(f"{path}?{query}")
        assert (400, "bad_request") == problem(response)[:2], query


@pytest.mark.parametrize("path", LISTS)
async def test_cursor_of_another_list_is_refused(filled: httpx.AsyncClient, path: str) -> None:
    others = [other for other in LISTS if other != path]
    foreign = [
        (await filled.get(other, params={"limit": 1})).json()["nextCursor"] for other in others
    ]
    own = (await filled.get(path, params={"limit": 1})).json()["nextCursor"]
    bad = [*foreign, own[:-1], own[1:], own + "A", own + "=", own.lower(), "", "x", "é", "a\x01"]

    for cursor in bad:
        for direction in ("after", "before"):
            response = await filled.get(path, params={direction: cursor})
            assert (400, "invalid_cursor", []) == problem(response), cursor


async def test_cursor_of_another_prompt_or_workspace_is_refused(
    filled: httpx.AsyncClient, deps: Deps
) -> None:
    versions = (await filled.get("/prompts/greeting/versions?limit=1")).json()["nextCursor"]
    prompts = (await filled.get("/prompts?limit=1")).json()["nextCursor"]
    stranger = await a_tenant(deps)

    async with client_with(deps, stranger.key) as other:
        responses = [
            await filled.get("/prompts/other/versions", params={"after": versions}),
            await other.get("/prompts", params={"after": prompts}),
        ]

    assert [(400, "invalid_cursor", [])] * 2 == [problem(response) for response in responses]


async def test_after_and_before_together_are_refused(filled: httpx.AsyncClient) -> None:
    cursor = (await filled.get("/prompts?limit=1")).json()["nextCursor"]

    response = await filled.get("/prompts", params={"after": cursor, "before": cursor})

    assert (400, "bad_request", []) == problem(response)


@given(st.text(max_size=60))
def test_no_made_up_cursor_is_accepted(cursor: str) -> None:
    with pytest.raises(InvalidCursorError):
        CURSORS.position(cursor)


def test_made_up_position_is_no_name_and_no_id() -> None:
    cursor = CURSORS.cursor(b"\xff")

    with pytest.raises(InvalidCursorError):
        Asked(after=cursor).cut(CURSORS, ["a"], str)
    with pytest.raises(InvalidCursorError):
        Asked(after=cursor).page(CURSORS)


@given(st.binary(min_size=1, max_size=100))
def test_cursor_leads_back_to_its_position(position: bytes) -> None:
    assert position == CURSORS.position(CURSORS.cursor(position))


@given(names, st.integers(1, 5))
def test_short_list_is_walked_forward_without_gap_or_repeat(texts: list[str], limit: int) -> None:
    seen: list[str] = []
    page: Listing[str] = Asked(limit).cut(CURSORS, texts, str)
    seen += page.data
    while page.next_cursor is not None:
        page = Asked(limit, after=page.next_cursor).cut(CURSORS, texts, str)
        seen += page.data

    assert texts == seen


@given(names.filter(bool), st.integers(1, 5))
def test_short_list_is_walked_back_without_gap_or_repeat(texts: list[str], limit: int) -> None:
    *earlier, last = texts
    seen: list[str] = []
    cursor: str | None = CURSORS.cursor(last.encode())
    while cursor is not None:
        page = Asked(limit, before=cursor).cut(CURSORS, texts, str)
        seen = [*page.data, *seen]
        cursor = page.next_cursor

    assert earlier == seen
