"""How many runs may wait in an environment: counted now and then, never for each submission.

A count says how much room there is. A process then takes a share of that, for a time in which the
others can hardly have filled the rest, before it counts again: seldom while there is plenty of
room, before every submission where there is next to none. So one process keeps to the limit, and
several pass it by what the others were storing or still had of their shares. Where counting takes
long, as where hundreds of thousands wait, a count is good for ten times as long as it took, and
nobody waits for one longer than `PATIENCE_S`: then more may get in.
"""

import asyncio
from collections import Counter
from collections.abc import Sequence
from uuid import UUID

import psycopg

from shared import log
from shared.deps import Backlog, Deps
from shared.errors import QuotaExceededError
from shared.settings import Settings
from shared.store import backlogs
from shared.store.submitting import NewRun

SHARE = 16
FASTEST_PER_S = 20_000  # all processes together are not expected to submit faster
GOOD_S = 5.0
FULL_S = 0.1
COUNTS_APART = 10  # a count is followed by so many times as much without one
PATIENCE_S = 0.5

_log = log.get(__name__)


def cap(settings: Settings, own: int | None) -> int:
    """How many may wait in an environment that allows so many itself; 0: any number."""
    return min(own or settings.queued_runs_max, settings.queued_runs_max or own or 0)


async def enter(deps: Deps, new: Sequence[NewRun]) -> None:
    """Make sure that there is room for runs about to be stored; `entered` has to follow.

    Raises `QuotaExceededError`: then nothing has entered.
    """
    wanted = _by_environment(new)
    for (environment_id, most), runs in wanted.items():
        backlog = deps.backlogs.get(environment_id)
        if backlog is None:
            backlog = Backlog()
            deps.backlogs.put(environment_id, backlog)
        await _make_room(deps, backlog, environment_id, (most, runs))
    for (environment_id, _), runs in wanted.items():
        found = deps.backlogs.get(environment_id)
        if found is not None:
            found.room -= runs
            found.entering += runs


def entered(deps: Deps, new: Sequence[NewRun]) -> None:
    """The runs are stored, or will not be."""
    for (environment_id, _), runs in _by_environment(new).items():
        backlog = deps.backlogs.get(environment_id)
        if backlog is not None:
            backlog.entering = max(backlog.entering - runs, 0)


def _by_environment(new: Sequence[NewRun]) -> Counter[tuple[UUID, int]]:
    return Counter(
        (UUID(run.environment_id), run.max_queued_runs) for run in new if run.max_queued_runs
    )


async def _make_room(
    deps: Deps, backlog: Backlog, environment_id: UUID, wanted: tuple[int, int]
) -> None:
    most, runs = wanted
    while True:
        now = deps.clock.monotonic()
        if now < backlog.good_until and backlog.room >= runs:
            if now >= backlog.renew_at:
                _ = _count(deps, backlog, environment_id, wanted)
            return
        if now < backlog.full_until and runs >= backlog.too_many:
            raise _full(most)
        counting = _count(deps, backlog, environment_id, wanted)
        done, _ = await asyncio.wait({counting}, timeout=PATIENCE_S)
        if not done:
            return  # somebody who counts for so long has many to count, and the limit is far more


def _count(
    deps: Deps, backlog: Backlog, environment_id: UUID, wanted: tuple[int, int]
) -> asyncio.Task[None]:
    if backlog.counting is None or backlog.counting.done():
        backlog.counting = asyncio.create_task(_counted(deps, backlog, environment_id, wanted))
    return backlog.counting


async def _counted(
    deps: Deps, backlog: Backlog, environment_id: UUID, wanted: tuple[int, int]
) -> None:
    """Count, and say how much room that leaves for how long. One that fails leaves some."""
    most, runs = wanted
    began, entering = deps.clock.monotonic(), backlog.entering
    try:
        waiting = await backlogs.waiting(deps.store, environment_id, most)
    except psycopg.Error as error:
        _log.warning("backlog_uncounted", error=type(error).__name__)
        waiting = 0
    now = deps.clock.monotonic()
    pause_s = COUNTS_APART * (now - began)
    if most - waiting < runs:
        backlog.too_many, backlog.full_until = runs, now + max(FULL_S, pause_s)
        return
    room = most - waiting - max(entering, backlog.entering)
    if room < runs:
        return  # whether there is room only those know who are being stored: count again
    backlog.room = max(room // SHARE, runs)
    good_s = min(max(backlog.room / FASTEST_PER_S, pause_s), GOOD_S)
    backlog.renew_at, backlog.good_until = now + good_s / 2, now + good_s


def _full(most: int) -> QuotaExceededError:
    return QuotaExceededError(f"{most:,} runs wait in this environment: that is the limit.")
