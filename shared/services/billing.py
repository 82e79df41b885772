"""Credits: what a workspace has left, and what the operator does about it."""

from uuid import UUID

import msgspec

from shared.deps import Deps
from shared.domain import credits as rules
from shared.domain import flaws
from shared.domain.audit import Action
from shared.domain.credits import LedgerKind
from shared.errors import CreditsExhaustedError, Flaw, NotFoundError, QuotaExceededError
from shared.ids import WorkspaceId
from shared.queue.port import Ring
from shared.services import audit, rings
from shared.services.audit import Operator, Target
from shared.services.keys import Principal
from shared.store import accounts, budgets, workspaces
from shared.store.database import Tx

MAX_COMMENT = 1_000
WOKEN_AT_ONCE = 500
WOKEN_AT_MOST = 50_000
SWEPT = 50
ROOM_S = 1.0


class CreditsView(msgspec.Struct, frozen=True, rename="camel"):
    """What a workspace has, in credits; `credits_left` is null where nobody counts."""

    credits_left: int | None
    credits_held: int
    max_request_cost_credits: int | None


async def show(deps: Deps, workspace_id: WorkspaceId) -> CreditsView:
    """What a workspace has. Raises `NotFoundError` for an unknown one."""
    found = await accounts.read(deps.store, workspace_id)
    if found is None:
        raise NotFoundError
    return CreditsView(
        credits_left=rules.credits_of(found.balance_nanousd) if found.metered else None,
        credits_held=rules.credits_of(found.held_nanousd),
        max_request_cost_credits=rules.credits_of(found.max_request_nanousd),
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
        await accounts.cap(tx, workspace_id, rules.nanousd_of(amount))
        await _note(tx, workspace_id, Action.WORKSPACE_CAPPED, {"credits": amount})


async def settle(deps: Deps, workspace_id: WorkspaceId, *, charge: bool) -> int:
    """Settle every call of a workspace of which nobody knows the cost; answers how many.

    They are charged with what is held for them, or with nothing. Raises `NotFoundError`.
    """
    await show(deps, workspace_id)
    count = await _settled(deps, workspace_id, older_s=0, charge=charge, comment="by the operator")
    async with deps.store.transaction() as tx:
        await _note(tx, workspace_id, Action.CREDITS_SETTLED, {"calls": count, "charged": charge})
    await wake(deps, workspace_id)
    return count


async def look_after(deps: Deps) -> None:
    """What time does: settle what nobody settled, and let those try who may have room."""
    settings = deps.settings
    if settings.unknown_holds != "keep":
        await _settled(
            deps,
            None,
            older_s=settings.unknown_hold_days * 86_400,
            charge=settings.unknown_holds == "charge",
            comment="by UNKNOWN_HOLDS",
        )
    for workspace_id in await accounts.waiting(deps.store):
        await wake(deps, workspace_id, SWEPT)


async def _settled(
    deps: Deps, workspace_id: WorkspaceId | None, *, older_s: float, charge: bool, comment: str
) -> int:
    count = 0
    while True:
        done = await accounts.settle(
            deps.store,
            workspace_id,
            older_s=older_s,
            charge=charge,
            comment=comment,
            limit=WOKEN_AT_ONCE,
        )
        count += done
        if done < WOKEN_AT_ONCE:
            return count


async def demand_room(
    deps: Deps, principal: Principal, environment_id: UUID, *, says_402: bool
) -> None:
    """Raise where nothing at all is left to spend: `CreditsExhaustedError` or `QuotaExceededError`.

    That there was something is trusted for `ROOM_S`: a run that is let in by mistake only waits.
    """
    now, place = deps.clock.monotonic(), (environment_id, principal.key_id)
    seen_at = deps.has_room.get(place)
    if seen_at is not None and now - seen_at < ROOM_S:
        return
    if await budgets.has_room(deps.store, principal.workspace_id, *place):
        deps.has_room.put(place, now)
        return
    detail = "Nothing is left to spend: of the workspace's credits, or of a budget."
    if says_402:
        raise CreditsExhaustedError(detail)
    raise QuotaExceededError(detail)


async def wake(deps: Deps, workspace_id: WorkspaceId, limit: int = WOKEN_AT_MOST) -> None:
    """Let runs that wait for money try again, in turns; those without room wait on."""
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
