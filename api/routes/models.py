"""The models this server can run."""

from typing import Annotated

from litestar import Response, delete, get, put
from litestar.di import NamedDependency
from litestar.params import FromPath, JSONBody, QueryParameter

from api.auth import SCOPE
from api.conditions import tagged
from api.paging import DEPENDENCIES, Asked, Cursors, Listing
from shared.deps import Deps
from shared.domain.aliases import Alias
from shared.domain.preconditions import Expected
from shared.errors import BadRequestError, Flaw
from shared.services import aliases, models
from shared.services.aliases import AliasView
from shared.services.keys import Principal
from shared.services.models import ModelView
from shared.settings import ALIAS

_READ = {SCOPE: "prompts:read"}
_WRITE = {SCOPE: "prompts:write"}


@get("/models", opt={SCOPE: "prompts:read"}, dependencies=DEPENDENCIES, summary="List known models")
async def list_models(
    asked: NamedDependency[Asked],
    principal: NamedDependency[Principal],
    deps: NamedDependency[Deps],
    provider: Annotated[
        str | None, QueryParameter(description="The name of a provider that this server knows.")
    ] = None,
) -> Listing[ModelView]:
    """Models of text with their prices, by id, of each provider that can be called; and aliases.

    Those are shown as models of the provider `alias`. Other providers are `sim`, and `openai`,
    `anthropic` or another that this server was told of (`PROVIDERS`)
    where an environment this key may use has the provider's key, the server has one that this
    workspace may use, or none is needed. The list is no limit: a model
    that is not on it runs as well, its cost stays null.
    """
    names = (*deps.settings.provider_names, ALIAS)
    if provider is not None and provider not in names:
        message = f"provider is one of {', '.join(names)}."
        raise BadRequestError(message, flaws=[Flaw("", message)])
    cursors = Cursors(principal.workspace_id, "models", provider)
    found = await models.listed(deps, principal, provider)
    return asked.cut(cursors, found, lambda view: view.id)


@get("/models/aliases", opt=_READ, dependencies=DEPENDENCIES, summary="List aliases")
async def list_aliases(
    asked: NamedDependency[Asked],
    principal: NamedDependency[Principal],
    deps: NamedDependency[Deps],
) -> Listing[AliasView]:
    """The workspace's names for models, and how a run's model is chosen among them."""
    cursors = Cursors(principal.workspace_id, "aliases")
    return asked.cut(cursors, await aliases.listed(deps, principal), lambda view: view.alias)


@get("/models/aliases/{alias:str}", opt=_READ, summary="Read an alias")
async def read_alias(
    alias: FromPath[str], principal: NamedDependency[Principal], deps: NamedDependency[Deps]
) -> Response[AliasView]:
    """What an alias stands for."""
    return tagged(await aliases.get(deps, principal, alias))


@put("/models/aliases/{alias:str}", opt=_WRITE, summary="Set an alias")
async def put_alias(
    alias: FromPath[str],
    data: JSONBody[Alias],
    expected: NamedDependency[Expected],
    principal: NamedDependency[Principal],
    deps: NamedDependency[Deps],
) -> Response[AliasView]:
    """Let a name stand for models, wherever a version or a request names a model.

    It counts for the next submission; a run keeps the choice that was made when it was submitted.
    """
    return tagged(await aliases.put(deps, principal, alias, data, expected))


@delete("/models/aliases/{alias:str}", opt=_WRITE, summary="Delete an alias")
async def delete_alias(
    alias: FromPath[str],
    expected: NamedDependency[Expected],
    principal: NamedDependency[Principal],
    deps: NamedDependency[Deps],
) -> None:
    """Take a name away; versions that use it are refused at submission until it is set again."""
    await aliases.remove(deps, principal, alias, expected)


HANDLERS = [list_models, list_aliases, read_alias, put_alias, delete_alias]
