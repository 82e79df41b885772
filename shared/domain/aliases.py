"""Aliases of models: one name for several models, and which of them a run gets."""

from collections.abc import Callable, Collection, Mapping, Sequence
from enum import StrEnum
from itertools import accumulate
from typing import Annotated

import msgspec

from shared.domain import flaws, models
from shared.errors import Flaw, UnacceptableError

MAX_ALIASES = 100
MAX_MODELS = 10
MAX_WEIGHT = 1_000_000


class Strategy(StrEnum):
    """How a run's model is chosen among those of an alias; `MEANINGS` says it in a sentence."""

    SEQUENTIAL = "Sequential"
    RANDOM = "Random"
    WEIGHTED_RANDOM = "WeightedRandom"
    ROUND_ROBIN = "RoundRobin"


class Alias(msgspec.Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    """Models behind one name. `weights` stand in the order of `models`."""

    models: tuple[str, ...]
    strategy: Strategy = Strategy.SEQUENTIAL
    weights: tuple[Annotated[int, msgspec.Meta(ge=0)], ...] | None = None
    description: str | None = None


Aliases = Mapping[str, Alias]


def check(name: str, alias: Alias, known: Collection[str]) -> Alias:
    """Write the models with their provider. Raises `UnacceptableError` with every flaw."""
    found: list[Flaw] = []
    if not models.is_alias(name):
        found.append(Flaw("/alias", "An alias is one word: letters, digits, `_`, `.` and `-`."))
    if not 1 <= len(alias.models) <= MAX_MODELS:
        found.append(Flaw("/models", f"An alias stands for 1 to {MAX_MODELS} models."))
    written: list[str] = []
    for place, model in enumerate(alias.models):
        try:
            written.append(str(models.parse_name(model, pointer=f"/models/{place}", known=known)))
        except UnacceptableError as error:
            found += error.flaws
    if len(set(written)) < len(written):
        found.append(Flaw("/models", "Each model is named once."))
    found += _weight_flaws(alias)
    found += flaws.of_text(alias.description)
    flaws.refuse(*found)
    return msgspec.structs.replace(alias, models=tuple(written))


def chain(alias: Alias, chance: float, turn: Callable[[], int]) -> tuple[str, ...]:
    """The models a run may call because of an alias, in order; the choice is made here, once.

    `chance` is a number from 0 up to 1, `turn` counts the runs that go round.
    """
    match alias.strategy:
        case Strategy.SEQUENTIAL:
            return alias.models
        case Strategy.RANDOM:
            return (alias.models[int(chance * len(alias.models))],)
        case Strategy.WEIGHTED_RANDOM:
            return (_weighted(alias.models, alias.weights or (), chance),)
        case Strategy.ROUND_ROBIN:
            return (alias.models[turn() % len(alias.models)],)


def _weighted(names: Sequence[str], weights: Sequence[int], chance: float) -> str:
    ends = list(accumulate(weights))
    at = chance * ends[-1]
    return next(name for name, end in zip(names, ends, strict=True) if at < end)


def _weight_flaws(alias: Alias) -> list[Flaw]:
    weights = alias.weights
    if alias.strategy is not Strategy.WEIGHTED_RANDOM:
        wanted = "Weights belong to the strategy WeightedRandom only."
        return [] if weights is None else [Flaw("/weights", wanted)]
    if weights is None or len(weights) != len(alias.models):
        return [Flaw("/weights", "WeightedRandom wants one weight for each model.")]
    if max(weights, default=0) > MAX_WEIGHT or not any(weights):
        return [Flaw("/weights", f"Weights are 0 to {MAX_WEIGHT:,}, at least one above 0.")]
    return []
