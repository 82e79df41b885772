"""Webhook endpoints as a client of the API sees them."""

import asyncio
from base64 import b64encode
from collections import Counter
from collections.abc import AsyncIterator

import httpx
import msgspec
import pytest
from structlog.testing import capture_logs

from shared import deps as shared_deps
from shared.deps import Deps
from shared.domain import signing
from shared.ids import new_id
from shared.services import webhooks
from shared.services.webhooks import NewWebhook
from shared.settings import Settings
from shared.store import deliveries
from tests.api.clients import client_with, problem, without_request_id
from tests.factories import Tenant, a_key, a_tenant

URL = "https://example.com/hook"
UNKNOWN_ID = "019abcde-0000-7000-8000-000000000000"
TERMINAL = ["run.canceled", "run.expired", "run.failed", "run.incomplete", "run.succeeded"]
SECRET = "whsec_" + b64encode(bytes(range(1, 33))).decode()


@pytest.fixture
async def strict_client(
    settings: Settings, deps: Deps, tenant: Tenant
) -> AsyncIterator[httpx.AsyncClient]:
    """The API as it is outside development: no loopback, https only."""
    production = settings.model_copy(update={"dev_mode": False})
    strict = shared_deps.build(production, deps.clock, deps.random, deps.store, deps.lanes)
    async with client_with(strict, tenant.key) as client:
        yield client


async def _create(client: httpx.AsyncClient, **fields: object) -> dict[str, object]:
    response = await client.post("/webhooks", json={"url": URL, **fields})
    assert 201 == response.status_code, response.text
    body: dict[str, object] = response.json()
    return body


async def test_created_webhook_has_its_settings_and_a_secret(client: httpx.AsyncClient) -> None:
    created = await _create(client)

    assert 32 == len(signing.parse_secret(str(created.pop("secret"))))
    assert created.pop("createdAt")
    assert created.pop("id")
    assert {
        "url": URL,
        "environments": [],
        "events": [],
        "format": "standard",
        "headers": [],
        "description": "",
        "includeOutput": True,
        "disabledAt": None,
        "disabledReason": None,
        "pausedUntil": None,
    } == created


async def test_created_webhook_keeps_what_it_was_given(client: httpx.AsyncClient) -> None:
    created = await _create(
        client,
        environments=["Production", "production"],
        events=["run.failed", "ping", "run.failed"],
        format="promptjuggler",
        headers={"X-Token": "canary-value"},
        description="the shop",
        secret=SECRET,
        includeOutput=False,
    )

    assert (
        ["production"],
        ["run.failed", "ping"],
        "promptjuggler",
        ["X-Token"],
        "the shop",
        SECRET,
        False,
    ) == tuple(
        created[name]
        for name in (
            *("environments", "events", "format", "headers"),
            *("description", "secret", "includeOutput"),
        )
    )


async def test_secret_is_shown_again_on_its_own_route_only(
    client: httpx.AsyncClient, deps: Deps, tenant: Tenant
) -> None:
    created = await _create(client, headers={"X-Token": "canary-value"}, secret=SECRET)
    path = f"/webhooks/{created['id']}"

    texts = [
        (await client.get(path)).text,
        (await client.get("/webhooks")).text,
        (await client.patch(path, json={"description": "x"})).text,
    ]
    for table in ("webhook_endpoints", "webhook_secrets"):
        texts += [row[0] for row in await deps.store.fetch(f"SELECT t::text FROM {table} t", {})]
    with capture_logs() as logs:
        shown = await client.get(f"{path}/secret")

    assert {"secret": SECRET} == shown.json()
    for canary in (SECRET, "canary-value"):
        assert [] == [text for text in texts if canary in text]
        assert [] == [text for text in texts if canary.encode().hex() in text]
    (audited,) = [entry for entry in logs if entry["event"] == "webhook_secret_shown"]
    assert (created["id"], str(tenant.principal.key_id)) == (
        audited["endpoint_id"],
        audited["key_id"],
    )
    assert SECRET not in str(logs)


