"""Flows in tests: processes that wait long enough and work, and answers held against a shape."""

from collections.abc import AsyncIterator
from datetime import datetime
from typing import Any
from uuid import UUID

from shared import deps as shared_deps
from shared.deps import Deps
from shared.queue.lanes import Lanes
from worker.main import WorkerProcess

MOMENT = datetime.fromisoformat
NULL = type(None)


def patient(deps: Deps) -> Deps:
    """A fixture: with time to wait for a worker."""
    return with_settings(deps, flow_wait_s=20)


def with_settings(deps: Deps, **changes: Any) -> Deps:
    changed = deps.settings.model_copy(update=changes)
    return shared_deps.build(changed, deps.clock, deps.random, deps.store, deps.lanes)


async def working(deps: Deps, lanes: Lanes) -> AsyncIterator[WorkerProcess]:
    """A fixture: a worker."""
    process = WorkerProcess(deps, lanes)
    await process.start()
    yield process
    await process.drain()
    await process.stop()


async def runs(deps: Deps) -> int:
    """How many runs are stored."""
    rows = await deps.store.fetch("SELECT count(*) FROM runs", {})
    return int(rows[0][0])


def differs(expected: Any, actual: Any, place: str = "$") -> list[str]:
    """Where an answer is not of the golden's shape: missing and additional fields, wrong types."""
    match expected, actual:
        case dict(), dict():
            wrong = (
                [f"{place}: {set(expected) ^ set(actual)}"] if set(expected) ^ set(actual) else []
            )
            both = expected.keys() & actual.keys()
            return wrong + [
                one
                for name in both
                for one in differs(expected[name], actual[name], f"{place}.{name}")
            ]
        case list(), list() if len(expected) == len(actual):
            pairs = enumerate(zip(expected, actual, strict=True))
            return [one for n, pair in pairs for one in differs(*pair, f"{place}[{n}]")]
        case type(), _ if expected is not UUID:
            return [] if type(actual) is expected else [f"{place}: {actual!r}"]
        case _ if callable(expected):
            expected(actual)
            return []
    return [f"{place}: {actual!r}"]
