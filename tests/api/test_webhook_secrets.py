"""Rotating a webhook's secret, and enabling a webhook again."""

from base64 import b64decode
from collections.abc import Sequence

import httpx
import pytest
from standardwebhooks import Webhook
from standardwebhooks.webhooks import WebhookVerificationError
from structlog.testing import capture_logs

from shared.clock import SystemClock
from shared.deps import Deps
from shared.domain import signing
from shared.store import deliveries
from shared.store.ending import DueDelivery
from tests.api.clients import client_with, problem, without_request_id
from tests.factories import Tenant, a_key, a_tenant

URL = "http://127.0.0.1:9/hook"
UNKNOWN_ID = "019abcde-0000-7000-8000-000000000000"


async def _create(client: httpx.AsyncClient, **fields: object) -> tuple[str, str]:
    """A webhook's path and its secret."""
    made = (await client.post("/webhooks", json={"url": URL, **fields})).json()
    return f"/webhooks/{made['id']}", made["secret"]


async def _rotate(client: httpx.AsyncClient, path: str, overlap_s: int | None) -> str:
    answer = await client.post(f"{path}/rotate-secret", json={"overlapSeconds": overlap_s})
    assert 200 == answer.status_code, answer.text
    return str(answer.json()["secret"])


async def _secrets_of_a_delivery(client: httpx.AsyncClient, path: str, deps: Deps) -> list[str]:
    """The secrets that the next delivery is signed with, as the worker opens them."""
    await client.post(f"{path}/test")
    claim = await deliveries.claim_due(deps.store, limit=10, lease_s=30)
    (due,) = claim.found
    return [_opened(deps, due, place) for place in range(len(due.secrets))]


def _opened(deps: Deps, due: DueDelivery, place: int) -> str:
    secret_id, sealed = due.secrets[place]
    opened = deps.vault.open(b64decode(sealed), "webhook_secrets", secret_id, due.workspace_id)
    return opened.decode()


def _verify(secrets: Sequence[str], secret: str) -> bool:
    """Whether a receiver that knows one secret takes what is signed with several."""
    body = b'{"type":"ping"}'
    now_s = int(SystemClock().now().timestamp())
    headers = signing.sign_standard(secrets, event_id="e", timestamp_s=now_s, body=body)
    try:
        Webhook(secret).verify(body, headers)
    except WebhookVerificationError:
        return False
    return True


async def test_after_a_rotation_both_secrets_sign_until_the_overlap_is_over(
    client: httpx.AsyncClient, deps: Deps
) -> None:
    path, old = await _create(client)

    answer = await client.post(f"{path}/rotate-secret", json={"overlapSeconds": 3600})
    new = answer.json()["secret"]
    both = await _secrets_of_a_delivery(client, path, deps)
    await deps.store.execute(
        "UPDATE webhook_secrets SET expires_at = now() WHERE expires_at IS NOT NULL", {}
    )
    one = await _secrets_of_a_delivery(client, path, deps)

    assert ([new, old], [new]) == (both, one)
    assert [True, True] == [_verify(both, secret) for secret in (old, new)]
    assert [False, True] == [_verify(one, secret) for secret in (old, new)]
    assert {"secret": new} == (await client.get(f"{path}/secret")).json()
    assert 32 == len(signing.parse_secret(new))


@pytest.mark.parametrize(
    ("body", "seconds"),
    [(None, 86_400), ({}, 86_400), ({"overlapSeconds": None}, 86_400), ({"overlapSeconds": 60}, 60),
     ({"overlapSeconds": 604_800}, 604_800)],
)  # fmt: skip
async def test_the_old_secret_lives_for_a_day_or_as_long_as_it_is_told(
    client: httpx.AsyncClient, deps: Deps, body: object, seconds: int
) -> None:
    path, _ = await _create(client)

    answer = await client.post(f"{path}/rotate-secret", json=body)

    (row,) = await deps.store.fetch(
        """SELECT round(extract(epoch FROM expires_at - now()))::int, to_char(
             expires_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"')
           FROM webhook_secrets WHERE expires_at IS NOT NULL""",
        {},
    )
    assert seconds - 5 <= row[0] <= seconds
    assert row[1] == answer.json()["previousExpiresAt"]


async def test_an_overlap_of_nothing_ends_every_old_secret_at_once(
    client: httpx.AsyncClient, deps: Deps
) -> None:
    path, _ = await _create(client)
    await _rotate(client, path, 3600)

    answer = await client.post(f"{path}/rotate-secret", json={"overlapSeconds": 0})

    assert None is answer.json()["previousExpiresAt"]
    assert [answer.json()["secret"]] == await _secrets_of_a_delivery(client, path, deps)


