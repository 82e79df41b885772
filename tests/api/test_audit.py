"""The audit: each change leaves its entry, a refusal none, and only admins read it."""

import re
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import httpx
import pytest

from api import openapi
from api.app import create_litestar
from api.auth import SCOPE
from shared.deps import Deps
from shared.domain.audit import MEANINGS, Action
from shared.domain.states import Lane
from shared.ids import new_id
from shared.services import key_management, operations, workspaces
from tests.api import world
from tests.api.clients import client_with, problem
from tests.factories import Tenant, a_key, a_prompt

VERSION = {"model": "sim/echo", "messages": [{"role": "user", "content": "Hi CANARY {{ name }}"}]}
URL = "http://127.0.0.1:9/hook?token=CANARY"
FLOW_VERSION = {"templates": [{"name": "main", "template": "Hi CANARY"}]}
ALIAS = "/models/aliases/quick"
PIN = "/environments/production/pins"
UNKNOWN = str(new_id())
RUNS = frozenset({"submitRun", "submitBatch", "replayRun", "cancelRun", "runFlow", "runInference"})

Call = tuple[str, str, Any]
Prepare = Callable[[httpx.AsyncClient, Deps], Awaitable[Call]]


async def _webhook(client: httpx.AsyncClient) -> str:
    return str((await client.post("/webhooks", json={"url": URL})).json()["id"])


async def _delivery(client: httpx.AsyncClient, deps: Deps) -> tuple[str, str]:
    """A webhook, and a delivery to it that is exhausted."""
    webhook = await _webhook(client)
    run = await client.post("/prompts/greeting/1/runs", json={"inputs": {"name": "Ada"}})
    await client.post(f"/runs/{run.json()['id']}/cancel")
    await deps.store.execute("UPDATE deliveries SET status = 'exhausted', finished_at = now()", {})
    listed = await client.get(f"/webhooks/{webhook}/deliveries")
    return webhook, str(listed.json()["data"][0]["id"])


async def _a_draft(client: httpx.AsyncClient) -> str:
    await client.post("/prompts/greeting/versions", json=VERSION | {"publish": False})
    return "/prompts/greeting/versions/2"


async def _to_publish(client: httpx.AsyncClient, _deps: Deps) -> Call:
    return "POST", f"{await _a_draft(client)}/publish", {}


async def _to_remove_tag(client: httpx.AsyncClient, _deps: Deps) -> Call:
    await client.put("/prompts/greeting/tags/live", json={"version": 1})
    return "DELETE", "/prompts/greeting/tags/live", None


async def _to_replace(client: httpx.AsyncClient, _deps: Deps) -> Call:
    return "PUT", await _a_draft(client), VERSION


async def _to_delete_version(client: httpx.AsyncClient, _deps: Deps) -> Call:
    return "DELETE", await _a_draft(client), None


async def _to_roll_back(client: httpx.AsyncClient, _deps: Deps) -> Call:
    await client.post("/prompts/greeting/versions", json=VERSION)
    for version in (1, 2):
        await client.put("/prompts/greeting/tags/live", json={"version": version})
    return "POST", "/prompts/greeting/tags/live/rollback", {"comment": "CANARY"}


async def _to_resend(client: httpx.AsyncClient, deps: Deps) -> Call:
    return "POST", f"/deliveries/{(await _delivery(client, deps))[1]}/resend", {}


async def _to_recover(client: httpx.AsyncClient, deps: Deps) -> Call:
    webhook, _ = await _delivery(client, deps)
    (row,) = await deps.store.fetch(
        "SELECT to_char(now() - interval '1 hour', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"')", {}
    )
    return "POST", f"/webhooks/{webhook}/recover", {"since": row[0]}


async def _to_revoke(client: httpx.AsyncClient, _deps: Deps) -> Call:
    made = await client.post("/keys", json={"name": "x", "scopes": ["runs:read"]})
    return "DELETE", f"/keys/{made.json()['id']}", None


async def _to_delete_environment(client: httpx.AsyncClient, _deps: Deps) -> Call:
    await client.post("/environments", json={"name": "staging"})
    return "DELETE", "/environments/staging", None


async def _to_edit(client: httpx.AsyncClient, _deps: Deps) -> Call:
    await client.post("/flows/greeting/versions", json=FLOW_VERSION)
    return "PUT", "/flows/greeting/versions/2", FLOW_VERSION


