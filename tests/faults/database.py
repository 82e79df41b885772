"""What others do to the database of the rig: hold locks, change settings, end connections."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress

import psycopg
from psycopg import AsyncConnection, sql
from psycopg.rows import TupleRow

from tests.faults.rig import Rig
from tests.faults.waiting import until

_ANYWAY = (
    "-c default_transaction_read_only=off -c deadlock_timeout=60s -c statement_timeout=60s"
    r" -c default_transaction_isolation=read\ committed"
)
_BLOCKED = """
SELECT pid FROM pg_stat_activity WHERE application_name = 'runlane' AND wait_event_type = 'Lock'
"""
OURS = """
SELECT pid, state FROM pg_stat_activity
WHERE application_name = 'runlane' AND backend_type = 'client backend'
"""


async def connected(rig: Rig) -> AsyncConnection[TupleRow]:
    """A connection past the proxies that nothing keeps from working."""
    return await AsyncConnection.connect(rig.servers.database_url, autocommit=True, options=_ANYWAY)


@asynccontextmanager
async def locked(rig: Rig, table: str, mode: str) -> AsyncIterator[None]:
    """Hold a lock on a whole table."""
    async with await connected(rig) as connection:
        await connection.set_autocommit(False)
        await connection.execute(
            sql.SQL("LOCK TABLE {} IN {} MODE").format(sql.Identifier(table), sql.SQL(mode))
        )
        yield
        try:
            await connection.rollback()
        except psycopg.OperationalError:  # the server went away, and the lock with it
            await connection.close()


@asynccontextmanager
async def configured(rig: Rig, **settings: str) -> AsyncIterator[None]:
    """Have the server work with other settings, for sessions that are open too."""
    for name, value in settings.items():
        await _alter(rig, sql.SQL("SET {} = {}").format(sql.Identifier(name), sql.Literal(value)))
    try:
        yield
    finally:
        for name in settings:
            await _alter(rig, sql.SQL("RESET {}").format(sql.Identifier(name)))


async def _alter(rig: Rig, what: sql.Composable) -> None:
    async with await connected(rig) as connection:
        await connection.execute(sql.SQL("ALTER SYSTEM {}").format(what))
        await connection.execute("SELECT pg_reload_conf()")


@asynccontextmanager
async def crowded(rig: Rig) -> AsyncIterator[None]:
    """Take every connection that the server gives away, and hold on to them."""
    async with AsyncExitStack() as stack:
        with suppress(psycopg.OperationalError):
            while True:
                await stack.enter_async_context(await connected(rig))
        yield


async def blocked(rig: Rig, count: int = 1) -> None:
    """Wait until so many of our statements wait for a lock."""

    async def look() -> bool:
        return len(await rig.rows(_BLOCKED)) >= count

    await until(look, f"{count} statements wait for a lock")
