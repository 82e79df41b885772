"""API keys as a client of the API sees them."""

from datetime import timedelta, timezone
from typing import Any

import httpx
import pytest

from shared import deps as shared_deps
from shared.clock import SystemClock, rfc3339
from shared.deps import Deps
from shared.errors import NotFoundError, UnacceptableError
from shared.ids import WorkspaceId, new_id
from shared.services import key_management, keys, workspaces
from tests.api.clients import client_with, problem, without_request_id
from tests.factories import Tenant, a_key, a_prompt, a_tenant

UNKNOWN_ID = "019abcde-0000-7000-8000-000000000000"


async def _create(client: httpx.AsyncClient, **fields: object) -> dict[str, Any]:
    response = await client.post("/keys", json={"name": "ci", "scopes": ["admin"], **fields})
    assert 201 == response.status_code, response.text
    body: dict[str, Any] = response.json()
    return body


async def test_created_key_is_shown_once_and_works(client: httpx.AsyncClient, deps: Deps) -> None:
    created = await _create(client, scopes=["prompts:read", "keys:read", "prompts:read"])

    text = created.pop("key")
    assert text.startswith(created["prefix"] + "_")
    assert (["prompts:read", "keys:read"], [], None, None) == tuple(
        created[name] for name in ("scopes", "environments", "expiresAt", "lastUsedAt")
    )
    async with client_with(deps, text) as holder:
        assert 200 == (await holder.get("/prompts")).status_code
        assert 403 == (await holder.post("/prompts", json={"name": "x"})).status_code
        listing = await holder.get("/keys")
    assert created == listing.json()["data"][0]
    assert text not in listing.text
    rows = await deps.store.fetch("SELECT k::text FROM api_keys k", {})
    assert [] == [row for row in rows if text[12:] in row[0]]


async def test_revoked_key_ends_here_at_once(client: httpx.AsyncClient, deps: Deps) -> None:
    created = await _create(client)

    async with client_with(deps, created["key"]) as holder:
        before = await holder.get("/prompts")
        revoked = await client.delete(f"/keys/{created['id']}")
        after = await holder.get("/prompts")

    assert [200, 204, 401] == [answer.status_code for answer in (before, revoked, after)]
    assert 404 == (await client.delete(f"/keys/{created['id']}")).status_code
    ids = [key["id"] for key in (await client.get("/keys")).json()["data"]]
    assert created["id"] not in ids


async def test_a_list_of_keys_says_when_each_was_last_used(
    client: httpx.AsyncClient, deps: Deps
) -> None:
    used, unused = await _create(client), await _create(client)
    async with client_with(deps, used["key"]) as holder:
        await holder.get("/prompts")

    await keys.note_uses(deps)

    shown = {one["id"]: one["lastUsedAt"] for one in (await client.get("/keys")).json()["data"]}
    assert shown[unused["id"]] is None
    assert shown[used["id"]] >= used["createdAt"]


class _SteppedClock(SystemClock):
    """A clock whose monotonic time a test moves on."""

    passed_s = 0.0

    def monotonic(self) -> float:
        return 1_000 + self.passed_s


async def test_revoked_key_ends_on_other_processes_within_five_seconds(
    client: httpx.AsyncClient, deps: Deps
) -> None:
    clock = _SteppedClock()
    other = shared_deps.build(deps.settings, clock, deps.random, deps.store, deps.lanes)
    created = await _create(client)

    async with client_with(other, created["key"]) as holder:
        before = await holder.get("/prompts")
        await client.delete(f"/keys/{created['id']}")
        clock.passed_s = 5
        after = await holder.get("/prompts")

    assert [200, 401] == [before.status_code, after.status_code]


@pytest.mark.parametrize(
    ("own", "asked", "status"),
    [
        (("keys:write",), ["keys:write"], 201),
        (("keys:write",), ["keys:read"], 201),
        (("keys:write",), ["runs:read"], 403),
        (("keys:write",), ["admin"], 403),
        (("keys:write", "runs:read"), ["runs:write"], 403),
        (("keys:write", "runs:write"), ["runs:read", "runs:write"], 201),
        (("keys:write", "runs:write"), ["runs:read", "prompts:read"], 403),
        (("admin",), ["admin"], 201),
        (("keys:read",), ["keys:read"], 403),
    ],
)
async def test_key_grants_no_scope_it_has_not(
    deps: Deps, tenant: Tenant, own: tuple[str, ...], asked: list[str], status: int
) -> None:
    key, _ = await a_key(deps, tenant.workspace_id, own)

    async with client_with(deps, key) as holder:
        response = await holder.post("/keys", json={"name": "x", "scopes": asked})

    assert status == response.status_code