async def _to_promote(client: httpx.AsyncClient, _deps: Deps) -> Call:
    await client.put(f"{PIN}/greeting", json={"version": 1})
    await client.post("/environments", json={"name": "staging"})
    body = {"sourceEnvironment": "production", "targetEnvironment": "staging"}
    return "POST", "/environments/promote", body | {"comment": "CANARY"}


async def _to_delete_alias(client: httpx.AsyncClient, _deps: Deps) -> Call:
    await client.put(ALIAS, json={"models": ["sim/echo"]})
    return "DELETE", ALIAS, None


async def _to_remove_pin(client: httpx.AsyncClient, _deps: Deps) -> Call:
    await client.put(f"{PIN}/greeting", json={"version": 1})
    return "DELETE", f"{PIN}/greeting", None


async def _to_delete_variable(client: httpx.AsyncClient, _deps: Deps) -> Call:
    await client.put("/environments/production/variables/TOKEN", json={"value": "CANARY"})
    return "DELETE", "/environments/production/variables/TOKEN", None


async def _to_delete_thread(client: httpx.AsyncClient, _deps: Deps) -> Call:
    body = {"inputs": {"name": "Ada"}, "thread": str(new_id())}
    run = (await client.post("/prompts/greeting/1/runs", json=body)).json()
    return "DELETE", f"/threads/{run['thread']}", None


def _simply(method: str, path: str, body: Any = None) -> Prepare:
    async def prepare(_client: httpx.AsyncClient, _deps: Deps) -> Call:
        return method, path, body

    return prepare


def _at_webhook(method: str, rest: str = "", body: Any = None) -> Prepare:
    async def prepare(client: httpx.AsyncClient, _deps: Deps) -> Call:
        return method, f"/webhooks/{await _webhook(client)}{rest}", body

    return prepare


# One way to make each operation change something, and the action that this is.
async def _to_delete_environment_budget(client: httpx.AsyncClient, _deps: Deps) -> Call:
    path = "/budgets/environments/production"
    await client.put(path, json={"day": 5})
    return "DELETE", path, None


async def _to_set_key_budget(client: httpx.AsyncClient, _deps: Deps) -> Call:
    key = await client.post("/keys", json={"name": "spender", "scopes": ["runs:read"]})
    return "PUT", f"/budgets/keys/{key.json()['id']}", {"month": 5}


async def _to_delete_key_budget(client: httpx.AsyncClient, deps: Deps) -> Call:
    _, path, body = await _to_set_key_budget(client, deps)
    await client.put(path, json=body)
    return "DELETE", path, None


