"""Budgets, and what was used."""

from typing import Annotated, Any

import msgspec
from litestar import delete, get, put
from litestar.di import NamedDependency
from litestar.params import FromPath, JSONBody, QueryParameter

from api.auth import SCOPE
from api.paging import DEPENDENCIES, Asked, Cursors, Listing
from shared.deps import Deps
from shared.domain.submissions import Moment
from shared.domain.usage import GroupBy
from shared.errors import BadRequestError, Flaw
from shared.services import billing, spending, usage
from shared.services.billing import CreditsView
from shared.services.keys import Principal
from shared.services.spending import BudgetsView, BudgetView, NewBudget
from shared.services.usage import UsageView

_READ = {SCOPE: "keys:read"}
_WRITE = {SCOPE: "keys:write"}
_USAGE = {SCOPE: "runs:read"}


@get("/budgets", opt=_READ, dependencies=DEPENDENCIES, summary="List budgets")
async def list_budgets(
    asked: NamedDependency[Asked],
    principal: NamedDependency[Principal],
    deps: NamedDependency[Deps],
) -> Listing[BudgetView]:
    """What environments and keys may spend in a day or a month, and what they have spent of it."""
    cursors = Cursors(principal.workspace_id, "budgets")
    return asked.listing(cursors, await spending.listed(deps, principal, asked.page(cursors)))


@put("/budgets/environments/{name:str}", opt=_WRITE, summary="Set an environment's budgets")
async def set_environment_budget(
    name: FromPath[str],
    data: JSONBody[NewBudget],
    principal: NamedDependency[Principal],
    deps: NamedDependency[Deps],
) -> BudgetsView:
    """Limit what the runs of an environment may cost in a day, a month (UTC), or both.

    What was spent counts from when the budget was first set. Without room for what a call may cost
    a run waits.
    """
    return await spending.put_for_environment(deps, principal, name, data)


@delete("/budgets/environments/{name:str}", opt=_WRITE, summary="Delete an environment's budgets")
async def delete_environment_budget(
    name: FromPath[str], principal: NamedDependency[Principal], deps: NamedDependency[Deps]
) -> None:
    """Let an environment spend what there is."""
    await spending.delete_for_environment(deps, principal, name)


@put("/budgets/keys/{key_id:str}", opt=_WRITE, summary="Set a key's budgets")
async def set_key_budget(
    key_id: FromPath[str],
    data: JSONBody[NewBudget],
    principal: NamedDependency[Principal],
    deps: NamedDependency[Deps],
) -> BudgetsView:
    """Limit what the runs submitted with a key may cost in a day, a month (UTC), or both."""
    return await spending.put_for_key(deps, principal, key_id, data)


@delete("/budgets/keys/{key_id:str}", opt=_WRITE, summary="Delete a key's budgets")
async def delete_key_budget(
    key_id: FromPath[str], principal: NamedDependency[Principal], deps: NamedDependency[Deps]
) -> None:
    """Let a key spend what there is."""
    await spending.delete_for_key(deps, principal, key_id)


@get("/credits", opt=_USAGE, summary="Read the credits")
async def read_credits(
    principal: NamedDependency[Principal], deps: NamedDependency[Deps]
) -> CreditsView:
    """What the workspace has left; null where nobody counts. A million credits are a dollar."""
    return await billing.show(deps, principal.workspace_id)


@get("/usage", opt=_USAGE, summary="Read the usage")
async def read_usage(
    principal: NamedDependency[Principal],
    deps: NamedDependency[Deps],
    group_by: Annotated[
        str | None,
        QueryParameter(
            name="groupBy",
            description="`day` when left out, `prompt`, `version`, `environment`, `model`, `key` "
            "or `tag` (of runs).",
        ),
    ] = None,
    since: Annotated[
        str | None, QueryParameter(name="from", description="A moment; 30 days before `to`.")
    ] = None,
    until: Annotated[
        str | None, QueryParameter(name="to", description="A moment; now when left out.")
    ] = None,
) -> UsageView:
    """Calls, tokens and cost of the provider calls that were begun in a span of time.

    At most 1,000 groups, what cost most first. A run with two tags is in both of their groups; the
    total has it once, and adds up to the nano-dollar.
    """
    by: GroupBy = _read("groupBy", GroupBy, group_by or "day")
    begin, end = _read("from", Moment | None, since), _read("to", Moment | None, until)
    return await usage.read(deps, principal, by, begin, end)


def _read(name: str, kind: Any, text: str | None) -> Any:
    try:
        return msgspec.convert(text, kind, strict=False)
    except msgspec.ValidationError as error:
        message = f"The parameter {name} is not understood: {error}."
        raise BadRequestError(message, flaws=[Flaw("", message)]) from error


HANDLERS = [
    list_budgets,
    set_environment_budget,
    delete_environment_budget,
    set_key_budget,
    delete_key_budget,
    read_credits,
    read_usage,
]
