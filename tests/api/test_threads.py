"""Threads over HTTP: what they show to whom, and what is left when one is deleted."""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from typing import Any
from uuid import UUID

import httpx
import pytest

from shared.deps import Deps
from shared.ids import RunId, new_id
from shared.store import threads
from tests.api.clients import client_with, problem, without_request_id
from tests.factories import Tenant, a_prompt, a_tenant
from tests.shared.store.rig import blocked
from tests.worker.execute_rig import Hands, hands

CHAT = {
    "model": "sim/echo",
    "memory": "read_write",
    "messages": [{"role": "user", "content": "I am {{ name }}"}],
}


@pytest.fixture(name="worker")
async def hands_of_a_worker(deps: Deps) -> AsyncIterator[Hands]:
    async with hands(deps) as made:
        yield made


@pytest.fixture(autouse=True)
async def _prompts(deps: Deps, tenant: Tenant) -> None:
    await a_prompt(deps, tenant, "chat", CHAT)
    await a_prompt(deps, tenant, "plain")


async def _submitted(
    client: httpx.AsyncClient, name: str, thread: str, slug: str = "chat", **body: Any
) -> str:
    document = {"inputs": {"name": name}, "thread": thread, **body}
    response = await client.post(f"/prompts/{slug}/1/runs", json=document)
    assert 200 == response.status_code, response.text
    return str(response.json()["id"])


async def _said(
    client: httpx.AsyncClient, worker: Hands, name: str, thread: str, **body: Any
) -> str:
    """A turn that has ended."""
    run_id = await _submitted(client, name, thread, **body)
    await worker.carry(RunId(UUID(run_id)))
    return run_id


async def _read(client: httpx.AsyncClient, path: str, **query: object) -> dict[str, Any]:
    response = await client.get(path, params={name: str(value) for name, value in query.items()})
    assert 200 == response.status_code, response.text
    found: dict[str, Any] = response.json()
    return found


async def _texts(client: httpx.AsyncClient, thread: str, **query: object) -> list[str]:
    listing = await _read(client, f"/threads/{thread}/messages", **query)
    return [message["content"] for message in listing["data"]]


async def _limited(client: httpx.AsyncClient, *environments: str) -> str:
    """A key for these environments only."""
    body = {"name": "limited", "scopes": ["runs:write"], "environments": list(environments)}
    return str((await client.post("/keys", json=body)).json()["key"])


async def test_a_thread_shows_its_channels_and_what_is_live_in_them(
    client: httpx.AsyncClient, worker: Hands
) -> None:
    thread = str(new_id())
    await _said(client, worker, "Ada", thread)
    await _submitted(client, "Bob", thread)
    await _submitted(client, "Cy", thread)
    await _submitted(client, "Di", thread, channel="aside")

    shown = await _read(client, f"/threads/{thread}")

    assert (thread, ["production"], False) == (
        shown["id"],
        shown["environments"],
        shown["moreChannels"],
    )
    assert [
        {"name": "aside", "waiting": 1, "running": 0},
        {"name": "default", "waiting": 2, "running": 0},
    ] == shown["channels"]


async def test_messages_are_those_of_one_channel_newest_first_with_their_runs(
    client: httpx.AsyncClient, worker: Hands
) -> None:
    thread = str(new_id())
    run_id = await _said(client, worker, "Ada", thread)
    await _said(client, worker, "Bob", thread, channel="aside")

    listing = await _read(client, f"/threads/{thread}/messages")

    answer, question = listing["data"]
    finished = (await _read(client, f"/runs/{run_id}"))["finishedAt"]
    assert {
        "role": "user",
        "content": "I am Ada",
        "turn": 1,
        "channel": "default",
        "run": run_id,
        "environment": "production",
        "createdAt": finished,
    } == question
    assert ("assistant", "You said: I am Ada") == (answer["role"], answer["content"])
    assert (False, None) == (listing["hasMore"], listing["nextCursor"])
    assert ["You said: I am Bob", "I am Bob"] == await _texts(client, thread, channel="aside")
    assert [] == await _texts(client, thread, channel="unheard of")