CHANGES: dict[str, tuple[Action, Prepare]] = {
    "createPrompt": (Action.PROMPT_CREATED, _simply("POST", "/prompts", {"name": "New"})),
    "changePrompt": (
        Action.PROMPT_CHANGED,
        _simply("PATCH", "/prompts/greeting", {"description": "CANARY"}),
    ),
    "deletePrompt": (Action.PROMPT_DELETED, _simply("DELETE", "/prompts/greeting")),
    "addVersion": (Action.VERSION_CREATED, _simply("POST", "/prompts/greeting/versions", VERSION)),
    "publishVersion": (Action.VERSION_PUBLISHED, _to_publish),
    "setTag": (
        Action.TAG_MOVED,
        _simply("PUT", "/prompts/greeting/tags/live", {"version": 1, "comment": "CANARY"}),
    ),
    "replaceVersion": (Action.VERSION_REPLACED, _to_replace),
    "deleteVersion": (Action.VERSION_DELETED, _to_delete_version),
    "rollBackTag": (Action.TAG_MOVED, _to_roll_back),
    "removeTag": (Action.TAG_REMOVED, _to_remove_tag),
    "putPin": (
        Action.PIN_MOVED,
        _simply("PUT", f"{PIN}/greeting", {"version": 1, "comment": "CANARY"}),
    ),
    "promoteEnvironment": (Action.ENVIRONMENT_PROMOTED, _to_promote),
    "createFlow": (Action.PROMPT_CREATED, _simply("POST", "/flows", {"title": "New"})),
    "addFlowVersion": (
        Action.VERSION_CREATED,
        _simply("POST", "/flows/greeting/versions", FLOW_VERSION),
    ),
    "replaceFlowVersion": (Action.VERSION_REPLACED, _to_edit),
    "forkFlowVersion": (
        Action.VERSION_CREATED,
        _simply("POST", "/flows/greeting/versions/1/fork", {}),
    ),
    "activateFlowVersion": (
        Action.PIN_MOVED,
        _simply("POST", "/flows/greeting/versions/1/environments", {"environment": "production"}),
    ),
    "putAlias": (
        Action.ALIAS_SET,
        _simply("PUT", ALIAS, {"models": ["sim/echo"], "description": "CANARY"}),
    ),
    "deleteAlias": (Action.ALIAS_REMOVED, _to_delete_alias),
    "removePin": (Action.PIN_REMOVED, _to_remove_pin),
    "createEnvironment": (
        Action.ENVIRONMENT_CREATED,
        _simply("POST", "/environments", {"name": "staging"}),
    ),
    "changeEnvironment": (
        Action.ENVIRONMENT_CHANGED,
        _simply("PATCH", "/environments/production", {"name": "live"}),
    ),
    "deleteEnvironment": (Action.ENVIRONMENT_DELETED, _to_delete_environment),
    "setVariable": (
        Action.VARIABLE_SET,
        _simply("PUT", "/environments/production/variables/TOKEN", {"value": "CANARY" * 3}),
    ),
    "deleteVariable": (Action.VARIABLE_DELETED, _to_delete_variable),
    "setEnvironmentBudget": (
        Action.BUDGET_SET,
        _simply("PUT", "/budgets/environments/production", {"day": 5}),
    ),
    "deleteEnvironmentBudget": (Action.BUDGET_DELETED, _to_delete_environment_budget),
    "setKeyBudget": (Action.BUDGET_SET, _to_set_key_budget),
    "deleteKeyBudget": (Action.BUDGET_DELETED, _to_delete_key_budget),
    "createWebhook": (
        Action.WEBHOOK_CREATED,
        _simply("POST", "/webhooks", {"url": URL, "headers": {"X-Token": "CANARY"}}),
    ),
    "readSecret": (Action.WEBHOOK_SECRET_READ, _at_webhook("GET", "/secret")),
    "changeWebhook": (
        Action.WEBHOOK_CHANGED,
        _at_webhook("PATCH", "", {"headers": {"X-Token": "CANARY"}}),
    ),
    "deleteWebhook": (Action.WEBHOOK_DELETED, _at_webhook("DELETE")),
    "rotateSecret": (Action.WEBHOOK_SECRET_ROTATED, _at_webhook("POST", "/rotate-secret", {})),
    "enableWebhook": (Action.WEBHOOK_ENABLED, _at_webhook("POST", "/enable", {})),
    "testWebhook": (Action.WEBHOOK_TESTED, _at_webhook("POST", "/test", {})),
    "recoverWebhook": (Action.WEBHOOK_RECOVERED, _to_recover),
    "resendDelivery": (Action.DELIVERY_RESENT, _to_resend),
    "deleteThread": (Action.THREAD_DELETED, _to_delete_thread),
    "createKey": (
        Action.KEY_CREATED,
        _simply("POST", "/keys", {"name": "new", "scopes": ["runs:read"]}),
    ),
    "revokeKey": (Action.KEY_REVOKED, _to_revoke),
}


def _operations() -> Sequence[openapi.Operation]:
    """What changes a workspace: whatever asks for a writing scope, and runs are use."""
    return [
        one
        for one in openapi.operations(create_litestar())
        if (one.handler.opt.get(SCOPE, "").endswith(":write")) and one.id not in RUNS
    ]


async def _entries(deps: Deps) -> list[dict[str, Any]]:
    rows = await deps.store.fetch("SELECT to_jsonb(a) FROM audit_log a ORDER BY id", {})
    return [row[0] for row in rows]


@pytest.fixture(autouse=True)
async def _greeting(deps: Deps, tenant: Tenant) -> None:
    await a_prompt(deps, tenant)


def test_every_operation_that_changes_something_has_an_entry_of_its_own() -> None:
    """A route that is new needs a line in `CHANGES`, and a call of `audit.note`."""
    assert CHANGES.keys() == {one.id for one in _operations()}


def test_runs_are_the_only_other_writes() -> None:
    others = {
        one.id
        for one in openapi.operations(create_litestar())
        if one.method != "get" and one.handler.opt[SCOPE].endswith(":write")
    }

    assert set(RUNS) == others - CHANGES.keys()


def test_every_action_has_a_meaning() -> None:
    assert set(Action) == set(MEANINGS)


