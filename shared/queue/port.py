"""What the rest of the program knows of the queue: ring, cancel, count. Never truth."""

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Protocol

import msgspec

from shared.domain.states import Lane
from shared.ids import RunId


class Ring(msgspec.Struct, frozen=True):
    """Wake a worker for a run: now, or from `due_ms` on (Unix milliseconds, rounded up)."""

    run_id: RunId
    lane: Lane
    due_ms: int | None = None


class Spending(msgspec.Struct, frozen=True):
    """What a caller of this name spent since it was last told, in seconds of its quota."""

    name: str
    seconds: float


class Dispatcher(Protocol):
    """The engine behind the lanes. Every method may raise `redis.RedisError`."""

    async def ring(self, ring: Ring) -> None:
        """Put one id into its lane and wake a worker."""
        ...

    async def ring_many(self, rings: Sequence[Ring]) -> None:
        """The same for many, in chunks of at most 500."""
        ...

    async def cancel(self, run_id: RunId) -> None:
        """Tell whichever worker runs it to stop at once (pub/sub; may reach nobody)."""
        ...

    async def announce(self, run_ids: Sequence[RunId]) -> None:
        """Tell whoever waits for these runs that they are over (pub/sub; may reach nobody)."""
        ...

    def announced(self) -> AsyncIterator[Sequence[RunId]]:
        """Yield what `announce` names from now on, for ever; nothing at first, that we hear."""
        ...

    async def waiting(self) -> Mapping[Lane, int]:
        """How many ids wait in each lane, due or not."""
        ...

    async def writable(self) -> bool:
        """Whether it takes rings: one that is full, or a replica, answers and refuses them."""
        ...

    async def missing(self, rings: Sequence[Ring]) -> Sequence[Ring]:
        """Those of the given that no lane holds."""
        ...

    async def spend(self, spendings: Sequence[Spending]) -> Sequence[float]:
        """Add up what callers spent of their quotas; how many seconds ahead of now each is then."""
        ...

    async def emptied(self) -> bool:
        """Whether Redis lost everything since the last call (the sentinel key `rl:alive`)."""
        ...

    async def pause(self, lane: Lane) -> None:
        """Let no worker claim from this lane; rings still enter it."""
        ...

    async def resume(self, lane: Lane) -> None:
        """Let workers claim from this lane again."""
        ...

    async def paused(self) -> frozenset[Lane]:
        """The lanes paused here."""
        ...