async def test_secret_and_headers_are_sealed_for_their_places(
    client: httpx.AsyncClient, deps: Deps, tenant: Tenant
) -> None:
    created = await _create(client, headers={"X-Token": "v", "X-Other": "w"}, secret=SECRET)

    ((secret_id, sealed),) = await deps.store.fetch("SELECT id, sealed FROM webhook_secrets", {})
    ((headers,),) = await deps.store.fetch("SELECT headers FROM webhook_endpoints", {})

    workspace_id = tenant.workspace_id
    opened = deps.vault.open(sealed, "webhook_secrets", secret_id, workspace_id)
    assert SECRET.encode() == opened
    place = ("webhook_endpoints", "headers", created["id"], workspace_id)
    assert {"X-Token": "v", "X-Other": "w"} == msgspec.json.decode(deps.vault.open(headers, *place))


async def test_change_replaces_what_is_given_and_nothing_else(client: httpx.AsyncClient) -> None:
    created = await _create(
        client, events=["ping"], headers={"X-Token": "v"}, environments=["production"]
    )
    path = f"/webhooks/{created['id']}"
    del created["secret"]

    empty = await client.patch(path, json={})
    nulls = await client.patch(path, json={"url": None, "events": None, "headers": None})
    changed = await client.patch(
        path,
        json={
            "url": f"{URL}/2",
            "environments": [],
            "events": [],
            "format": "promptjuggler",
            "headers": {},
            "description": "new",
            "includeOutput": False,
        },
    )

    assert [created, created] == [empty.json(), nulls.json()]
    expected = {
        **created,
        "url": f"{URL}/2",
        "environments": [],
        "events": [],
        "format": "promptjuggler",
        "headers": [],
        "description": "new",
        "includeOutput": False,
    }
    assert expected == changed.json() == (await client.get(path)).json()


async def test_deleted_webhook_is_gone_and_frees_its_place(client: httpx.AsyncClient) -> None:
    path = f"/webhooks/{(await _create(client))['id']}"

    statuses = [(await client.delete(path)).status_code for _ in range(2)]

    assert [204, 404] == statuses
    for gone in (path, f"{path}/secret"):
        assert 404 == (await client.get(gone)).status_code
    assert [] == (await client.get("/webhooks")).json()["data"]


async def test_deleting_a_webhook_cancels_what_was_still_to_be_delivered(
    client: httpx.AsyncClient, deps: Deps, tenant: Tenant
) -> None:
    gone, stays = [(await _create(client))["id"] for _ in range(2)]
    await deps.store.execute(
        """WITH event AS (
             INSERT INTO events (id, workspace_id, type, body)
             VALUES (%(event)s, %(workspace)s, 'ping', '{}') RETURNING id, workspace_id)
           INSERT INTO deliveries (id, workspace_id, event_id, endpoint_id, status, next_try_at)
           SELECT gen_random_uuid(), e.workspace_id, e.id, w.id, 'pending', now()
           FROM event e CROSS JOIN webhook_endpoints w""",
        {"event": new_id(), "workspace": tenant.workspace_id},
    )

    await client.delete(f"/webhooks/{gone}")

    rows = await deps.store.fetch("SELECT endpoint_id::text, status FROM deliveries", {})
    assert {gone: "canceled", stays: "pending"} == dict(rows)


async def test_deleting_an_environment_disables_the_webhooks_for_it_alone(
    client: httpx.AsyncClient,
) -> None:
    await client.post("/environments", json={"name": "staging"})
    only, both, every = [
        (
            await client.post(
                "/webhooks", json={"url": "https://example.com/", "environments": names}
            )
        ).json()["id"]
        for names in (["staging"], ["staging", "production"], [])
    ]

    await client.delete("/environments/staging")

    shown = {one["id"]: one for one in (await client.get("/webhooks")).json()["data"]}
    assert {only: "environment_deleted", both: None, every: None} == {
        webhook_id: one["disabledReason"] for webhook_id, one in shown.items()
    }
    assert ["staging", "production"] == shown[both]["environments"]


async def test_fiftieth_webhook_is_the_last(
    client: httpx.AsyncClient, deps: Deps, tenant: Tenant
) -> None:
    for _ in range(webhooks.MAX_ENDPOINTS - 2):
        await webhooks.create(deps, tenant.principal, NewWebhook(url=URL))

    responses = await asyncio.gather(
        *(client.post("/webhooks", json={"url": URL}) for _ in range(5))
    )

    assert {201: 2, 409: 3} == Counter(response.status_code for response in responses)
    assert {"too_many_webhooks"} == {r.json()["code"] for r in responses if r.status_code == 409}


