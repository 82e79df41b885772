"""What use cases are handed: settings, time, chance, the store, the lanes, and the batchers."""

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from random import Random
from typing import Generic, TypeVar
from uuid import UUID

from shared import crashpoints, metrics
from shared.batching import Batcher
from shared.clock import Clock
from shared.domain import versions
from shared.domain.aliases import Aliases
from shared.domain.price_book import PriceBook
from shared.domain.versions import CompiledVersion
from shared.ids import RunId, VersionId
from shared.queue.port import Dispatcher, Ring
from shared.settings import Settings
from shared.store import flow_runs, reading, submitting
from shared.store.database import Store, away
from shared.store.flow_runs import Facts
from shared.store.submitting import NewRun, Stale, Stored, Taken
from shared.store.workspaces import KnownKey
from shared.tasks import SingleFlight
from shared.vault import Vault

MAX_FACTS = 20  # each with all that was sent and answered, which may be much

Key = TypeVar("Key")
Value = TypeVar("Value")


class Recent(Generic[Key, Value]):
    """A bounded cache that forgets what was used longest ago."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._entries: OrderedDict[Key, Value] = OrderedDict()

    def get(self, key: Key) -> Value | None:
        value = self._entries.get(key)
        if value is not None:
            self._entries.move_to_end(key)
        return value

    def put(self, key: Key, value: Value) -> None:
        self._entries[key] = value
        self._entries.move_to_end(key)
        if len(self._entries) > self._size:
            self._entries.popitem(last=False)

    def discard(self, key: Key) -> None:
        self._entries.pop(key, None)


class Later(Generic[Value]):
    """What takes long to make: made beside the loop when it is first asked for, then kept."""

    def __init__(self, make: Callable[[], Value]) -> None:
        self._make = make
        self._making: asyncio.Task[Value] | None = None

    async def get(self) -> Value:
        """Wait until it is there; who stops waiting does not stop the making."""
        made = self._making
        if made is None or (made.done() and (made.cancelled() or made.exception())):
            made = self._making = asyncio.create_task(asyncio.to_thread(self._make))
        return await asyncio.shield(made)


@dataclass(frozen=True, slots=True)
class CheckedKey:
    """A key that was good at `checked_at` (monotonic seconds)."""

    known: KnownKey
    checked_at: float


@dataclass(frozen=True, slots=True)
class Target:
    """What a slug, a version's name and an environment's name led to, at `catalog_version`.

    `accounted` says that the workspace is metered or has budgets.
    """

    catalog_version: int
    prompt_id: UUID
    version_id: VersionId
    tag: str | None
    environment_id: UUID
    compiled: CompiledVersion
    aliases: Aliases
    accounted: bool = False
    max_queued_runs: int | None = None


@dataclass(slots=True)
class Backlog:
    """What this process knows of the runs that wait in an environment.

    `room` more may be taken without counting anew until `good_until`; `too_many` or more are
    refused until `full_until` (monotonic seconds). `entering` are being stored: a count may or may
    not have seen them.
    """

    room: int = 0
    renew_at: float = 0.0
    good_until: float = 0.0
    too_many: int = 0
    full_until: float = 0.0
    entering: int = 0
    counting: asyncio.Task[None] | None = None


@dataclass(frozen=True)
class Deps:
    """One state object for all use cases of a process."""

    settings: Settings
    clock: Clock
    random: Random
    store: Store
    lanes: Dispatcher
    vault: Vault
    submissions: Batcher[NewRun, Stored | Stale | Taken]
    rings: Batcher[Ring, None]
    announcements: Batcher[RunId, None]
    facts: Batcher[RunId, Facts | None]
    versions: Recent[tuple[VersionId, str | None], CompiledVersion] = field(
        default_factory=lambda: Recent(2_000)
    )
    targets: Recent[UUID, dict[tuple[str, str, str | None], Target]] = field(
        default_factory=lambda: Recent(2_000)
    )
    resolving: SingleFlight[tuple[UUID, str, str, str | None], Target] = field(
        default_factory=SingleFlight
    )
    keys: Recent[str, CheckedKey] = field(default_factory=lambda: Recent(10_000))
    finding_keys: SingleFlight[str, KnownKey | None] = field(default_factory=SingleFlight)
    turns: Recent[tuple[UUID, str], Iterator[int]] = field(default_factory=lambda: Recent(10_000))
    has_room: Recent[tuple[UUID, UUID], float] = field(default_factory=lambda: Recent(10_000))
    used_keys: set[UUID] = field(default_factory=set)
    backlogs: Recent[UUID, Backlog] = field(default_factory=lambda: Recent(10_000))
    leaving: asyncio.Event = field(default_factory=asyncio.Event)
    """Set once the process was asked to end."""
    prices: Later[PriceBook] = field(default_factory=lambda: Later(PriceBook))

    async def compiled(
        self, version_id: VersionId, body: str | None = None, *, entrypoint: str | None = None
    ) -> CompiledVersion:
        """A version split for rendering; read from the store unless known or given.

        Raises `UnacceptableError` for an entrypoint that it does not have.
        """
        key = (version_id, entrypoint)
        found = self.versions.get(key)
        if found is None:
            body = body or await reading.version_body(self.store, version_id)
            found = versions.compile_version(versions.from_json(body), entrypoint)
            self.versions.put(key, found)
        return found


def build(
    settings: Settings, clock: Clock, random: Random, store: Store, lanes: Dispatcher
) -> Deps:
    """Put a process's state together. Raises `VaultError` for an unreadable master key."""

    async def insert(new: Sequence[NewRun]) -> list[Stored | Stale | Taken]:
        crashpoints.reach("before_commit")
        return await submitting.insert(store, new)

    async def ring(rings: Sequence[Ring]) -> list[None]:
        await lanes.ring_many(rings)
        return [None] * len(rings)

    async def announce(run_ids: Sequence[RunId]) -> list[None]:
        await lanes.announce(run_ids)
        return [None] * len(run_ids)

    return Deps(
        settings=settings,
        clock=clock,
        random=random,
        store=store,
        lanes=lanes,
        vault=Vault.parse(settings.master_key.get_secret_value()),
        submissions=Batcher(
            insert,
            size_of=lambda new: len(new.inputs) + 1024,
            is_shared=away,
            sized=metrics.sized("submissions"),
        ),
        rings=Batcher(ring, is_shared=lambda _: True, sized=metrics.sized("rings")),
        announcements=Batcher(
            announce, is_shared=lambda _: True, sized=metrics.sized("announcements")
        ),
        facts=_facts(store),
    )


def _facts(store: Store) -> Batcher[RunId, Facts | None]:
    read, sized = partial(flow_runs.facts, store), metrics.sized("facts")
    return Batcher(read, is_shared=away, max_items=MAX_FACTS, sized=sized)