@pytest.mark.parametrize("operation", CHANGES)
async def test_a_change_leaves_one_entry_and_nothing_secret(
    client: httpx.AsyncClient, deps: Deps, tenant: Tenant, operation: str
) -> None:
    action, prepare = CHANGES[operation]
    method, path, body = await prepare(client, deps)
    before = await _entries(deps)

    answer = await client.request(method, path, json=body, headers={"X-Request-Id": "the-request"})

    assert answer.is_success, answer.text
    (entry,) = (await _entries(deps))[len(before) :]
    assert (action, "key", str(tenant.principal.key_id), "a key", "the-request") == tuple(
        entry[name] for name in ("action", "actor", "key_id", "key_name", "request_id")
    )
    assert str(tenant.workspace_id) == entry["workspace_id"]
    assert entry["target_name"]
    assert "CANARY" not in str(await _entries(deps))


@pytest.mark.parametrize("operation", CHANGES)
async def test_a_change_whose_entry_cannot_be_written_does_not_happen(
    client: httpx.AsyncClient, deps: Deps, operation: str
) -> None:
    _, prepare = CHANGES[operation]
    method, path, body = await prepare(client, deps)
    before = await world.digests(deps)
    await deps.store.execute(
        "ALTER TABLE audit_log ADD CONSTRAINT full_for_a_test CHECK (false) NOT VALID", {}
    )

    try:
        answer = await client.request(method, path, json=body)
    finally:
        await deps.store.execute("ALTER TABLE audit_log DROP CONSTRAINT full_for_a_test", {})

    assert 500 == answer.status_code
    assert before == await world.digests(deps)


@pytest.mark.parametrize("operation", CHANGES)
async def test_a_refusal_leaves_no_entry(
    client: httpx.AsyncClient, deps: Deps, tenant: Tenant, operation: str
) -> None:
    _, prepare = CHANGES[operation]
    method, path, body = await prepare(client, deps)
    before = await _entries(deps)
    reader, _ = await a_key(deps, tenant.workspace_id, ("runs:read",))
    unknown = re.sub(r"[0-9a-f-]{36}|greeting|production|staging", UNKNOWN, path)

    async with client_with(deps, reader) as other:
        answers = [
            await other.request(method, path, json=body),
            await client.request(method, path + "?nonsense=1", json=body),
        ]
        if unknown != path:
            answers.append(await client.request(method, unknown, json=body))

    assert [403, 400, 404][: len(answers)] == [answer.status_code for answer in answers]
    assert before == await _entries(deps)


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("PATCH", "/prompts/greeting", {"name": "greeting"}),
        ("PATCH", "/environments/production", {"name": "production", "isDefault": True}),
        ("POST", "/prompts/greeting/versions/1/publish", {}),
        ("PUT", "/prompts/greeting/tags/live", {"version": 1}),
    ],
)
async def test_what_changes_nothing_leaves_no_entry(
    client: httpx.AsyncClient, deps: Deps, method: str, path: str, body: object
) -> None:
    await client.put("/prompts/greeting/tags/live", json={"version": 1})
    before = await _entries(deps)

    answer = await client.request(method, path, json=body)

    assert 200 == answer.status_code
    assert before == await _entries(deps)


async def test_entries_are_listed_newest_first_with_what_they_tell(
    client: httpx.AsyncClient, tenant: Tenant
) -> None:
    await client.put("/prompts/greeting/tags/live", json={"version": 1})
    await client.put("/environments/production/variables/TOKEN", json={"value": "x"})

    listing = (await client.get("/audit")).json()

    variable, tag = listing["data"][:2]
    assert ["variable.set", "tag.moved", "version.created", "prompt.created"] == [
        one["action"] for one in listing["data"]
    ]
    assert {
        "id",
        "at",
        "action",
        "actor",
        "keyId",
        "keyName",
        "target",
        "environments",
        "requestId",
        "details",
    } == tag.keys()
    assert ("tag", "live", {"prompt": "greeting", "from": None, "to": 1}) == (
        tag["target"]["kind"],
        tag["target"]["name"],
        tag["details"],
    )
    assert (["production"], str(tenant.environment_id)) == (
        variable["environments"],
        variable["target"]["id"],
    )


