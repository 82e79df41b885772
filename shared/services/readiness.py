"""Whether this process can do its work: database, schema, Redis."""

import asyncio

import msgspec
from redis import RedisError

from shared.deps import Deps
from shared.store import schema

READY = frozenset({"ready", "degraded"})
"""With these, requests are answered."""


class Report(msgspec.Struct, frozen=True):
    """`status`: `ready`, `degraded` (no use of Redis: runs start late), `unready`, `draining`."""

    status: str
    database: str
    redis: str


async def check(deps: Deps) -> Report:
    """Ask the database and Redis. Raises `psycopg.Error` when the database is away."""
    if deps.leaving.is_set():
        return Report(status="draining", database="unknown", redis="unknown")
    revision = await schema.revision(deps.store)
    if not schema.serves(revision):
        return Report(status="unready", database=f"schema is {revision}", redis="unknown")
    redis = await _redis(deps)
    return Report(status="ready" if redis == "ok" else "degraded", database="ok", redis=redis)


async def _redis(deps: Deps) -> str:
    try:
        async with asyncio.timeout(deps.settings.ring_budget_s):
            return "ok" if await deps.lanes.writable() else "refuses writes"
    except (RedisError, OSError, TimeoutError):
        return "away"
