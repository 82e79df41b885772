"""Tasks: doing once what many ask for at the same time, and ending those that never end."""

import asyncio
from collections.abc import Callable, Coroutine, Iterable
from typing import Any, Generic, TypeVar

Key = TypeVar("Key")
Value = TypeVar("Value")

CANCEL_S = 0.5
CANCELS = 20


class SingleFlight(Generic[Key, Value]):
    """Whoever asks for what is being found waits for it instead of asking again."""

    def __init__(self) -> None:
        self._flights: dict[Key, asyncio.Task[Value]] = {}

    async def get(self, key: Key, find: Callable[[], Coroutine[Any, Any, Value]]) -> Value:
        """What `find` returns or raises; who stops waiting does not stop the finding."""
        flight = self._flights.get(key)
        if flight is None:
            flight = self._flights[key] = asyncio.create_task(find())
            flight.add_done_callback(lambda done: self._landed(key, done))
        return await asyncio.shield(flight)

    def _landed(self, key: Key, flight: asyncio.Task[Value]) -> None:
        del self._flights[key]
        if not flight.cancelled():
            flight.exception()  # also where nobody waits any more


async def end(tasks: Iterable[asyncio.Task[None]]) -> None:
    """Cancel tasks and wait until they have ended, at most ten seconds.

    Once is not enough: before Python 3.12 `wait_for`, in redis-py, may swallow a cancellation.
    """
    pending = {task for task in tasks if not task.done()}
    for _ in range(CANCELS):
        if not pending:
            return
        for task in pending:
            task.cancel()
        _, pending = await asyncio.wait(pending, timeout=CANCEL_S)
