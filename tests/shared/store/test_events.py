"""The feed has every committed event once, in one order, whatever commits late."""

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shared.deps import Deps
from shared.ids import new_id
from shared.store import events
from shared.store.database import Store
from shared.store.events import Position
from tests.shared.store.rig import Rig, a_rig

WRITERS = 3
INSERT = """
INSERT INTO events (id, workspace_id, type, body) VALUES (%(id)s, %(workspace)s, 'ping', %(body)s)
"""
# What a writer does next: it begins with its first event, which takes its transaction's number.
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["event", "event", "commit", "roll back", "poll", "poll"]),
        st.integers(0, WRITERS - 1),
    ),
    min_size=20,
    max_size=60,
)


@dataclass
class Reader:
    """Follows the feed from its beginning, a page at a time."""

    rig: Rig
    seen: list[str] = field(default_factory=list)
    at: Position | None = None

    async def poll(self, limit: int) -> bool:
        """Read one page; whether there is more."""
        page = await events.page(self.rig.store, self.rig.tenant.workspace_id, self.at, limit)
        assert not page.reset
        assert len(page.bodies) <= limit
        self.seen += [bytes(body).decode() for body in page.bodies]
        self.at = page.end
        return page.more

    async def finish(self) -> list[str]:
        while await self.poll(2):
            pass
        return self.seen


@dataclass
class Writers:
    """Connections whose transactions stay open for as long as the plan says."""

    rig: Rig
    connections: Sequence[psycopg.AsyncConnection[Any]]
    open: dict[int, list[tuple[int, UUID]]] = field(default_factory=dict)
    committed: list[tuple[int, UUID]] = field(default_factory=list)

    async def do(self, what: str, writer: int) -> None:
        connection = self.connections[writer]
        match what:
            case "event":
                event_id = new_id()
                values = {"id": event_id, "workspace": self.rig.tenant.workspace_id}
                await connection.execute(INSERT, values | {"body": f'"{event_id}"'})
                found = await connection.execute("SELECT pg_current_xact_id()::text::bigint")
                row = await found.fetchone()
                assert row is not None
                self.open.setdefault(writer, []).append((row[0], event_id))
            case "commit":
                await connection.commit()
                self.committed += self.open.pop(writer, [])
            case _:
                await connection.rollback()
                self.open.pop(writer, None)

    async def end(self) -> None:
        for writer in tuple(self.open):
            await self.do("commit", writer)

    def in_order(self) -> list[str]:
        return [f'"{event_id}"' for _, event_id in sorted(self.committed)]


@asynccontextmanager
async def _writers(rig: Rig) -> AsyncIterator[Writers]:
    async with AsyncExitStack() as stack:
        connections = [await rig.store.connect_alone() for _ in range(WRITERS)]
        for connection in connections:
            await stack.enter_async_context(connection)
            await connection.set_autocommit(False)
        yield Writers(rig, connections)
        for connection in connections:
            await connection.rollback()


@pytest.fixture
async def rig(deps: Deps) -> Rig:
    return await a_rig(deps)


@pytest.fixture
async def writers(rig: Rig) -> AsyncIterator[Writers]:
    async with _writers(rig) as writers:
        yield writers


@given(steps=STEPS)
@settings(
    max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
async def test_a_polling_reader_sees_every_event_once_whatever_commits_late(
    rig: Rig, writers: Writers, steps: list[tuple[str, int]]
) -> None:
    writers.committed.clear()
    reader = Reader(rig, at=await events.end(rig.store))

    for what, number in steps:
        if what == "poll":
            await reader.poll(1 + number)
        else:
            await writers.do(what, number)
    await writers.end()

    assert writers.in_order() == await reader.finish()


async def test_an_event_that_commits_late_is_waited_for_and_holds_back_later_ones(
    rig: Rig, writers: Writers
) -> None:
    reader = Reader(rig)
    await writers.do("event", 0)
    await writers.do("event", 1)
    await writers.do("commit", 1)
    await reader.poll(10)

    held_back = list(reader.seen)
    await writers.do("commit", 0)
    await reader.poll(10)

    assert [] == held_back
    assert writers.in_order() == reader.seen


async def test_events_of_runs_are_in_the_feed_with_the_body_webhooks_get(rig: Rig) -> None:
    due = await rig.delivery()

    page = await events.page(rig.store, rig.tenant.workspace_id, None, 10)

    assert [due.body] == [bytes(body).decode() for body in page.bodies]


async def test_a_place_from_another_history_of_the_database_is_recognised(rig: Rig) -> None:
    await rig.delivery()
    here = await events.end(rig.store)
    elsewhere = Position(f"{here.epoch}0", here.tx, here.id)
    ahead = Position(here.epoch, here.tx + 1_000_000, here.id)

    pages = [
        await events.page(rig.store, rig.tenant.workspace_id, place, 10)
        for place in (here, elsewhere, ahead, None)
    ]

    assert [False, True, True, False] == [page.reset for page in pages]


async def test_the_epoch_differs_between_databases_of_one_server(
    rig: Rig, empty_database_url: str
) -> None:
    other = Store(empty_database_url, size=1)
    await other.open(wait_s=10)

    epochs = {(await events.end(store)).epoch for store in (rig.store, rig.store, other)}
    await other.close()

    assert 2 == len(epochs)
