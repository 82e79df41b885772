"""Environments and their variables as a client of the API sees them."""

import asyncio
from collections import Counter

import httpx
import pytest

from shared import deps as shared_deps
from shared.deps import Deps
from shared.services import environments
from shared.services.environments import NewVariable
from shared.settings import Settings
from shared.store import reading
from tests.api.clients import client_with, problem, without_request_id
from tests.factories import Tenant, a_key, a_prompt, a_tenant

CANARY = "sk-canary-0123456789-abcd"


async def test_environment_is_created_listed_read_and_renamed(client: httpx.AsyncClient) -> None:
    created = await client.post("/environments", json={"name": "staging"})
    renamed = await client.patch("/environments/Staging", json={"name": "Stage.2"})

    assert 201 == created.status_code
    shown = {"id", "name", "isDefault", "createdAt", "deletingSince", "retention", "limits"}
    assert shown == created.json().keys()
    assert ("staging", False) == (created.json()["name"], created.json()["isDefault"])
    assert {**created.json(), "name": "Stage.2"} == renamed.json()
    assert renamed.json() == (await client.get("/environments/STAGE.2")).json()
    assert 404 == (await client.get("/environments/staging")).status_code
    listing = (await client.get("/environments")).json()["data"]
    assert ["Stage.2", "production"] == [one["name"] for one in listing]


async def test_environment_may_change_the_case_of_its_name(client: httpx.AsyncClient) -> None:
    response = await client.patch("/environments/production", json={"name": "Production"})

    assert (200, "Production") == (response.status_code, response.json()["name"])


async def test_first_environment_is_the_default(client: httpx.AsyncClient, deps: Deps) -> None:
    await deps.store.execute("DELETE FROM environments", {})

    first = await client.post("/environments", json={"name": "one", "isDefault": False})
    second = await client.post("/environments", json={"name": "two"})

    assert [True, False] == [answer.json()["isDefault"] for answer in (first, second)]


@pytest.mark.parametrize("at_creation", ["creation", "change"])
async def test_new_default_takes_over(client: httpx.AsyncClient, at_creation: str) -> None:
    if at_creation == "creation":
        await client.post("/environments", json={"name": "staging", "isDefault": True})
    else:
        await client.post("/environments", json={"name": "staging"})
        await client.patch("/environments/staging", json={"isDefault": True})

    listing = (await client.get("/environments")).json()["data"]
    assert {"staging": True, "production": False} == {
        one["name"]: one["isDefault"] for one in listing
    }


async def test_runs_go_to_the_new_default_at_once(
    client: httpx.AsyncClient, deps: Deps, tenant: Tenant
) -> None:
    await a_prompt(deps, tenant)
    await client.post("/environments", json={"name": "staging"})
    names = []
    for change in ({}, {"isDefault": True}, {"name": "stage"}):
        await client.patch("/environments/staging", json=change)
        run = await client.post("/prompts/greeting/1/runs", json={"inputs": {"name": "Ada"}})
        names.append((await client.get(f"/runs/{run.json()['id']}")).json()["environment"])

    assert ["production", "staging", "stage"] == names


async def test_default_environment_cannot_be_given_up_or_deleted(
    client: httpx.AsyncClient,
) -> None:
    given_up = await client.patch("/environments/production", json={"isDefault": False})
    deleted = await client.delete("/environments/production")

    assert (409, "default_environment", []) == problem(given_up)
    assert (409, "default_environment", []) == problem(deleted)
    assert "make another one the default" in deleted.json()["detail"]


async def test_deleted_environment_is_gone_and_its_name_is_free(client: httpx.AsyncClient) -> None:
    await client.post("/environments", json={"name": "staging"})
    await client.put("/environments/staging/variables/TOKEN", json={"value": CANARY})

    statuses = [(await client.delete("/environments/staging")).status_code for _ in range(2)]

    assert [204, 404] == statuses
    assert 404 == (await client.get("/environments/staging/variables")).status_code
    again = await client.post("/environments", json={"name": "STAGING"})
    assert 201 == again.status_code
    assert [] == (await client.get("/environments/staging/variables")).json()["data"]


async def test_twenty_concurrent_creations_of_a_name_make_one_environment(
    client: httpx.AsyncClient,
) -> None:
    names = ["staging", "Staging"] * 10

    responses = await asyncio.gather(
        *(client.post("/environments", json={"name": name}) for name in names)
    )

    assert {201: 1, 409: 19} == Counter(response.status_code for response in responses)
    assert 2 == len((await client.get("/environments")).json()["data"])


