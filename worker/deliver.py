"""Delivering events to webhooks: at once after a finish, and again by due time from the store."""

import asyncio
from base64 import b64decode
from collections import deque
from collections.abc import Callable
from typing import Any

import msgspec
import psycopg

from shared import crashpoints, log
from shared.batching import Batcher
from shared.clock import rfc3339
from shared.deps import Deps
from shared.domain import backoff, signing
from shared.domain.states import WebhookFormat
from shared.store import database, deliveries
from shared.store.deliveries import Try
from shared.store.ending import DueDelivery
from shared.vault import VaultError
from worker.http import DeliveryFailure, FailureReason, GuardedClient, Response
from worker.patience import patiently

MAX_AT_ONCE = 500
_COMPLETED = frozenset({"run.succeeded", "run.incomplete"})
_GONE = 410
_TOLD = frozenset({429, 502, 503, 504})

_log = log.get(__name__)
_headers = msgspec.json.Decoder(dict[str, str])


class Deliverer:
    """Sends what is leased to this process, and looks for what has fallen due."""

    def __init__(self, deps: Deps, client: GuardedClient) -> None:
        self._deps = deps
        self._client = client
        self._sending: set[asyncio.Task[None]] = set()
        self._backlog: deque[tuple[float, DueDelivery]] = deque()
        self._tries: Batcher[Try, bool] = Batcher(
            lambda batch: deliveries.record(deps.store, batch), is_shared=database.concerns_all
        )

    def send(self, due: DueDelivery) -> None:
        """Send one leased delivery in the background, now or when its turn comes.

        What is still waiting when half its lease is over is left alone: it is found again.
        """
        if len(self._sending) >= MAX_AT_ONCE:
            give_up_at = self._deps.clock.monotonic() + self._deps.settings.webhook_lease_s / 2
            self._backlog.append((give_up_at, due))
            return
        task = asyncio.create_task(self._send(due))
        self._sending.add(task)
        task.add_done_callback(self._sent)

    async def poll_forever(self, may_start: Callable[[], bool]) -> None:
        """Look for due deliveries, again at once while there are many."""
        settings = self._deps.settings
        while True:
            room = MAX_AT_ONCE - len(self._sending) - len(self._backlog)
            found: list[DueDelivery] = []
            if room > 0 and may_start():
                try:
                    found = await deliveries.claim_due(
                        self._deps.store, limit=min(room, 100), lease_s=settings.webhook_lease_s
                    )
                except psycopg.Error as error:
                    if not database.away(error):
                        raise
                    _log.warning("deliveries_unreadable", error=type(error).__name__)
            if found:
                crashpoints.reach("after_delivery_claim")
            for due in found:
                self.send(due)
            if len(found) < min(room, 100) or not found:
                await asyncio.sleep(settings.webhook_poll_s)

    async def drain(self, timeout_s: float) -> None:
        """Wait for what is being sent; the rest is found again by others."""
        deadline = self._deps.clock.monotonic() + timeout_s
        while self._sending and (left_s := deadline - self._deps.clock.monotonic()) > 0:
            await asyncio.wait(self._sending, timeout=left_s)
        self._backlog.clear()
        for task in self._sending:
            task.cancel()

    def _sent(self, task: "asyncio.Task[None]") -> None:
        self._sending.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("delivery_raised", exc_info=error)
        while self._backlog and len(self._sending) < MAX_AT_ONCE:
            give_up_at, due = self._backlog.popleft()
            if self._deps.clock.monotonic() < give_up_at:
                self.send(due)

    async def _send(self, due: DueDelivery) -> None:
        started_at = self._deps.clock.now()
        base = Try(
            delivery_id=str(due.id),
            lease_no=due.lease_no,
            status="pending",
            started_at=rfc3339(started_at),
            duration_ms=0,
            outcome="",
        )
        try:
            headers, body = self._request(due, int(started_at.timestamp()))
        except (VaultError, signing.SecretError) as error:
            _log.error("delivery_unsigned", delivery=str(due.id), error=str(error))
            made = msgspec.structs.replace(base, outcome="unsigned", excerpt=str(error))
            await self._record(self._next(due, made, None))
            return
        try:
            response = await self._client.post(due.url, headers=headers, body=body)
        except DeliveryFailure as failure:
            made = msgspec.structs.replace(
                base,
                outcome=failure.reason.value,
                excerpt=failure.message,
                duration_ms=failure.duration_ms,
                # what our resolver knows of the inside is nobody's business
                address=None
                if failure.reason is FailureReason.BLOCKED_ADDRESS
                else failure.address,
            )
            await self._record(self._next(due, made, None))
            return
        crashpoints.reach("after_delivery_200")
        await self._record(self._judged(due, base, response))

    def _judged(self, due: DueDelivery, base: Try, response: Response) -> Try:
        made = msgspec.structs.replace(
            base,
            outcome="answered",
            status_code=response.status,
            excerpt=response.excerpt,
            duration_ms=response.duration_ms,
            address=response.address,
        )
        if 200 <= response.status < 300:  # noqa: PLR2004 (the 2xx class)
            return msgspec.structs.replace(made, status="succeeded")
        if response.status == _GONE:
            return msgspec.structs.replace(made, status="exhausted")
        told = (
            backoff.parse_retry_after(response.headers.get("retry-after"), self._deps.clock.now())
            if response.status in _TOLD
            else None
        )
        return self._next(due, made, told)

    def _next(self, due: DueDelivery, made: Try, told_s: float | None) -> Try:
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

    async def _record(self, made: Try) -> None:
        if not await patiently(lambda: self._tries.submit(made)):
            _log.warning("delivery_lease_lost", delivery=made.delivery_id)

    def _request(self, due: DueDelivery, timestamp_s: int) -> tuple[dict[str, str], bytes]:
        secrets = [
            self._deps.vault.open(
                b64decode(sealed), "webhook_secrets", secret_id, due.workspace_id
            ).decode()
            for secret_id, sealed in due.secrets
        ]
        if not secrets:
            raise signing.SecretError("The endpoint has no secret to sign with.")
        headers = self._own_headers(due) | {"content-type": "application/json"}
        if due.format == WebhookFormat.PROMPTJUGGLER:
            body = _promptjuggler_body(due)
            # Signed with the oldest live secret: this format's receivers know only one.
            signed = signing.sign_promptjuggler(secrets[-1], timestamp_s=timestamp_s, body=body)
        else:
            body = due.body.encode() if due.include_output else _without_output(due.body)
            signed = signing.sign_standard(
                secrets, event_id=str(due.event_id), timestamp_s=timestamp_s, body=body
            )
        return headers | signed, body

    def _own_headers(self, due: DueDelivery) -> dict[str, str]:
        """The headers that the endpoint's owner wants along, judged when they were set."""
        if due.headers is None:
            return {}
        place = ("webhook_endpoints", "headers", due.endpoint_id, due.workspace_id)
        return _headers.decode(self._deps.vault.open(b64decode(due.headers), *place))


def _promptjuggler_body(due: DueDelivery) -> bytes:
    status = "completed" if due.event_type in _COMPLETED else "failed"
    return msgspec.json.encode({"id": due.run_id, "status": status})


def _without_output(body: str) -> bytes:
    event: dict[str, Any] = msgspec.json.decode(body)
    run = event.get("data", {}).get("run", {})
    run.pop("output", None)
    run.pop("outputTruncated", None)
    return msgspec.json.encode(event)
