"""Connecting: every kind of URL, Sentinel, and the errors that are worth another try."""

import asyncio
import socket
import struct
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import pytest
from redis.exceptions import RedisError

from cli.embedded import start, wheels
from cli.embedded.valkey import Valkey
from cli.serve import new_event_loop
from shared.domain.states import Lane
from shared.ids import RunId, new_id
from shared.queue.connection import connect
from shared.queue.lanes import Lanes
from shared.queue.port import Ring
from tests.worker.lane_rig import until


@pytest.fixture
def valkey(tmp_path: Path) -> Iterator[Valkey]:
    """A server of the test's own, on 127.0.0.1."""
    with start(tmp_path / "valkey", tcp=True, postgres=False, durable=False) as servers:
        yield servers.valkey


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1",
        "127.0.0.1:6379",
        "sentinel://127.0.0.1",
        "sentinel:///service",
        "sentinel://127.0.0.1:x/service",
    ],
)
def test_a_url_of_another_kind_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        _lanes = connect(url)


async def test_nobody_there_is_told_at_once() -> None:
    lanes = connect("unix:///nonexistent/socket")

    with pytest.raises(RedisError):
        await asyncio.wait_for(lanes.ring(a_ring()), 2)

    await lanes.aclose()


@pytest.mark.parametrize("loop_factory", [new_event_loop, asyncio.new_event_loop])
def test_writing_to_a_connection_the_server_has_reset_is_an_error_of_redis(
    loop_factory: Callable[[], asyncio.AbstractEventLoop],
) -> None:
    async def write() -> None:
        async with resetting_server() as (port, reset):
            lanes = connect(f"redis://127.0.0.1:{port}/0")
            connection = await lanes.connection_pool.get_connection()
            reset.set()
            with pytest.raises(RedisError):
                await connection.read_response(disconnect_on_error=False)

            with pytest.raises(RedisError):
                await connection.send_command("PING")

            await connection.disconnect()
            await lanes.aclose()

    with asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(write())


async def test_a_server_that_accepts_and_says_nothing_costs_one_timeout() -> None:
    async with silent_server() as port:
        lanes = connect(f"redis://127.0.0.1:{port}/1", timeout_s=0.1, connect_timeout_s=0.1)

        with pytest.raises(RedisError):
            await asyncio.wait_for(lanes.ring(a_ring()), 2)

        await lanes.aclose()


async def test_a_server_that_hangs_up_costs_a_few_tries() -> None:
    async with silent_server(hang_up=True) as port:
        lanes = connect(f"redis://127.0.0.1:{port}/1", timeout_s=0.1, connect_timeout_s=0.1)

        with pytest.raises(RedisError):
            await asyncio.wait_for(lanes.ring(a_ring()), 2)

        await lanes.aclose()


async def test_a_read_only_server_is_tried_again_until_it_is_promoted(valkey: Valkey) -> None:
    lanes, operator = connect(valkey.url), connect(valkey.url)
    await operator.replicaof("127.0.0.1", "1")

    ringing = asyncio.create_task(lanes.ring(a_ring(Lane.LOW)))
    await until(lambda: refused_a_write(operator))
    await operator.replicaof("NO", "ONE")
    await ringing

    assert (await lanes.waiting())[Lane.LOW] == 1
    await lanes.aclose()
    await operator.aclose()


async def test_idle_connections_the_server_closed_are_replaced(valkey: Valkey) -> None:
    lanes = connect(valkey.url)
    await lanes.ring(a_ring())

    valkey.restart()
    await lanes.ring(a_ring())

    assert (await lanes.waiting())[Lane.NORMAL] == 1
    await lanes.aclose()


async def test_sentinel_leads_to_the_master(valkey: Valkey, tmp_path: Path) -> None:
    with sentinel_of(valkey, tmp_path) as port:
        lanes = connect(f"sentinel://127.0.0.1:{port}/runlane?db=2")
        await until(lambda: answers(port))

        await lanes.ring(a_ring(Lane.ONSITE))

        there = connect(valkey.url.removesuffix("/0") + "/2")
        assert (await there.waiting())[Lane.ONSITE] == 1
        await lanes.aclose()
        await there.aclose()


def a_ring(lane: Lane = Lane.NORMAL) -> Ring:
    return Ring(RunId(new_id()), lane)


async def refused_a_write(lanes: Lanes) -> bool:
    return "errorstat_READONLY" in await lanes.info("errorstats")


@asynccontextmanager
async def resetting_server() -> AsyncIterator[tuple[int, asyncio.Event]]:
    """Greet one client, and reset its connection when the event is set."""
    reset = asyncio.Event()

    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"SETINFO")
        writer.write(b"+OK\r\n+OK\r\n")
        await reset.wait()
        connection = writer.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()

    server = await asyncio.start_server(greet, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1], reset


@asynccontextmanager
async def silent_server(*, hang_up: bool = False) -> AsyncIterator[int]:
    """Listen, accept, and either say nothing or hang up; yields the port."""

    async def serve(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        accepted.append(writer)
        if hang_up:
            writer.close()

    accepted: list[asyncio.StreamWriter] = []
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for writer in accepted:
            writer.close()
        await asyncio.gather(*(writer.wait_closed() for writer in accepted), return_exceptions=True)


@contextmanager
def sentinel_of(master: Valkey, folder: Path) -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    config = folder / "sentinel.conf"
    config.write_text(
        f"port {port}\nbind 127.0.0.1\ndir {folder}\n"
        f"sentinel monitor runlane 127.0.0.1 {master.port} 1\n"
    )
    process = subprocess.Popen(
        [wheels.locate().valkey_server, config, "--sentinel"], stdout=subprocess.DEVNULL
    )
    try:
        yield port
    finally:
        process.kill()
        process.wait()


def answers(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0