@pytest.mark.parametrize("name", ["production", "PRODUCTION"])
async def test_name_in_use_is_a_conflict_in_any_case(client: httpx.AsyncClient, name: str) -> None:
    await client.post("/environments", json={"name": "staging"})

    created = await client.post("/environments", json={"name": name})
    renamed = await client.patch("/environments/staging", json={"name": name})

    assert (409, "name_taken", []) == problem(created)
    assert (409, "name_taken", []) == problem(renamed)


@pytest.mark.parametrize(
    "name",
    ["", "..", ".", "-a", "a b", "a/b", "ä", "a\n", "a\u200bb", "a" * 65, "diff", "Promote"],
)
async def test_bad_environment_name_is_refused(client: httpx.AsyncClient, name: str) -> None:
    created = await client.post("/environments", json={"name": name})
    renamed = await client.patch("/environments/production", json={"name": name})

    assert (422, "invalid", ["/name"]) == problem(created)
    assert (422, "invalid", ["/name"]) == problem(renamed)


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({}, "/name"),
        ({"name": None}, "/name"),
        ({"name": 1}, "/name"),
        ({"name": "x", "isDefault": 1}, "/isDefault"),
        ({"name": "x", "id": "y"}, "/id"),
    ],
)
async def test_unacceptable_environment_is_refused_at_its_field(
    client: httpx.AsyncClient, body: dict[str, object], pointer: str
) -> None:
    response = await client.post("/environments", json=body)

    assert (422, "invalid", [pointer]) == problem(response)


async def test_variable_is_set_replaced_listed_and_deleted(client: httpx.AsyncClient) -> None:
    path = "/environments/production/variables"

    first = await client.put(f"{path}/B_KEY", json={"value": "short"})
    second = await client.put(f"{path}/B_KEY", json={"value": CANARY})
    await client.put(f"{path}/A_KEY", json={"value": "x" * 11})
    await client.put(f"{path}/C_KEY", json={"value": "geheim-mit-ümlaut\n-----END-----"})
    listed = (await client.get(path)).json()
    deleted = [(await client.delete(f"{path}/B_KEY")).status_code for _ in range(2)]

    assert (200, "") == (first.status_code, first.json()["last4"])
    assert {"key", "last4", "updatedAt"} == second.json().keys()
    assert ("B_KEY", "abcd") == (second.json()["key"], second.json()["last4"])
    assert [("A_KEY", ""), ("B_KEY", "abcd"), ("C_KEY", "----")] == [
        (one["key"], one["last4"]) for one in listed["data"]
    ]
    assert [204, 404] == deleted
    keys = [one["key"] for one in (await client.get(path)).json()["data"]]
    assert ["A_KEY", "C_KEY"] == keys


async def test_variable_cannot_be_read_back(client: httpx.AsyncClient) -> None:
    path = "/environments/production/variables/TOKEN"
    await client.put(path, json={"value": CANARY})

    response = await client.get(path)

    assert 405 == response.status_code
    assert CANARY not in response.text


async def test_variable_is_sealed_for_its_place_and_nowhere_plain(
    client: httpx.AsyncClient, deps: Deps, tenant: Tenant
) -> None:
    await client.put("/environments/production/variables/TOKEN", json={"value": CANARY})

    sealed = (await reading.variables(deps.store, tenant.environment_id))["TOKEN"]

    place = ("environment_variables", "TOKEN", tenant.environment_id, tenant.workspace_id)
    assert CANARY.encode() == deps.vault.open(sealed, *place)
    rows = await deps.store.fetch("SELECT v::text FROM environment_variables v", {})
    assert CANARY.encode().hex() not in rows[0][0]
    assert CANARY not in rows[0][0]


@pytest.mark.parametrize(
    "key", ["lowercase", "A=B", "A%0AB", "_A", "1A", "A-B", "%C3%84", "A" * 129, "A%20", "A" * 200]
)
async def test_bad_variable_name_is_refused(client: httpx.AsyncClient, key: str) -> None:
    path = f"/environments/production/variables/{key}"

    put = await client.put(path, json={"value": "x"})
    delete = await client.delete(path)

    # A line break in a path leads nowhere at all.
    assert put.status_code == (404 if "%0A" in key else 422)
    assert 404 == delete.status_code
    assert [] == (await client.get("/environments/production/variables")).json()["data"]


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({}, 422),
        ({"value": None}, 422),
        ({"value": 1}, 422),
        ({"value": "x", "key": "Y"}, 422),
        ({"value": "x" * 65_537}, 422),
        ({"value": "ü" * 32_769}, 422),
        ({"value": "x" * 65_536}, 200),
        ({"value": "ü" * 32_768}, 200),
        ({"value": ""}, 200),
    ],
)
async def test_variable_value_is_a_text_of_64_kib_at_most(
    client: httpx.AsyncClient, body: dict[str, object], status: int
) -> None:
    response = await client.put("/environments/production/variables/TOKEN", json=body)

    assert status == response.status_code
    if status == 422:
        assert [] == (await client.get("/environments/production/variables")).json()["data"]


