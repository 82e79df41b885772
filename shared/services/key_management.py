"""Making, listing and revoking API keys; who holds one is `services.keys`."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Annotated, Any

import msgspec

from shared.clock import rfc3339
from shared.deps import Deps
from shared.domain import api_keys, flaws
from shared.domain.audit import Action
from shared.domain.paging import Page, Slice
from shared.errors import Flaw, NotFoundError
from shared.ids import KeyId, WorkspaceId, new_id, parse
from shared.services import audit, environments, views
from shared.services.audit import Operator, Target
from shared.services.keys import SCOPES, Principal
from shared.store import workspaces
from shared.store.tables import ApiKeyRow

_LONGEST = timedelta(days=36_500)  # the last years of the calendar cannot be written in every zone


class NewKey(msgspec.Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    """The body of a creation. No `environments` mean all of them."""

    name: str
    scopes: list[str]
    environments: list[str] | None = None
    expires_at: Annotated[datetime, msgspec.Meta(tz=True)] | None = None


class KeyView(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """A key as it may be shown: `prefix` is its public part."""

    id: str
    name: str
    prefix: str
    scopes: list[str]
    environments: list[str]
    created_at: str
    expires_at: str | None
    last_used_at: str | None


class CreatedKey(KeyView, frozen=True, rename="camel", kw_only=True):
    """The answer to a creation: the only place where the key's text ever stands."""

    key: str


async def create(deps: Deps, principal: Principal, body: NewKey) -> CreatedKey:
    """Make a key that may do no more than the caller's own, and not for longer.

    Raises `UnacceptableError` for names and times, `ForbiddenError` for scopes, environments or
    times that the caller has not.
    """
    flaws.refuse(
        *flaws.of_name(body.name),
        *_scope_flaws(body.scopes),
        *_expiry_flaws(body.expires_at, deps.clock.now()),
    )
    for scope in body.scopes:
        principal.demand(scope)
    principal.demand_end(body.expires_at)
    async with deps.store.transaction() as tx:
        environment_ids = await environments.named(tx, principal, body.environments or ())
        columns, text = _columns(principal.workspace_id, body.name, body.scopes)
        columns |= {"environment_ids": environment_ids, "expires_at": body.expires_at}
        row = await workspaces.insert_key(tx, columns)
        await audit.note(tx, principal, Action.KEY_CREATED, _target(row), {"scopes": row.scopes})
        names = await workspaces.environment_names(tx, principal.workspace_id, environment_ids)
    view = _view(row, [names[environment_id] for environment_id in environment_ids])
    return CreatedKey(**msgspec.structs.asdict(view), key=text)


async def create_for(
    deps: Deps, workspace_id: WorkspaceId, name: str, scopes: Sequence[str]
) -> CreatedKey:
    """Make a key on the operator's word. Raises `NotFoundError` for an unknown workspace."""
    flaws.refuse(*flaws.of_name(name), *_scope_flaws(scopes))
    async with deps.store.transaction() as tx:
        if not await workspaces.hold(tx, workspace_id):
            raise NotFoundError
        columns, text = _columns(workspace_id, name, scopes)
        row = await workspaces.insert_key(tx, columns)
        by = Operator(workspace_id)
        await audit.note(tx, by, Action.KEY_CREATED, _target(row), {"scopes": row.scopes})
    return CreatedKey(**msgspec.structs.asdict(_view(row, [])), key=text)


async def listed(deps: Deps, principal: Principal, page: Page) -> Slice[KeyView]:
    """List the live keys of the workspace; a limited key sees those within its environments."""
    async with deps.store.transaction() as tx:
        found = await workspaces.keys(
            tx, principal.workspace_id, page, within=principal.environment_ids
        )
        wanted = {one for row in found.rows for one in row.environment_ids}
        names = await workspaces.environment_names(tx, principal.workspace_id, wanted)
    return views.page(found, lambda row: _view(row, [names[one] for one in row.environment_ids]))


async def revoke(deps: Deps, principal: Principal, key_id: str) -> None:
    """End a key: here at once, elsewhere when its last check is forgotten (`key_cache_s`)."""
    found = parse(key_id)
    if found is None:
        raise NotFoundError
    async with deps.store.transaction() as tx:
        row = await workspaces.find_live_key(tx, principal.workspace_id, KeyId(found))
        if row is None:
            raise NotFoundError
        environments.demand(principal, row.environment_ids)
        await workspaces.revoke_key(tx, row)
        await audit.note(tx, principal, Action.KEY_REVOKED, _target(row))
    deps.keys.discard(row.lookup_id)


def _scope_flaws(scopes: Sequence[str]) -> list[Flaw]:
    if not scopes:
        return [Flaw("/scopes", "At least one scope is needed.")]
    return [
        Flaw(f"/scopes/{place}", f"Known scopes: {', '.join(SCOPES)}.")
        for place, scope in enumerate(scopes)
        if scope not in SCOPES
    ]


def _expiry_flaws(expires_at: datetime | None, now: datetime) -> list[Flaw]:
    if expires_at is None or now < expires_at <= now + _LONGEST:
        return []
    return [Flaw("/expiresAt", "A key expires in the future, within a hundred years.")]


def _columns(
    workspace_id: WorkspaceId, name: str, scopes: Sequence[str]
) -> tuple[dict[str, Any], str]:
    made = api_keys.make()
    columns = {
        "id": new_id(),
        "workspace_id": workspace_id,
        "name": name,
        "lookup_id": made.lookup_id,
        "digest": made.digest,
        "scopes": [scope for scope in SCOPES if scope in scopes],
    }
    return columns, made.text


def _target(row: ApiKeyRow) -> Target:
    return Target("key", row.id, row.name, tuple(row.environment_ids))


def _view(row: ApiKeyRow, environment_names: list[str]) -> KeyView:
    return KeyView(
        id=str(row.id),
        name=row.name,
        prefix=f"rl_{row.lookup_id}",
        scopes=row.scopes,
        environments=environment_names,
        created_at=rfc3339(row.created_at),
        expires_at=views.moment(row.expires_at),
        last_used_at=views.moment(row.last_used_at),
    )
