"""The state handed to use cases: caches that forget, and versions compiled once."""

import asyncio
import itertools
import threading
from collections.abc import AsyncIterator, Sequence

import pytest
from psycopg.rows import TupleRow

from shared import deps as shared_deps
from shared.deps import Deps, Later, Recent
from shared.domain import versions
from shared.settings import Settings
from shared.store.database import Parameters, Store
from shared.vault import VaultError
from tests.factories import Tenant, a_prompt
from tests.servers import empty_database


def test_a_full_cache_forgets_what_was_used_longest_ago() -> None:
    recent: Recent[str, int] = Recent(3)
    for value, key in enumerate("abc"):
        recent.put(key, value)
    recent.get("a")

    recent.put("d", 3)

    assert [0, None, 2, 3] == [recent.get(key) for key in "abcd"]


def test_a_cache_replaces_and_forgets_on_demand() -> None:
    recent: Recent[str, int] = Recent(2)
    recent.put("a", 1)
    recent.put("b", 2)
    recent.put("a", 3)
    recent.put("c", 4)
    recent.discard("c")
    recent.discard("never there")

    assert [3, None, None] == [recent.get(key) for key in "abc"]


async def test_what_takes_long_is_made_once_however_many_ask() -> None:
    made = itertools.count(1)
    later = Later(lambda: next(made))

    first, second = await asyncio.gather(later.get(), later.get())
    third = await later.get()

    assert [1, 1, 1] == [first, second, third]


async def test_what_takes_long_is_made_beside_the_loop() -> None:
    inside = asyncio.Event()
    go_on = threading.Event()
    loop = asyncio.get_running_loop()

    def make() -> str:
        loop.call_soon_threadsafe(inside.set)
        assert go_on.wait(20)
        return "made"

    waiting = asyncio.create_task(Later(make).get())
    await inside.wait()
    go_on.set()

    assert "made" == await waiting


async def test_what_could_not_be_made_is_tried_again() -> None:
    made: list[object] = []

    def make() -> object:
        made.append(object())
        if len(made) == 1:
            raise MemoryError
        return made[-1]

    later = Later(make)
    with pytest.raises(MemoryError):
        await later.get()

    assert await later.get() is made[1]


async def test_who_stops_waiting_does_not_stop_the_making() -> None:
    go_on = threading.Event()
    later = Later(lambda: go_on.wait(20))
    impatient = asyncio.create_task(later.get())
    await asyncio.sleep(0)
    impatient.cancel()
    await asyncio.gather(impatient, return_exceptions=True)
    go_on.set()

    assert await later.get()


class CountingStore(Store):
    """Counts its statements."""

    reads = 0

    async def fetch(self, statement: str, parameters: Parameters) -> Sequence[TupleRow]:
        self.reads += 1
        return await super().fetch(statement, parameters)


@pytest.fixture(name="store")
async def counting_store(settings: Settings) -> AsyncIterator[CountingStore]:
    store = CountingStore(settings.database_url.get_secret_value(), size=2)
    await store.open(wait_s=10)
    yield store
    await empty_database(store)
    await store.close()


async def test_a_version_is_read_and_compiled_once(
    deps: Deps, tenant: Tenant, store: CountingStore
) -> None:
    await a_prompt(deps, tenant)
    rows = await store.fetch("SELECT id FROM prompt_versions", {})
    before = store.reads

    first = await deps.compiled(rows[0][0])
    second = await deps.compiled(rows[0][0])

    assert first is second
    assert 1 == store.reads - before
    assert ["Hello Ada"] == [
        message.content for message in versions.render_messages(first, {"name": "Ada"})
    ]


async def test_a_body_in_hand_needs_no_reading(
    deps: Deps, tenant: Tenant, store: CountingStore
) -> None:
    await a_prompt(deps, tenant)
    rows = await store.fetch("SELECT id, body::text FROM prompt_versions", {})
    before = store.reads

    await deps.compiled(*rows[0])

    assert before == store.reads


async def test_an_unreadable_master_key_stops_the_start(deps: Deps, settings: Settings) -> None:
    wrong = settings.model_copy(update={"master_key": type(settings.master_key)("nonsense")})

    with pytest.raises(VaultError):
        shared_deps.build(wrong, deps.clock, deps.random, deps.store, deps.lanes)
