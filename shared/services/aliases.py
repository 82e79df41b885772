"""Aliases: names of a workspace that stand for models.

A changed alias counts for the next submission of every process, as
`workspaces.change_catalog` makes what they remember stale.
"""

import msgspec

from shared.clock import rfc3339
from shared.deps import Deps
from shared.domain import aliases as rules_of_aliases
from shared.domain.aliases import MAX_ALIASES, Alias, Strategy
from shared.domain.audit import Action
from shared.domain.preconditions import WHATEVER, Expected
from shared.domain.versions import Rules
from shared.errors import ConflictError, NotFoundError
from shared.ids import WorkspaceId
from shared.services import audit
from shared.services.keys import Principal
from shared.store import aliases, workspaces
from shared.store.database import Tx
from shared.store.tables import AliasRow


class AliasView(msgspec.Struct, frozen=True, rename="camel"):
    """An alias as its owner sees it."""

    alias: str
    models: list[str]
    strategy: Strategy
    weights: list[int] | None
    description: str | None
    updated_at: str


async def rules(deps: Deps, workspace_id: WorkspaceId, *, unfinished: bool = False) -> Rules:
    """What the versions of a workspace are held against."""
    names = await aliases.names(deps.store, workspace_id)
    return Rules(deps.settings.provider_names, names, unfinished)


async def listed(deps: Deps, principal: Principal) -> list[AliasView]:
    """List the workspace's aliases by name."""
    async with deps.store.transaction() as tx:
        return list(map(_view, await aliases.listed(tx, principal.workspace_id)))


async def get(deps: Deps, principal: Principal, name: str) -> AliasView:
    """Read an alias."""
    async with deps.store.transaction() as tx:
        return _view(await _find(tx, principal, name))


async def put(
    deps: Deps, principal: Principal, name: str, body: Alias, expected: Expected = WHATEVER
) -> AliasView:
    """Set an alias, whole. Raises `UnacceptableError` for what no run could call."""
    checked = rules_of_aliases.check(name, body, deps.settings.provider_names)
    async with deps.store.transaction() as tx:
        await workspaces.change_catalog(tx, principal.workspace_id)
        before = await aliases.find(tx, principal.workspace_id, name)
        expected.demand(None if before is None else _view(before))
        if before is None and await aliases.count(tx, principal.workspace_id) >= MAX_ALIASES:
            raise ConflictError(
                f"A workspace may have {MAX_ALIASES} aliases.", code="too_many_aliases"
            )
        row = await aliases.put(tx, principal.workspace_id, name, before, checked)
        details: dict[str, audit.Detail] = {
            "models": list(checked.models),
            "strategy": checked.strategy.value,
        }
        await audit.note(tx, principal, Action.ALIAS_SET, _target(row), details)
        return _view(row)


async def remove(
    deps: Deps, principal: Principal, name: str, expected: Expected = WHATEVER
) -> None:
    """Take an alias away; versions that name it can no longer be run as they are."""
    async with deps.store.transaction() as tx:
        await workspaces.change_catalog(tx, principal.workspace_id)
        row = await _find(tx, principal, name)
        expected.demand(_view(row))
        await aliases.remove(tx, row)
        await audit.note(tx, principal, Action.ALIAS_REMOVED, _target(row))


async def _find(tx: Tx, principal: Principal, name: str) -> AliasRow:
    row = None
    if "\x00" not in name:
        row = await aliases.find(tx, principal.workspace_id, name)
    if row is None:
        raise NotFoundError
    return row


def _target(row: AliasRow) -> audit.Target:
    return audit.Target("alias", None, row.alias)


def _view(row: AliasRow) -> AliasView:
    return AliasView(
        alias=row.alias,
        models=list(row.models),
        strategy=Strategy(row.strategy),
        weights=None if row.weights is None else list(row.weights),
        description=row.description,
        updated_at=rfc3339(row.updated_at),
    )
