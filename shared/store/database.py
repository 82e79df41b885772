"""The way to PostgreSQL: one pool of psycopg connections, shared by hot statements and the ORM."""

import asyncio
import os
import select
import socket
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Any

import psycopg
from psycopg import AsyncConnection
from psycopg.rows import TupleRow
from psycopg_pool import AsyncConnectionPool, PoolClosed, PoolTimeout
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine
from sqlalchemy.pool import NullPool

from shared.errors import UnavailableError
from shared.tasks import end

Parameters = Mapping[str, object]
Tx = AsyncSession

# A connection that does not come back within this is given up; the next request tries anew.
_RECONNECT_S = 3.0
# The server ends what takes too long; one that says nothing for so much longer never will.
_SILENCE_S = 3.0
_NOT_NOW = ("08", "25006", "53", "57", "55P03", "40")


class Store:
    """Hot statements go through `fetch`, one round trip each; services open transactions."""

    def __init__(
        self,
        url: str,
        *,
        size: int,
        wait_s: float = 1.0,
        statement_timeout_s: float = 2.0,
        lock_timeout_s: float = 1.0,
    ) -> None:
        self._url = url
        self._draining: asyncio.Task[None] | None = None
        self._answer_s = statement_timeout_s + _SILENCE_S
        self._connect_kwargs: dict[str, Any] = {
            "autocommit": True,
            "connect_timeout": 5,
            "keepalives_idle": 15,
            "keepalives_interval": 5,
            "keepalives_count": 3,
            "tcp_user_timeout": 15_000,
            "application_name": "runlane",
            "options": _options(statement_timeout_s, lock_timeout_s),
        }
        self._pool: AsyncConnectionPool[AsyncConnection[TupleRow]] = AsyncConnectionPool(
            url,
            kwargs=self._connect_kwargs,
            min_size=size,
            max_size=size,
            timeout=wait_s,
            check=self._check,
            reconnect_timeout=_RECONNECT_S,
            close_returns=True,
            open=False,
        )
        self._engine: AsyncEngine = create_async_engine(
            "postgresql+psycopg://",
            async_creator=self._lend,
            poolclass=NullPool,
            use_native_hstore=False,
        )

    async def open(self, *, wait_s: float | None = None) -> None:
        """Start connecting. With `wait_s`: raise `psycopg.OperationalError` if not up by then."""
        await self._pool.open()
        if wait_s is not None:
            try:
                await self._pool.wait(wait_s)
            except PoolTimeout as error:
                await self._pool.close()
                raise psycopg.OperationalError("the database does not answer") from error

    async def close(self) -> None:
        """Close every connection; what is still running is cut off after a second."""
        if self._draining is not None:
            await end([self._draining])
        await self._pool.close(timeout=1.0)

    async def fetch(self, statement: str, parameters: Parameters) -> Sequence[TupleRow]:
        """Run one statement as a transaction of its own and return its rows."""
        async with self._connection() as connection:
            cursor = await connection.execute(statement, parameters, prepare=True)
            return await cursor.fetchall()

    async def fetch_all_or_nothing(
        self,
        statement: str,
        parameters: Parameters,
        *,
        keep: Callable[[Sequence[TupleRow]], bool],
    ) -> Sequence[TupleRow]:
        """Run one statement; what it changed stays only if `keep` likes the rows it returned."""
        async with self._connection() as connection, connection.transaction() as block:
            cursor = await connection.execute(statement, parameters, prepare=True)
            rows = await cursor.fetchall()
            if not keep(rows):
                raise psycopg.Rollback(block)
        return rows

    async def fetch_behind(
        self, lock: str, statement: str, parameters: Parameters
    ) -> Sequence[TupleRow]:
        """Take locks first, so that the statement sees all that their former holders did."""
        async with self._connection() as connection, connection.transaction():
            await connection.execute(lock, parameters, prepare=True)
            cursor = await connection.execute(statement, parameters, prepare=True)
            return await cursor.fetchall()

    async def execute(self, statement: str, parameters: Parameters) -> int:
        """Run one statement as a transaction of its own and return how many rows it changed."""
        async with self._connection() as connection:
            cursor = await connection.execute(statement, parameters, prepare=True)
            return cursor.rowcount

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Tx]:
        """Open a transaction for a management use case; it commits at the end of the block."""
        async with Tx(self._engine, expire_on_commit=False) as tx, tx.begin():
            yield tx

    def pool_figures(self) -> Mapping[str, int]:
        """What psycopg's pool counted since the last call, and its sizes now."""
        return self._pool.pop_stats()

    async def connect_alone(self) -> AsyncConnection[TupleRow]:
        """Open a connection outside the pool, for renewals and advisory locks."""
        return await AsyncConnection.connect(self._url, **self._connect_kwargs)

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[AsyncConnection[TupleRow]]:
        """One where each statement commits by itself; a silent one is given up.

        The pool's own block would end a transaction that is not there, and a `reset` of the pool
        would make each return a task: together half as much as the statement takes.
        """
        connection = await self._pool.getconn()
        try:
            if not connection.autocommit:
                await connection.set_autocommit(True)
            with self._bounded(connection):
                yield connection
        finally:
            await self._pool.putconn(connection)

    @contextmanager
    def _bounded(self, connection: AsyncConnection[Any]) -> Iterator[None]:
        """Give up a connection that stays silent, and with it all others: they share its way."""
        with answered_within(self._answer_s, connection) as silent:
            try:
                yield
            finally:
                if silent.is_set():
                    self._replace_all()

    async def _check(self, connection: AsyncConnection[TupleRow]) -> None:
        """Probe a connection only when its socket has something to say, such as its end.

        Left alone, the pool would wait a second between one dead connection and the next.
        """
        poll = select.poll()
        poll.register(connection.pgconn.socket, select.POLLIN)
        if poll.poll(0):
            try:
                with self._bounded(connection):
                    await AsyncConnectionPool.check_connection(connection)
            except psycopg.Error:
                self._replace_all()
                raise

    def _replace_all(self) -> None:
        """Distrust every connection of the pool, but not those made since the last time."""
        if self._draining is None or self._draining.done():
            self._draining = asyncio.create_task(self._drained())

    async def _drained(self) -> None:
        await self._pool.drain()
        await asyncio.sleep(_RECONNECT_S)

    async def _lend(self) -> AsyncConnection[TupleRow]:
        connection = await self._pool.getconn()
        await connection.set_autocommit(False)
        return connection


