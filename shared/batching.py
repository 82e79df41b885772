"""The batcher: everything that commits goes out together, and nothing waits for company."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

Item = TypeVar("Item")
Outcome = TypeVar("Outcome")

MAX_ITEMS = 500
MAX_BYTES = 4 * 1024 * 1024
MAX_IN_FLIGHT = 2


@dataclass(slots=True)
class _Pending(Generic[Item, Outcome]):
    item: Item
    size: int
    outcome: "asyncio.Future[Outcome]"


class Batcher(Generic[Item, Outcome]):
    """Collects items that arrive while a flush is under way and flushes them in one go.

    The first item flushes at once, together with what else was submitted in the same turn of the
    event loop; there is no timer. An item outlives the caller that submitted it. A flush that
    failed is repeated item by item, so that one bad item fails alone; but a failure that
    `is_shared` fails for all its items at once: repeating it for each would only add to the load.

    For items that nobody waits for there is `rest_s`: from one flush to the next so much passes at
    least, and more go out together. `sized` is told how many items each flush holds.
    """

    def __init__(
        self,
        flush: Callable[[Sequence[Item]], Awaitable[Sequence[Outcome]]],
        *,
        size_of: Callable[[Item], int] = lambda _: 0,
        is_shared: Callable[[Exception], bool] = lambda _: False,
        max_items: int = MAX_ITEMS,
        rest_s: float = 0.0,
        sized: Callable[[int], object] = lambda _: None,
    ) -> None:
        self._flush = flush
        self._size_of = size_of
        self._is_shared = is_shared
        self._max_items = max_items
        self._rest_s = rest_s
        self._sized = sized
        self._rested_at = float("-inf")
        self._waiting: deque[_Pending[Item, Outcome]] = deque()
        self._flushes: set[asyncio.Task[None]] = set()

    async def submit(self, item: Item) -> Outcome:
        """Hand one item over and wait for its outcome; raises what its flush raised."""
        return await asyncio.shield(self.enqueue(item))

    def enqueue(self, item: Item) -> "asyncio.Future[Outcome]":
        """Hand one item over; the future answers. An outcome nobody awaits is dropped silently."""
        outcome: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        outcome.add_done_callback(_retrieve)
        self._waiting.append(_Pending(item, self._size_of(item), outcome))
        if len(self._flushes) < MAX_IN_FLIGHT and (not self._flushes or len(self._waiting) == 1):
            self._start()
        return outcome

    def withdraw(self, outcome: "asyncio.Future[Outcome]") -> bool:
        """Take back an item that no flush has taken yet; `False` when it is too late for that."""
        for pending in self._waiting:
            if pending.outcome is outcome:
                self._waiting.remove(pending)
                outcome.cancel()
                return True
        return False

    async def drain(self) -> None:
        """Wait until nothing is waiting or under way."""
        while self._flushes:
            await asyncio.wait(self._flushes)

    def _start(self) -> None:
        task = asyncio.create_task(self._run())
        self._flushes.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: "asyncio.Task[None]") -> None:
        self._flushes.discard(task)
        task.result()
        if self._waiting and len(self._flushes) < MAX_IN_FLIGHT:
            self._start()

    def _take(self) -> list[_Pending[Item, Outcome]]:
        batch: list[_Pending[Item, Outcome]] = []
        size = 0
        while self._waiting and len(batch) < self._max_items:
            size += self._waiting[0].size
            if batch and size > MAX_BYTES:
                break
            batch.append(self._waiting.popleft())
        return batch

    async def _run(self) -> None:
        if self._rest_s:
            await self._rest()
        batch = self._take()
        if not batch:
            return
        if self._waiting and len(self._flushes) < MAX_IN_FLIGHT:
            self._start()
        self._sized(len(batch))
        try:
            outcomes = await self._flush([pending.item for pending in batch])
            if len(outcomes) != len(batch):
                raise RuntimeError(f"a flush of {len(batch)} answered {len(outcomes)} outcomes")  # noqa: TRY301 (handled like any failed flush)
        except Exception as error:  # noqa: BLE001 (whatever failed belongs to the submitters)
            await self._failed(batch, error)
            return
        for pending, outcome in zip(batch, outcomes, strict=True):
            _settle(pending.outcome, outcome)

    async def _rest(self) -> None:
        loop = asyncio.get_running_loop()
        begins_at = max(loop.time(), self._rested_at)
        self._rested_at = begins_at + self._rest_s
        await asyncio.sleep(begins_at - loop.time())

    async def _failed(self, batch: list[_Pending[Item, Outcome]], error: Exception) -> None:
        left = deque(batch)
        while left and len(batch) > 1 and not self._is_shared(error):
            pending = left.popleft()
            try:
                (outcome,) = await self._flush([pending.item])
            except Exception as own:  # noqa: BLE001 (this item's own failure, or the rest's as well)
                _fail(pending.outcome, own)
                error = own
            else:
                _settle(pending.outcome, outcome)
        for pending in left:
            _fail(pending.outcome, error)


def _settle(future: "asyncio.Future[Outcome]", outcome: Outcome) -> None:
    if not future.done():
        future.set_result(outcome)


def _fail(future: "asyncio.Future[Outcome]", error: Exception) -> None:
    if not future.done():
        future.set_exception(error)


def _retrieve(future: "asyncio.Future[Outcome]") -> None:
    if not future.cancelled():
        future.exception()
