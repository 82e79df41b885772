"""Pins: which version of a prompt an environment runs."""

from litestar import Response, delete, get, put
from litestar.di import NamedDependency
from litestar.params import FromPath, JSONBody

from api.auth import SCOPE
from api.conditions import tagged
from api.paging import DEPENDENCIES, Asked, Cursors, Listing
from shared.deps import Deps
from shared.domain.preconditions import Expected
from shared.services import pins
from shared.services.keys import Principal
from shared.services.pins import NewPin, PinChangeView, PinView

_READ = {SCOPE: "prompts:read"}
_WRITE = {SCOPE: "prompts:write"}


@get(
    "/environments/{name:str}/pins",
    opt=_READ,
    dependencies=DEPENDENCIES,
    summary="List what an environment pins",
)
async def list_environment_pins(
    name: FromPath[str],
    asked: NamedDependency[Asked],
    principal: NamedDependency[Principal],
    deps: NamedDependency[Deps],
) -> Listing[PinView]:
    """The versions that an environment runs, by the slugs of their prompts."""
    cursors = Cursors(principal.workspace_id, "environment pins", name.lower())
    found = await pins.of_environment(deps, principal, name)
    return asked.cut(cursors, found, lambda view: view.prompt)


@get(
    "/prompts/{slug:str}/pins",
    opt=_READ,
    dependencies=DEPENDENCIES,
    summary="List where a prompt is pinned",
)
async def list_prompt_pins(
    slug: FromPath[str],
    asked: NamedDependency[Asked],
    principal: NamedDependency[Principal],
    deps: NamedDependency[Deps],
) -> Listing[PinView]:
    """Which version of a prompt each environment runs, by their names."""
    cursors = Cursors(principal.workspace_id, "prompt pins", slug)
    found = await pins.of_prompt(deps, principal, slug)
    return asked.cut(cursors, found, lambda view: view.environment)


@get("/environments/{name:str}/pins/{slug:str}", opt=_READ, summary="Read a pin")
async def read_pin(
    name: FromPath[str],
    slug: FromPath[str],
    principal: NamedDependency[Principal],
    deps: NamedDependency[Deps],
) -> Response[PinView]:
    """Which version of a prompt an environment runs."""
    return tagged(await pins.get(deps, principal, name, slug))


@put("/environments/{name:str}/pins/{slug:str}", opt=_WRITE, summary="Pin a version")
async def put_pin(
    name: FromPath[str],
    slug: FromPath[str],
    data: JSONBody[NewPin],
    expected: NamedDependency[Expected],
    principal: NamedDependency[Principal],
    deps: NamedDependency[Deps],
) -> Response[PinView]:
    """Let an environment run a version: the next run of `__pinned__` there does.

    A draft is published by this, so it never changes from then on.
    """
    return tagged(await pins.put(deps, principal, (name, slug), data, expected))


@delete("/environments/{name:str}/pins/{slug:str}", opt=_WRITE, summary="Remove a pin")
async def remove_pin(
    name: FromPath[str],
    slug: FromPath[str],
    expected: NamedDependency[Expected],
    principal: NamedDependency[Principal],
    deps: NamedDependency[Deps],
) -> None:
    """Take a pin away; runs of `__pinned__` then follow the default environment."""
    await pins.remove(deps, principal, name, slug, expected)


@get(
    "/environments/{name:str}/pins/{slug:str}/history",
    opt=_READ,
    dependencies=DEPENDENCIES,
    summary="List the moves of a pin",
)
async def list_pin_history(
    name: FromPath[str],
    slug: FromPath[str],
    asked: NamedDependency[Asked],
    principal: NamedDependency[Principal],
    deps: NamedDependency[Deps],
) -> Listing[PinChangeView]:
    """Who moved the pin, when, from which version to which, and why; newest first."""
    cursors = Cursors(principal.workspace_id, "pin history", name.lower(), slug)
    found = await pins.history(deps, principal, (name, slug), asked.page(cursors))
    return asked.listing(cursors, found)


HANDLERS = [
    list_environment_pins,
    list_prompt_pins,
    read_pin,
    put_pin,
    remove_pin,
    list_pin_history,
]
