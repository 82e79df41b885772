"""Webhook endpoints: where events go, which ones, and the secrets they are signed with."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from itertools import chain
from typing import Annotated, Any
from urllib.parse import urlsplit
from uuid import UUID

import msgspec

from shared import log
from shared.clock import rfc3339
from shared.deps import Deps
from shared.domain import flaws, signing, webhook_urls
from shared.domain import webhooks as rules
from shared.domain.audit import Action
from shared.domain.paging import Page, Slice
from shared.domain.preconditions import WHATEVER, Expected
from shared.domain.states import WebhookFormat
from shared.domain.webhook_urls import Policy
from shared.errors import ConflictError, NotFoundError
from shared.ids import EndpointId, new_id, parse
from shared.services import audit, environments, views
from shared.services.audit import Target
from shared.services.keys import Principal
from shared.store import endpoints, failing, workspaces
from shared.store.database import Tx
from shared.store.tables import EndpointRow, WebhookSecretRow
from shared.vault import VaultError

MAX_ENDPOINTS = 50  # of one environment
MAX_SECRETS = 3
MAX_OVERLAP_S = 7 * 86_400
_FIELDS = {"environment_ids": "environments", "include_output": "includeOutput"}

_log = log.get(__name__)


class NewWebhook(msgspec.Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    """The body of a creation. Empty `environments` or `events` mean all."""

    url: str
    environments: list[str] | None = None
    events: list[str] | None = None
    format: WebhookFormat | None = None
    headers: dict[str, str] | None = None
    description: str | None = None
    secret: str | None = None
    include_output: bool | None = None


class WebhookChange(msgspec.Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    """The body of a change; what is absent stays, a list or `headers` is replaced as a whole."""

    url: str | None = None
    environments: list[str] | None = None
    events: list[str] | None = None
    format: WebhookFormat | None = None
    headers: dict[str, str] | None = None
    description: str | None = None
    include_output: bool | None = None


class WebhookView(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """An endpoint without its secret. `headers` are names only; null when no key opens them."""

    id: str
    url: str
    environments: list[str]
    events: list[str]
    format: str
    headers: list[str] | None
    description: str
    include_output: bool
    created_at: str
    disabled_at: str | None
    disabled_reason: str | None
    paused_until: str | None


class CreatedWebhook(WebhookView, frozen=True, rename="camel", kw_only=True):
    """The answer to a creation: the only one with the secret, besides its own audited route."""

    secret: str


class SecretView(msgspec.Struct, frozen=True):
    """The secret that an endpoint's owner should verify with."""

    secret: str


