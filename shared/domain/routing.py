"""Which models a run may call: what the request names, an alias, or the template's own."""

from collections.abc import Callable, Collection

import msgspec

from shared.domain import models
from shared.domain.aliases import Alias, Aliases
from shared.domain.models import ModelName
from shared.domain.versions import TemplateBody
from shared.errors import Flaw, UnacceptableError
from shared.settings import ALIAS

Pick = Callable[[str, Alias], tuple[str, ...]]
"""Chooses among the models of an alias, which is named beside it."""


class Known(msgspec.Struct, frozen=True):
    """What a model's name can mean: the server's providers, the workspace's aliases."""

    providers: Collection[str]
    aliases: Aliases


class Route(msgspec.Struct, frozen=True):
    """The models that a run may call, in order; `by_alias`: not what its version says."""

    models: tuple[str, ...]
    by_alias: bool

    @property
    def model(self) -> ModelName:
        """What is called first."""
        return ModelName(*self.models[0].split("/", 1))


def route(template: TemplateBody, override: str | None, known: Known, pick: Pick) -> Route:
    """Resolve the model of a run. Who overrides it wants no fallbacks of the template.

    Raises `UnacceptableError` for an override that is no model, an alias that is gone, and where
    nothing names a model.
    """
    aliased = template.provider == ALIAS
    if override is not None:
        name = models.parse_name(
            override,
            default=None if aliased else template.provider,
            known=known.providers,
            aliases=known.aliases,
        )
        if name.provider == ALIAS:
            return Route(pick(name.model, known.aliases[name.model]), by_alias=True)
        return Route((str(name),), by_alias=False)
    if not template.model:
        message = "The version names no model: name one in the request."
        raise UnacceptableError(message, flaws=[Flaw("/model", message)])
    if not aliased:
        return Route((f"{template.provider}/{template.model}",), by_alias=False)
    alias = known.aliases.get(template.model)
    if alias is None:
        raise UnacceptableError(
            f"The version names the alias '{template.model}', which is gone: set it again.",
            code="unknown_alias",
        )
    chosen = pick(template.model, alias)
    return Route(tuple(dict.fromkeys((*chosen, *template.fallbacks))), by_alias=True)
