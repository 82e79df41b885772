"""Whether this process can do its work: database, schema, Redis."""

import asyncio

import msgspec
from redis import RedisError

from shared.deps import Deps
from shared.queue.lanes import Lanes
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


async def redis_warnings(lanes: Lanes, timeout_s: float) -> list[str]:
    """What about Redis's settings could make runs start late, in words; empty when all is well."""
    warnings = []
    try:
        async with asyncio.timeout(timeout_s):
            policy = await lanes.config_get("maxmemory-policy")
            append = await lanes.config_get("appendonly")
    except (RedisError, OSError, TimeoutError) as error:
        return [f"Redis cannot be inspected ({type(error).__name__}); runs start by the sweeper."]
    if policy.get("maxmemory-policy") != "noeviction":
        warnings.append("maxmemory-policy should be noeviction: evicted rings start late.")
    if append.get("appendonly") != "yes":
        warnings.append("appendonly should be yes: after a restart every run is rung again.")
    return warnings
