"""Flows: a prompt, its drafts and its pins, as the flows door manages them."""

from collections.abc import Mapping, Sequence
from uuid import UUID

import msgspec

from shared.clock import rfc3339
from shared.deps import Deps
from shared.domain import flaws, flows, versions
from shared.domain import prompts as rules
from shared.domain.audit import Action
from shared.domain.flows import FlowTemplateView, FlowVersion
from shared.domain.paging import Page, Slice
from shared.domain.preconditions import WHATEVER, Expected
from shared.domain.versions import VersionBody
from shared.errors import ConflictError
from shared.services import aliases, audit, environments, pins, prompts, views
from shared.services.keys import Principal
from shared.store import pins as stored_pins
from shared.store import prompts as stored
from shared.store import workspaces
from shared.store.database import Tx
from shared.store.pins import Pinned
from shared.store.tables import PromptRow, PromptVersionRow


class NewFlow(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of a creation; the slug is made from the title."""

    title: str


class Activation(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where a version shall run, and why."""

    environment: str
    comment: str | None = None


class FlowView(msgspec.Struct, frozen=True, rename="camel"):
    """A flow. `activeVersions` are the ids of the pinned versions by environment."""

    id: str
    slug: str
    title: str
    description: str
    mode: str
    active_versions: dict[str, str]
    created_at: str


class FlowVersionView(msgspec.Struct, frozen=True, rename="camel"):
    """A version without its templates; `frozen` once it was pinned or published."""

    id: str
    flow_id: str
    number: int
    frozen: bool
    environments: list[str]
    warnings: list[str]
    created_at: str
    frozen_at: str | None


class WholeFlowVersionView(FlowVersionView, frozen=True, rename="camel"):
    """A version with its templates."""

    mode: str
    entrypoint: str
    templates: list[FlowTemplateView]


async def create(deps: Deps, principal: Principal, body: NewFlow) -> FlowView:
    """Add a flow with a first version, a draft whose `main` is empty."""
    flaws.refuse(*flaws.of_name(body.title, "/title"))
    empty = flows.to_version(FlowVersion(), versions.PLAIN)
    async with deps.store.transaction() as tx:
        await workspaces.change_catalog(tx, principal.workspace_id)
        prompt = await prompts.insert(tx, principal, None, body.title, "")
        await stored.insert_version(
            tx, prompt, versions.to_json(empty).decode(), "[]", publish=False
        )
        return _view(prompt, ())


async def listed(deps: Deps, principal: Principal, page: Page) -> Slice[FlowView]:
    """List the workspace's flows, which are its prompts."""
    async with deps.store.transaction() as tx:
        found = await stored.listed(tx, principal.workspace_id, page)
        pinned = await _pins(tx, principal, *found.rows)
    return views.page(found, lambda row: _view(row, pinned.get(row.id, ())))


async def get(deps: Deps, principal: Principal, flow: str) -> FlowView:
    """Read a flow by its slug, one it once had, or its id."""
    async with deps.store.transaction() as tx:
        prompt = await prompts.find(tx, principal.workspace_id, flow)
        return _view(prompt, (await _pins(tx, principal, prompt)).get(prompt.id, ()))


async def add_version(
    deps: Deps, principal: Principal, flow: str, body: FlowVersion
) -> WholeFlowVersionView:
    """Add a draft."""
    version = flows.to_version(body, await aliases.rules(deps, principal.workspace_id))
    async with deps.store.transaction() as tx:
        await workspaces.change_catalog(tx, principal.workspace_id)
        prompt = await prompts.find(tx, principal.workspace_id, flow)
        return await _added(tx, principal, prompt, version)


async def list_versions(
    deps: Deps, principal: Principal, flow: str, page: Page
) -> Slice[FlowVersionView]:
    """List the versions of a flow, drafts included."""
    async with deps.store.transaction() as tx:
        prompt = await prompts.find(tx, principal.workspace_id, flow)
        found = await stored.versions(tx, prompt.id, page)
        pinned = (await _pins(tx, principal, prompt)).get(prompt.id, ())
    return views.page(found, lambda row: _version_view(row, pinned))


async def get_version(
    deps: Deps, principal: Principal, flow: str, version: str
) -> WholeFlowVersionView:
    """Read a version, named by number or id, with its templates."""
    async with deps.store.transaction() as tx:
        prompt, row = await _find(tx, principal, flow, version)
        return await _whole(tx, principal, prompt, row)


async def replace(
    deps: Deps,
    principal: Principal,
    named: tuple[str, str],
    body: FlowVersion,
    expected: Expected = WHATEVER,
) -> WholeFlowVersionView:
    """Give a draft of a flow (`named`) other templates, all of them.

    Raises `ConflictError` once it is frozen.
    """
    version = flows.to_version(body, await aliases.rules(deps, principal.workspace_id))
    async with deps.store.transaction() as tx:
        await workspaces.hold(tx, principal.workspace_id)
        prompt, row = await _find(tx, principal, *named)
        expected.demand(await _whole(tx, principal, prompt, row))
        if row.published_at is not None:
            raise ConflictError(
                "This version was pinned or published, so it never changes: fork it.",
                code="version_published",
            )
        await stored.replace_body(tx, row, *_as_stored(version))
        await audit.note(tx, principal, Action.VERSION_REPLACED, audit.of_version(prompt, row))
        return await _whole(tx, principal, prompt, row)


async def fork(deps: Deps, principal: Principal, flow: str, version: str) -> WholeFlowVersionView:
    """Copy a version into a new draft."""
    async with deps.store.transaction() as tx:
        await workspaces.change_catalog(tx, principal.workspace_id)
        prompt, row = await _find(tx, principal, flow, version)
        return await _added(tx, principal, prompt, msgspec.convert(row.body, VersionBody))


async def activate(
    deps: Deps, principal: Principal, flow: str, version: str, body: Activation
) -> FlowView:
    """Pin a version in an environment, which freezes it.

    Raises `UnacceptableError` for an unknown environment, `ConflictError` for a version that is
    not finished.
    """
    flaws.refuse(*flaws.of_text(body.comment, "/comment"))
    async with deps.store.transaction() as tx:
        await workspaces.change_catalog(tx, principal.workspace_id)
        prompt, row = await _find(tx, principal, flow, version)
        where = await environments.given(tx, principal, body.environment, "/environment")
        await pins.pin(tx, principal, where, (prompt, row), body.comment or "")
        return _view(prompt, (await _pins(tx, principal, prompt))[prompt.id])


async def _added(
    tx: Tx, principal: Principal, prompt: PromptRow, version: VersionBody
) -> WholeFlowVersionView:
    row = await stored.insert_version(tx, prompt, *_as_stored(version), publish=False)
    target = audit.of_version(prompt, row)
    await audit.note(tx, principal, Action.VERSION_CREATED, target, {"published": False})
    return await _whole(tx, principal, prompt, row)


async def _find(
    tx: Tx, principal: Principal, flow: str, version: str
) -> tuple[PromptRow, PromptVersionRow]:
    prompt = await prompts.find(tx, principal.workspace_id, flow)
    return prompt, await prompts.find_version(tx, prompt, rules.number_of(version) or version)


async def _pins(tx: Tx, principal: Principal, *found: PromptRow) -> Mapping[UUID, Sequence[Pinned]]:
    """The pins of prompts as far as the key reaches."""
    by_prompt: dict[UUID, list[Pinned]] = {}
    ids = [prompt.id for prompt in found]
    for one in await stored_pins.of_prompts(tx, ids, within=principal.environment_ids):
        by_prompt.setdefault(one.pin.prompt_id, []).append(one)
    return by_prompt


def _as_stored(version: VersionBody) -> tuple[str, str]:
    warnings = msgspec.json.encode(versions.warnings(version)).decode()
    return versions.to_json(version).decode(), warnings


def _view(prompt: PromptRow, pinned: Sequence[Pinned]) -> FlowView:
    return FlowView(
        id=str(prompt.id),
        slug=prompt.slug,
        title=prompt.name,
        description=prompt.description,
        mode="Direct",
        active_versions={one.environment: str(one.pin.version_id) for one in pinned},
        created_at=rfc3339(prompt.created_at),
    )


def _version_view(row: PromptVersionRow, pinned: Sequence[Pinned]) -> FlowVersionView:
    return FlowVersionView(
        id=str(row.id),
        flow_id=str(row.prompt_id),
        number=row.number,
        frozen=row.published_at is not None,
        environments=[one.environment for one in pinned if one.pin.version_id == row.id],
        warnings=list(row.warnings),
        created_at=rfc3339(row.created_at),
        frozen_at=views.moment(row.published_at),
    )


async def _whole(
    tx: Tx, principal: Principal, prompt: PromptRow, row: PromptVersionRow
) -> WholeFlowVersionView:
    pinned = (await _pins(tx, principal, prompt)).get(prompt.id, ())
    version = msgspec.convert(row.body, VersionBody)
    return WholeFlowVersionView(
        **msgspec.structs.asdict(_version_view(row, pinned)),
        mode="Direct",
        entrypoint=version.entrypoint,
        templates=flows.templates_of(version),
    )