async def test_limited_key_grants_and_reaches_its_environments_only(
    client: httpx.AsyncClient, deps: Deps
) -> None:
    await client.post("/environments", json={"name": "staging"})
    wide = await _create(client)
    made = await _create(client, scopes=["keys:write"], environments=["Staging", "staging"])
    assert ["staging"] == made["environments"]
    asked = {"name": "x", "scopes": ["keys:read"]}

    async with client_with(deps, made["key"]) as limited:
        own = await limited.post("/keys", json={**asked, "environments": ["staging"]})
        beyond = [
            await limited.post("/keys", json=asked),
            await limited.post("/keys", json={**asked, "environments": []}),
            await limited.post("/keys", json={**asked, "environments": ["production"]}),
            await limited.delete(f"/keys/{wide['id']}"),
        ]
        listed = (await limited.get("/keys")).json()["data"]

    assert 201 == own.status_code
    assert {(403, "environment_forbidden")} == {problem(answer)[:2] for answer in beyond}
    assert [own.json()["id"], made["id"]] == [key["id"] for key in listed]


async def test_key_that_expires_makes_none_that_outlives_it(
    client: httpx.AsyncClient, deps: Deps
) -> None:
    ends_at = deps.clock.now() + timedelta(hours=1)
    own, later = rfc3339(ends_at), rfc3339(ends_at + timedelta(milliseconds=1))
    east = ends_at.astimezone(timezone(timedelta(hours=2))).isoformat(timespec="milliseconds")
    made = await _create(client, scopes=["keys:write"], expiresAt=own)
    asked = {"name": "x", "scopes": ["keys:write"]}

    async with client_with(deps, made["key"]) as holder:
        within = [await holder.post("/keys", json={**asked, "expiresAt": at}) for at in (own, east)]
        beyond = [
            await holder.post("/keys", json=asked),
            await holder.post("/keys", json={**asked, "expiresAt": None}),
            await holder.post("/keys", json={**asked, "expiresAt": later}),
        ]

    assert [(201, own)] * 2 == [(one.status_code, one.json()["expiresAt"]) for one in within]
    assert [(403, "expiry_forbidden", [])] * 3 == [problem(answer) for answer in beyond]
    assert 4 == len((await client.get("/keys")).json()["data"])


async def test_limited_key_sees_runs_of_its_environments_only(
    client: httpx.AsyncClient, deps: Deps, tenant: Tenant
) -> None:
    await a_prompt(deps, tenant)
    await client.post("/environments", json={"name": "staging"})
    made = await _create(client, scopes=["runs:write"], environments=["staging"])
    runs = {}
    for name in ("production", "staging"):
        body = {"inputs": {"name": "Ada"}, "environment": name}
        runs[name] = (await client.post("/prompts/greeting/1/runs", json=body)).json()["id"]

    async with client_with(deps, made["key"]) as limited:
        listed = (await limited.get("/runs")).json()["data"]
        waiting = (await limited.get("/queue")).json()["normal"]["waiting"]
        answers = {
            run_id: [
                await limited.get(f"/runs/{run_id}"),
                await limited.get(f"/promptruns/{run_id}"),
                await limited.get(f"/runs/{run_id}/deliveries"),
                await limited.post(f"/runs/{run_id}/replay", json={}),
                await limited.post(f"/runs/{run_id}/cancel"),
            ]
            for run_id in (runs["staging"], runs["production"], UNKNOWN_ID)
        }

    own, beyond, unknown = answers.values()
    assert [runs["staging"]] == [run["id"] for run in listed]
    assert 1 == waiting
    assert [200] * 5 == [answer.status_code for answer in own]
    assert [404] * 5 == [answer.status_code for answer in beyond]
    assert [without_request_id(one) for one in unknown] == [
        without_request_id(one) for one in beyond
    ]
    still = (await client.get(f"/runs/{runs['production']}")).json()
    assert "queued" == still["status"]


async def test_expired_key_is_no_key(client: httpx.AsyncClient, deps: Deps) -> None:
    expires_at = rfc3339(deps.clock.now() + timedelta(hours=1))
    created = await _create(client, expiresAt=expires_at)
    late = shared_deps.build(deps.settings, SystemClock(7_200), deps.random, deps.store, deps.lanes)

    async with client_with(deps, created["key"]) as holder:
        before = await holder.get("/prompts")
    async with client_with(late, created["key"]) as holder:
        after = await holder.get("/prompts")

    assert expires_at == created["expiresAt"]
    assert [200, 401] == [before.status_code, after.status_code]


