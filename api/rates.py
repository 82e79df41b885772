"""Rate limits: each process decides by itself, and tells the others through Redis soon after.

A request never waits for Redis in ordinary traffic. What it spends is noted here at once and added
up in Redis with everything else that was spent within `REST_S`; the answer says what all processes
together have let through. A process may be ahead of that by a share of the quota or by one batch,
not by more: whoever would have it wait longer does wait. While Redis is away each process goes on
by what it knows, so that every one of them lets a whole quota through.
"""

import asyncio
import math
from collections.abc import Mapping, Sequence
from enum import Enum
from typing import Final

from redis import RedisError

from shared import log
from shared.batching import Batcher
from shared.deps import Deps, Recent
from shared.domain import rates
from shared.domain.rates import WINDOW_S, Quota, Verdict
from shared.errors import RateLimitedError
from shared.queue.port import Spending
from shared.settings import Settings

COUNTS: Final = "counts"
"""In a route's `opt`: what it counts as, `REQUEST` where it says nothing."""
REST_S: Final = 0.02
SHARE: Final = 20  # a process is ahead of Redis by this part of a quota at most
PATIENCE_S: Final = 0.1
AWAY_S: Final = 1.0
CALLERS: Final = 20_000

_log = log.get(__name__)


class Counts(Enum):
    """What a request is counted as. A batch is as many submissions as it has items."""

    REQUEST = "requests"
    SUBMISSION = "submissions"
    BATCH = "batch"


