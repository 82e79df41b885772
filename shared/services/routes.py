"""Choosing a run's models, once, when it is submitted.

What goes round goes round in each process by itself, from a place of its own: of n runs that p
processes took, each model of an alias gets n divided by their number, give or take p. No counter
that all share would be worth a wait at every submission.
"""

from itertools import count
from uuid import UUID

from shared.deps import Deps
from shared.domain import aliases, calls, routing
from shared.domain.aliases import Alias, Aliases
from shared.domain.calls import Asked
from shared.domain.routing import Known, Route
from shared.domain.versions import TemplateBody


def choose(
    deps: Deps,
    workspace_id: UUID,
    template: TemplateBody,
    asked: Asked,
    known: Aliases,
) -> Route:
    """Settle which models a run may call.

    Raises `UnacceptableError`, also where another model of its alias would not do: luck decides
    which model is called, and not what is accepted.
    """

    def pick(name: str, alias: Alias) -> tuple[str, ...]:
        return aliases.chain(alias, deps.random.random(), lambda: _turn(deps, workspace_id, name))

    names = Known(deps.settings.provider_names, known)
    route = routing.route(template, asked.model, names, pick)
    all_of_it = foresee(deps, template, asked.model, known) if route.by_alias else route
    calls.demand_parameters(template, asked, all_of_it)
    return route


def foresee(deps: Deps, template: TemplateBody, override: str | None, known: Aliases) -> Route:
    """The same without a choice: the first model stands for all that could be chosen."""
    names = Known(deps.settings.provider_names, known)
    return routing.route(template, override, names, lambda _, alias: alias.models)


def _turn(deps: Deps, workspace_id: UUID, name: str) -> int:
    turns = deps.turns.get((workspace_id, name))
    if turns is None:
        turns = count(deps.random.randrange(1_000_000))
        deps.turns.put((workspace_id, name), turns)
    return next(turns)
