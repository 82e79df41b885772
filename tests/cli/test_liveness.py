"""Signs of life: what systemd and probes are told, and that they end with the process's loop."""

import asyncio
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from cli import liveness
from cli.serve import StartError
from shared.settings import Settings
from tests.waiting import until

LONG_AGO = 1_000_000_000


@pytest.fixture
def systemd(tmp_path: Path) -> Iterator[socket.socket]:
    """The socket that a service of Type=notify speaks to."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(tmp_path / "notify"))
        listening.settimeout(0)
        yield listening


async def test_systemd_is_told_when_the_process_is_ready_and_then_that_it_lives(
    systemd: socket.socket,
) -> None:
    loop = asyncio.get_running_loop()
    async with liveness.shown(Settings(notify_socket=systemd.getsockname())):
        told = [await asyncio.wait_for(loop.sock_recv(systemd, 100), 10) for _ in range(2)]

    assert [b"READY=1", b"WATCHDOG=1"] == told


async def test_an_abstract_socket_is_one_too(tmp_path: Path) -> None:
    name = f"runlane-{tmp_path.name}-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(f"\0{name}")

        async with liveness.shown(Settings(notify_socket=f"@{name}")):
            told = listening.recv(100)

    assert b"READY=1" == told


async def test_the_file_is_touched_while_the_loop_runs(tmp_path: Path) -> None:
    file = tmp_path / "alive"
    async with liveness.shown(Settings(alive_file=str(file))):
        os.utime(file, (LONG_AGO, LONG_AGO))
        await asyncio.to_thread(until, lambda: file.stat().st_mtime != LONG_AGO)

    assert file.stat().st_size == 0


async def test_a_file_that_cannot_be_written_keeps_a_process_from_starting(
    tmp_path: Path,
) -> None:
    with pytest.raises(StartError, match="ALIVE_FILE cannot be written"):
        async with liveness.shown(Settings(alive_file=str(tmp_path / "none" / "alive"))):
            pass
