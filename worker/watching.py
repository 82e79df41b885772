"""What the worker counts and traces, around the parts that do the work."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Protocol

import msgspec

from shared import metrics, tracing
from shared.clock import Clock
from shared.domain.completions import Completion, CompletionRequest, ProviderError, Usage
from shared.domain.price_book import PriceBook
from shared.domain.pricing import cost_of
from shared.domain.states import AttemptOutcome, RunStatus
from shared.ids import RunId
from shared.store.claiming import ClaimedRun
from shared.store.ending import Moved, Outcome
from shared.tracing import Kind
from worker import traces
from worker.breaker import Key
from worker.providers.base import Provider

_NANO = 1_000_000_000
_traced: dict[tuple[str, int], tracing.Span] = {}
"""The spans of runs under way, by id and claim."""


class Claims(Protocol):
    """What the claim loop asks of the code that executes runs; see `worker.handler.Handler`."""

    def may_start(self) -> bool: ...
    async def take(self, ids: Sequence[RunId]) -> Mapping[RunId, ClaimedRun | None]: ...
    async def run(self, claimed: ClaimedRun) -> None: ...


class WatchedRuns:
    """A handler that counts what it hands on."""

    def __init__(self, inner: Claims) -> None:
        self._inner = inner

    def may_start(self) -> bool:
        return self._inner.may_start()

    async def take(self, ids: Sequence[RunId]) -> Mapping[RunId, ClaimedRun | None]:
        return await self._inner.take(ids)

    async def run(self, claimed: ClaimedRun) -> None:
        metrics.CLAIMED.add(claimed.lane.value)
        if claimed.claim_no == 1:
            threaded = "no" if claimed.turn is None else "yes"
            metrics.WAITED.note(max(claimed.waited_s, 0), claimed.lane.value, threaded)
        if tracing.on():
            await self._traced(claimed)
        else:
            await self._inner.run(claimed)

    async def _traced(self, claimed: ClaimedRun) -> None:
        """Carry a run as a part of its trace, behind the time it has waited."""
        about = traces.of_run(claimed)
        waited = tracing.begin(
            "wait in lane", Kind.INTERNAL, claimed.traceparent, about, ago_s=claimed.waited_s
        )
        waited.end()
        claim = (str(claimed.id), claimed.claim_no)
        parent = claimed.traceparent or waited.traceparent
        with tracing.stretch("run", Kind.CONSUMER, parent, about) as span:
            _traced[claim] = span
            try:
                await self._inner.run(
                    msgspec.structs.replace(claimed, traceparent=span.traceparent)
                )
            finally:
                del _traced[claim]


class WatchedProvider:
    """A provider whose calls are counted: outcome, time, tokens, cost."""

    def __init__(self, inner: Provider, prices: PriceBook, clock: Clock) -> None:
        self._inner = inner
        self._prices = prices
        self._clock = clock
        self.name = inner.name

    async def complete(self, request: CompletionRequest) -> Completion:
        if not tracing.on():
            return await self._counted(request)
        about = traces.of_call(self.name, request)
        name = f"chat {request.model}"
        with tracing.stretch(name, Kind.CLIENT, request.traceparent, about) as span:
            try:
                completion = await self._counted(
                    msgspec.structs.replace(request, traceparent=span.traceparent)
                )
            except ProviderError as error:
                span.note(traces.of_failure(error))
                span.fail(error.code)
                raise
            span.note(traces.of_answer(completion))
        return completion

    async def aclose(self) -> None:
        await self._inner.aclose()

    async def _counted(self, request: CompletionRequest) -> Completion:
        model = label_of(self._prices, self.name, request.model)
        outcome, began_s = AttemptOutcome.UNKNOWN.value, self._clock.monotonic()
        try:
            completion = await self._inner.complete(request)
            outcome = _outcome_of(completion)
            self._used(model, request.model, completion.usage, completion.service_tier)
        except ProviderError as error:
            outcome = error.kind.value
            if error.usage is not None:
                self._used(model, request.model, error.usage, None)
            raise
        except asyncio.CancelledError:
            outcome = AttemptOutcome.CANCELED.value
            raise
        finally:
            metrics.CALLS.add(self.name, model, outcome)
            metrics.CALL_S.note(self._clock.monotonic() - began_s, self.name, model)
        return completion

    def _used(self, label: str, model: str, usage: Usage, tier: str | None) -> None:
        for kind in ("input", "cache_write", "cache_read", "output"):
            if tokens := getattr(usage, kind):
                metrics.TOKENS.add(self.name, label, kind, by=tokens)
        prices = self._prices.prices_of(self.name, model, tier, self._clock.now())
        if prices is not None:
            dollars = cost_of(usage, prices).total / _NANO
            metrics.COST_USD.add(self.name, label, by=dollars)


def label_of(prices: PriceBook, provider: str, model: str) -> str:
    """A model's name for labels."""
    return metrics.MODELS.label(provider, prices.name_of(provider, model))


def opening(prices: PriceBook) -> Callable[[Key], None]:
    """Count the openings of breakers."""

    def count(key: Key) -> None:
        provider, _, model = key
        metrics.BREAKER_OPENINGS.add(provider, label_of(prices, provider, model))

    return count


Settle = Callable[[Sequence[Outcome]], Awaitable[list[Moved]]]


def settling(write: Settle) -> Settle:
    """Count what becomes of the runs."""

    async def counted(batch: Sequence[Outcome]) -> list[Moved]:
        moved = await write(batch)
        for outcome, one in zip(batch, moved, strict=True):
            _count(outcome, one)
            if span := _traced.get((outcome.run_id, outcome.claim_no)):
                span.note({"runlane.run.status": one.status or outcome.status})
                if one.status == RunStatus.FAILED:
                    span.fail(outcome.error_code or metrics.OTHER)
        return moved

    return counted


def _count(outcome: Outcome, moved: Moved) -> None:
    if not moved.applied:
        if not moved.known:
            metrics.LATE_RESULTS.add()
    elif moved.status == RunStatus.QUEUED:
        metrics.REQUEUED.add(outcome.status_reason or metrics.OTHER)
    elif moved.status is not None:
        meant = moved.status == outcome.status  # else a cancel came first
        reason = outcome.error_code or outcome.incomplete_reason
        metrics.ENDED.add(moved.status, (reason if meant else None) or "")


def _outcome_of(completion: Completion) -> str:
    whole = completion.incomplete is None
    return (AttemptOutcome.SUCCEEDED if whole else AttemptOutcome.INCOMPLETE).value
