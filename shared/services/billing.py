"""Credits: what a workspace has left, and what the operator does about it."""

import msgspec

from shared.deps import Deps
from shared.domain import credits as rules
from shared.domain import flaws
from shared.domain.audit import Action
from shared.domain.credits import LedgerKind
from shared.errors import Flaw, NotFoundError
from shared.ids import WorkspaceId
from shared.queue.port import Ring
from shared.services import audit, rings
from shared.services.audit import Operator, Target
from shared.store import accounts, workspaces
from shared.store.database import Tx

MAX_COMMENT = 1_000
WOKEN_AT_ONCE = 500
WOKEN_AT_MOST = 50_000


class CreditsView(msgspec.Struct, frozen=True, rename="camel"):
    """What a workspace has, in credits; `credits_left` is null where nobody counts."""

    credits_left: int | None
    credits_held: int
    max_request_cost_credits: int | None


async def balance(deps: Deps, workspace_id: WorkspaceId) -> int | None:
    """The credits a workspace has left; `None` where it is not metered.

    What calls under way hold is not taken off: it is not spent yet.
    """
    return (await show(deps, workspace_id)).credits_left


def used(cost_nanousd: int | None) -> int:
    """The credits of a run that cost so much; 0 while nobody knows, or there is no price."""
    return rules.credits_of(cost_nanousd or 0)


async def show(deps: Deps, workspace_id: WorkspaceId) -> CreditsView:
    """What a workspace has. Raises `NotFoundError` for an unknown one."""
    found = await accounts.read(deps.store, workspace_id)
    if found is None:
        raise NotFoundError
    cap = found.max_request_nanousd
    return CreditsView(
        credits_left=rules.credits_of(found.balance_nanousd) if found.metered else None,
        credits_held=rules.credits_of(found.held_nanousd),
        max_request_cost_credits=None if cap is None else rules.credits_of(cap),
    )


async def grant(deps: Deps, workspace_id: WorkspaceId, amount: int, comment: str) -> int:
    """Give credits to a workspace, or take some with a negative number; answers what it has now.

    Raises `NotFoundError`, `UnacceptableError` for nothing or too much.
    """
    flaws.refuse(*_grant_flaws(amount, comment))
    async with deps.store.transaction() as tx:
        await _lock(tx, workspace_id)
        await accounts.enter(tx, workspace_id, LedgerKind.GRANT, rules.nanousd_of(amount), comment)
        details: dict[str, audit.Detail] = {"credits": amount, "comment": comment}
        await _note(tx, workspace_id, Action.CREDITS_GRANTED, details)
    await wake(deps, workspace_id)
    found = await accounts.read(deps.store, workspace_id)
    return 0 if found is None else rules.credits_of(found.balance_nanousd)


async def meter(deps: Deps, workspace_id: WorkspaceId, *, metered: bool) -> None:
    """Let a workspace pay for its runs from now on, or no longer. Raises `NotFoundError`."""
    async with deps.store.transaction() as tx:
        await _lock(tx, workspace_id)
        await accounts.meter(tx, workspace_id, metered=metered)
        action = Action.WORKSPACE_METERED if metered else Action.WORKSPACE_UNMETERED
        await _note(tx, workspace_id, action, {})
    if not metered:
        await wake(deps, workspace_id)


async def cap_requests(deps: Deps, workspace_id: WorkspaceId, amount: int | None) -> None:
    """Cap what any one run of a workspace may cost; `None` takes the cap away."""
    if amount is not None and not 0 <= amount <= rules.MAX_CREDITS:
        flaws.refuse(Flaw("/credits", f"A number from 0 to {rules.MAX_CREDITS}."))
    async with deps.store.transaction() as tx:
        await _lock(tx, workspace_id)
        cap = None if amount is None else rules.nanousd_of(amount)
        await accounts.cap(tx, workspace_id, cap)
        await _note(tx, workspace_id, Action.WORKSPACE_CAPPED, {"credits": amount})


async def wake(deps: Deps, workspace_id: WorkspaceId, limit: int = WOKEN_AT_MOST) -> None:
    """Let runs that wait for money try again, the oldest first; those without room wait on."""
    while limit > 0:
        count = min(limit, WOKEN_AT_ONCE)
        woken = await accounts.wake(deps.store, workspace_id, count)
        if woken:
            await rings.ring_many(deps, [Ring(run_id, lane) for run_id, lane in woken])
        if len(woken) < count:
            return
        limit -= count


async def _lock(tx: Tx, workspace_id: WorkspaceId) -> None:
    if not await workspaces.hold(tx, workspace_id):
        raise NotFoundError
    await accounts.lock(tx, workspace_id)


async def _note(
    tx: Tx, workspace_id: WorkspaceId, action: Action, details: dict[str, audit.Detail]
) -> None:
    target = Target("workspace", workspace_id, str(workspace_id))
    await audit.note(tx, Operator(workspace_id), action, target, details)


def _grant_flaws(amount: int, comment: str) -> list[Flaw]:
    found = []
    if amount == 0 or abs(amount) > rules.MAX_CREDITS:
        found.append(Flaw("/credits", f"A number other than 0, up to {rules.MAX_CREDITS}."))
    if not 0 < len(comment) <= MAX_COMMENT:
        found.append(Flaw("/comment", f"Say what for, in 1 to {MAX_COMMENT} characters."))
    return found
