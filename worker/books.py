"""What workers write down of calls, in batches: intents before them, outcomes after them."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from uuid import UUID

from shared import metrics
from shared.batching import Batcher
from shared.deps import Deps
from shared.ids import WorkspaceId
from shared.services import billing
from shared.store import charging, claiming, database, ending
from shared.store.claiming import Intent, Refusal
from shared.store.ending import Moved, Outcome
from worker import watching

WAKE_REST_S = 0.05
AT_ONCE = 2


class Books:
    """Calls that nobody pays for go out together; those of an account with their own kind only.

    Whoever changes an account waits for its row, and so does the whole batch: one for each account
    keeps the others out of that. `AT_ONCE` leaves connections to everybody else.
    """

    def __init__(self, deps: Deps) -> None:
        self._deps = deps
        self._lease_s = deps.settings.webhook_lease_s
        self._room = asyncio.Semaphore(AT_ONCE)
        self._intents = _of_intents(lambda batch: claiming.intend(deps.store, batch))
        self._outcomes = _of_outcomes(
            lambda batch: ending.settle(deps.store, batch, lease_s=self._lease_s)
        )
        self._accounts: dict[str, _Account] = {}

    def announce(self, intent: Intent) -> "asyncio.Future[int | Refusal]":
        """Write an attempt down; the future answers its number once it is committed."""
        if intent.account is None:
            return self._intents.enqueue(intent)
        return self._account(intent.account).intents.enqueue(intent)

    def settle(self, outcome: Outcome) -> "asyncio.Future[Moved]":
        """Write an outcome down; the future answers what became of it."""
        if outcome.account is None:
            return self._outcomes.enqueue(outcome)
        return self._account(outcome.account).outcomes.enqueue(outcome)

    def _account(self, workspace: str) -> "_Account":
        found = self._accounts.get(workspace)
        if found is None:
            found = self._accounts[workspace] = _Account(
                self._deps, WorkspaceId(UUID(workspace)), self._room
            )
        return found


class _Account:
    """The batches of one account, each of them followed by the runs that waited for its room."""

    def __init__(self, deps: Deps, workspace_id: WorkspaceId, room: asyncio.Semaphore) -> None:
        self._deps = deps
        self._workspace_id = workspace_id
        self._room = room
        self.intents = _of_intents(self._intend)
        self.outcomes = _of_outcomes(self._settle)
        self._wakes: Batcher[None, None] = Batcher(self._wake, rest_s=WAKE_REST_S)

    async def _intend(self, batch: Sequence[Intent]) -> list[int | Refusal]:
        async with self._room:
            return await charging.intend(self._deps.store, batch)

    async def _settle(self, batch: Sequence[Outcome]) -> list[Moved]:
        lease_s = self._deps.settings.webhook_lease_s
        async with self._room:
            moved = await charging.settle(self._deps.store, batch, lease_s=lease_s)
        for outcome in batch:
            if outcome.attempt:
                _ = self._wakes.enqueue(None)
        return moved

    async def _wake(self, settled: Sequence[None]) -> list[None]:
        await billing.wake(self._deps, self._workspace_id, len(settled) + 1)
        return list(settled)


def _of_intents(
    write: Callable[[Sequence[Intent]], Awaitable[list[int | Refusal]]],
) -> Batcher[Intent, int | Refusal]:
    return Batcher(
        write,
        size_of=lambda intent: len(bytes(intent.messages or b"")),
        is_shared=database.concerns_all,
        sized=metrics.sized("intents"),
    )


def _of_outcomes(write: watching.Settle) -> Batcher[Outcome, Moved]:
    return Batcher(
        watching.settling(write),
        size_of=lambda outcome: 2 * ending.size_of(outcome) + 1024,
        is_shared=database.concerns_all,
        sized=metrics.sized("outcomes"),
    )