async def test_the_limit_is_of_each_environment_and_a_webhook_for_all_counts_in_each(
    client: httpx.AsyncClient, deps: Deps, tenant: Tenant
) -> None:
    await client.post("/environments", json={"name": "staging"})
    for place in range(webhooks.MAX_ENDPOINTS):
        names = None if place == 0 else ["production"]
        await webhooks.create(deps, tenant.principal, NewWebhook(url=URL, environments=names))
    wanted: list[list[str]] = [["production"], ["staging"], ["staging", "production"], []]

    created = [await client.post("/webhooks", json={"url": URL, "environments": w}) for w in wanted]
    path = f"/webhooks/{created[1].json()['id']}"
    moved = await client.patch(path, json={"environments": ["production"]})
    kept = await client.patch(path, json={"environments": ["staging"]})

    assert [409, 201, 409, 409] == [answer.status_code for answer in created]
    assert (409, "too_many_webhooks", []) == problem(moved)
    assert (200, ["staging"]) == (kept.status_code, kept.json()["environments"])


@pytest.mark.parametrize(
    ("events", "stored"),
    [
        (["promptrun.finished"], TERMINAL),
        (["run.failed", "promptrun.finished"], TERMINAL),
        (["ping", "run.succeeded", "ping"], ["run.succeeded", "ping"]),
    ],
)
async def test_event_filter_is_folded_into_our_own_words(
    client: httpx.AsyncClient, events: list[str], stored: list[str]
) -> None:
    assert stored == (await _create(client, events=events))["events"]


@pytest.mark.parametrize(
    ("fields", "code", "pointers"),
    [
        ({"url": None}, "invalid", ["/url"]),
        ({"url": ""}, "invalid", ["/url"]),
        ({"url": "/relative"}, "invalid", ["/url"]),
        ({"url": "ftp://example.com/"}, "invalid", ["/url"]),
        ({"url": "https://a:b@example.com/"}, "invalid", ["/url"]),
        ({"url": "https://example.com/" + "x" * 2_030}, "invalid", ["/url"]),
        ({"environments": ["production", "nowhere"]}, "unknown_environment", ["/environments/1"]),
        ({"environments": ["product\u0131on"]}, "unknown_environment", ["/environments/0"]),
        ({"environments": [""]}, "unknown_environment", ["/environments/0"]),
        ({"environments": "production"}, "invalid", ["/environments"]),
        ({"events": ["run.finished"]}, "invalid", ["/events/0"]),
        ({"events": ["ping", "*"]}, "invalid", ["/events/1"]),
        ({"events": "ping"}, "invalid", ["/events"]),
        ({"format": "xml"}, "invalid", ["/format"]),
        ({"includeOutput": "yes"}, "invalid", ["/includeOutput"]),
        ({"description": "x" * 2_001}, "invalid", ["/description"]),
        ({"secret": b64encode(bytes(32)).decode()}, "invalid_secret", ["/secret"]),
        ({"secret": "whsec_!!!"}, "invalid_secret", ["/secret"]),
        ({"secret": "whsec_" + b64encode(b"x" * 23).decode()}, "invalid_secret", ["/secret"]),
        ({"secret": "whsec_" + b64encode(b"x" * 65).decode()}, "invalid_secret", ["/secret"]),
        ({"secret": "whsec_" + b64encode(bytes(32)).decode()}, "invalid_secret", ["/secret"]),
        ({"headers": {"Host": "x"}}, "invalid", ["/headers/Host"]),
        ({"headers": {"content-length": "1"}}, "invalid", ["/headers/content-length"]),
        ({"headers": {"a b": "x"}}, "invalid", ["/headers/a b"]),
        ({"headers": {"X": "a\r\nY: b"}}, "invalid", ["/headers/X"]),
        ({"headers": {"X": "v" * 8_192}}, "invalid", ["/headers/X"]),
        ({"headers": {f"X-{n}": "v" for n in range(51)}}, "invalid", ["/headers"]),
        ({"id": UNKNOWN_ID}, "invalid", ["/id"]),
        ({"disabledAt": None}, "invalid", ["/disabledAt"]),
    ],
)
async def test_unacceptable_webhook_is_refused_at_its_field(
    client: httpx.AsyncClient, fields: dict[str, object], code: str, pointers: list[str]
) -> None:
    response = await client.post("/webhooks", json={"url": URL, **fields})

    assert (422, code, pointers) == problem(response)
    assert [] == (await client.get("/webhooks")).json()["data"]