async def test_entries_are_filtered_and_paged(client: httpx.AsyncClient, deps: Deps) -> None:
    for number in range(3):
        await client.put(f"/environments/production/variables/K{number}", json={"value": "x"})
    (first,) = (await client.get("/audit", params={"target": "K0"})).json()["data"]
    made = (await client.post("/keys", json={"name": "other", "scopes": ["admin"]})).json()
    async with client_with(deps, made["key"]) as other:
        await other.put("/environments/production/variables/K1", json={"value": "y"})

    async def found(**params: str | int) -> list[str]:
        listing = (await client.get("/audit", params=params)).json()
        return [f"{one['action']} {one['target']['name']}" for one in listing["data"]]

    assert ["variable.set K1"] == await found(key=made["id"])
    assert ["key.created other"] == await found(target=made["id"])
    assert ["variable.set K1"] * 2 == await found(target="K1", action="variable.set")
    assert [] == await found(createdBefore=first["at"], target="K0")
    assert 5 == len(await found(createdAfter="2020-01-01T00:00:00Z", action="variable.set")) + 1
    page = (await client.get("/audit", params={"limit": 2, "action": "variable.set"})).json()
    rest: dict[str, str | int] = {
        "limit": 2,
        "action": "variable.set",
        "after": page["nextCursor"],
    }
    assert (["variable.set K1", "variable.set K2"], ["variable.set K1", "variable.set K0"]) == (
        [f"{one['action']} {one['target']['name']}" for one in page["data"]],
        await found(**rest),
    )
    strange = await client.get("/audit", params={"after": page["nextCursor"]})
    assert (400, "invalid_cursor") == problem(strange)[:2]


@pytest.mark.parametrize(
    "params",
    [{"action": "nonsense"}, {"key": "x"}, {"createdAfter": "now"}, {"limit": "0"}, {"x": "1"}],
)
async def test_a_filter_that_is_not_understood_is_refused(
    client: httpx.AsyncClient, params: dict[str, str]
) -> None:
    assert 400 == (await client.get("/audit", params=params)).status_code


async def test_a_limited_key_sees_what_concerns_its_environments_alone(
    client: httpx.AsyncClient, deps: Deps
) -> None:
    await client.post("/environments", json={"name": "staging"})
    for name in ("staging", "production"):
        await client.put(f"/environments/{name}/variables/TOKEN", json={"value": "x"})
        await client.post("/webhooks", json={"url": URL, "environments": [name]})
    await client.post("/webhooks", json={"url": URL, "environments": ["staging", "production"]})
    made = await client.post(
        "/keys", json={"name": "limited", "scopes": ["admin"], "environments": ["staging"]}
    )

    async with client_with(deps, made.json()["key"]) as limited:
        listed = (await limited.get("/audit")).json()["data"]

    assert [
        ("key.created", ["staging"]),
        ("webhook.created", ["staging"]),
        ("variable.set", ["staging"]),
        ("environment.created", ["staging"]),
    ] == [(one["action"], one["environments"]) for one in listed]


async def test_only_admins_read_the_audit_and_only_their_workspace_s(
    client: httpx.AsyncClient, deps: Deps, tenant: Tenant
) -> None:
    scopes = ("prompts:write", "environments:write", "webhooks:write", "keys:write", "runs:write")
    plain, _ = await a_key(deps, tenant.workspace_id, scopes)
    stranger = await workspaces.create_workspace(deps, "another")
    foreign = await key_management.create_for(deps, stranger.id, "theirs", ("admin",))

    async with client_with(deps, plain) as one, client_with(deps, foreign.key) as other:
        refused = await one.get("/audit")
        theirs = (await other.get("/audit")).json()["data"]

    assert (403, "missing_scope", []) == problem(refused)
    assert [("key.created", "operator", None), ("workspace.created", "operator", None)] == [
        (one["action"], one["actor"], one["keyId"]) for one in theirs
    ]
    mine = (await client.get("/audit")).json()["data"]
    assert {"key"} == {one["actor"] for one in mine}


async def test_the_key_keeps_the_name_it_had(client: httpx.AsyncClient, deps: Deps) -> None:
    made = (await client.post("/keys", json={"name": "leaver", "scopes": ["admin"]})).json()
    async with client_with(deps, made["key"]) as leaver:
        await leaver.post("/environments", json={"name": "theirs"})
    await client.delete(f"/keys/{made['id']}")
    await deps.store.execute("UPDATE api_keys SET name = 'renamed'", {})

    listed = (await client.get("/audit", params={"key": made["id"]})).json()["data"]

    assert [("environment.created", "leaver")] == [
        (one["action"], one["keyName"]) for one in listed
    ]


async def test_the_operator_s_lanes_are_written_down_once_for_each_change(deps: Deps) -> None:
    await deps.store.execute("DELETE FROM audit_log", {})
    for _ in range(2):
        await operations.pause(deps, Lane.LOW)
    for _ in range(2):
        await operations.resume(deps, Lane.LOW)

    assert [("lane.paused", "low", None), ("lane.resumed", "low", None)] == [
        (one["action"], one["target_name"], one["workspace_id"]) for one in await _entries(deps)
    ]