async def test_messages_are_walked_in_both_directions(
    client: httpx.AsyncClient, worker: Hands
) -> None:
    thread = str(new_id())
    for name in "abcd":
        await _said(client, worker, name, thread)
    whole, path = await _texts(client, thread), f"/threads/{thread}/messages"

    first = await _read(client, path, limit=3)
    second = await _read(client, path, limit=3, after=first["nextCursor"])
    third = await _read(client, path, limit=3, after=second["nextCursor"])
    back = await client.get(path, params={"limit": 1, "before": second["nextCursor"]})
    elsewhere = await client.get(path, params={"channel": "aside", "after": first["nextCursor"]})

    pages = [[message["content"] for message in page["data"]] for page in (first, second, third)]
    assert [whole[:3], whole[3:6], whole[6:]] == pages
    assert not third["hasMore"]
    assert [whole[4]] == [message["content"] for message in back.json()["data"]]
    assert 400 == elsewhere.status_code


async def test_a_page_of_long_messages_ends_early_and_the_walk_goes_on(
    client: httpx.AsyncClient, worker: Hands
) -> None:
    thread = str(new_id())
    for letter in "abc":
        await _said(client, worker, letter * 400_000, thread)

    texts: list[str] = []
    pages = 0
    listing: dict[str, Any] = {"nextCursor": None}
    while listing["nextCursor"] or not pages:
        query = {"after": listing["nextCursor"]} if pages else {}
        listing = await _read(client, f"/threads/{thread}/messages", **query)
        texts += [message["content"][-1] for message in listing["data"]]
        pages += 1

    assert (["c", "c", "b", "b", "a", "a"], 2) == (texts, pages)


async def test_a_run_that_waits_for_its_turn_says_so_where_it_is_read_and_listed(
    client: httpx.AsyncClient, worker: Hands
) -> None:
    thread = str(new_id())
    first, second = [await _submitted(client, name, thread) for name in "ab"]
    aside = await _submitted(client, "c", thread, channel="aside")
    stateless = await _submitted(client, "d", thread, slug="plain")

    listed = await _read(client, "/runs", thread=thread)
    reasons = {run["id"]: run["statusReason"] for run in listed["data"]}
    read = (await _read(client, f"/runs/{second}"))["statusReason"]
    await worker.carry(RunId(UUID(first)))
    after = (await _read(client, f"/runs/{second}"))["statusReason"]

    assert {first: None, second: "thread_busy", aside: None, stateless: None} == reasons
    assert ("thread_busy", None) == (read, after)


async def test_a_deleted_thread_is_forgotten_and_its_runs_stay_readable(
    client: httpx.AsyncClient, deps: Deps, worker: Hands
) -> None:
    thread = str(new_id())
    runs = [await _said(client, worker, name, thread, channel=name) for name in ("a", "b")]
    runs.append(await _said(client, worker, "c", thread, channel="a"))

    gone = await client.delete(f"/threads/{thread}")

    assert 204 == gone.status_code
    assert [] == await deps.store.fetch("SELECT 1 FROM messages", {})
    for path in (f"/threads/{thread}", f"/threads/{thread}/messages"):
        assert 404 == (await client.get(path)).status_code
    assert 404 == (await client.delete(f"/threads/{thread}")).status_code
    last = await _read(client, f"/runs/{runs[2]}")
    assert ("succeeded", "You said: I am c") == (last["status"], last["output"])
    assert [{"role": "user", "content": "I am c"}] == last["messages"]