@pytest.mark.parametrize(
    ("fields", "code", "pointers"),
    [
        ({"name": None}, "invalid", ["/name"]),
        ({"name": ""}, "invalid", ["/name"]),
        ({"name": "a\u0001"}, "invalid", ["/name"]),
        ({"scopes": None}, "invalid", ["/scopes"]),
        ({"scopes": []}, "invalid", ["/scopes"]),
        ({"scopes": ["admin", "root"]}, "invalid", ["/scopes/1"]),
        ({"scopes": "admin"}, "invalid", ["/scopes"]),
        ({"environments": ["nowhere"]}, "unknown_environment", ["/environments/0"]),
        ({"expiresAt": "2020-01-01T00:00:00Z"}, "invalid", ["/expiresAt"]),
        ({"expiresAt": "9999-12-31T23:59:59-12:00"}, "invalid", ["/expiresAt"]),
        ({"expiresAt": "0001-01-01T00:00:00+12:00"}, "invalid", ["/expiresAt"]),
        ({"expiresAt": "2099-01-01T00:00:00"}, "invalid", ["/expiresAt"]),
        ({"expiresAt": "2099-02-30T00:00:00Z"}, "invalid", ["/expiresAt"]),
        ({"expiresAt": 4_102_444_800}, "invalid", ["/expiresAt"]),
        ({"key": "rl_x"}, "invalid", ["/key"]),
        ({"workspaceId": UNKNOWN_ID}, "invalid", ["/workspaceId"]),
    ],
)
async def test_unacceptable_key_is_refused_at_its_field(
    client: httpx.AsyncClient, fields: dict[str, object], code: str, pointers: list[str]
) -> None:
    response = await client.post("/keys", json={"name": "ci", "scopes": ["admin"], **fields})

    assert (422, code, pointers) == problem(response)
    assert 1 == len((await client.get("/keys")).json()["data"])


async def test_foreign_key_is_not_found_like_an_unknown_one(
    client: httpx.AsyncClient, deps: Deps
) -> None:
    created = await _create(client)
    stranger = await a_tenant(deps)

    async with client_with(deps, stranger.key) as other:
        foreign, unknown, no_id = [
            await other.delete(f"/keys/{key_id}") for key_id in (created["id"], UNKNOWN_ID, "x")
        ]
        listed = (await other.get("/keys")).json()["data"]

    assert [404, 404, 404] == [r.status_code for r in (foreign, unknown, no_id)]
    assert without_request_id(foreign) == without_request_id(unknown) == without_request_id(no_id)
    assert [str(stranger.principal.key_id)] == [key["id"] for key in listed]
    async with client_with(deps, created["key"]) as holder:
        assert 200 == (await holder.get("/keys")).status_code


async def test_first_workspace_alone_may_use_the_servers_credentials_by_default(
    deps: Deps,
) -> None:
    made = [await workspaces.create_workspace(deps, f"w{number}") for number in range(2)]
    told = await workspaces.create_workspace(deps, "w2", server_credentials=True)

    assert [True, False, True] == [one.server_credentials for one in (*made, told)]
    rows = await deps.store.fetch("SELECT name, server_credentials FROM workspaces", {})
    assert {"w0": True, "w1": False, "w2": True} == dict(rows)


async def test_operator_makes_a_workspace_and_a_key_for_it(deps: Deps) -> None:
    made = await workspaces.create_workspace(
        deps, "shop", server_credentials=False, environments=["production", "staging"]
    )
    created = await key_management.create_for(deps, made.id, "operator's", ["admin"])

    async with client_with(deps, created.key) as holder:
        listing = (await holder.get("/environments")).json()["data"]

    assert [("staging", False), ("production", True)] == [
        (one["name"], one["isDefault"]) for one in listing
    ]


@pytest.mark.parametrize(
    ("name", "environments"),
    [("", ["a"]), ("x\n", ["a"]), ("x", ["a", "A"]), ("x", [".."]), ("x", ["a", ""])],
)
async def test_operators_bad_names_make_no_workspace(
    deps: Deps, name: str, environments: list[str]
) -> None:
    with pytest.raises(UnacceptableError):
        await workspaces.create_workspace(
            deps, name, server_credentials=False, environments=environments
        )

    assert [] == list(await deps.store.fetch("SELECT id FROM workspaces", {}))


async def test_operators_key_needs_a_workspace(deps: Deps) -> None:
    with pytest.raises(NotFoundError):
        await key_management.create_for(deps, WorkspaceId(new_id()), "x", ["admin"])
    with pytest.raises(UnacceptableError):
        await key_management.create_for(deps, WorkspaceId(new_id()), "x", ["root"])
