"""Conversations: what they hold, and forgetting them."""

from uuid import UUID

import msgspec

from shared.deps import Deps
from shared.domain.audit import Action
from shared.domain.paging import Page, Slice
from shared.errors import ConflictError, ForbiddenError, NotFoundError
from shared.services import audit
from shared.services.audit import Target
from shared.services.keys import Principal
from shared.store import threads
from shared.store.database import Tx
from shared.store.paging import Listed
from shared.store.threads import MAX_CHANNELS

ERASED_AT_ONCE = 20_000


class ChannelView(msgspec.Struct, frozen=True):
    """A channel: how many runs wait for their turn in it, and how many run."""

    name: str
    waiting: int
    running: int


class ThreadView(msgspec.Struct, frozen=True, rename="camel"):
    """A thread. `channels` are the first hundred by name; `more_channels` says there are others."""

    id: str
    created_at: str
    environments: list[str]
    channels: list[ChannelView]
    more_channels: bool


async def read(deps: Deps, principal: Principal, thread_id: UUID) -> ThreadView:
    """A thread, as far as the key reaches. Raises `NotFoundError`."""
    found = await threads.find(
        deps.store, principal.workspace_id, thread_id, principal.environment_ids
    )
    if found is None:
        raise NotFoundError
    channels = [ChannelView(one.name, one.waiting, one.running) for one in found.channels]
    return ThreadView(
        id=str(thread_id),
        created_at=found.created_at,
        environments=found.environments,
        channels=channels[:MAX_CHANNELS],
        more_channels=len(channels) > MAX_CHANNELS,
    )


async def messages(
    deps: Deps, principal: Principal, thread_id: UUID, channel: str, page: Page
) -> Slice[Listed]:
    """What a channel remembers, as far as the key reaches. Raises `NotFoundError`."""
    within, workspace_id = principal.environment_ids, principal.workspace_id
    if await threads.find(deps.store, workspace_id, thread_id, within) is None:
        raise NotFoundError
    return await threads.messages(deps.store, (workspace_id, thread_id), channel, page, within)


async def delete(deps: Deps, principal: Principal, thread_id: UUID) -> None:
    """Erase what a thread remembers; its runs stay.

    A long thread is erased in several transactions; cut off between them, repeat it. Raises
    `NotFoundError`, `ForbiddenError` where others than the key's environments used the thread too,
    `ConflictError` while runs of the thread live.
    """
    erased = ERASED_AT_ONCE
    while erased == ERASED_AT_ONCE:
        async with deps.store.transaction() as tx:
            environment_ids = await _deletable(tx, principal, thread_id)
            erased = await threads.erase(tx, principal.workspace_id, thread_id, ERASED_AT_ONCE)
            if erased < ERASED_AT_ONCE:
                await threads.end(tx, principal.workspace_id, thread_id)
                target = Target("thread", thread_id, str(thread_id), tuple(environment_ids))
                await audit.note(tx, principal, Action.THREAD_DELETED, target)


async def _deletable(tx: Tx, principal: Principal, thread_id: UUID) -> list[UUID]:
    """Hold a thread, and make sure that it may go; answers the environments that used it."""
    found = await threads.hold(tx, principal.workspace_id, thread_id)
    if found is None:
        raise NotFoundError
    reached = [one for one in found if principal.reaches(one)]
    if principal.environment_ids and not reached:
        raise NotFoundError
    if len(reached) < len(found):
        raise ForbiddenError(
            "Other environments than this key's used the thread, too.",
            code="environment_forbidden",
        )
    waiting, running = await threads.live_runs(tx, principal.workspace_id, thread_id)
    if waiting or running:
        raise ConflictError(
            f"{waiting} runs of this thread wait and {running} run: let them end, or cancel them.",
            code="thread_in_use",
        )
    return reached
