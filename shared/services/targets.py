"""What a request names in its address and body: a prompt's version, and an environment."""

from uuid import UUID

import msgspec

from shared.deps import Deps
from shared.domain import prompts as rules
from shared.errors import ConflictError, Flaw, ForbiddenError, NotFoundError, UnacceptableError
from shared.ids import EnvironmentId, PromptId, VersionId, WorkspaceId
from shared.services.keys import Principal
from shared.store import submitting


class Located(msgspec.Struct, frozen=True):
    """A version and an environment, as they were at `catalog_version` of the workspace."""

    catalog_version: int
    prompt_id: PromptId
    slug: str
    version_id: VersionId
    number: int
    published: bool
    tag: str | None
    body: str
    environment_id: EnvironmentId
    environment: str
    max_queued_runs: int | None
    aliases: str | None
    accounted: bool


async def locate(
    deps: Deps,
    workspace_id: WorkspaceId,
    slug: str,
    version: str,
    environment: str | None,
    *,
    drafts: bool = False,
) -> Located:
    """Find a published version, or also a draft by its number or id, and an environment.

    The version `__pinned__` is what the environment pins, else what the default one does. Raises
    `NotFoundError` for the prompt or version, `UnacceptableError` for the environment,
    `ConflictError` where neither environment pins the prompt.
    """
    selector = rules.selector(version)
    if selector is None or "\x00" in slug:
        raise NotFoundError
    found = await submitting.resolve(
        deps.store, workspace_id, slug, selector, environment, drafts=drafts
    )
    by_pin = selector[0] == "pin"
    if found.prompt_id is None or (found.version_id is None and not by_pin):
        raise NotFoundError
    if found.environment_id is None:
        raise unknown_environment(environment)
    if found.version_id is None:
        raise _not_pinned(slug, found.environment)
    return msgspec.convert(found, Located, from_attributes=True)


def demand_reach(principal: Principal, environment_id: UUID) -> None:
    """Raise `ForbiddenError` for an environment that the key is not for."""
    if not principal.reaches(environment_id):
        raise ForbiddenError("This key may not use that environment.", code="environment_forbidden")


def _not_pinned(slug: str, environment: str | None) -> ConflictError:
    return ConflictError(
        f"No version of '{slug}' is pinned in {environment} or in the default environment: pin"
        " one, or name a version.",
        code="not_pinned",
    )


def unknown_environment(name: str | None) -> UnacceptableError:
    """The error for an environment that is not there; `None` is the default one."""
    if name is None:
        message = "The workspace has no default environment: name one, or make one the default."
    else:
        message = "There is no environment of this name."
    return UnacceptableError(
        message, code="unknown_environment", flaws=[Flaw("/environment", message)]
    )