@pytest.mark.parametrize(
    "fields",
    [
        {"url": "javascript:alert(1)"},
        {"environments": ["nowhere"]},
        {"events": ["run.finished"]},
        {"format": "xml"},
        {"headers": {"webhook-id": "x"}},
        {"secret": SECRET},
    ],
)
async def test_unacceptable_change_is_refused_and_changes_nothing(
    client: httpx.AsyncClient, fields: dict[str, object]
) -> None:
    path = f"/webhooks/{(await _create(client))['id']}"
    before = (await client.get(path)).json()

    response = await client.patch(path, json={"description": "new", **fields})

    assert 422 == response.status_code
    assert before == (await client.get(path)).json()


@pytest.mark.parametrize(
    "url",
    [
        "http://example.com/",
        "https://127.0.0.1/",
        "https://localhost/",
        "https://[::1]/",
        "https://169.254.169.254/",
        "https://example.com:22/",
    ],
)
async def test_only_public_https_is_accepted_outside_development(
    strict_client: httpx.AsyncClient, url: str
) -> None:
    created = await strict_client.post("/webhooks", json={"url": url})
    path = f"/webhooks/{(await _create(strict_client))['id']}"
    changed = await strict_client.patch(path, json={"url": url})

    assert (422, "invalid", ["/url"]) == problem(created) == problem(changed)


async def test_loopback_over_http_on_any_port_is_accepted_in_development(
    client: httpx.AsyncClient,
) -> None:
    response = await client.post("/webhooks", json={"url": "http://127.0.0.1:9000/hook"})

    assert 201 == response.status_code


async def test_refusal_never_repeats_a_secret_or_a_headers_value(
    client: httpx.AsyncClient,
) -> None:
    secret = await client.post("/webhooks", json={"url": URL, "secret": "whsec_canary"})
    header = await client.post("/webhooks", json={"url": URL, "headers": {"X": "canary\n"}})

    assert [422, 422] == [secret.status_code, header.status_code]
    assert "canary" not in secret.text + header.text


async def test_server_without_a_master_key_keeps_no_webhook(
    settings: Settings, deps: Deps, tenant: Tenant, client: httpx.AsyncClient
) -> None:
    created = await _create(client, headers={"X-Token": "v"})
    none = settings.model_copy(update={"master_key": type(settings.master_key)("")})
    keyless = shared_deps.build(none, deps.clock, deps.random, deps.store, deps.lanes)

    async with client_with(keyless, tenant.key) as other:
        refused = await other.post("/webhooks", json={"url": URL})
        secret = await other.get(f"/webhooks/{created['id']}/secret")
        listed = (await other.get("/webhooks")).json()["data"]

    assert (409, "no_master_key", []) == problem(refused) == problem(secret)
    assert [(created["id"], None)] == [(one["id"], one["headers"]) for one in listed]


PATHS = [
    ("GET", "/webhooks/{id}", None),
    ("GET", "/webhooks/{id}/secret", None),
    ("PATCH", "/webhooks/{id}", {"description": "mine"}),
    ("DELETE", "/webhooks/{id}", None),
]


@pytest.mark.parametrize(("method", "path", "body"), PATHS)
async def test_foreign_webhook_is_not_found_like_an_unknown_one(
    client: httpx.AsyncClient, deps: Deps, method: str, path: str, body: object
) -> None:
    webhook_id = (await _create(client))["id"]
    stranger = await a_tenant(deps)

    async with client_with(deps, stranger.key) as other:
        foreign = await other.request(method, path.format(id=webhook_id), json=body)
        unknown = await other.request(method, path.format(id=UNKNOWN_ID), json=body)
        no_id = await other.request(method, path.format(id="x" * 1_000), json=body)

    assert [404, 404, 404] == [r.status_code for r in (foreign, unknown, no_id)]
    assert without_request_id(foreign) == without_request_id(unknown) == without_request_id(no_id)