async def test_a_rotation_never_makes_an_old_secret_live_longer(
    client: httpx.AsyncClient, deps: Deps
) -> None:
    path, oldest = await _create(client)
    await _rotate(client, path, 60)

    await _rotate(client, path, 604_800)

    ages = await deps.store.fetch(
        """SELECT expires_at < now() + interval '61 s' FROM webhook_secrets
           ORDER BY expires_at NULLS LAST""",
        {},
    )
    assert [True, False, None] == [row[0] for row in ages]
    assert oldest == (await _secrets_of_a_delivery(client, path, deps))[-1]


async def test_a_fourth_live_secret_is_refused_and_nothing_changes(
    client: httpx.AsyncClient, deps: Deps
) -> None:
    path, _ = await _create(client)
    await _rotate(client, path, 3600)
    newest = await _rotate(client, path, 3600)
    before = await deps.store.fetch("SELECT id, expires_at FROM webhook_secrets ORDER BY id", {})

    refused = await client.post(f"{path}/rotate-secret", json={"overlapSeconds": 60})

    assert (409, "too_many_secrets", []) == problem(refused)
    after = await deps.store.fetch("SELECT id, expires_at FROM webhook_secrets ORDER BY id", {})
    assert (3, before) == (len(before), after)
    assert {"secret": newest} == (await client.get(f"{path}/secret")).json()
    assert "whsec_" in await _rotate(client, path, 0)


@pytest.mark.parametrize("overlap", [-1, 604_801, "1h", "60", 1.5, True, [60]])
async def test_an_overlap_that_makes_no_sense_is_refused(
    client: httpx.AsyncClient, overlap: object
) -> None:
    path, secret = await _create(client)

    answer = await client.post(f"{path}/rotate-secret", json={"overlapSeconds": overlap})

    assert (422, "invalid", ["/overlapSeconds"]) == problem(answer)
    assert {"secret": secret} == (await client.get(f"{path}/secret")).json()


async def test_a_rotation_is_logged_with_its_key_and_without_the_secret(
    client: httpx.AsyncClient, tenant: Tenant
) -> None:
    path, _ = await _create(client)

    with capture_logs() as logs:
        new = await _rotate(client, path, 60)

    (audited,) = [entry for entry in logs if entry["event"] == "webhook_secret_rotated"]
    assert (path, str(tenant.principal.key_id), 60) == (
        f"/webhooks/{audited['endpoint_id']}",
        audited["key_id"],
        audited["overlap_s"],
    )
    assert new not in str(logs)


async def test_a_disabled_webhook_is_enabled_again(client: httpx.AsyncClient, deps: Deps) -> None:
    path, _ = await _create(client)
    await deps.store.execute(
        "UPDATE webhook_endpoints SET disabled_at = now(), disabled_reason = 'gone'", {}
    )

    enabled = [await client.post(f"{path}/enable") for _ in range(2)]

    assert [(200, None, None)] * 2 == [
        (answer.status_code, answer.json()["disabledAt"], answer.json()["disabledReason"])
        for answer in enabled
    ]
    assert 202 == (await client.post(f"{path}/test")).status_code


async def test_a_webhook_for_deleted_environments_alone_is_enabled_once_it_names_others(
    client: httpx.AsyncClient,
) -> None:
    await client.post("/environments", json={"name": "staging"})
    path, _ = await _create(client, environments=["staging"])
    await client.delete("/environments/staging")

    refused = await client.post(f"{path}/enable")
    await client.patch(path, json={"environments": ["production"]})
    enabled = await client.post(f"{path}/enable")

    assert (409, "conflict", []) == problem(refused)
    assert (200, None) == (enabled.status_code, enabled.json()["disabledAt"])


@pytest.mark.parametrize("action", ["rotate-secret", "enable"])
async def test_a_foreign_webhook_is_neither_rotated_nor_enabled(
    client: httpx.AsyncClient, deps: Deps, tenant: Tenant, action: str
) -> None:
    path, secret = await _create(client)
    stranger = await a_tenant(deps)
    reading, _ = await a_key(deps, tenant.workspace_id, ("webhooks:read",))

    async with client_with(deps, stranger.key) as other:
        foreign = await other.post(f"{path}/{action}")
        unknown = await other.post(f"/webhooks/{UNKNOWN_ID}/{action}")
    async with client_with(deps, reading) as reader:
        forbidden = await reader.post(f"{path}/{action}")

    assert (404, 404, 403) == (foreign.status_code, unknown.status_code, forbidden.status_code)
    assert without_request_id(foreign) == without_request_id(unknown)
    assert {"secret": secret} == (await client.get(f"{path}/secret")).json()


@pytest.mark.parametrize("action", ["rotate-secret", "enable"])
async def test_a_field_that_nobody_asked_for_is_refused(
    client: httpx.AsyncClient, action: str
) -> None:
    path, _ = await _create(client)

    answer = await client.post(f"{path}/{action}", json={"secret": "whsec_x"})

    assert (422, "invalid", ["/secret"]) == problem(answer)
