"""A worker's hands without its claim loop, over a store and providers that fail as told."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import cache

import psycopg
import pytest
from psycopg.rows import TupleRow
from pydantic import SecretStr

from shared.deps import Deps
from shared.domain.completions import Completion, CompletionRequest, Usage
from shared.domain.price_book import PriceBook
from shared.domain.states import Lane
from shared.ids import RunId
from shared.queue.slots import Slots
from shared.settings import Settings
from shared.store.database import Parameters, Store
from shared.store.ending import DueDelivery
from tests.servers import empty_database
from tests.vendors import VendorServer
from worker.execute import Executor
from worker.providers.base import Provider
from worker.providers.registry import Providers, build
from worker.running import Running
from worker.session import Session

VENDORS = ("openai", "anthropic")
CLAIM, INTENT, SETTLE = "asked(id)", "INSERT INTO attempts", "late_output ="
HELD = "SELECT r.id, r.claim_no FROM runs r WHERE r.session_id"
"""Words that only these statements hold."""


def with_keys(settings: Settings, vendors: VendorServer, **changes: object) -> Settings:
    """Settings of a server that has keys of its own, to vendors on loopback."""
    key = SecretStr("sk-of-the-server-0123456789")
    return settings.model_copy(
        update={
            "openai_base_url": vendors.openai_url,
            "anthropic_base_url": vendors.url,
            "openai_api_key": key,
            "anthropic_api_key": key,
            **changes,
        }
    )


@dataclass
class Cut:
    """Lose the connection around the next `times` statements with this word in them."""

    word: str
    carried_out: bool
    times: int
    until: asyncio.Event | None
    error: psycopg.Error | None


class CutStore(Store):
    """A store whose connection is lost at chosen statements: before they arrive, or after."""

    def __init__(self, url: str) -> None:
        super().__init__(url, size=3)
        self.cuts: list[Cut] = []
        self.cut = asyncio.Event()
        self.looked = 0

    def cut_at(
        self, word: str, *, carried_out: bool, times: int = 1, until: asyncio.Event | None = None
    ) -> None:
        """`until` lets the statement hang before its connection is lost."""
        lost = psycopg.OperationalError("the connection is lost")
        self.cuts.append(Cut(word, carried_out, times, until, lost))

    def fail_at(self, word: str, error: psycopg.Error, *, times: int = 1) -> None:
        """Let the server refuse the next statements with this word in them."""
        self.cuts.append(Cut(word, carried_out=False, times=times, until=None, error=error))

    def hold_at(self, word: str, until: asyncio.Event) -> None:
        """Let the next statement with this word in it wait."""
        self.cuts.append(Cut(word, carried_out=False, times=1, until=until, error=None))

    async def fetch(self, statement: str, parameters: Parameters) -> Sequence[TupleRow]:
        self.looked += HELD in statement
        for cut in self.cuts:
            if cut.times and cut.word in statement:
                cut.times -= 1
                if cut.carried_out:
                    await super().fetch(statement, parameters)
                self.cut.set()
                if cut.until is not None:
                    await cut.until.wait()
                if cut.error is not None:
                    raise cut.error
        return await super().fetch(statement, parameters)


class ScriptedProvider:
    """Answers calls as told; with a gate, a call waits in it."""

    def __init__(self, name: str = "sim") -> None:
        self._name = name
        self.script: list[Completion | BaseException] = []
        self.requests: list[CompletionRequest] = []
        self.gate: asyncio.Event | None = None
        self.called = asyncio.Event()

    @property
    def name(self) -> str:
        return self._name

    async def complete(self, request: CompletionRequest) -> Completion:
        self.requests.append(request)
        self.called.set()
        if self.gate is not None:
            await self.gate.wait()
        answer = self.script.pop(0) if self.script else completion()
        if isinstance(answer, BaseException):
            raise answer
        return answer

    async def aclose(self) -> None:
        """Nothing to close."""


def completion(text: str = "Hello", **changes: object) -> Completion:
    fields: dict[str, object] = {
        "text": text,
        "model": "echo",
        "usage": Usage(input=3, output=2),
        "usage_raw": b"{}",
    }
    return Completion(**(fields | changes))  # type: ignore[arg-type] # the test's own fields


@dataclass
class Hands:
    """An executor with a session, and the tasks it is given."""

    deps: Deps
    session: Session
    executor: Executor
    running: Running
    delivered: list[DueDelivery] = field(default_factory=list)

    async def start(self, run_id: RunId) -> "asyncio.Task[None]":
        """Claim a run and begin to carry it."""
        claimed = (await self.executor.take([run_id])).get(run_id)
        assert claimed is not None
        before = self.running.tasks()
        self.running.slots.take(Lane.NORMAL)
        self.running.start(Lane.NORMAL, run_id, lambda: self.executor.run(claimed))
        (task,) = self.running.tasks() - before
        return task

    async def carry(self, run_id: RunId) -> None:
        """Claim a run and carry it to its next rest."""
        task = await self.start(run_id)
        async with asyncio.timeout(10):
            await task


@cache
def price_book() -> PriceBook:
    """The one price book of the suite: making one takes 0.6 s."""
    return PriceBook()


@asynccontextmanager
async def hands(
    deps: Deps, *providers: Provider, session: Session | None = None
) -> AsyncIterator[Hands]:
    """Make them, and end what they still hold at the end."""
    running = Running(Slots(100, (0, 0, 0), (8, 3, 1)), lambda: None)
    held = session or Session(deps, running.cancel)
    found = Providers(providers) if providers else build(deps.settings, deps.clock)
    delivered: list[DueDelivery] = []
    executor = Executor(deps, held, found, price_book(), delivered.append)
    await held.open()
    try:
        yield Hands(deps, held, executor, running, delivered)
    finally:
        running.stop_all()
        if tasks := running.tasks():
            await asyncio.wait(tasks, timeout=5)
        await held.close()
        await found.aclose()


@pytest.fixture(name="store")
async def store_that_can_be_cut(settings: Settings) -> AsyncIterator[CutStore]:
    """The migrated database, whose connection may be lost at chosen statements."""
    store = CutStore(settings.database_url.get_secret_value())
    await store.open(wait_s=10)
    yield store
    await empty_database(store)
    await store.close()
