"""Prompts, their versions and tags, and the revision that the prompts door reads."""

from typing import Any

from litestar import Response, delete, get, patch, post, put
from litestar.di import NamedDependency
from litestar.params import FromPath, JSONBody
from litestar.status_codes import HTTP_200_OK

from api.auth import SCOPE
from api.conditions import tagged
from api.paging import DEPENDENCIES, Asked, Cursors, Listing
from shared.deps import Deps
from shared.domain.preconditions import Expected
from shared.services import prompt_versions, prompts
from shared.services.keys import Principal
from shared.services.prompt_views import (
    PromptView,
    RevisionView,
    TagChangeView,
    TagView,
    VersionDiffView,
    VersionView,
    WholeVersionView,
)
from shared.services.prompts import NewPrompt, NewTag, PromptChange, Rollback

_READ = {SCOPE: "prompts:read"}
_WRITE = {SCOPE: "prompts:write"}


@post("/prompts", opt=_WRITE, summary="Create a prompt")
async def create_prompt(
    data: JSONBody[NewPrompt], principal: NamedDependency[Principal], deps: NamedDependency[Deps]
) -> PromptView:
    """Add a prompt; without a slug, one is made from the name."""
    return await prompts.create(deps, principal, data)


@get("/prompts", opt=_READ, dependencies=DEPENDENCIES, summary="List prompts")
async def list_prompts(
    asked: NamedDependency[Asked],
    principal: NamedDependency[Principal],
    deps: NamedDependency[Deps],
) -> Listing[PromptView]:
    """The workspace's prompts, newest first."""
    cursors = Cursors(principal.workspace_id, "prompts")
    return asked.listing(cursors, await prompts.listed(deps, principal, asked.page(cursors)))


@get("/prompts/{slug:str}", opt=_READ, summary="Read a prompt")
async def read_prompt(
    slug: FromPath[str], principal: NamedDependency[Principal], deps: NamedDependency[Deps]
) -> Response[PromptView]:
    """A prompt by its slug, or by one it once had."""
    return tagged(await prompts.get(deps, principal, slug))


@patch("/prompts/{slug:str}", opt=_WRITE, summary="Rename or describe a prompt")
async def change_prompt(
    slug: FromPath[str],
    data: JSONBody[PromptChange],
    expected: NamedDependency[Expected],
    principal: NamedDependency[Principal],
    deps: NamedDependency[Deps],
) -> Response[PromptView]:
    """Change what is given; after a rename the old slug goes on working."""
    return tagged(await prompts.change(deps, principal, slug, data, expected))


@delete("/prompts/{slug:str}", opt=_WRITE, summary="Delete a prompt")
async def delete_prompt(
    slug: FromPath[str],
    expected: NamedDependency[Expected],
    principal: NamedDependency[Principal],
    deps: NamedDependency[Deps],
) -> None:
    """Hide a prompt; its runs stay, and what is under way goes on."""
    await prompts.delete(deps, principal, slug, expected)


@post("/prompts/{slug:str}/versions", opt=_WRITE, summary="Add a version")
async def add_version(
    slug: FromPath[str],
    data: JSONBody[dict[str, Any]],
    principal: NamedDependency[Principal],
    deps: NamedDependency[Deps],
) -> VersionView:
    """Add a version in short or long form; `"publish": false` keeps it a draft."""
    return await prompts.add_version(deps, principal, slug, data)


@get("/prompts/{slug:str}/versions", opt=_READ, dependencies=DEPENDENCIES, summary="List versions")
async def list_versions(
    slug: FromPath[str],
    asked: NamedDependency[Asked],
    principal: NamedDependency[Principal],
    deps: NamedDependency[Deps],
) -> Listing[VersionView]:
    """A prompt's versions, drafts included, newest first."""
    cursors = Cursors(principal.workspace_id, "versions", slug)
    found = await prompts.list_versions(deps, principal, slug, asked.page(cursors))
    return asked.listing(cursors, found)


@get("/prompts/{slug:str}/versions/{number:str}", opt=_READ, summary="Read a version's body")
async def read_version(
    slug: FromPath[str],
    number: FromPath[str],
    principal: NamedDependency[Principal],
    deps: NamedDependency[Deps],
) -> Response[WholeVersionView]:
    """A version, draft or published, with its body: posted again, that makes an equal version."""
    return tagged(await prompt_versions.get(deps, principal, slug, number))


@put("/prompts/{slug:str}/versions/{number:str}", opt=_WRITE, summary="Replace a draft")
async def replace_version(
    slug: FromPath[str],
    number: FromPath[str],
    data: JSONBody[dict[str, Any]],
    expected: NamedDependency[Expected],
    principal: NamedDependency[Principal],
    deps: NamedDependency[Deps],
) -> Response[WholeVersionView]:
    """Give a draft another body, in short or long form; a published version never changes."""
    return tagged(await prompt_versions.replace(deps, principal, slug, number, data, expected))


@delete("/prompts/{slug:str}/versions/{number:str}", opt=_WRITE, summary="Delete a version")
async def delete_version(
    slug: FromPath[str],
    number: FromPath[str],
    expected: NamedDependency[Expected],
    principal: NamedDependency[Principal],
    deps: NamedDependency[Deps],
) -> None:
    """Delete a draft, or a version that no tag points at and no run was made of."""
    await prompt_versions.delete(deps, principal, slug, number, expected)


