"""Which models this server can run for a workspace, and what they cost."""

from collections.abc import Collection
from uuid import UUID

import msgspec

from shared.deps import Deps
from shared.domain import simulated
from shared.domain.models import ModelName
from shared.domain.pricing import KnownModel, Prices
from shared.ids import WorkspaceId
from shared.services import aliases
from shared.services.aliases import AliasView
from shared.services.keys import Principal
from shared.settings import ALIAS
from shared.store import reading

_NANO = 1_000_000_000


class ModelPrices(msgspec.Struct, frozen=True, rename="camel"):
    """US dollars for a million tokens; a long input can cost more with some models."""

    input: float
    cached_input: float
    cache_write: float
    output: float


class ModelView(msgspec.Struct, frozen=True, rename="camel"):
    """A model as its callers name it. `contextWindow` are tokens; null is unknown."""

    id: str
    provider: str
    model: str
    name: str | None
    context_window: int | None
    prices: ModelPrices | None


async def usable_providers(
    deps: Deps, workspace_id: WorkspaceId, environment_ids: Collection[UUID]
) -> frozenset[str]:
    """Providers that can be called: with a key of one of the environments, or the server's own.

    No ids mean all environments of the workspace.
    """
    settings = deps.settings
    needed = {name: settings.key_variable(name) for name in settings.provider_names}
    variables = {variable for variable in needed.values() if variable is not None}
    allowed, own = await reading.credentials(deps.store, workspace_id, variables, environment_ids)
    return frozenset(
        name
        for name, variable in needed.items()
        if variable is None or variable in own or (allowed and settings.server_key(name))
    )


async def listed(deps: Deps, principal: Principal, provider: str | None) -> list[ModelView]:
    """The aliases, and the known models of providers that the key's environments can call, by id.

    Aliases are shown as models of the provider `alias`.
    """
    usable = await usable_providers(deps, principal.workspace_id, principal.environment_ids)
    wanted = sorted(usable if provider is None else usable & {provider})
    found = [_view(one, model) for one in wanted for model in await _known(deps, one)]
    if provider in {None, ALIAS}:
        found += map(_alias_view, await aliases.listed(deps, principal))
    return sorted(found, key=lambda view: view.id)


async def _known(deps: Deps, provider: str) -> tuple[KnownModel, ...]:
    if provider == simulated.PROVIDER:
        return simulated.known_models()
    book = await deps.prices.get()
    return book.models(provider, deps.clock.now())


def _view(provider: str, known: KnownModel) -> ModelView:
    return ModelView(
        id=str(ModelName(provider, known.name)),
        provider=provider,
        model=known.name,
        name=known.title,
        context_window=known.context_window_tokens,
        prices=None if known.prices is None else _dollars(known.prices),
    )


def _alias_view(alias: AliasView) -> ModelView:
    return ModelView(
        id=str(ModelName(ALIAS, alias.alias)),
        provider=ALIAS,
        model=alias.alias,
        name=alias.description,
        context_window=None,
        prices=None,
    )


def _dollars(prices: Prices) -> ModelPrices:
    rates = (prices.input, prices.cached_input, prices.cache_write, prices.output)
    return ModelPrices(*(rate.base / _NANO for rate in rates))
