"""What differs between two environments, and moving pins from one to the other."""

from typing import Annotated

from litestar import get, post
from litestar.di import NamedDependency
from litestar.params import JSONBody, QueryParameter
from litestar.status_codes import HTTP_200_OK

from api.auth import SCOPE
from api.paging import DEPENDENCIES, Asked, Cursors, Listing
from shared.deps import Deps
from shared.errors import BadRequestError, Flaw
from shared.services import promotions
from shared.services.keys import Principal
from shared.services.promotions import DifferenceView, Promotion, PromotionView

_READ = {SCOPE: "prompts:read"}
_WRITE = {SCOPE: "prompts:write"}

_SourceQuery = Annotated[
    str | None,
    QueryParameter(name="sourceEnvironment", description="The environment to promote from."),
]
_TargetQuery = Annotated[
    str | None,
    QueryParameter(name="targetEnvironment", description="The environment to promote to."),
]


@get(
    "/environments/diff",
    opt=_READ,
    dependencies=DEPENDENCIES,
    summary="Compare what two environments run",
)
async def diff_environments(
    asked: NamedDependency[Asked],
    principal: NamedDependency[Principal],
    deps: NamedDependency[Deps],
    source: _SourceQuery = None,
    target: _TargetQuery = None,
) -> Listing[DifferenceView]:
    """Each flow that either environment pins, with its version on both sides, by slug."""
    if source is None or target is None:
        message = "Give sourceEnvironment and targetEnvironment."
        raise BadRequestError(message, flaws=[Flaw("", message)])
    cursors = Cursors(principal.workspace_id, "diff", source.lower(), target.lower())
    found = await promotions.diff(deps, principal, source, target)
    return asked.cut(cursors, found, lambda view: view.slug)


@post(
    "/environments/promote",
    status_code=HTTP_200_OK,
    opt=_WRITE,
    summary="Promote one environment to another",
)
async def promote_environment(
    data: JSONBody[Promotion],
    principal: NamedDependency[Principal],
    deps: NamedDependency[Deps],
) -> PromotionView:
    """Pin in the target what the source pins: all of it, or of the flows named.

    All pins move in one transaction, each with the comment in its history.
    """
    return await promotions.promote(deps, principal, data)


HANDLERS = [diff_environments, promote_environment]
