"""Versions as a whole: read, compared, a draft replaced, what nobody uses deleted."""

import asyncio
from typing import Any

import msgspec

from shared.deps import Deps
from shared.domain import prompts as rules
from shared.domain import version_diff, versions
from shared.domain.audit import Action
from shared.domain.preconditions import WHATEVER, Expected
from shared.domain.versions import VersionBody
from shared.errors import ConflictError
from shared.services import aliases, audit, prompt_views
from shared.services import prompts as owners
from shared.services.keys import Principal
from shared.services.prompt_views import VersionDiffView, WholeVersionView
from shared.store import pins, prompts, workspaces
from shared.store.database import Tx
from shared.store.tables import PromptRow, PromptVersionRow


async def get(deps: Deps, principal: Principal, slug: str, number: str) -> WholeVersionView:
    """Read a version, draft or published, with its body."""
    async with deps.store.transaction() as tx:
        prompt = await owners.find(tx, principal.workspace_id, slug)
        row = await owners.find_version(tx, prompt, rules.number_of(number))
        return prompt_views.of_whole_version(row)


async def diff(
    deps: Deps, principal: Principal, slug: str, named: tuple[str, str]
) -> VersionDiffView:
    """Compare two versions, each named by number (drafts too), tag, id or `__latest__`."""
    async with deps.store.transaction() as tx:
        prompt = await owners.find(tx, principal.workspace_id, slug)
        before = await _named(tx, prompt, named[0])
        after = await _named(tx, prompt, named[1])
    old, new = (msgspec.convert(row.body, VersionBody) for row in (before, after))
    # In a thread: of large texts it takes longer than other requests should wait.
    changes = await asyncio.to_thread(version_diff.changes, old, new, named)
    return VersionDiffView(
        from_=prompt_views.of_version(before), to=prompt_views.of_version(after), changes=changes
    )


async def _named(tx: Tx, prompt: PromptRow, name: str) -> PromptVersionRow:
    match rules.selector(name):
        case "number", number:
            return await owners.find_version(tx, prompt, int(number))
        case "tag", tag if (row := await prompts.find_tag(tx, prompt.id, tag)) is not None:
            return await owners.find_version(tx, prompt, str(row.version_id))
        case "latest", _ if (latest := await prompts.latest(tx, prompt.id)) is not None:
            return latest
        case _:
            return await owners.find_version(tx, prompt, name)


async def replace(
    deps: Deps,
    principal: Principal,
    slug: str,
    number: str,
    body: dict[str, Any],
    expected: Expected = WHATEVER,
) -> WholeVersionView:
    """Give a draft another body, whole. Raises `ConflictError` for a published version."""
    version = versions.parse(body, await aliases.rules(deps, principal.workspace_id))
    warnings = msgspec.json.encode(versions.warnings(version)).decode()
    async with deps.store.transaction() as tx:
        await workspaces.hold(tx, principal.workspace_id)
        prompt = await owners.find(tx, principal.workspace_id, slug)
        row = await owners.find_version(tx, prompt, rules.number_of(number))
        expected.demand(prompt_views.of_whole_version(row))
        if row.published_at is not None:
            raise ConflictError(
                "This version is published, so it never changes: add a new one.",
                code="version_published",
            )
        await prompts.replace_body(tx, row, versions.to_json(version).decode(), warnings)
        await audit.note(tx, principal, Action.VERSION_REPLACED, audit.of_version(prompt, row))
        return prompt_views.of_whole_version(row)


async def delete(
    deps: Deps, principal: Principal, slug: str, number: str, expected: Expected = WHATEVER
) -> None:
    """Delete a version for good; its number is not used again.

    Raises `ConflictError` while a tag points at it or an environment pins it, and where runs were
    made of it, because they go on showing it.
    """
    async with deps.store.transaction() as tx:
        await workspaces.change_catalog(tx, principal.workspace_id)
        prompt = await owners.find(tx, principal.workspace_id, slug)
        row = await owners.find_version(tx, prompt, rules.number_of(number))
        expected.demand(prompt_views.of_whole_version(row))
        if tags := await prompts.tags_at(tx, row.id):
            raise ConflictError(
                f"Tags point at this version: move {', '.join(tags)} first.", code="version_in_use"
            )
        if pinned := await pins.of_version(tx, row.id):
            raise ConflictError(
                f"Environments pin this version: {', '.join(pinned)}.", code="version_in_use"
            )
        await prompts.remove_version(tx, row)
        await audit.note(tx, principal, Action.VERSION_DELETED, audit.of_version(prompt, row))
