"""Whether this process can do its work: database, schema, Redis."""

import asyncio

import msgspec
from redis import RedisError

from shared.deps import Deps
from shared.store import schema


class Report(msgspec.Struct, frozen=True):
    """`status` is `ready`, `degraded` (no Redis: runs start a little later) or `unready`."""

    status: str
    database: str
    redis: str


async def check(deps: Deps) -> Report:
    """Ask the database and Redis. Raises `psycopg.Error` when the database is away."""
    revision = await schema.revision(deps.store)
    if revision != schema.EXPECTED:
        return Report(status="unready", database=f"schema is {revision}", redis="unknown")
    try:
        async with asyncio.timeout(deps.settings.ring_budget_s):
            await deps.lanes.waiting()
    except (RedisError, OSError, TimeoutError):
        return Report(status="degraded", database="ok", redis="away")
    return Report(status="ready", database="ok", redis="ok")
