"""Connections to Redis or Valkey, with the timeouts and retries the lanes rely on."""

import asyncio
import socket
import sys
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from redis.asyncio import BlockingConnectionPool, ConnectionPool
from redis.asyncio.connection import AbstractConnection
from redis.asyncio.retry import Retry  # the class of the same name in redis.retry never awaits
from redis.asyncio.sentinel import Sentinel, SentinelConnectionPool
from redis.backoff import ExponentialBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ReadOnlyError

from shared.queue.lanes import BELL_S, Lanes

MAX_CONNECTIONS = 32
HEALTH_CHECK_S = 15
RETRIES = 2

_RETRIED = (RedisConnectionError, ReadOnlyError)


def connect(url: str, *, timeout_s: float = 2, connect_timeout_s: float = 1) -> Lanes:
    """Make lanes over `redis://…`, `rediss://…`, `unix://…` or `sentinel://…`; dials at first use.

    With Sentinel: `sentinel://[user:password@]host[:26379][,host…]/service[?db=0]`.
    Raises `ValueError` for a URL of another kind.
    """
    prompt = _options(timeout_s, timeout_s, connect_timeout_s)
    patient = _options(timeout_s + BELL_S, timeout_s, connect_timeout_s)
    return Lanes(_wary(_pool(url, prompt)), patient=_wary(_pool(url, patient)))


def _options(socket_timeout_s: float, wait_s: float, connect_timeout_s: float) -> dict[str, Any]:
    return {
        "protocol": 2,
        "socket_timeout": socket_timeout_s,
        "socket_connect_timeout": connect_timeout_s,
        "health_check_interval": HEALTH_CHECK_S,
        "max_connections": MAX_CONNECTIONS,
        "timeout": wait_s,
        "redis_connect_func": _greet,
        # Both have to name an error. A timeout is not retried: it has cost enough already.
        "retry": Retry(ExponentialBackoff(cap=0.25, base=0.02), RETRIES, _RETRIED),
        "retry_on_error": list(_RETRIED),
    }


async def _greet(connection: AbstractConnection) -> None:
    """Greet the server without a health check.

    The greeting's commands would check the health of the connection they belong to; when the
    server accepts and then says nothing, every failed check connects again, and deeper.
    """
    interval_s = connection.health_check_interval
    connection.next_health_check = asyncio.get_running_loop().time() + interval_s
    await connection.on_connect()


class _WaryConnection(AbstractConnection):
    """Takes a transport that is gone for what it is: a lost connection.

    uvloop says so with a `RuntimeError`, which redis-py lets through, and nobody expects.
    """

    async def send_packed_command(
        self,
        command: bytes | str | Iterable[bytes],
        check_health: bool = True,  # noqa: FBT001, FBT002 (redis-py's signature)
    ) -> None:
        try:
            await super().send_packed_command(command, check_health)
        except RuntimeError as error:
            raise RedisConnectionError("The server closed the connection.") from error


def _wary(pool: ConnectionPool) -> ConnectionPool:
    kind = pool.connection_class
    pool.connection_class = type(kind.__name__, (_WaryConnection, kind), {})
    return pool


def _pool(url: str, options: dict[str, Any]) -> ConnectionPool:
    scheme = urlsplit(url).scheme
    if scheme == "unix":
        return BlockingConnectionPool.from_url(url, **options)
    options |= {"socket_keepalive": True, "socket_keepalive_options": _keepalive()}
    if scheme == "sentinel":
        return _sentinel_pool(url, options)
    return BlockingConnectionPool.from_url(url, **options)


def _keepalive() -> Mapping[int, int]:
    """Give a silent peer up after 30 s, and one that acknowledges nothing after 15."""
    if sys.platform != "linux":
        return {}
    return {
        socket.TCP_KEEPIDLE: 15,
        socket.TCP_KEEPINTVL: 5,
        socket.TCP_KEEPCNT: 3,
        socket.TCP_USER_TIMEOUT: 15_000,
    }


def _sentinel_pool(url: str, options: dict[str, Any]) -> ConnectionPool:
    parts = urlsplit(url)
    userinfo, _, hosts = parts.netloc.rpartition("@")
    user, _, password = userinfo.partition(":")
    sentinels = []
    for host in hosts.split(","):
        name, _, port = host.partition(":")
        sentinels.append((name, int(port or 26379)))
    service = parts.path.strip("/")
    if not service or not all(name for name, _ in sentinels):
        raise ValueError("a sentinel URL names its hosts and, as its path, the service")
    del options["timeout"]  # only a blocking pool waits for a free connection
    manager = Sentinel(  # type: ignore[no-untyped-call] # redis-py does not type it
        sentinels,
        sentinel_kwargs={
            "socket_timeout": options["socket_connect_timeout"],
            "socket_connect_timeout": options["socket_connect_timeout"],
        },
    )
    return _SentinelPool(  # type: ignore[no-untyped-call] # redis-py does not type it
        service,
        manager,
        username=unquote(user) or None,
        password=unquote(password) or None,
        db=int(parse_qs(parts.query).get("db", ["0"])[0]),
        **options,
    )


class _SentinelPool(SentinelConnectionPool):
    """Closes the connections to the sentinels too, which redis-py leaves open."""

    async def disconnect(self, inuse_connections: bool = True) -> None:  # noqa: FBT001, FBT002 (redis-py's signature)
        await super().disconnect(inuse_connections)
        for sentinel in self.sentinel_manager.sentinels:
            await sentinel.aclose()
