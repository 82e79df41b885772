"""Deliveries as their owner sees them: what was sent where, again by hand, and what was missed."""

import math
from collections.abc import Collection
from typing import Final
from uuid import UUID

import msgspec

from shared import crashpoints
from shared.clock import rfc3339
from shared.deps import Deps
from shared.domain.audit import Action
from shared.domain.paging import Page, Slice
from shared.domain.recovery import Window
from shared.errors import ConflictError, NotFoundError, RateLimitedError
from shared.ids import DeliveryId, EndpointId, RunId, parse
from shared.services import audit, environments, webhooks
from shared.services.audit import Target
from shared.services.keys import Principal
from shared.store import delivery_log, redelivery, submitting, workspaces
from shared.store.database import Tx
from shared.store.delivery_log import FoundDelivery
from shared.store.paging import Listed
from shared.store.redelivery import Missed
from shared.store.tables import EndpointRow

PINGS_A_MINUTE: Final = 5
RECOVER_BATCH: Final = 100
# Of a request's time; what is left answers it.
_RECOVER_SHARE: Final = 0.6


class Recovered(msgspec.Struct, frozen=True, rename="camel"):
    """How many deliveries are pending again. With `continueFrom`, ask again: `since` that."""

    recovered: int
    continue_from: str | None


async def of_run(deps: Deps, principal: Principal, run_id: RunId) -> list[msgspec.Raw]:
    """The webhook deliveries of a run. Raises `NotFoundError`."""
    run = await submitting.find_by_id(deps.store, principal.workspace_id, run_id)
    if run is None or not principal.reaches(run.environment_id):
        raise NotFoundError
    return await delivery_log.of_run(deps.store, principal.workspace_id, run_id)


async def of_endpoint(
    deps: Deps, principal: Principal, endpoint_id: str, statuses: Collection[str], page: Page
) -> Slice[Listed]:
    """The deliveries to an endpoint, newest first. Raises `NotFoundError`."""
    async with deps.store.transaction() as tx:
        row = await webhooks.find(tx, principal, endpoint_id)
    return await delivery_log.of_endpoint(deps.store, EndpointId(row.id), statuses, page)


async def get(deps: Deps, principal: Principal, delivery_id: str) -> msgspec.Raw:
    """One delivery with its attempts. Raises `NotFoundError`."""
    return (await _find(deps, principal, delivery_id)).json


async def resend(deps: Deps, principal: Principal, delivery_id: str) -> msgspec.Raw:
    """Send a delivery again from the start of the schedule, under the same event's id.

    Raises `NotFoundError`, or `ConflictError` for a pending one and for a disabled endpoint.
    """
    row = await _find(deps, principal, delivery_id)
    found = DeliveryId(UUID(delivery_id))
    async with deps.store.transaction() as tx:
        was = await redelivery.resend(tx, principal.workspace_id, found)
        if was is None:
            raise NotFoundError
        if was.status == "pending":
            raise ConflictError("This delivery is still being made.", code="delivery_pending")
        if not was.wanted:
            raise _disabled()
        target = Target("delivery", found, was.type, tuple(row.environment_ids))
        await audit.note(tx, principal, Action.DELIVERY_RESENT, target)
    return await get(deps, principal, delivery_id)


async def ping(deps: Deps, principal: Principal, endpoint_id: str) -> msgspec.Raw:
    """Send an endpoint a `ping`, whatever it wants; answers the delivery.

    Raises `ConflictError` for a disabled endpoint, `RateLimitedError` for too many outside dev
    mode.
    """
    async with deps.store.transaction() as tx:
        await workspaces.hold(tx, principal.workspace_id)
        row = await _enabled(tx, principal, endpoint_id)
        place = (principal.workspace_id, EndpointId(row.id))
        wait_s = await redelivery.ping_wait_s(tx, *place, PINGS_A_MINUTE)
        if wait_s is not None and not deps.settings.dev_mode:
            raise _too_many(wait_s)
        delivery_id = await redelivery.ping(tx, *place)
        await audit.note(tx, principal, Action.WEBHOOK_TESTED, webhooks.target(row))
    return await get(deps, principal, str(delivery_id))


async def recover(deps: Deps, principal: Principal, endpoint_id: str, window: Window) -> Recovered:
    """Send an endpoint again what it missed within a window: so many events, oldest first.

    Each batch is a transaction, and what is pending again is not missed any more: asked again
    after a crash, or with `continue_from`, it goes on where it was.
    """
    span = window.checked(deps.clock.now())
    async with deps.store.transaction() as tx:
        row = await _enabled(tx, principal, endpoint_id)
    place = (principal.workspace_id, EndpointId(row.id), span)
    target, details = webhooks.target(row), {"since": rfc3339(span[0])}
    ends_at = deps.clock.monotonic() + deps.settings.request_deadline_s * _RECOVER_SHARE
    recovered = 0
    last: Missed | None = None
    while True:
        after = None if last is None else last.last_id
        batch = min(RECOVER_BATCH, deps.settings.webhook_recover_max - recovered)
        async with deps.store.transaction() as tx:
            last = await redelivery.recover(tx, *place, after, batch)
            if last is not None and last.count and not recovered:  # once a request
                await audit.note(tx, principal, Action.WEBHOOK_RECOVERED, target, details)
        if last is None:
            return Recovered(recovered, None)
        crashpoints.reach("recover_mid_batch")
        recovered += last.count
        if recovered >= deps.settings.webhook_recover_max or deps.clock.monotonic() > ends_at:
            return Recovered(recovered, rfc3339(last.last_at))


async def _find(deps: Deps, principal: Principal, delivery_id: str) -> FoundDelivery:
    found = parse(delivery_id)
    row = found and await delivery_log.find(deps.store, principal.workspace_id, DeliveryId(found))
    if not row:
        raise NotFoundError
    environments.demand(principal, row.environment_ids)
    return row


async def _enabled(tx: Tx, principal: Principal, endpoint_id: str) -> EndpointRow:
    row = await webhooks.find(tx, principal, endpoint_id)
    if row.disabled_at is not None:
        raise _disabled()
    return row


def _disabled() -> ConflictError:
    return ConflictError(
        "This webhook is disabled or deleted, so nothing is sent to it.", code="webhook_disabled"
    )


def _too_many(wait_s: float) -> RateLimitedError:
    seconds = str(max(math.ceil(wait_s), 1))
    return RateLimitedError(
        f"A webhook may be tested {PINGS_A_MINUTE} times a minute.",
        headers={
            "Retry-After": seconds,
            "RateLimit": f'"ping";r=0;t={seconds}',
            "RateLimit-Policy": f'"ping";q={PINGS_A_MINUTE};w=60',
        },
    )
