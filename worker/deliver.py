"""Delivering events to webhooks: at once after a finish, and again by due time from the store."""

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress

import msgspec
import psycopg

from shared import crashpoints, log, metrics, tracing
from shared.batching import Batcher
from shared.clock import rfc3339
from shared.deps import Deps
from shared.domain import backoff, signing
from shared.ids import DeliveryId, EndpointId
from shared.store import database, deliveries
from shared.store.deliveries import Recorded, Try
from shared.store.ending import DueDelivery
from shared.vault import VaultError
from worker import traces, webhook_requests
from worker.handler import NotNowError
from worker.http import DeliveryFailure, FailureReason, GuardedClient, Response
from worker.patience import patiently, put_off
from worker.rooms import Rooms

MAX_AT_ONCE = 1000
CLAIMED_AT_ONCE = 200
RECORD_REST_S = 0.02
_GONE = 410
_TOLD = frozenset({429, 502, 503, 504})

_log = log.get(__name__)


class Deliverer:
    """Sends what is leased to this process, and looks for what has fallen due.

    Nothing waits in here. What finds no room goes back into the database, and is fetched when there
    is room: then it is sent as its endpoint is by then, and an endpoint that hangs holds up nobody.
    """

    def __init__(self, deps: Deps, client: GuardedClient) -> None:
        self._deps = deps
        self._client = client
        self._rooms = Rooms(deps.settings)
        for reason in ("3xx", "4xx", "5xx", *FailureReason):
            metrics.TRIES.add("exhausted", str(reason), by=0)
        self._sending: set[asyncio.Task[None]] = set()
        self._paused: set[EndpointId] = set()
        self._after = deliveries.FIRST
        self._full = False
        self._wake = asyncio.Event()
        self._tries: Batcher[Try, Recorded] = Batcher(
            lambda batch: deliveries.record(deps.store, deps.settings, batch),
            is_shared=database.concerns_all,
            rest_s=RECORD_REST_S,
            sized=metrics.sized("delivery_tries"),
        )
        self._returns: Batcher[tuple[DeliveryId, int], None] = Batcher(
            self._put_back, is_shared=database.concerns_all
        )

    def send(self, due: DueDelivery) -> None:
        """Send a delivery that was leased to us with its run's end, in the background.

        One for an endpoint that is paused is left to its lease, and found when the pause is over.
        """
        if due.endpoint_id not in self._paused:
            self._begin(due)

    async def poll_forever(self, may_start: Callable[[], bool]) -> None:
        """Look for due deliveries: at intervals, and at once where room meets what waits for it."""
        poll_s, looked_s = self._deps.settings.webhook_poll_s, float("-inf")
        unreadable = log.Spell(_log, "deliveries_unreadable", "deliveries_readable")
        while True:
            self._wake.clear()
            more = False
            if may_start():
                now_s = self._deps.clock.monotonic()
                with suppress(NotNowError), put_off(unreadable):
                    if now_s - looked_s >= poll_s:
                        self._paused = await deliveries.paused(self._deps.store)
                        self._rooms.forget_idle(now_s)
                        looked_s = now_s
                    more = await self._look()
            if not more:
                await _either(self._wake, poll_s)

    async def drain(self, timeout_s: float) -> None:
        """Wait for what is being sent; the rest is found again by others."""
        deadline = self._deps.clock.monotonic() + timeout_s
        while self._sending and (left_s := deadline - self._deps.clock.monotonic()) > 0:
            await asyncio.wait(self._sending, timeout=left_s)
        for task in self._sending:
            task.cancel()

    def under_way(self) -> int:
        """How many requests are on their way."""
        return self._rooms.busy

    async def _look(self) -> bool:
        """Claim once; tells whether to look again at once."""
        free = MAX_AT_ONCE - self._rooms.busy
        self._full = free <= 0
        if self._full:
            return False
        asked = self._rooms.ask()
        claim = await deliveries.claim_due(
            self._deps.store,
            limit=min(free, CLAIMED_AT_ONCE),
            lease_s=self._deps.settings.webhook_lease_s,
            room=self._rooms.start,
            rooms=asked,
            after=self._after,
        )
        self._after = claim.after
        if claim.found:
            crashpoints.reach("after_delivery_claim")
        self._rooms.learn(asked, Counter(due.endpoint_id for due in claim.found))
        for due in claim.found:
            self._begin(due)
        return claim.more

    def _begin(self, due: DueDelivery) -> None:
        now_s = self._deps.clock.monotonic()
        if self._rooms.busy < MAX_AT_ONCE and self._rooms.enter(due.endpoint_id, now_s):
            task = asyncio.create_task(self._send(due))
        else:
            task = asyncio.create_task(self._return(due))
        self._sending.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: "asyncio.Task[None]") -> None:
        self._sending.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("delivery_raised", exc_info=error)

    async def _return(self, due: DueDelivery) -> None:
        """Give back what finds no room; where that fails, its lease runs out."""
        try:
            await self._returns.submit((due.id, due.lease_no))
        except psycopg.Error as error:
            if not database.away(error):
                raise
            return
        self._rooms.crowd(due.endpoint_id)
        self._call(due.endpoint_id)

    def _call(self, endpoint_id: EndpointId) -> None:
        """Look at once where there is room for what waits."""
        if self._rooms.calls(endpoint_id) or (self._full and 2 * self._rooms.busy <= MAX_AT_ONCE):
            self._wake.set()

    async def _send(self, due: DueDelivery) -> None:
        made: Try | None = None
        try:
            made = await self._traced(due) if tracing.on() else await self._try(due)
        finally:
            self._leave(due.endpoint_id, made)
        _count(made)
        await self._record(due, made)

    def _leave(self, endpoint_id: EndpointId, made: Try | None) -> None:
        asked = made is not None and (made.blamed or made.status == "succeeded")
        self._rooms.leave(
            endpoint_id,
            succeeded=made.status == "succeeded" if made and asked else None,
            took_s=made.duration_ms / 1000 if made else 0,
        )
        self._call(endpoint_id)

    async def _record(self, due: DueDelivery, made: Try) -> None:
        recorded = await patiently(lambda: self._tries.submit(made))
        if not recorded.written:
            _log.warning("delivery_lease_lost", delivery=made.delivery_id)
        if recorded.paused and due.endpoint_id not in self._paused:
            metrics.ENDPOINTS_PAUSED.add()
            self._paused.add(due.endpoint_id)
        if made.status_code == _GONE or recorded.hopeless:
            reason = "gone" if made.status_code == _GONE else "failing"
            await patiently(
                lambda: deliveries.disable(self._deps.store, due.endpoint_id, due.url, reason)
            )
            metrics.ENDPOINTS_DISABLED.add(reason)
            _log.info("endpoint_disabled", endpoint=str(due.endpoint_id), reason=reason)

    async def _traced(self, due: DueDelivery) -> Try:
        """Try it as a part of its run's trace."""
        kind, about = tracing.Kind.CLIENT, traces.of_delivery(due)
        with tracing.stretch("deliver webhook", kind, due.traceparent, about) as span:
            made = await self._try(msgspec.structs.replace(due, traceparent=span.traceparent))
            span.note(traces.of_try(made))
            if made.status != "succeeded":
                span.fail(str(made.status_code or made.outcome))
        return made

    async def _try(self, due: DueDelivery) -> Try:
        """Make one request, and say what follows."""
        started_at = self._deps.clock.now()
        made = Try(
            delivery_id=str(due.id),
            lease_no=due.lease_no,
            status="pending",
            started_at=rfc3339(started_at),
            duration_ms=0,
            outcome="",
        )
        try:
            headers, body = webhook_requests.build(
                self._deps.vault, due, int(started_at.timestamp())
            )
        except (VaultError, signing.SecretError) as error:
            _log.error("delivery_unsigned", delivery=str(due.id), error=str(error))
            made = msgspec.structs.replace(made, outcome="unsigned", excerpt=str(error))
            return self._next(due, made)
        try:
            response = await self._client.post(due.url, headers=headers, body=body)
        except DeliveryFailure as failure:
            # what our resolver knows of the inside is nobody's business
            blocked = failure.reason is FailureReason.BLOCKED_ADDRESS
            made = msgspec.structs.replace(
                made,
                blamed=True,
                outcome=failure.reason.value,
                excerpt=failure.message,
                duration_ms=failure.duration_ms,
                address=None if blocked else failure.address,
            )
            return self._next(due, made)
        crashpoints.reach("after_delivery_200")
        return self._judged(due, made, response)

    def _judged(self, due: DueDelivery, base: Try, response: Response) -> Try:
        well = 200 <= response.status < 300  # noqa: PLR2004 (the 2xx class)
        made = msgspec.structs.replace(
            base,
            outcome="answered",
            blamed=not well,
            status_code=response.status,
            excerpt=response.excerpt,
            duration_ms=response.duration_ms,
            address=response.address,
        )
        if well:
            return msgspec.structs.replace(made, status="succeeded")
        if response.status == _GONE:
            return msgspec.structs.replace(made, status="exhausted")
        told_s = None
        if response.status in _TOLD:
            told_s = backoff.parse_retry_after(
                response.headers.get("retry-after"), self._deps.clock.now()
            )
        return self._next(due, made, told_s)

    def _next(self, due: DueDelivery, made: Try, told_s: float | None = None) -> Try:
        settings = self._deps.settings
        wait_s = backoff.webhook_wait_s(
            due.tries + 1,
            settings.webhook_schedule_s,
            settings.webhook_jitter,
            self._deps.random,
            told_s,
        )
        if wait_s is None:
            return msgspec.structs.replace(made, status="exhausted")
        return msgspec.structs.replace(made, wait_s=wait_s)

    async def _put_back(self, leased: Sequence[tuple[DeliveryId, int]]) -> list[None]:
        await deliveries.put_back(self._deps.store, leased)
        return [None] * len(leased)


def _count(made: Try) -> None:
    code = made.status_code
    metrics.TRIES.add(made.status, made.outcome if code is None else f"{code // 100}xx")
    if made.outcome != "unsigned":
        metrics.DELIVERY_S.note(made.duration_ms / 1000)


async def _either(event: asyncio.Event, timeout_s: float) -> None:
    """Wait for the event, or until the time is up."""
    with suppress(TimeoutError):
        await asyncio.wait_for(event.wait(), timeout_s)