async def test_a_deleted_thread_begins_anew_and_shows_old_runs_nothing_of_it(
    client: httpx.AsyncClient, worker: Hands
) -> None:
    thread = str(new_id())
    await _said(client, worker, "a", thread)
    old = await _said(client, worker, "b", thread)
    await client.delete(f"/threads/{thread}")

    new = await _said(client, worker, "c", thread)

    assert [{"role": "user", "content": "I am b"}] == (await _read(client, f"/runs/{old}"))[
        "messages"
    ]
    assert [{"role": "user", "content": "I am c"}] == (await _read(client, f"/runs/{new}"))[
        "messages"
    ]
    assert ["You said: I am c", "I am c"] == await _texts(client, thread)


@pytest.mark.parametrize(
    ("how", "refused"), [({}, True), ({"runAt": True}, True), ({"slug": "plain"}, False)]
)
async def test_a_thread_is_kept_while_a_run_is_live_that_will_remember(
    client: httpx.AsyncClient, deps: Deps, worker: Hands, how: dict[str, Any], *, refused: bool
) -> None:
    thread = str(new_id())
    await _said(client, worker, "a", thread)
    if "runAt" in how:
        (row,) = await deps.store.fetch(
            "SELECT to_char(now() + interval '1 day', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"')", {}
        )
        how = {"runAt": row[0]}
    live = await _submitted(client, "b", thread, **how)

    first = await client.delete(f"/threads/{thread}")
    await client.post(f"/runs/{live}/cancel")
    second = await client.delete(f"/threads/{thread}")

    if refused:
        assert (409, "thread_in_use", []) == problem(first)
        assert "1 runs of this thread wait and 0 run" in first.json()["detail"]
    assert [409 if refused else 204, 204 if refused else 404] == [
        first.status_code,
        second.status_code,
    ]


_ORPHANS = """
SELECT count(*) FROM runs r LEFT JOIN threads t
  ON t.workspace_id = r.workspace_id AND t.id = r.thread_id
WHERE r.turn IS NOT NULL AND r.status IN ('queued', 'running', 'scheduled')
  AND (t.id IS NULL OR t.deleted_at IS NOT NULL)
"""


async def test_a_submission_that_meets_the_deletion_of_its_thread_begins_it_anew(
    client: httpx.AsyncClient, deps: Deps, tenant: Tenant, worker: Hands
) -> None:
    thread = new_id()
    await _said(client, worker, "a", str(thread))
    async with deps.store.transaction() as tx:
        await threads.hold(tx, tenant.workspace_id, thread)
        await threads.erase(tx, tenant.workspace_id, thread, 10)
        await threads.end(tx, tenant.workspace_id, thread)
        submission = asyncio.create_task(_submitted(client, "b", str(thread)))
        await blocked(deps.store)

    run_id = await submission

    shown = await _read(client, f"/threads/{thread}")
    assert [{"name": "default", "waiting": 1, "running": 0}] == shown["channels"]
    await worker.carry(RunId(UUID(run_id)))
    assert ["You said: I am b", "I am b"] == await _texts(client, str(thread))


async def test_submissions_and_deletions_at_once_leave_no_run_without_its_thread(
    client: httpx.AsyncClient, deps: Deps
) -> None:
    one, other = str(new_id()), str(new_id())

    def submission(thread: str) -> Coroutine[Any, Any, httpx.Response]:
        body = {"inputs": {"name": "a"}, "thread": thread}
        return client.post("/prompts/chat/1/runs", json=body)

    for _ in range(8):
        answers = await asyncio.gather(
            *(
                ask
                for thread in (one, other)
                for ask in (
                    submission(thread),
                    client.delete(f"/threads/{thread}"),
                    submission(thread),
                    client.delete(f"/threads/{thread}"),
                )
            )
        )

        assert [200] * 4 == [answer.status_code for answer in answers[::2]]
        assert {answer.status_code for answer in answers[1::2]} <= {204, 404, 409}
        ((orphans,),) = await deps.store.fetch(_ORPHANS, {})
        assert 0 == orphans
        for answer in answers[::2]:
            await client.post(f"/runs/{answer.json()['id']}/cancel")