async def test_environment_holds_no_more_than_two_hundred_variables(
    deps: Deps, tenant: Tenant
) -> None:
    for number in range(environments.MAX_VARIABLES):
        await environments.set_variable(
            deps, tenant.principal, "production", f"KEY_{number}", NewVariable("x")
        )

    async with client_with(deps, tenant.key) as client:
        path = "/environments/production/variables"
        one_more = await client.put(f"{path}/ONE_MORE", json={"value": "x"})
        replaced = await client.put(f"{path}/KEY_7", json={"value": "y"})

    assert (409, "too_many_variables", []) == problem(one_more)
    assert 200 == replaced.status_code


async def test_server_without_a_master_key_keeps_no_variable(
    settings: Settings, deps: Deps, tenant: Tenant
) -> None:
    keyless = shared_deps.build(
        settings.model_copy(update={"master_key": type(settings.master_key)("")}),
        deps.clock,
        deps.random,
        deps.store,
        deps.lanes,
    )

    async with client_with(keyless, tenant.key) as client:
        path = "/environments/production/variables"
        response = await client.put(f"{path}/TOKEN", json={"value": CANARY})
        listed = await client.get(path)

    assert (409, "no_master_key", []) == problem(response)
    assert [] == listed.json()["data"]


PATHS = [
    ("GET", "/environments/{name}", None),
    ("PATCH", "/environments/{name}", {"name": "mine"}),
    ("DELETE", "/environments/{name}", None),
    ("GET", "/environments/{name}/variables", None),
    ("PUT", "/environments/{name}/variables/TOKEN", {"value": "x"}),
    ("DELETE", "/environments/{name}/variables/TOKEN", None),
]


@pytest.mark.parametrize(("method", "path", "body"), PATHS)
async def test_foreign_environment_is_not_found_like_an_unknown_one(
    client: httpx.AsyncClient, deps: Deps, method: str, path: str, body: object
) -> None:
    await client.post("/environments", json={"name": "staging"})
    await client.put("/environments/staging/variables/TOKEN", json={"value": "x"})
    stranger = await a_tenant(deps)

    async with client_with(deps, stranger.key) as other:
        foreign = await other.request(method, path.format(name="staging"), json=body)
        unknown = await other.request(method, path.format(name="unknown"), json=body)
        odd = await other.request(method, path.format(name="odd%20one"), json=body)

    assert [404, 404, 404] == [r.status_code for r in (foreign, unknown, odd)]
    assert without_request_id(foreign) == without_request_id(unknown) == without_request_id(odd)


async def test_limited_key_reaches_its_environments_only(
    client: httpx.AsyncClient, deps: Deps, tenant: Tenant
) -> None:
    await client.post("/environments", json={"name": "staging"})
    made = await client.post(
        "/keys",
        json={"name": "x", "scopes": ["environments:write"], "environments": ["staging"]},
    )

    async with client_with(deps, made.json()["key"]) as limited:
        names = [one["name"] for one in (await limited.get("/environments")).json()["data"]]
        own = [
            await limited.put("/environments/staging/variables/TOKEN", json={"value": "x"}),
            await limited.patch("/environments/staging", json={"name": "stage"}),
        ]
        beyond = [
            *[
                await limited.request(method, path.format(name="production"), json=body)
                for method, path, body in PATHS
            ],
            await limited.post("/environments", json={"name": "new"}),
            await limited.patch("/environments/stage", json={"isDefault": True}),
        ]

    assert ["staging"] == names
    assert [200, 200] == [answer.status_code for answer in own]
    assert {(403, "environment_forbidden")} == {problem(answer)[:2] for answer in beyond}


async def test_reading_scope_reads_and_does_not_write(
    client: httpx.AsyncClient, deps: Deps, tenant: Tenant
) -> None:
    key, _ = await a_key(deps, tenant.workspace_id, ("environments:read",))

    async with client_with(deps, key) as reader:
        answers = [
            await reader.request(method, path.format(name="production"), json=body)
            for method, path, body in PATHS
        ]

    assert [method == "GET" for method, _, _ in PATHS] == [
        answer.status_code != 403 for answer in answers
    ]