@post(
    "/prompts/{slug:str}/versions/{number:str}/publish",
    status_code=HTTP_200_OK,
    opt=_WRITE,
    summary="Publish a draft",
)
async def publish_version(
    slug: FromPath[str],
    number: FromPath[str],
    expected: NamedDependency[Expected],
    principal: NamedDependency[Principal],
    deps: NamedDependency[Deps],
) -> VersionView:
    """Make a draft reachable; from then on it never changes."""
    return await prompts.publish(deps, principal, slug, number, expected)


@get("/prompts/{slug:str}/versions/{a:str}/diff/{b:str}", opt=_READ, summary="Compare two versions")
async def diff_versions(
    slug: FromPath[str],
    a: FromPath[str],
    b: FromPath[str],
    principal: NamedDependency[Principal],
    deps: NamedDependency[Deps],
) -> VersionDiffView:
    """What differs between the bodies of two versions, place by place; texts line by line."""
    return await prompt_versions.diff(deps, principal, slug, (a, b))


@get("/prompts/{slug:str}/{version:str}", opt=_READ, summary="Read a published version")
async def read_revision(
    slug: FromPath[str],
    version: FromPath[str],
    principal: NamedDependency[Principal],
    deps: NamedDependency[Deps],
) -> RevisionView:
    """A version by number, tag, id or `__latest__`, as PromptJuggler's clients know it."""
    return await prompts.revision(deps, principal, slug, version)


@get("/prompts/{slug:str}/tags", opt=_READ, dependencies=DEPENDENCIES, summary="List tags")
async def list_tags(
    slug: FromPath[str],
    asked: NamedDependency[Asked],
    principal: NamedDependency[Principal],
    deps: NamedDependency[Deps],
) -> Listing[TagView]:
    """A prompt's tags by name."""
    cursors = Cursors(principal.workspace_id, "tags", slug)
    found = await prompts.list_tags(deps, principal, slug)
    return asked.cut(cursors, found, lambda view: view.tag)


@get("/prompts/{slug:str}/tags/{tag:str}", opt=_READ, summary="Read a tag")
async def read_tag(
    slug: FromPath[str],
    tag: FromPath[str],
    principal: NamedDependency[Principal],
    deps: NamedDependency[Deps],
) -> Response[TagView]:
    """Which version a tag points at."""
    return tagged(await prompts.get_tag(deps, principal, slug, tag))


@put("/prompts/{slug:str}/tags/{tag:str}", opt=_WRITE, summary="Point a tag at a version")
async def set_tag(
    slug: FromPath[str],
    tag: FromPath[str],
    data: JSONBody[NewTag],
    expected: NamedDependency[Expected],
    principal: NamedDependency[Principal],
    deps: NamedDependency[Deps],
) -> Response[TagView]:
    """Set or move a tag; only published versions can be tagged."""
    return tagged(await prompts.set_tag(deps, principal, slug, tag, data, expected))


@post(
    "/prompts/{slug:str}/tags/{tag:str}/rollback",
    status_code=HTTP_200_OK,
    opt=_WRITE,
    summary="Roll a tag back",
)
async def roll_back_tag(
    slug: FromPath[str],
    tag: FromPath[str],
    data: JSONBody[Rollback],
    expected: NamedDependency[Expected],
    principal: NamedDependency[Principal],
    deps: NamedDependency[Deps],
) -> Response[TagView]:
    """Point a tag at the version it pointed at before; again goes further back, never forth.

    A tag moved by hand to the version it came from has gone back just so. Versions deleted since
    are passed over; a removal forgets what came before it. The history has it like any move.
    """
    return tagged(await prompts.roll_back(deps, principal, slug, tag, data, expected))


@delete("/prompts/{slug:str}/tags/{tag:str}", opt=_WRITE, summary="Remove a tag")
async def remove_tag(
    slug: FromPath[str],
    tag: FromPath[str],
    expected: NamedDependency[Expected],
    principal: NamedDependency[Principal],
    deps: NamedDependency[Deps],
) -> None:
    """Take a tag away; its history stays."""
    await prompts.remove_tag(deps, principal, slug, tag, expected)


@get(
    "/prompts/{slug:str}/tags/{tag:str}/history",
    opt=_READ,
    dependencies=DEPENDENCIES,
    summary="Read a tag's history",
)
async def list_tag_history(
    slug: FromPath[str],
    tag: FromPath[str],
    asked: NamedDependency[Asked],
    principal: NamedDependency[Principal],
    deps: NamedDependency[Deps],
) -> Listing[TagChangeView]:
    """Who moved a tag, when, from which version to which; newest first."""
    cursors = Cursors(principal.workspace_id, "tag history", slug, tag)
    found = await prompts.tag_history(deps, principal, slug, tag, asked.page(cursors))
    return asked.listing(cursors, found)


HANDLERS = [
    create_prompt,
    list_prompts,
    read_prompt,
    change_prompt,
    delete_prompt,
    add_version,
    list_versions,
    read_version,
    replace_version,
    delete_version,
    publish_version,
    diff_versions,
    read_revision,
    list_tags,
    read_tag,
    set_tag,
    roll_back_tag,
    remove_tag,
    list_tag_history,
]