@pytest.mark.parametrize("part", ["", "/messages"])
@pytest.mark.parametrize("method", ["GET", "DELETE"])
async def test_a_thread_of_another_workspace_is_as_unknown_as_none(
    client: httpx.AsyncClient, deps: Deps, worker: Hands, method: str, part: str
) -> None:
    if (method, part) == ("DELETE", "/messages"):
        method = "GET"
    thread, nowhere = str(new_id()), str(new_id())
    await _said(client, worker, "Ada", thread)
    stranger = await a_tenant(deps)

    async with client_with(deps, stranger.key) as other:
        theirs = await other.request(method, f"/threads/{thread}{part}")
        unknown = await other.request(method, f"/threads/{nowhere}{part}")

    assert (404, without_request_id(unknown)) == (theirs.status_code, without_request_id(theirs))
    assert 2 == len(await _texts(client, thread))


async def test_the_same_id_is_another_thread_in_another_workspace(
    client: httpx.AsyncClient, deps: Deps, worker: Hands
) -> None:
    thread, stranger = str(new_id()), await a_tenant(deps)
    await a_prompt(deps, stranger, "chat", CHAT)
    await _said(client, worker, "mine", thread)

    async with client_with(deps, stranger.key) as other:
        run_id = await _said(other, worker, "theirs", thread)
        sent = (await _read(other, f"/runs/{run_id}"))["messages"]

    assert [{"role": "user", "content": "I am theirs"}] == sent
    assert ["You said: I am mine", "I am mine"] == await _texts(client, thread)


async def test_a_limited_key_sees_of_a_thread_what_its_environments_said(
    client: httpx.AsyncClient, deps: Deps, worker: Hands
) -> None:
    await client.post("/environments", json={"name": "staging"})
    thread, other_thread = str(new_id()), str(new_id())
    await _said(client, worker, "secret", thread)
    await _said(client, worker, "secret", other_thread, channel="hidden")
    async with client_with(deps, await _limited(client, "staging")) as limited:
        before = await limited.get(f"/threads/{thread}")
        mine = await _said(limited, worker, "known", thread, environment="staging")
        shown = await _read(limited, f"/threads/{thread}")
        texts = await _texts(limited, thread)
        sent = (await _read(limited, f"/runs/{mine}"))["messages"]
        refused = await limited.delete(f"/threads/{thread}")
        unknown = await limited.delete(f"/threads/{other_thread}")

    assert 404 == before.status_code
    assert ["staging"] == shown["environments"]
    assert ["You said: I am known", "I am known"] == texts
    assert [{"role": "user", "content": "I am known"}] == sent
    assert (403, "environment_forbidden", []) == problem(refused)
    assert 404 == unknown.status_code
    assert 4 == len(await _texts(client, thread))


async def test_a_limited_key_deletes_a_thread_of_its_own_environments(
    client: httpx.AsyncClient, deps: Deps, worker: Hands
) -> None:
    await client.post("/environments", json={"name": "staging"})
    thread = str(new_id())

    async with client_with(deps, await _limited(client, "staging")) as limited:
        await _said(limited, worker, "Ada", thread, environment="staging")
        gone = await limited.delete(f"/threads/{thread}")

    assert 204 == gone.status_code
    assert 404 == (await client.get(f"/threads/{thread}")).status_code


@pytest.mark.parametrize("path", ["/threads/no-uuid", "/threads/no-uuid/messages"])
async def test_an_id_that_is_none_is_an_unknown_thread(
    client: httpx.AsyncClient, path: str
) -> None:
    assert (404, "not_found", []) == problem(await client.get(path))


async def test_a_key_that_reads_may_not_delete(client: httpx.AsyncClient, deps: Deps) -> None:
    thread = str(new_id())
    await _submitted(client, "a", thread, slug="plain")
    made = await client.post("/keys", json={"name": "reader", "scopes": ["runs:read"]})

    async with client_with(deps, made.json()["key"]) as reader:
        assert 403 == (await reader.delete(f"/threads/{thread}")).status_code
        assert 200 == (await reader.get(f"/threads/{thread}")).status_code
