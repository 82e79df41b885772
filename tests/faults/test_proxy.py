"""The proxy misbehaves exactly as it is told to."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from tests.faults.proxy import Proxy, Way

Ends = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def _echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while line := await reader.readline():
        writer.write(line)
        await writer.drain()
    writer.close()


@pytest.fixture
async def proxy() -> AsyncIterator[Proxy]:
    server = await asyncio.start_server(_echo, "127.0.0.1", 0)
    async with server, Proxy(server.sockets[0].getsockname()[1]) as proxy:
        yield proxy


@asynccontextmanager
async def connected(proxy: Proxy) -> AsyncIterator[Ends]:
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


async def say(ends: Ends, line: bytes) -> bytes:
    reader, writer = ends
    writer.write(line + b"\n")
    return (await asyncio.wait_for(reader.readline(), 5)).strip()


async def test_what_is_said_arrives_in_slices_or_late_and_whole(proxy: Proxy) -> None:
    proxy.slice(3)
    proxy.delay(0.01)

    async with connected(proxy) as ends:
        heard = await say(ends, b"one long sentence")

    assert b"one long sentence" == heard


async def test_a_proxy_that_is_down_refuses_and_comes_back_on_its_port(proxy: Proxy) -> None:
    async with connected(proxy) as ends:
        assert b"before" == await say(ends, b"before")
        await proxy.down()
        with pytest.raises(ConnectionResetError):
            await say(ends, b"during")
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", proxy.port)

    await proxy.pass_on()

    async with connected(proxy) as ends:
        assert b"after" == await say(ends, b"after")


async def test_a_resetting_proxy_takes_connections_and_resets_them(proxy: Proxy) -> None:
    proxy.reset()

    async with connected(proxy) as ends:
        with pytest.raises(ConnectionResetError):
            await say(ends, b"hello")


async def test_a_black_hole_swallows_nothing_for_good(proxy: Proxy) -> None:
    async with connected(proxy) as ends:
        proxy.blackhole()
        said = asyncio.create_task(say(ends, b"hello"))
        done, _ = await asyncio.wait({said}, timeout=0.1)

        await proxy.pass_on()

        assert set() == done
        assert b"hello" == await said


async def test_a_pattern_cuts_the_connection_that_carries_it_and_no_other(proxy: Proxy) -> None:
    proxy.slice(4)
    proxy.cut_on(b"secret word", Way.THERE)

    async with connected(proxy) as first, connected(proxy) as second:
        assert b"harmless" == await say(first, b"harmless")
        with pytest.raises(ConnectionResetError):
            await say(first, b"the secret word")
        assert b"the secret word" == await say(second, b"the secret word")

    assert 1 == proxy.cuts


async def test_a_lost_reply_leaves_its_request_carried_out() -> None:
    heard: list[bytes] = []

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            heard.append(line.strip())
            writer.write(b"done\n")
        writer.close()

    server = await asyncio.start_server(listen, "127.0.0.1", 0)
    async with server, Proxy(server.sockets[0].getsockname()[1]) as proxy:
        proxy.lose_reply_to(b"COMMIT")
        async with connected(proxy) as ends:
            assert b"done" == await say(ends, b"BEGIN")
            with pytest.raises(ConnectionResetError):
                await say(ends, b"COMMIT")

    assert [b"BEGIN", b"COMMIT"] == heard


async def test_a_link_is_cut_once_it_has_carried_its_share(proxy: Proxy) -> None:
    proxy.cut_after(20)

    async with connected(proxy) as ends:
        assert b"hello" == await say(ends, b"hello")
        with pytest.raises(ConnectionResetError):
            await say(ends, b"hello again")
