"""The feed of events: everything webhooks are told, for those who rather ask."""

from uuid import UUID

from shared.deps import Deps
from shared.domain import environments as rules
from shared.errors import ConflictError, Flaw, UnacceptableError
from shared.services import environments
from shared.services.keys import Principal
from shared.store import events, workspaces
from shared.store.events import FeedPage, Position


async def visible(deps: Deps, principal: Principal, environment: str | None) -> tuple[UUID, ...]:
    """The environments whose events a key sees, all of them or of one; none mean all and pings.

    Raises `UnacceptableError` for an unknown name, `ForbiddenError` beyond the key's environments.
    """
    if environment is None:
        return tuple(sorted(principal.environment_ids))
    row = None
    if rules.is_name(environment):
        async with deps.store.transaction() as tx:
            row = await workspaces.find_environment(tx, principal.workspace_id, environment)
    if row is None:
        message = "There is no environment of this name."
        raise UnacceptableError(message, code="unknown_environment", flaws=[Flaw("", message)])
    environments.demand(principal, [row.id])
    return (row.id,)


async def page(
    deps: Deps,
    principal: Principal,
    environment_ids: tuple[UUID, ...],
    after: Position | None,
    limit: int,
) -> FeedPage:
    """Events behind a position, oldest first. Raises `ConflictError` for one of another history."""
    found = await events.page(
        deps.store, principal.workspace_id, after, limit, within=environment_ids
    )
    if found.reset:
        raise ConflictError(
            "The database was restored since this cursor was made, so what came behind it cannot "
            "be told. Begin again without a cursor and drop the ids you know.",
            code="cursor_reset",
        )
    return found


async def end(deps: Deps) -> FeedPage:
    """Nothing, and the position behind all that is there now."""
    return FeedPage(bodies=(), end=await events.end(deps.store), more=False, reset=False)