class _Caller:
    """What one caller spent of one quota; `paid_at` is on the loop's clock."""

    __slots__ = ("name", "paid_at", "quota", "share", "telling", "untold")

    def __init__(self, quota: Quota, whose: str) -> None:
        self.name = f"{quota.name}:{whose}"
        self.quota = quota
        self.share = max(quota.amount // SHARE, 1)
        self.paid_at = 0.0
        self.untold = 0
        self.telling: asyncio.Future[None] | None = None


class Limiter:
    """The limits of one process."""

    def __init__(self, deps: Deps) -> None:
        settings = deps.settings
        self._deps = deps
        self._callers: Recent[tuple[str, str], _Caller] = Recent(CALLERS)
        self._quotas = _quotas(settings)
        self._failures = _quota("failures", settings.rate_failures_per_minute, settings)
        self._sums = Batcher(self._add_up, is_shared=lambda _: True, rest_s=REST_S)
        self._away_until = 0.0
        self._away = log.Spell(_log, "rates_counted_alone", "rates_counted_together")

    async def spend(
        self, whose: str, counts: Counts, document: object
    ) -> Sequence[tuple[str, str]]:
        """Count a request; answers the header fields that say what is left.

        `document` is the request's body. Raises `RateLimitedError`.
        """
        quota = self._quotas[counts]
        if quota is None:
            return ()
        cost = _items(document) if counts is Counts.BATCH else 1
        verdict = await self._spend(quota, whose, cost)
        if not verdict.admitted:
            raise _too_many(quota, verdict, f"{quota.amount} {quota.name} a minute")
        return _fields(quota, verdict)

    def refusal(self, address: str) -> RateLimitedError | None:
        """The error for an address from which too many requests came without a good key."""
        quota = self._failures
        caller = None if quota is None else self._callers.get((quota.name, address))
        if quota is None or caller is None:
            return None
        ahead_s = max(caller.paid_at - asyncio.get_running_loop().time(), 0.0)
        verdict = rates.spend(quota, ahead_s, 1)
        return None if verdict.admitted else _too_many_failures(quota, verdict)

    async def failed(self, address: str) -> None:
        """Count a request without a good key. Raises `RateLimitedError` when they are too many."""
        quota = self._failures
        if quota is not None:
            verdict = await self._spend(quota, address, 1)
            if not verdict.admitted:
                raise _too_many_failures(quota, verdict)

    async def close(self) -> None:
        """Tell the others what was spent until now."""
        await self._sums.drain()

    async def _spend(self, quota: Quota, whose: str, cost: int) -> Verdict:
        caller = self._callers.get((quota.name, whose))
        if caller is None:
            caller = _Caller(quota, whose)
            self._callers.put((quota.name, whose), caller)
        if cost > caller.share:
            await self._hear(caller)
        while caller.untold and caller.untold + cost > caller.share and not self._alone():
            await self._hear(caller)
        now = asyncio.get_running_loop().time()
        verdict = rates.spend(quota, max(caller.paid_at - now, 0.0), cost)
        if verdict.admitted:
            caller.paid_at = now + verdict.ahead_s
            caller.untold += min(cost, quota.amount)
            _ = self._tell(caller)
        return verdict

    def _alone(self) -> bool:
        return asyncio.get_running_loop().time() < self._away_until

    def _tell(self, caller: _Caller) -> asyncio.Future[None]:
        telling = caller.telling
        if telling is None or telling.done():
            telling = caller.telling = self._sums.enqueue(caller)
        return telling

    async def _hear(self, caller: _Caller) -> None:
        """Wait until what all processes spent is known here, if that does not take long."""
        if self._alone():
            return
        try:
            async with asyncio.timeout(PATIENCE_S + REST_S):
                await asyncio.shield(self._tell(caller))
        except (RedisError, OSError, TimeoutError):
            self._away_until = asyncio.get_running_loop().time() + AWAY_S

    async def _add_up(self, callers: Sequence[_Caller]) -> list[None]:
        sent = [caller.untold for caller in callers]
        try:
            ahead_s = await self._deps.lanes.spend(
                [
                    Spending(caller.name, units * caller.quota.interval_s)
                    for caller, units in zip(callers, sent, strict=True)
                ]
            )
        except (RedisError, OSError) as error:
            self._away.failed(error)
            for caller, units in zip(callers, sent, strict=True):
                caller.untold -= units  # when Redis is back, nobody has to pay for every process
            raise
        self._away.went_well()
        now = asyncio.get_running_loop().time()
        for caller, units, ahead in zip(callers, sent, ahead_s, strict=True):
            caller.untold -= units
            untold_s = caller.untold * caller.quota.interval_s
            caller.paid_at = max(caller.paid_at, now + ahead + untold_s)
            if caller.untold:
                caller.telling = self._sums.enqueue(caller)
        return [None] * len(callers)


def _quotas(settings: Settings) -> Mapping[Counts, Quota | None]:
    submissions = _quota("submissions", settings.rate_submissions_per_minute, settings)
    requests = _quota("requests", settings.rate_requests_per_minute, settings)
    return {
        Counts.REQUEST: requests,
        Counts.SUBMISSION: submissions,
        Counts.BATCH: submissions,
    }


def _quota(name: str, amount: int, settings: Settings) -> Quota | None:
    return Quota(name, amount) if amount and not settings.dev_mode else None


def _items(document: object) -> int:
    """How many runs a batch asks for; what is no list is refused later, and counts as one."""
    found = document.get("runs") if isinstance(document, dict) else None
    return max(len(found), 1) if isinstance(found, list) else 1


def _fields(quota: Quota, verdict: Verdict) -> Sequence[tuple[str, str]]:
    """As draft-ietf-httpapi-ratelimit-headers has them."""
    return (
        ("RateLimit-Policy", f'"{quota.name}";q={quota.amount};w={WINDOW_S}'),
        ("RateLimit", f'"{quota.name}";r={verdict.remaining};t={math.ceil(verdict.ahead_s)}'),
    )


def _too_many(quota: Quota, verdict: Verdict, limit: str) -> RateLimitedError:
    seconds = max(math.ceil(verdict.retry_s), 1)
    return RateLimitedError(
        f"{limit} are the limit; try again in {seconds} seconds.",
        headers={"Retry-After": str(seconds), **dict(_fields(quota, verdict))},
    )


def _too_many_failures(quota: Quota, verdict: Verdict) -> RateLimitedError:
    return _too_many(quota, verdict, f"{quota.amount} requests a minute without a good API key")
