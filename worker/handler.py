"""What the claim loop asks of the code that executes runs, and tells of itself."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Generic, Protocol, TypeVar

import msgspec
from arq.worker import Function

from shared.domain.states import Lane
from shared.ids import RunId
from shared.queue.lanes import RUN

Claimed = TypeVar("Claimed")


class NotNowError(Exception):
    """What taking runs needs is away, and whoever raises this has said so in the log."""


class Handler(Protocol[Claimed]):
    """What the claim loop does with what it claimed. What these raise is logged, no more."""

    def may_start(self) -> bool:
        """Whether this process may start anything; asked before every claim."""
        ...

    async def take(self, ids: Sequence[RunId]) -> Mapping[RunId, Claimed | None]:
        """Claim these in the database; `None` or absence: there is nothing to do.

        Calls overlap. When it raises, the ids go back into their lanes.
        """
        ...

    async def run(self, claimed: Claimed) -> None:
        """Carry one claimed run to its end. On `CancelledError`, `stop_reason` says why."""
        ...


class Taken(msgspec.Struct, Generic[Claimed], frozen=True):
    """A run claimed straight from the database."""

    run_id: RunId
    lane: Lane
    claimed: Claimed


ClaimFromDatabase = Callable[[Mapping[Lane, int]], Awaitable[Sequence[Taken[Claimed]]]]
"""Claims at most so many due runs of each lane, without Redis."""


class Counts(msgspec.Struct, frozen=True):
    """What a worker is doing, for readiness and metrics. `running` are slots held."""

    running: Mapping[Lane, int]
    free: int
    redis_away: bool


async def _run_is_not_for_arq(ctx: dict[Any, Any], *args: Any, **kwargs: Any) -> None:
    """Reserve the name `run`: the claim loop hands such jobs to its handler instead."""


RUN_JOB = Function(RUN, _run_is_not_for_arq, None, None, None, None)
