"""Environments, their sealed variables, and which of them a key may reach."""

from collections.abc import Collection, Sequence
from typing import Literal
from uuid import UUID

import msgspec

from shared.clock import rfc3339
from shared.deps import Deps
from shared.domain import environments as rules
from shared.domain import flaws
from shared.domain.audit import Action
from shared.domain.environments import Limits, Retention
from shared.domain.paging import Page, Slice
from shared.domain.preconditions import WHATEVER, Expected
from shared.errors import ConflictError, Flaw, ForbiddenError, NotFoundError, UnacceptableError
from shared.ids import EnvironmentId, WorkspaceId, new_id
from shared.services import audit, views
from shared.services.audit import Target
from shared.services.keys import Principal
from shared.store import workspaces
from shared.store.database import Tx
from shared.store.tables import EnvironmentRow, EnvironmentVariableRow
from shared.vault import VaultError

MAX_VARIABLES = 200
_FIELDS = {
    "is_default": "isDefault",
    "retain_contents_days": "retention",
    "retain_runs_days": "retention",
    "max_queued_runs": "limits",
    "max_running_runs": "limits",
}


class NewEnvironment(msgspec.Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    """The body of a creation. The first environment is the default whatever it says."""

    name: str
    is_default: bool | None = None
    retention: Retention | Literal["none"] | None = None
    limits: Limits | None = None


class EnvironmentChange(msgspec.Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    """The body of a change; what is absent stays. `retention` and `limits` change as a whole."""

    name: str | None = None
    is_default: bool | None = None
    retention: Retention | Literal["none"] | None = None
    limits: Limits | None = None


class NewVariable(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of a variable; its name is in the path."""

    value: str


class EnvironmentView(msgspec.Struct, frozen=True, rename="camel"):
    """An environment without its variables."""

    id: str
    name: str
    is_default: bool
    created_at: str
    deleting_since: str | None
    retention: Retention
    limits: Limits


class VariableView(msgspec.Struct, frozen=True, rename="camel"):
    """All that is ever shown of a variable; `last4` is empty for short values."""

    key: str
    last4: str
    updated_at: str


async def create(deps: Deps, principal: Principal, body: NewEnvironment) -> EnvironmentView:
    """Add an environment. Raises `ConflictError` for a name in use, in any spelling."""
    demand(principal, ())
    flaws.refuse(*rules.name_flaws(body.name))
    workspace_id = principal.workspace_id
    async with deps.store.transaction() as tx:
        await workspaces.change_catalog(tx, workspace_id)
        await _name_is_free(tx, workspace_id, body.name)
        first = not await workspaces.has_environments(tx, workspace_id)
        row = await workspaces.insert_environment(
            tx,
            workspace_id,
            EnvironmentId(new_id()),
            body.name,
            is_default=first or body.is_default is True,
        )
        await workspaces.configure_environment(tx, row, _configured(row, body))
        await audit.note(tx, principal, Action.ENVIRONMENT_CREATED, target(row))
    return _view(row)


async def listed(deps: Deps, principal: Principal, page: Page) -> Slice[EnvironmentView]:
    """List the environments the key may use."""
    async with deps.store.transaction() as tx:
        found = await workspaces.environments(
            tx, principal.workspace_id, page, within=principal.environment_ids
        )
    return views.page(found, _view)


async def get(deps: Deps, principal: Principal, name: str) -> EnvironmentView:
    """Read an environment by name, in any spelling."""
    async with deps.store.transaction() as tx:
        return _view(await find(tx, principal, name))


async def change(
    deps: Deps,
    principal: Principal,
    name: str,
    body: EnvironmentChange,
    expected: Expected = WHATEVER,
) -> EnvironmentView:
    """Rename an environment, or make it the default in place of the present one."""
    flaws.refuse(*rules.name_flaws(body.name))
    async with deps.store.transaction() as tx:
        await workspaces.change_catalog(tx, principal.workspace_id)
        row = await kept(tx, principal, name)
        expected.demand(_view(row))
        if body.is_default is not None and body.is_default != row.is_default:
            demand(principal, ())  # it changes another environment too
            if not body.is_default:
                raise ConflictError(
                    "A workspace needs a default environment: make another one the default.",
                    code="default_environment",
                )
        if body.name is not None and body.name.lower() != row.name.lower():
            await _name_is_free(tx, principal.workspace_id, body.name)
        fields = audit.changed(row, name=body.name, is_default=body.is_default)
        await workspaces.update_environment(
            tx, row, name=body.name, is_default=body.is_default or None
        )
        configured = _configured(row, body)
        await workspaces.configure_environment(tx, row, configured)
        fields += configured
        if fields:
            named = dict.fromkeys(_FIELDS.get(one, one) for one in fields)
            details: dict[str, audit.Detail] = {"fields": list(named)}
            await audit.note(tx, principal, Action.ENVIRONMENT_CHANGED, target(row), details)
        return _view(row)


async def set_variable(
    deps: Deps, principal: Principal, name: str, key: str, body: NewVariable
) -> VariableView:
    """Seal a variable. Raises `ConflictError` where the server has no master key."""
    flaws.refuse(*rules.variable_flaws(key, body.value))
    async with deps.store.transaction() as tx:
        await workspaces.change_catalog(tx, principal.workspace_id)
        environment = await kept(tx, principal, name)
        if (
            await workspaces.find_variable(tx, environment.id, key) is None
            and await workspaces.count_variables(tx, environment.id) >= MAX_VARIABLES
        ):
            raise ConflictError(
                f"An environment may have {MAX_VARIABLES} variables.", code="too_many_variables"
            )
        place = ("environment_variables", key, environment.id, principal.workspace_id)
        sealed = seal(deps, body.value.encode(), *place)
        row = await workspaces.put_variable(tx, environment, key, sealed, rules.last4(body.value))
        on = _variable_target(environment, key)
        await audit.note(tx, principal, Action.VARIABLE_SET, on)
    return _variable_view(row)


async def remove_variable(deps: Deps, principal: Principal, name: str, key: str) -> None:
    """Destroy a variable."""
    async with deps.store.transaction() as tx:
        await workspaces.change_catalog(tx, principal.workspace_id)
        environment = await find(tx, principal, name)
        if not rules.is_key(key) or not await workspaces.delete_variable(tx, environment, key):
            raise NotFoundError
        on = _variable_target(environment, key)
        await audit.note(tx, principal, Action.VARIABLE_DELETED, on)


async def list_variables(deps: Deps, principal: Principal, name: str) -> list[VariableView]:
    """List the variables of an environment by name."""
    async with deps.store.transaction() as tx:
        environment = await find(tx, principal, name)
        found = await workspaces.variables(tx, environment.id)
    return [_variable_view(row) for row in found]


def seal(deps: Deps, plain: bytes, *place: object) -> bytes:
    """Encrypt for one place; raises `ConflictError` where the server has no master key."""
    try:
        return deps.vault.seal(plain, *place)
    except VaultError as error:
        raise ConflictError(
            "This server has no master key, so it cannot keep secrets. Set MASTER_KEY.",
            code="no_master_key",
        ) from error


def demand(principal: Principal, environment_ids: Collection[UUID]) -> None:
    """Raise `ForbiddenError` unless the key may use these environments; none given mean all."""
    allowed = principal.environment_ids
    if allowed and (not environment_ids or not allowed.issuperset(environment_ids)):
        raise ForbiddenError(
            "This key may use some environments only: name those.", code="environment_forbidden"
        )


async def named(tx: Tx, principal: Principal, names: Sequence[str]) -> list[UUID]:
    """Find the environments a body names, each once; none named mean all.

    Raises `UnacceptableError` for unknown ones, `ForbiddenError` for those beyond the key's.
    """
    ids = await workspaces.environment_ids(tx, principal.workspace_id, names)
    # Only of a well-formed name does Python make the same lower case as the database.
    found = [ids.get(name.lower()) if rules.is_name(name) else None for name in names]
    message = "There is no environment of this name."
    unknown = [
        Flaw(f"/environments/{place}", message) for place, one in enumerate(found) if one is None
    ]
    if unknown:
        raise UnacceptableError(message, code="unknown_environment", flaws=unknown)
    environment_ids = list(dict.fromkeys(one for one in found if one is not None))
    demand(principal, environment_ids)
    return environment_ids


async def given(tx: Tx, principal: Principal, name: str, pointer: str) -> EnvironmentRow:
    """An environment that a body names, to change it.

    Raises `UnacceptableError` for an unknown one, `ForbiddenError` beyond the key's,
    `ConflictError` where it is being deleted.
    """
    try:
        return await kept(tx, principal, name)
    except NotFoundError as error:
        message = "There is no environment of this name."
        raise UnacceptableError(
            message, code="unknown_environment", flaws=[Flaw(pointer, message)]
        ) from error


async def find(tx: Tx, principal: Principal, name: str) -> EnvironmentRow:
    """An environment by name. Raises `NotFoundError`, and `ForbiddenError` beyond the key's."""
    row: EnvironmentRow | None = None
    if rules.is_name(name):
        row = await workspaces.find_environment(tx, principal.workspace_id, name)
    if row is None:
        raise NotFoundError
    demand(principal, [row.id])
    return row


async def kept(tx: Tx, principal: Principal, name: str) -> EnvironmentRow:
    """The same, to change it: raises `ConflictError` where it is being deleted."""
    row = await find(tx, principal, name)
    if row.deleting_at is not None:
        raise ConflictError("This environment is being deleted.", code="environment_deleting")
    return row


def target(row: EnvironmentRow) -> Target:
    """What the audit calls an environment."""
    return Target("environment", row.id, row.name, (row.id,))


async def _name_is_free(tx: Tx, workspace_id: WorkspaceId, name: str) -> None:
    if await workspaces.find_environment(tx, workspace_id, name) is not None:
        raise workspaces.name_taken(name)


def _configured(
    row: EnvironmentRow, body: NewEnvironment | EnvironmentChange
) -> dict[str, int | None]:
    """The columns that a body's retention and limits make different."""
    given: dict[str, int | None] = {}
    retention = rules.retention_of(body.retention)
    if retention is not None:
        given["retain_contents_days"] = retention.contents_days
        given["retain_runs_days"] = retention.runs_days
    if body.limits is not None:
        given["max_queued_runs"] = body.limits.queued_runs
        given["max_running_runs"] = body.limits.running_runs
    return {name: value for name, value in given.items() if value != getattr(row, name)}


def _variable_target(environment: EnvironmentRow, key: str) -> Target:
    return Target("variable", environment.id, key, (environment.id,))


def _view(row: EnvironmentRow) -> EnvironmentView:
    return EnvironmentView(
        id=str(row.id),
        name=row.name,
        is_default=row.is_default,
        created_at=rfc3339(row.created_at),
        deleting_since=views.moment(row.deleting_at),
        retention=Retention(row.retain_contents_days, row.retain_runs_days),
        limits=Limits(row.max_queued_runs, row.max_running_runs),
    )


def _variable_view(row: EnvironmentVariableRow) -> VariableView:
    return VariableView(key=row.key, last4=row.last4, updated_at=rfc3339(row.updated_at))