async def test_environment_of_another_workspace_is_unknown(
    client: httpx.AsyncClient, deps: Deps
) -> None:
    await client.post("/environments", json={"name": "staging"})
    stranger = await a_tenant(deps)

    async with client_with(deps, stranger.key) as other:
        response = await other.post("/webhooks", json={"url": URL, "environments": ["staging"]})

    assert (422, "unknown_environment", ["/environments/0"]) == problem(response)


async def test_limited_key_reaches_webhooks_of_its_environments_only(
    client: httpx.AsyncClient, deps: Deps, tenant: Tenant
) -> None:
    await client.post("/environments", json={"name": "staging"})
    made = await client.post(
        "/keys", json={"name": "x", "scopes": ["webhooks:write"], "environments": ["staging"]}
    )
    wide = (await _create(client))["id"]
    await _create(client, environments=["staging", "production"])

    async with client_with(deps, made.json()["key"]) as limited:
        own = await _create(limited, environments=["staging"])
        beyond = [
            *[
                await limited.request(method, path.format(id=wide), json=body)
                for method, path, body in PATHS
            ],
            await limited.post("/webhooks", json={"url": URL}),
            await limited.post("/webhooks", json={"url": URL, "environments": []}),
            await limited.post("/webhooks", json={"url": URL, "environments": ["production"]}),
            await limited.patch(f"/webhooks/{own['id']}", json={"environments": []}),
        ]
        listed = (await limited.get("/webhooks")).json()["data"]

    assert {(403, "environment_forbidden")} == {problem(answer)[:2] for answer in beyond}
    assert [own["id"]] == [one["id"] for one in listed]


async def test_reading_scope_reads_all_but_the_secret(
    client: httpx.AsyncClient, deps: Deps, tenant: Tenant
) -> None:
    webhook_id = (await _create(client))["id"]
    key, _ = await a_key(deps, tenant.workspace_id, ("webhooks:read",))

    async with client_with(deps, key) as reader:
        statuses = [
            (await reader.request(method, path.format(id=webhook_id), json=body)).status_code
            for method, path, body in PATHS
        ]

    assert [200, 403, 403, 403] == statuses


@pytest.mark.parametrize(
    ("change", "paused"), [({"url": "https://new.example/"}, 0), ({"description": "same"}, 1)]
)
async def test_another_url_begins_without_the_failures_of_the_old_one(
    deps: Deps, client: httpx.AsyncClient, change: dict[str, str], paused: int
) -> None:
    webhook = await _create(client, url="https://old.example/")
    await _pause(deps, webhook["id"])

    await client.patch(f"/webhooks/{webhook['id']}", json=change)

    assert paused == len(await deliveries.paused(deps.store))


async def test_a_pause_is_shown_until_it_is_over(deps: Deps, client: httpx.AsyncClient) -> None:
    path = f"/webhooks/{(await _create(client))['id']}"
    await _pause(deps, path.rpartition("/")[2])

    paused = (await client.get(path)).json()["pausedUntil"]
    listed = (await client.get("/webhooks")).json()["data"][0]["pausedUntil"]
    await deps.store.execute("UPDATE failing_endpoints SET paused_until = now()", {})
    probed = (await client.get(path)).json()["pausedUntil"]

    assert (True, paused, None) == (paused is not None, listed, probed)


async def test_enabling_a_webhook_ends_its_pause(deps: Deps, client: httpx.AsyncClient) -> None:
    webhook = await _create(client)
    await _pause(deps, webhook["id"])

    await client.post(f"/webhooks/{webhook['id']}/enable")

    assert set() == await deliveries.paused(deps.store)


async def _pause(deps: Deps, webhook_id: object) -> None:
    await deps.store.execute(
        "INSERT INTO failing_endpoints (endpoint_id, workspace_id, failing_since, failures,"
        " spaced_failures, spaced_at, pause_s, paused_until)"
        " SELECT id, workspace_id, now(), 10, 1, now(), 60, now() + interval '1 minute'"
        " FROM webhook_endpoints WHERE id = %(id)s",
        {"id": webhook_id},
    )