async def fetch(tx: Tx, statement: str, parameters: Parameters) -> Sequence[Any]:
    """Run a statement written for `Store.fetch` within a transaction instead."""
    connection = await tx.connection()
    return (await connection.exec_driver_sql(statement, dict(parameters))).all()


@contextmanager
def answered_within(seconds: float, connection: AsyncConnection[Any]) -> Iterator[asyncio.Event]:
    """Cut the link when the block takes longer; whoever waits on it is told that it was lost.

    The event says that it was cut.

    Cancelling would ask the silent server for its leave first, which takes another ten seconds.
    """
    cut = asyncio.Event()
    alarm = asyncio.get_running_loop().call_later(seconds, _hang_up, connection, cut)
    try:
        yield cut
    finally:
        alarm.cancel()


def _hang_up(connection: AsyncConnection[Any], cut: asyncio.Event) -> None:
    cut.set()
    with (
        suppress(OSError, psycopg.Error),
        socket.socket(fileno=os.dup(connection.pgconn.socket)) as link,
    ):
        link.shutdown(socket.SHUT_RDWR)


def _options(statement_timeout_s: float, lock_timeout_s: float) -> str:
    settings = {
        "timezone": "UTC",
        "jit": "off",
        # Planning our statements takes longer than running them: once a connection.
        "plan_cache_mode": "force_generic_plan",
        # Such a plan is made while tables are still small, and would go on reading them whole.
        "enable_seqscan": "off",
        "statement_timeout": round(statement_timeout_s * 1000),
        "lock_timeout": round(lock_timeout_s * 1000),
        "idle_in_transaction_session_timeout": 10_000,
    }
    return " ".join(f"-c {name}={value}" for name, value in settings.items())


def lost(error: BaseException) -> bool:
    """Tell whether the connection went away, so that a commit's outcome is unknown."""
    cause = getattr(error, "orig", None) or error
    return (
        isinstance(cause, psycopg.OperationalError | psycopg.InterfaceError)
        and not isinstance(cause, PoolTimeout | PoolClosed)
        and (cause.sqlstate is None or cause.sqlstate.startswith(("08", "57P")))
    )


def refused(error: BaseException) -> bool:
    """Tell whether certainly nothing was stored and trying later makes sense."""
    cause = getattr(error, "orig", None) or error
    if isinstance(cause, PoolTimeout | PoolClosed):
        return True
    return (
        isinstance(cause, psycopg.Error)
        and cause.sqlstate is not None
        and cause.sqlstate.startswith(_NOT_NOW)
        and not lost(cause)
    )


def away(error: BaseException) -> bool:
    """Tell whether an error means that the database cannot be used right now."""
    return refused(error) or lost(error)


@contextmanager
def nothing_written() -> Iterator[None]:
    """Around reading: when the database goes away, a caller may be told that nothing was stored."""
    try:
        yield
    except psycopg.Error as error:
        if away(error):
            raise UnavailableError("The database is away; nothing was stored.") from error
        raise


def concerns_all(error: BaseException) -> bool:
    """Tell whether every row of a batch would fail like this: all but bad data and a locked row."""
    return away(error) and not isinstance(error, psycopg.errors.LockNotAvailable)
