"""Budgets: what an environment or a key may spend in a day or a month."""

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated
from uuid import UUID

import msgspec

from shared.clock import rfc3339
from shared.deps import Deps
from shared.domain import credits as rules
from shared.domain.audit import Action
from shared.domain.credits import MAX_CREDITS, Period
from shared.domain.paging import Page, Slice
from shared.errors import NotFoundError
from shared.ids import KeyId, parse
from shared.services import audit, billing, environments, views
from shared.services.audit import Target
from shared.services.keys import Principal
from shared.store import accounts, budgets, workspaces
from shared.store.budgets import Spender
from shared.store.database import Tx
from shared.store.tables import BudgetRow

Limit = Annotated[int, msgspec.Meta(ge=0, le=MAX_CREDITS)]


class NewBudget(msgspec.Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    """The body of a budget, in credits; what is absent or null is without a limit."""

    day: Limit | None = None
    month: Limit | None = None


class BudgetView(msgspec.Struct, frozen=True, rename="camel"):
    """A budget in its present period; `credits_held` may yet be spent by calls under way."""

    id: str
    environment: str | None
    key_id: str | None
    period: Period
    limit_credits: int
    spent_credits: int
    held_credits: int
    resets_at: str


class BudgetsView(msgspec.Struct, frozen=True):
    """Both budgets of an environment or a key."""

    day: BudgetView | None
    month: BudgetView | None


async def listed(deps: Deps, principal: Principal, page: Page) -> Slice[BudgetView]:
    """List the budgets of the workspace; a limited key sees those within its environments."""
    async with deps.store.transaction() as tx:
        found = await budgets.listed(
            tx, principal.workspace_id, page, within=principal.environment_ids
        )
        ids = [row.environment_id for row in found.rows if row.environment_id is not None]
        names = await workspaces.environment_names(tx, principal.workspace_id, ids)
    now = deps.clock.now()
    return views.page(found, lambda row: _view(row, names, now))


async def put_for_environment(
    deps: Deps, principal: Principal, name: str, body: NewBudget
) -> BudgetsView:
    """Set what an environment may spend. Raises `NotFoundError`."""
    async with deps.store.transaction() as tx:
        of, target = await _environment(tx, principal, name)
        shown = await _put(deps, tx, principal, of, target, body)
    await billing.wake(deps, principal.workspace_id)
    return shown


async def put_for_key(
    deps: Deps, principal: Principal, key_id: str, body: NewBudget
) -> BudgetsView:
    """Set what a key may spend. Raises `NotFoundError`."""
    async with deps.store.transaction() as tx:
        of, target = await _key(tx, principal, key_id)
        shown = await _put(deps, tx, principal, of, target, body)
    await billing.wake(deps, principal.workspace_id)
    return shown


async def delete_for_environment(deps: Deps, principal: Principal, name: str) -> None:
    """Let an environment spend what there is. Raises `NotFoundError`, also where it may already."""
    async with deps.store.transaction() as tx:
        await _delete(tx, principal, *await _environment(tx, principal, name))
    await billing.wake(deps, principal.workspace_id)


async def delete_for_key(deps: Deps, principal: Principal, key_id: str) -> None:
    """Let a key spend what there is. Raises `NotFoundError`, also where it may already."""
    async with deps.store.transaction() as tx:
        await _delete(tx, principal, *await _key(tx, principal, key_id))
    await billing.wake(deps, principal.workspace_id)


async def _environment(tx: Tx, principal: Principal, name: str) -> tuple[Spender, Target]:
    row = await environments.find(tx, principal, name)
    return Spender("environment_id", row.id), environments.target(row)


async def _key(tx: Tx, principal: Principal, key_id: str) -> tuple[Spender, Target]:
    found = parse(key_id)
    row = found and await workspaces.find_live_key(tx, principal.workspace_id, KeyId(found))
    if not row:
        raise NotFoundError
    environments.demand(principal, row.environment_ids)
    return Spender("key_id", row.id), Target("key", row.id, row.name, tuple(row.environment_ids))


async def _put(
    deps: Deps, tx: Tx, principal: Principal, of: Spender, target: Target, body: NewBudget
) -> BudgetsView:
    workspace_id = principal.workspace_id
    await workspaces.hold(tx, workspace_id)
    await accounts.lock(tx, workspace_id)
    for period, limit in ((Period.DAY, body.day), (Period.MONTH, body.month)):
        if limit is None:
            await budgets.remove(tx, workspace_id, of, period)
        else:
            await budgets.put(tx, workspace_id, of, period, rules.nanousd_of(limit))
    await accounts.watch(tx, workspace_id)
    details: dict[str, audit.Detail] = {"day": body.day, "month": body.month}
    await audit.note(tx, principal, Action.BUDGET_SET, target, details)
    rows = await budgets.of_spender(tx, workspace_id, of)
    ids = [row.environment_id for row in rows if row.environment_id is not None]
    names = await workspaces.environment_names(tx, workspace_id, ids)
    shown = {Period(row.period): _view(row, names, deps.clock.now()) for row in rows}
    return BudgetsView(shown.get(Period.DAY), shown.get(Period.MONTH))


async def _delete(tx: Tx, principal: Principal, of: Spender, target: Target) -> None:
    workspace_id = principal.workspace_id
    await workspaces.hold(tx, workspace_id)
    await accounts.lock(tx, workspace_id)
    if not sum([await budgets.remove(tx, workspace_id, of, period) for period in Period]):
        raise NotFoundError
    await accounts.watch(tx, workspace_id)
    await audit.note(tx, principal, Action.BUDGET_DELETED, target)


def _view(row: BudgetRow, names: Mapping[UUID, str], now: datetime) -> BudgetView:
    period = Period(row.period)
    spent = row.spent_nanousd if row.period_from >= rules.began_at(period, now) else 0
    return BudgetView(
        id=str(row.id),
        environment=None if row.environment_id is None else names[row.environment_id],
        key_id=None if row.key_id is None else str(row.key_id),
        period=period,
        limit_credits=rules.credits_of(row.limit_nanousd),
        spent_credits=rules.credits_of(spent),
        held_credits=rules.credits_of(row.held_nanousd),
        resets_at=rfc3339(rules.ends_at(period, now)),
    )
