"""The audit: who did what, noted in the transaction that does it, and shown to admins.

Every use case that changes what a workspace is made of calls `note` inside its transaction; a
test goes through all routes and finds the one that forgot.
"""

from collections.abc import Mapping
from typing import Any
from uuid import UUID

import msgspec

from shared import log
from shared.clock import rfc3339
from shared.deps import Deps
from shared.domain.audit import Action
from shared.domain.paging import Page, Slice
from shared.ids import WorkspaceId
from shared.services import views
from shared.services.keys import Principal
from shared.store import audit, workspaces
from shared.store.audit import AuditFilter
from shared.store.database import Tx
from shared.store.tables import AuditRow, PromptRow, PromptVersionRow

Detail = str | int | bool | list[str] | None


class Operator(msgspec.Struct, frozen=True):
    """Whoever holds the command line. No workspace: what is done concerns all of them."""

    workspace_id: WorkspaceId | None = None


class Target(msgspec.Struct, frozen=True):
    """What it was done to. No environments: all of them, or a thing that belongs to none."""

    kind: str
    id: UUID | None
    name: str
    environment_ids: tuple[UUID, ...] = ()


class TargetView(msgspec.Struct, frozen=True):
    """What it was done to, under the name it had then."""

    kind: str
    id: str | None
    name: str


class AuditEntryView(msgspec.Struct, frozen=True, rename="camel"):
    """One thing that was done. `details` depend on the action and hold no secret and no text."""

    id: str
    at: str
    action: Action
    actor: str
    key_id: str | None
    key_name: str | None
    target: TargetView
    environments: list[str]
    request_id: str | None
    details: dict[str, Detail]


async def note(
    tx: Tx,
    actor: Principal | Operator,
    action: Action,
    target: Target,
    details: Mapping[str, Detail] | None = None,
) -> None:
    """Write down what this transaction does; the two are committed together or not at all."""
    key_id = actor.key_id if isinstance(actor, Principal) else None
    await audit.write(
        tx,
        {
            "workspace_id": actor.workspace_id,
            "actor": "operator" if key_id is None else "key",
            "key_id": key_id,
            "action": action.value,
            "target_kind": target.kind,
            "target_id": target.id,
            "target_name": target.name,
            "environment_ids": list(target.environment_ids),
            "request_id": log.request_id(),
            "details": dict(details or {}),
        },
    )


def of_prompt(row: PromptRow) -> Target:
    """A prompt as a target, by its slug."""
    return Target("prompt", row.id, row.slug)


def of_version(prompt: PromptRow, row: PromptVersionRow) -> Target:
    """A version as a target, by its prompt's slug and its number."""
    return Target("version", row.id, f"{prompt.slug}/{row.number}")


def changed(row: object, **given: object) -> list[str]:
    """Name the columns that a change would make different; `None` was not given."""
    return [
        name for name, value in given.items() if value is not None and value != getattr(row, name)
    ]


async def listed(
    deps: Deps, principal: Principal, wanted: AuditFilter, page: Page
) -> Slice[AuditEntryView]:
    """List what was done in the workspace; a limited key sees its environments' entries only."""
    async with deps.store.transaction() as tx:
        found = await audit.listed(
            tx, principal.workspace_id, wanted, page, within=principal.environment_ids
        )
        ids = {one for row in found.rows for one in row.environment_ids}
        names = await workspaces.environment_names(tx, principal.workspace_id, ids)
    return views.page(found, lambda row: _view(row, names))


def _view(row: AuditRow, names: Mapping[UUID, str]) -> AuditEntryView:
    details: dict[str, Any] = row.details
    return AuditEntryView(
        id=str(row.id),
        at=rfc3339(row.at),
        action=Action(row.action),
        actor=row.actor,
        key_id=None if row.key_id is None else str(row.key_id),
        key_name=row.key_name,
        target=TargetView(
            row.target_kind, None if row.target_id is None else str(row.target_id), row.target_name
        ),
        environments=[names[one] for one in row.environment_ids],
        request_id=row.request_id,
        details=details,
    )
