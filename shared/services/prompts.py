"""Prompts: their slugs, their numbered versions, and the tags that point at versions."""

from typing import Any

import msgspec

from shared.deps import Deps
from shared.domain import flaws, tag_moves, versions
from shared.domain import prompts as rules
from shared.domain.audit import Action
from shared.domain.paging import Page, Slice
from shared.domain.preconditions import WHATEVER, Expected
from shared.errors import ConflictError, Flaw, NotFoundError
from shared.ids import VersionId, WorkspaceId, parse
from shared.services import aliases, audit, prompt_views, publishing, views
from shared.services.keys import Principal
from shared.services.prompt_views import (
    PromptView,
    RevisionView,
    TagChangeView,
    TagView,
    VersionView,
)
from shared.store import prompts, submitting, workspaces
from shared.store.database import Tx
from shared.store.tables import PromptRow, PromptTagRow, PromptVersionRow

MAX_TAGS = 1_000
Tagged = tuple[PromptTagRow, int]
_SLUG_STEM = 116  # room for a number behind it


class NewPrompt(msgspec.Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    """The body of a creation; without a slug one is made from the name."""

    name: str
    slug: str | None = None
    description: str | None = None


class PromptChange(msgspec.Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    """The body of a change; what is absent stays."""

    slug: str | None = None
    name: str | None = None
    description: str | None = None


class NewTag(msgspec.Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    """Where a tag shall point: a version's number or id."""

    version: int | str
    comment: str | None = None


class Rollback(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of a rollback: why."""

    comment: str | None = None


async def create(deps: Deps, principal: Principal, body: NewPrompt) -> PromptView:
    """Add a prompt. Raises `ConflictError` for a slug in use, `UnacceptableError` for bad names."""
    flaws.refuse(
        *rules.slug_flaws(body.slug),
        *flaws.of_name(body.name),
        *flaws.of_text(body.description),
    )
    async with deps.store.transaction() as tx:
        await workspaces.change_catalog(tx, principal.workspace_id)
        row = await insert(tx, principal, body.slug, body.name, body.description or "")
        return prompt_views.of_prompt(row)


async def insert(
    tx: Tx, principal: Principal, slug: str | None, name: str, description: str
) -> PromptRow:
    """Add a prompt inside a transaction that has announced its change of the catalog."""
    if slug is None:
        wanted = rules.slug_of(name)
        taken = await prompts.taken_slugs(tx, principal.workspace_id, wanted[:_SLUG_STEM])
        slug = rules.free_slug(wanted, taken)
    elif await prompts.find(tx, principal.workspace_id, slug) is not None:
        raise prompts.slug_taken(slug)
    row = await prompts.insert(tx, principal.workspace_id, slug, name, description)
    await audit.note(tx, principal, Action.PROMPT_CREATED, audit.of_prompt(row))
    return row


async def listed(deps: Deps, principal: Principal, page: Page) -> Slice[PromptView]:
    """List the prompts of the workspace."""
    async with deps.store.transaction() as tx:
        found = await prompts.listed(tx, principal.workspace_id, page)
    return views.page(found, prompt_views.of_prompt)


async def get(deps: Deps, principal: Principal, slug: str) -> PromptView:
    """Read a prompt by its slug or one it once had."""
    async with deps.store.transaction() as tx:
        return prompt_views.of_prompt(await find(tx, principal.workspace_id, slug))


async def change(
    deps: Deps,
    principal: Principal,
    slug: str,
    body: PromptChange,
    expected: Expected = WHATEVER,
) -> PromptView:
    """Rename or describe a prompt; its old slug goes on working."""
    flaws.refuse(
        *rules.slug_flaws(body.slug),
        *flaws.of_name(body.name),
        *flaws.of_text(body.description),
    )
    workspace_id = principal.workspace_id
    async with deps.store.transaction() as tx:
        await workspaces.change_catalog(tx, workspace_id)
        row = await find(tx, workspace_id, slug)
        expected.demand(prompt_views.of_prompt(row))
        fields = audit.changed(row, slug=body.slug, name=body.name, description=body.description)
        if body.slug is not None and body.slug != row.slug:
            owner = await prompts.find(tx, workspace_id, body.slug)
            if owner is not None and owner.id != row.id:
                raise prompts.slug_taken(body.slug)
            await prompts.rename(tx, row, body.slug)
        await prompts.describe(tx, row, name=body.name, description=body.description)
        if fields:
            on = audit.of_prompt(row)
            await audit.note(tx, principal, Action.PROMPT_CHANGED, on, {"fields": fields})
        return prompt_views.of_prompt(row)


async def delete(
    deps: Deps, principal: Principal, slug: str, expected: Expected = WHATEVER
) -> None:
    """Hide a prompt; what it has running goes on."""
    async with deps.store.transaction() as tx:
        await workspaces.change_catalog(tx, principal.workspace_id)
        row = await find(tx, principal.workspace_id, slug)
        expected.demand(prompt_views.of_prompt(row))
        await prompts.remove(tx, row)
        await audit.note(tx, principal, Action.PROMPT_DELETED, audit.of_prompt(row))


async def add_version(
    deps: Deps, principal: Principal, slug: str, body: dict[str, Any]
) -> VersionView:
    """Add a version: its body (`shared.domain.versions`) and beside it `"publish": false`."""
    publish = body.get("publish")
    if not isinstance(publish, bool | None):
        flaws.refuse(Flaw("/publish", "Expected `bool`."))
    version = versions.parse(
        {name: value for name, value in body.items() if name != "publish"},
        await aliases.rules(deps, principal.workspace_id),
    )
    stored = versions.to_json(version).decode()
    warnings = msgspec.json.encode(versions.warnings(version)).decode()
    async with deps.store.transaction() as tx:
        await workspaces.change_catalog(tx, principal.workspace_id)
        prompt = await find(tx, principal.workspace_id, slug)
        row = await prompts.insert_version(
            tx, prompt, stored, warnings, publish=publish is not False
        )
        target, details = audit.of_version(prompt, row), {"published": publish is not False}
        await audit.note(tx, principal, Action.VERSION_CREATED, target, details)
    return prompt_views.of_version(row)


async def list_versions(
    deps: Deps, principal: Principal, slug: str, page: Page
) -> Slice[VersionView]:
    """List the versions of a prompt, drafts included."""
    async with deps.store.transaction() as tx:
        prompt = await find(tx, principal.workspace_id, slug)
        found = await prompts.versions(tx, prompt.id, page)
    return views.page(found, prompt_views.of_version)


async def publish(
    deps: Deps, principal: Principal, slug: str, number: str, expected: Expected = WHATEVER
) -> VersionView:
    """Make a draft reachable, and immutable from now on; a published one stays as it is."""
    async with deps.store.transaction() as tx:
        await workspaces.change_catalog(tx, principal.workspace_id)
        prompt = await find(tx, principal.workspace_id, slug)
        row = await find_version(tx, prompt, rules.number_of(number))
        expected.demand(prompt_views.of_whole_version(row))
        await publishing.publish(tx, principal, prompt, row)
        return prompt_views.of_version(row)


async def revision(deps: Deps, principal: Principal, slug: str, version: str) -> RevisionView:
    """Read a published version by number, tag, id or `__latest__`."""
    selector = rules.selector(version)
    if selector is None or not rules.is_slug(slug):
        raise NotFoundError
    found = await submitting.resolve(deps.store, principal.workspace_id, slug, selector, None)
    if found.version_id is None or found.body is None:
        raise NotFoundError
    return msgspec.convert(
        {
            **versions.revision_view(versions.from_json(found.body)),
            "id": str(found.version_id),
            "promptId": str(found.prompt_id),
            "number": found.number,
            "slug": found.slug,
            "tags": await prompts.tags_of_version(deps.store, found.version_id),
        },
        RevisionView,
    )


async def list_tags(deps: Deps, principal: Principal, slug: str) -> list[TagView]:
    """List the tags of a prompt by name."""
    async with deps.store.transaction() as tx:
        prompt = await find(tx, principal.workspace_id, slug)
        found = await prompts.tags(tx, prompt.id)
    return [prompt_views.of_tag(row, number) for row, number in found]


async def get_tag(deps: Deps, principal: Principal, slug: str, tag: str) -> TagView:
    """Read where a tag points."""
    async with deps.store.transaction() as tx:
        prompt = await find(tx, principal.workspace_id, slug)
        return _shown(await _tag(tx, prompt, tag))


async def set_tag(
    deps: Deps,
    principal: Principal,
    slug: str,
    tag: str,
    body: NewTag,
    expected: Expected = WHATEVER,
) -> TagView:
    """Point a tag at a published version and write down the move.

    Raises `NotFoundError` for a version this prompt has not, `ConflictError` for a draft.
    """
    flaws.refuse(
        *rules.tag_flaws(tag),
        *rules.version_flaws(body.version),
        *flaws.of_text(body.comment, "/comment"),
    )
    async with deps.store.transaction() as tx:
        await workspaces.change_catalog(tx, principal.workspace_id)
        prompt = await find(tx, principal.workspace_id, slug)
        version = await find_version(tx, prompt, body.version)
        if version.published_at is None:
            raise ConflictError(
                "This version is a draft: publish it before a tag points at it.",
                code="version_not_published",
            )
        before = await _tagged(tx, prompt, tag)
        expected.demand(before and _shown(before))
        if before is None and await prompts.count_tags(tx, prompt.id) >= MAX_TAGS:
            raise ConflictError(f"A prompt may have {MAX_TAGS:,} tags.", code="too_many_tags")
        if before is not None and before[1] == version.number:
            return _shown(before)
        await _record(
            tx, principal, prompt, tag, (before and before[1], version.number, body.comment)
        )
        return _shown((await prompts.set_tag(tx, prompt, tag, version), version.number))


async def roll_back(
    deps: Deps,
    principal: Principal,
    slug: str,
    tag: str,
    body: Rollback,
    expected: Expected = WHATEVER,
) -> TagView:
    """Point a tag at the version it pointed at before (`tag_moves.before`); again goes further.

    Raises `ConflictError` where nothing is left to go back to.
    """
    flaws.refuse(*flaws.of_text(body.comment, "/comment"))
    async with deps.store.transaction() as tx:
        await workspaces.change_catalog(tx, principal.workspace_id)
        prompt = await find(tx, principal.workspace_id, slug)
        present = await _tag(tx, prompt, tag)
        expected.demand(_shown(present))
        number = tag_moves.before(await prompts.tag_moves(tx, prompt.id, tag))
        if number is None:
            raise ConflictError(
                "There is no version that this tag could go back to: PUT it where it shall point.",
                code="no_earlier_version",
            )
        version = await find_version(tx, prompt, number)
        await _record(tx, principal, prompt, tag, (present[1], number, body.comment))
        return _shown((await prompts.set_tag(tx, prompt, tag, version), number))


async def remove_tag(
    deps: Deps, principal: Principal, slug: str, tag: str, expected: Expected = WHATEVER
) -> None:
    """Take a tag away and write that down."""
    async with deps.store.transaction() as tx:
        await workspaces.change_catalog(tx, principal.workspace_id)
        prompt = await find(tx, principal.workspace_id, slug)
        row, number = await _tag(tx, prompt, tag)
        expected.demand(_shown((row, number)))
        await _record(tx, principal, prompt, tag, (number, None, None))
        await prompts.remove_tag(tx, row)


async def tag_history(
    deps: Deps, principal: Principal, slug: str, tag: str, page: Page
) -> Slice[TagChangeView]:
    """List the moves of a tag, those of a removed one too."""
    async with deps.store.transaction() as tx:
        prompt = await find(tx, principal.workspace_id, slug)
        if not rules.is_tag(tag):
            raise NotFoundError
        found = await prompts.tag_history(tx, prompt.id, tag, page)
        asked = {row.key_id for row in found.rows if row.key_id is not None}
        key_names = await workspaces.key_names(tx, principal.workspace_id, asked)
    if not found.rows and page.after is None and page.before is None:
        raise NotFoundError
    return views.page(found, lambda row: prompt_views.of_tag_change(row, key_names))


async def find(tx: Tx, workspace_id: WorkspaceId, slug: str) -> PromptRow:
    """Find a prompt by its slug, one it once had, or its id."""
    row = await prompts.find(tx, workspace_id, slug) if rules.is_slug(slug) else None
    if row is None:
        raise NotFoundError
    return row


async def find_version(tx: Tx, prompt: PromptRow, named: int | str | None) -> PromptVersionRow:
    """Find a version of this prompt, draft or published, by number or id."""
    row: PromptVersionRow | None = None
    if isinstance(named, int):
        if 0 < named <= rules.MAX_NUMBER:
            row = await prompts.find_version(tx, prompt.id, named)
    elif named is not None and (version_id := parse(named)) is not None:
        row = await prompts.get_version(tx, VersionId(version_id))
    if row is None or row.prompt_id != prompt.id:
        raise NotFoundError
    return row


async def _tagged(tx: Tx, prompt: PromptRow, tag: str) -> Tagged | None:
    row = await prompts.find_tag(tx, prompt.id, tag) if rules.is_tag(tag) else None
    version = row and await prompts.get_version(tx, VersionId(row.version_id))
    return (row, version.number) if row and version else None


async def _tag(tx: Tx, prompt: PromptRow, tag: str) -> Tagged:
    found = await _tagged(tx, prompt, tag)
    if found is None:
        raise NotFoundError
    return found


def _shown(tagged: Tagged) -> TagView:
    return prompt_views.of_tag(*tagged)


async def _record(
    tx: Tx,
    principal: Principal,
    prompt: PromptRow,
    tag: str,
    move: tuple[int | None, int | None, str | None],
) -> None:
    from_number, to_number, comment = move
    await prompts.record_tag_change(
        tx,
        {
            "workspace_id": prompt.workspace_id,
            "prompt_id": prompt.id,
            "tag": tag,
            "from_number": from_number,
            "to_number": to_number,
            "comment": comment or "",
            "key_id": principal.key_id,
        },
    )
    action = Action.TAG_REMOVED if to_number is None else Action.TAG_MOVED
    details = {"prompt": prompt.slug, "from": from_number, "to": to_number}
    await audit.note(tx, principal, action, audit.Target("tag", prompt.id, tag), details)