class Rotation(msgspec.Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    """The body of a rotation: for how long the old secrets sign along."""

    overlap_seconds: Annotated[int, msgspec.Meta(ge=0, le=MAX_OVERLAP_S)] | None = None


class RotatedSecret(msgspec.Struct, frozen=True, rename="camel"):
    """The new secret, and until when deliveries are signed with the previous one too."""

    secret: str
    previous_expires_at: str | None


async def create(deps: Deps, principal: Principal, body: NewWebhook) -> CreatedWebhook:
    """Add an endpoint.

    Raises `UnacceptableError` for URL, names, headers or secret, `ConflictError` when there are
    too many or no master key is set, `ForbiddenError` for environments beyond the key's.
    """
    _check(deps, body)
    secret = signing.new_secret() if body.secret is None else body.secret
    signing.parse_secret(secret)
    workspace_id, endpoint_id = principal.workspace_id, EndpointId(new_id())
    async with deps.store.transaction() as tx:
        await workspaces.hold(tx, workspace_id)
        columns = await _columns(deps, tx, principal, endpoint_id, body)
        columns.setdefault("format", WebhookFormat.STANDARD.value)
        if "environment_ids" not in columns:
            environments.demand(principal, ())
        await _demand_room(tx, principal, columns.get("environment_ids", []))
        row = await endpoints.insert(
            tx, {**columns, "id": endpoint_id, "workspace_id": workspace_id}
        )
        secret_id = new_id()
        sealed = environments.seal(
            deps, secret.encode(), "webhook_secrets", secret_id, workspace_id
        )
        await endpoints.insert_secret(tx, secret_id, workspace_id, endpoint_id, sealed)
        await audit.note(tx, principal, Action.WEBHOOK_CREATED, target(row))
        view = _view(deps, row, await _around(tx, principal, [row]))
    return CreatedWebhook(**msgspec.structs.asdict(view), secret=secret)


async def listed(deps: Deps, principal: Principal, page: Page) -> Slice[WebhookView]:
    """List the endpoints of the workspace, or of the environments the key is limited to."""
    async with deps.store.transaction() as tx:
        found = await endpoints.listed(
            tx, principal.workspace_id, page, within=principal.environment_ids
        )
        around = await _around(tx, principal, found.rows)
    return views.page(found, lambda row: _view(deps, row, around))


async def get(deps: Deps, principal: Principal, endpoint_id: str) -> WebhookView:
    """Read an endpoint, without its secret."""
    async with deps.store.transaction() as tx:
        row = await find(tx, principal, endpoint_id)
        return _view(deps, row, await _around(tx, principal, [row]))


async def secret(deps: Deps, principal: Principal, endpoint_id: str) -> SecretView:
    """Show the newest secret of an endpoint; audit and log say which key asked."""
    async with deps.store.transaction() as tx:
        endpoint = await find(tx, principal, endpoint_id)
        row = await endpoints.newest_secret(tx, endpoint.id)
        if row is None:
            raise NotFoundError
        text = _opened(deps, row)
        await audit.note(tx, principal, Action.WEBHOOK_SECRET_READ, target(endpoint))
    _log.info("webhook_secret_shown", endpoint_id=str(endpoint.id), key_id=str(principal.key_id))
    return SecretView(secret=text)


async def change(
    deps: Deps,
    principal: Principal,
    endpoint_id: str,
    body: WebhookChange,
    expected: Expected = WHATEVER,
) -> WebhookView:
    """Change what an endpoint wants; deliveries already written keep their event.

    Another URL is another receiver: what the old one failed is forgotten.
    """
    _check(deps, body)
    async with deps.store.transaction() as tx:
        await workspaces.hold(tx, principal.workspace_id)
        row = await find(tx, principal, endpoint_id)
        expected.demand(_view(deps, row, await _around(tx, principal, [row])))
        columns = await _columns(deps, tx, principal, EndpointId(row.id), body)
        if "environment_ids" in columns:
            await _demand_room(tx, principal, columns["environment_ids"], besides=row.id)
        if columns.get("url", row.url) != row.url:
            await failing.forget(tx, row.id)
        fields = audit.changed(row, **columns)
        await endpoints.change(tx, row, columns)
        if fields:
            details: dict[str, audit.Detail] = {"fields": [_FIELDS.get(one, one) for one in fields]}
            await audit.note(tx, principal, Action.WEBHOOK_CHANGED, target(row), details)
        return _view(deps, row, await _around(tx, principal, [row]))


async def rotate(
    deps: Deps, principal: Principal, endpoint_id: str, body: Rotation
) -> RotatedSecret:
    """Give an endpoint a new secret; the old ones sign along until the overlap is over.

    Raises `ConflictError` when more than three would be live; the log says which key did it.
    """
    overlap_s = body.overlap_seconds
    if overlap_s is None:
        overlap_s = deps.settings.webhook_overlap_s
    secret, secret_id = signing.new_secret(), new_id()
    place = ("webhook_secrets", secret_id, principal.workspace_id)
    sealed = environments.seal(deps, secret.encode(), *place)
    async with deps.store.transaction() as tx:
        await workspaces.hold(tx, principal.workspace_id)
        row = await find(tx, principal, endpoint_id)
        live, expires_at = await endpoints.end_secrets(tx, row.id, overlap_s)
        if live >= MAX_SECRETS:
            raise ConflictError(
                f"{MAX_SECRETS} secrets are live: let one end, or end them with overlapSeconds 0.",
                code="too_many_secrets",
            )
        await endpoints.insert_secret(
            tx, secret_id, principal.workspace_id, EndpointId(row.id), sealed
        )
        details = {"overlapSeconds": overlap_s}
        await audit.note(tx, principal, Action.WEBHOOK_SECRET_ROTATED, target(row), details)
    _log.info(
        "webhook_secret_rotated",
        endpoint_id=str(row.id),
        key_id=str(principal.key_id),
        overlap_s=overlap_s,
    )
    return RotatedSecret(secret=secret, previous_expires_at=views.moment(expires_at))


async def enable(deps: Deps, principal: Principal, endpoint_id: str) -> WebhookView:
    """Let an endpoint take deliveries again; what it missed is not sent by that (`recover`).

    Raises `ConflictError` where the environments it is for are all deleted.
    """
    async with deps.store.transaction() as tx:
        await workspaces.hold(tx, principal.workspace_id)
        row = await find(tx, principal, endpoint_id)
        live = await workspaces.live_environments(tx, principal.workspace_id)
        if row.environment_ids and not live.intersection(row.environment_ids):
            raise ConflictError("The environments of this webhook are deleted: name others first.")
        await endpoints.enable(tx, row)
        await failing.forget(tx, row.id)
        await audit.note(tx, principal, Action.WEBHOOK_ENABLED, target(row))
        return _view(deps, row, await _around(tx, principal, [row]))


async def delete(deps: Deps, principal: Principal, endpoint_id: str) -> None:
    """Hide an endpoint and cancel what was still to be delivered to it."""
    async with deps.store.transaction() as tx:
        await workspaces.hold(tx, principal.workspace_id)
        row = await find(tx, principal, endpoint_id)
        await endpoints.remove(tx, row)
        await audit.note(tx, principal, Action.WEBHOOK_DELETED, target(row))


async def find(tx: Tx, principal: Principal, endpoint_id: str) -> EndpointRow:
    """A live endpoint. Raises `NotFoundError`, and `ForbiddenError` beyond the key's."""
    found = parse(endpoint_id)
    row = found and await endpoints.find(tx, principal.workspace_id, EndpointId(found))
    if not row:
        raise NotFoundError
    environments.demand(principal, row.environment_ids)
    return row


def target(row: EndpointRow) -> Target:
    """What the audit calls an endpoint: its host, for paths may hold secrets."""
    return Target("webhook", row.id, urlsplit(row.url).hostname or "", tuple(row.environment_ids))


def _opened(deps: Deps, row: WebhookSecretRow) -> str:
    try:
        return deps.vault.open(row.sealed, "webhook_secrets", row.id, row.workspace_id).decode()
    except VaultError as error:
        raise ConflictError(
            "No configured master key opens this secret.", code="no_master_key"
        ) from error


def _check(deps: Deps, body: NewWebhook | WebhookChange) -> None:
    if body.url is not None:
        webhook_urls.check(body.url, Policy.of(deps.settings))
    flaws.refuse(
        *rules.event_flaws(body.events or ()),
        *rules.header_flaws(body.headers or {}),
        *flaws.of_text(body.description),
    )


async def _columns(
    deps: Deps,
    tx: Tx,
    principal: Principal,
    endpoint_id: EndpointId,
    body: NewWebhook | WebhookChange,
) -> dict[str, Any]:
    """Turn what a body gives into columns; what is absent is left out."""
    columns: dict[str, Any] = {
        "url": body.url,
        "format": None if body.format is None else body.format.value,
        "description": body.description,
        "include_output": body.include_output,
        "events": None if body.events is None else list(rules.wanted_events(body.events)),
    }
    if body.environments is not None:
        columns["environment_ids"] = await environments.named(tx, principal, body.environments)
    columns = {name: value for name, value in columns.items() if value is not None}
    if body.headers is not None:
        columns["headers"] = _seal_headers(deps, principal, endpoint_id, body.headers)
    return columns


async def _demand_room(
    tx: Tx, principal: Principal, environment_ids: Collection[UUID], besides: UUID | None = None
) -> None:
    """Raise `ConflictError` where an environment would have too many; no ids mean every one."""
    workspace_id = principal.workspace_id
    others = await endpoints.wanted_environments(tx, workspace_id, besides)
    everywhere = sum(not wanted for wanted in others)
    named = Counter(chain.from_iterable(others))
    wanted = environment_ids or await workspaces.live_environments(tx, workspace_id)
    if everywhere + max((named[one] for one in wanted), default=0) >= MAX_ENDPOINTS:
        raise ConflictError(
            f"An environment may have {MAX_ENDPOINTS} webhooks: delete one first.",
            code="too_many_webhooks",
        )


def _seal_headers(
    deps: Deps, principal: Principal, endpoint_id: EndpointId, headers: Mapping[str, str]
) -> bytes | None:
    if not headers:
        return None
    return environments.seal(
        deps,
        msgspec.json.encode(headers),
        *("webhook_endpoints", "headers", endpoint_id, principal.workspace_id),
    )


class _Around(msgspec.Struct, frozen=True):
    """What endpoints show of other rows: names of environments, ends of pauses."""

    names: Mapping[UUID, str]
    pauses: Mapping[UUID, datetime]


async def _around(tx: Tx, principal: Principal, rows: Sequence[EndpointRow]) -> _Around:
    wanted = {environment_id for row in rows for environment_id in row.environment_ids}
    return _Around(
        await workspaces.environment_names(tx, principal.workspace_id, wanted),
        await failing.pauses(tx, [row.id for row in rows]),
    )


def _header_names(deps: Deps, row: EndpointRow) -> list[str] | None:
    if row.headers is None:
        return []
    try:
        opened = deps.vault.open(
            row.headers, "webhook_endpoints", "headers", row.id, row.workspace_id
        )
    except VaultError:
        return None
    return list(msgspec.json.decode(opened, type=dict[str, str]))


def _view(deps: Deps, row: EndpointRow, around: _Around) -> WebhookView:
    return WebhookView(
        id=str(row.id),
        url=row.url,
        environments=[around.names[environment_id] for environment_id in row.environment_ids],
        events=row.events,
        format=row.format,
        headers=_header_names(deps, row),
        description=row.description,
        include_output=row.include_output,
        created_at=rfc3339(row.created_at),
        disabled_at=views.moment(row.disabled_at),
        disabled_reason=row.disabled_reason,
        paused_until=views.moment(around.pauses.get(row.id)),
    )
