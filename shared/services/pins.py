"""Pins: which version an environment runs of a prompt.

A submission that names no version runs what its environment pins, else what the default one does
(`targets.locate` with `rules.PINNED`). A pin moved here counts for the next submission of every
process, as `workspaces.change_catalog` makes what they remember stale.
"""

from collections.abc import Mapping
from uuid import UUID

import msgspec

from shared.clock import rfc3339
from shared.deps import Deps
from shared.domain import flaws
from shared.domain import prompts as rules
from shared.domain.audit import Action
from shared.domain.paging import Page, Slice
from shared.domain.preconditions import WHATEVER, Expected
from shared.errors import NotFoundError
from shared.services import audit, environments, prompts, publishing, views
from shared.services.keys import Principal
from shared.store import pins, workspaces
from shared.store.database import Tx
from shared.store.pins import Move, Pinned
from shared.store.tables import EnvironmentRow, PinChangeRow, PromptRow, PromptVersionRow


class NewPin(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What an environment shall run: a version's number or id; a draft is published by this."""

    version: int | str
    comment: str | None = None


class PinView(msgspec.Struct, frozen=True, rename="camel"):
    """The version that an environment runs of a prompt."""

    environment: str
    prompt: str
    prompt_id: str
    version: int
    version_id: str
    comment: str
    pinned_at: str


class PinChangeView(msgspec.Struct, frozen=True, rename="camel"):
    """One move of a pin. `from` is null for its first, `to` for its removal.

    `source` is the environment that a promotion took it from, where the key reaches it.
    """

    id: str
    environment: str
    from_: int | None = msgspec.field(name="from")
    to: int | None
    comment: str
    source: str | None
    key_id: str | None
    key_name: str | None
    changed_at: str


async def of_environment(deps: Deps, principal: Principal, environment: str) -> list[PinView]:
    """List what an environment pins, by slug."""
    async with deps.store.transaction() as tx:
        where = await environments.find(tx, principal, environment)
        return list(map(_view, await pins.of_environment(tx, where.id)))


async def of_prompt(deps: Deps, principal: Principal, slug: str) -> list[PinView]:
    """List which environments pin a prompt, as far as the key reaches, by name."""
    async with deps.store.transaction() as tx:
        prompt = await prompts.find(tx, principal.workspace_id, slug)
        found = await pins.of_prompts(tx, [prompt.id], within=principal.environment_ids)
    return sorted(map(_view, found), key=lambda view: view.environment)


async def get(deps: Deps, principal: Principal, environment: str, slug: str) -> PinView:
    """Read what an environment runs of a prompt."""
    async with deps.store.transaction() as tx:
        where = await environments.find(tx, principal, environment)
        prompt = await prompts.find(tx, principal.workspace_id, slug)
        return _view(await _pinned(tx, where, prompt))


async def put(
    deps: Deps,
    principal: Principal,
    named: tuple[str, str],
    body: NewPin,
    expected: Expected = WHATEVER,
) -> PinView:
    """Let an environment run a version of a prompt (`named`), and write down the move.

    A draft is published: what is pinned never changes. Raises `NotFoundError` for a version this
    prompt has not, `ConflictError` for one that is not finished.
    """
    flaws.refuse(*rules.version_flaws(body.version), *flaws.of_text(body.comment, "/comment"))
    async with deps.store.transaction() as tx:
        await workspaces.change_catalog(tx, principal.workspace_id)
        where = await environments.kept(tx, principal, named[0])
        prompt = await prompts.find(tx, principal.workspace_id, named[1])
        version = await prompts.find_version(tx, prompt, body.version)
        before = await _find(tx, where, prompt)
        expected.demand(before and _view(before))
        return await pin(tx, principal, where, (prompt, version), body.comment or "")


async def pin(
    tx: Tx,
    principal: Principal,
    where: EnvironmentRow,
    what: tuple[PromptRow, PromptVersionRow],
    comment: str,
) -> PinView:
    """Set or move a pin inside a transaction that has announced its change of the catalog."""
    prompt, version = what
    before = await _find(tx, where, prompt)
    if before is None or before.pin.version_id != version.id:
        await publishing.publish(tx, principal, prompt, version)
        move = Move(
            workspace_id=principal.workspace_id,
            environment_id=where.id,
            prompt_id=prompt.id,
            key_id=principal.key_id,
            version_id=version.id,
            from_number=before and before.number,
            to_number=version.number,
            comment=comment,
        )
        await pins.put(tx, [move])
        await note(tx, principal, where, prompt, move)
    return _view(await _pinned(tx, where, prompt))


async def remove(
    deps: Deps,
    principal: Principal,
    environment: str,
    slug: str,
    expected: Expected = WHATEVER,
) -> None:
    """Take a pin away and write that down; from then on the default environment's counts."""
    async with deps.store.transaction() as tx:
        await workspaces.change_catalog(tx, principal.workspace_id)
        where = await environments.find(tx, principal, environment)
        prompt = await prompts.find(tx, principal.workspace_id, slug)
        present = await _pinned(tx, where, prompt)
        expected.demand(_view(present))
        move = Move(
            workspace_id=principal.workspace_id,
            environment_id=where.id,
            prompt_id=prompt.id,
            key_id=principal.key_id,
            version_id=None,
            from_number=present.number,
            to_number=None,
            comment="",
        )
        await pins.remove(tx, move)
        await note(tx, principal, where, prompt, move)


async def history(
    deps: Deps, principal: Principal, named: tuple[str, str], page: Page
) -> Slice[PinChangeView]:
    """List the moves of the pin of an environment and a prompt (`named`), a removed one's too."""
    async with deps.store.transaction() as tx:
        where = await environments.find(tx, principal, named[0])
        prompt = await prompts.find(tx, principal.workspace_id, named[1])
        found = await pins.history(tx, where.id, prompt.id, page)
        asked = {row.key_id for row in found.rows if row.key_id is not None}
        key_names = await workspaces.key_names(tx, principal.workspace_id, asked)
        sources = {row.source_environment_id for row in found.rows}
        names = await workspaces.environment_names(
            tx,
            principal.workspace_id,
            {one for one in sources if one is not None and principal.reaches(one)},
        )
    if not found.rows and page.after is None and page.before is None:
        raise NotFoundError
    return views.page(found, lambda row: _change_view(row, where.name, key_names, names))


async def note(
    tx: Tx, principal: Principal, where: EnvironmentRow, prompt: PromptRow, move: Move
) -> None:
    """Write a move into the audit."""
    action = Action.PIN_REMOVED if move.to_number is None else Action.PIN_MOVED
    on = audit.Target("pin", prompt.id, f"{where.name}/{prompt.slug}", (where.id,))
    details = {"prompt": prompt.slug, "from": move.from_number, "to": move.to_number}
    await audit.note(tx, principal, action, on, details)


async def _find(tx: Tx, where: EnvironmentRow, prompt: PromptRow) -> Pinned | None:
    found = await pins.of_environment(tx, where.id, [prompt.id])
    return found[0] if found else None


async def _pinned(tx: Tx, where: EnvironmentRow, prompt: PromptRow) -> Pinned:
    found = await _find(tx, where, prompt)
    if found is None:
        raise NotFoundError
    return found


def _view(found: Pinned) -> PinView:
    return PinView(
        environment=found.environment,
        prompt=found.slug,
        prompt_id=str(found.pin.prompt_id),
        version=found.number,
        version_id=str(found.pin.version_id),
        comment=found.pin.comment,
        pinned_at=rfc3339(found.pin.pinned_at),
    )


def _change_view(
    row: PinChangeRow,
    environment: str,
    key_names: Mapping[UUID, str],
    environment_names: Mapping[UUID, str],
) -> PinChangeView:
    source = row.source_environment_id
    return PinChangeView(
        id=str(row.id),
        environment=environment,
        from_=row.from_number,
        to=row.to_number,
        comment=row.comment,
        source=None if source is None else environment_names.get(source),
        key_id=None if row.key_id is None else str(row.key_id),
        key_name=None if row.key_id is None else key_names.get(row.key_id),
        changed_at=rfc3339(row.changed_at),
    )
