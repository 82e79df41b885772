"""The models this server can run."""

from typing import Annotated

from litestar import get
from litestar.di import NamedDependency
from litestar.params import QueryParameter

from api.auth import SCOPE
from api.paging import DEPENDENCIES, Asked, Cursors, Listing
from shared.deps import Deps
from shared.errors import BadRequestError, Flaw
from shared.services import models
from shared.services.keys import Principal
from shared.services.models import ModelView


@get("/models", opt={SCOPE: "prompts:read"}, dependencies=DEPENDENCIES, summary="List known models")
async def list_models(
    asked: NamedDependency[Asked],
    principal: NamedDependency[Principal],
    deps: NamedDependency[Deps],
    provider: Annotated[
        str | None, QueryParameter(description="The name of a provider that this server knows.")
    ] = None,
) -> Listing[ModelView]:
    """Models of text with their prices, by id, of each provider that can be called.

    That is `sim`, and `openai`, `anthropic` or another that this server was told of (`PROVIDERS`)
    where an environment this key may use has the provider's key, the server has one that this
    workspace may use, or none is needed. The list is no limit: a model
    that is not on it runs as well, its cost stays null.
    """
    if provider is not None and provider not in deps.settings.provider_names:
        message = f"provider is one of {', '.join(deps.settings.provider_names)}."
        raise BadRequestError(message, flaws=[Flaw("", message)])
    cursors = Cursors(principal.workspace_id, "models", provider)
    found = await models.listed(deps, principal, provider)
    return asked.cut(cursors, found, lambda view: view.id)


HANDLERS = [list_models]
