"""The disk under PostgreSQL is full. Mounting a small one needs root: see `conftest.py`."""

import os
import secrets
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from cli.embedded import FolderLock, start
from tests.faults.client import Reply
from tests.faults.processes import Launcher
from tests.faults.rig import Rig
from tests.faults.vendors import model_of
from tests.faults.waiting import until

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.xdist_group("faults")]

ANSWER = model_of("answer")
PROMPT_S = 3.0


@contextmanager
def small_disk(folder: Path) -> Iterator[Path]:
    """A file system of its own."""
    mount, umount = shutil.which("mount"), shutil.which("umount")
    assert mount
    assert umount
    subprocess.run([mount, "-t", "tmpfs", "-o", "size=400m", "tmpfs", str(folder)], check=True)
    try:
        yield folder
    finally:
        subprocess.run([umount, "--lazy", str(folder)], check=True)


def fill(disk: Path) -> Path:
    """Leave no room on a disk; answers the file that takes it."""
    ballast = disk / "ballast"
    with ballast.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, shutil.disk_usage(disk).free)
    return ballast


async def test_a_full_disk_refuses_submissions_and_forgets_nothing(
    launcher: Launcher, tmp_path_factory: pytest.TempPathFactory
) -> None:
    logs = tmp_path_factory.mktemp("logs")
    with (
        small_disk(tmp_path_factory.mktemp("disk")) as disk,
        FolderLock(disk / "data"),
        start(disk / "data", tcp=True, durable=True) as servers,
    ):
        async with Rig(servers, launcher, logs) as rig:
            await rig.api()
            worker = await rig.worker()
            before = await rig.customer.accepted("f38 before", ANSWER)
            await rig.ended(before)

            ballast = fill(disk)
            replies = [await _fat(rig, number) for number in range(40)]
            ballast.unlink()
            servers.start()
            later = await until(lambda: _taken(rig), "submissions are taken", within_s=15)
            await rig.ended(later)

            assert {200, 500, 503} >= {reply.status for reply in replies}
            assert 503 in {reply.status for reply in replies}
            assert max(reply.took_s for reply in replies) < PROMPT_S
            assert worker.alive
            assert [] == await rig.verdict()
            assert [] == rig.complaints()
        servers.stop("immediate")


async def _fat(rig: Rig, number: int) -> Reply:
    """Submit what does not fit into the room that is left on a page."""
    inputs = {"case": secrets.token_hex(50_000)}
    return await rig.customer.submit(f"f38 {number}", ANSWER, key=f"f38 {number}", inputs=inputs)


async def _taken(rig: Rig) -> str | None:
    reply = await rig.customer.submit("f38 later", ANSWER, key="f38 later")
    return reply.run_id if reply.accepted else None
