"""The state handed to use cases: caches that forget, and versions compiled once."""

from collections.abc import AsyncIterator, Sequence

import pytest
from psycopg.rows import TupleRow

from shared import deps as shared_deps
from shared.deps import Deps, Recent
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
