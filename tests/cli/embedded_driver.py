"""A process that holds embedded servers as `runlane dev` does, for tests that kill it."""

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cli.embedded import EmbeddedError, FolderLock, start, wheels
from cli.embedded.processes import Account
from shared.settings import environment

URL = "http://127.0.0.1:8000"


@dataclass(frozen=True)
class Told:
    """What the process said after its start: either servers or an error."""

    database_url: str = ""
    redis_url: str = ""
    postgres_pid: int = 0
    valkey_pid: int = 0
    error: str = ""
    modules: tuple[str, ...] = ()


class Driver:
    """The test's side: start it, read what it told, kill or stop it."""

    def __init__(self, data_dir: Path, *, uid: int | None = None, tcp: bool = False) -> None:
        options = [f"--uid={uid}"] if uid is not None else []
        options += ["--tcp"] if tcp else []
        self._child = subprocess.Popen(
            [sys.executable, "-m", __name__, str(data_dir), *options],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[2],
            env=_without_coverage() if uid is not None else None,
        )
        self.pid = self._child.pid
        assert self._child.stdout is not None
        self.told = Told(**json.loads(self._child.stdout.readline()))

    def kill(self) -> None:
        """SIGKILL it alone: its servers stay behind."""
        self._child.kill()
        self._end()

    def stop(self) -> int:
        """Let it end in order; return its exit code."""
        return self._end()

    def _end(self) -> int:
        self._child.communicate()
        return self._child.returncode


@contextlib.contextmanager
def driving(data_dir: Path, *, uid: int | None = None, tcp: bool = False) -> Iterator[Driver]:
    """Run it for the length of a block; what the block did not stop is stopped."""
    driver = Driver(data_dir, uid=uid, tcp=tcp)
    try:
        yield driver
    finally:
        driver.stop()


def _without_coverage() -> dict[str, str]:
    # Another user cannot write the measurements.
    return {key: value for key, value in environment().items() if not key.startswith("COV")}


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parser = argparse.ArgumentParser()
    parser.add_argument("data_dir", type=Path)
    parser.add_argument("--uid", type=int)
    parser.add_argument("--tcp", action="store_true")
    asked = parser.parse_args()
    binaries = wheels.locate()
    if asked.uid is not None and os.geteuid() == 0:
        # The programs may lie below a folder closed to that user, as Python itself may: what is
        # needed is loaded by now.
        binaries = wheels.usable_by(Account(asked.uid, asked.uid), binaries)
        os.setgroups([])
        os.setgid(asked.uid)
        os.setuid(asked.uid)
    try:
        with (
            FolderLock(asked.data_dir) as lock,
            start(asked.data_dir, tcp=asked.tcp, binaries=binaries) as servers,
        ):
            lock.write(URL)
            told = {
                "database_url": servers.database_url,
                "redis_url": servers.redis_url,
                "postgres_pid": servers.postgres.pid,
                "valkey_pid": servers.valkey.pid,
                "modules": [name for name in sys.modules if "." not in name],
            }
            print(json.dumps(told), flush=True)  # noqa: T201 (this is how it talks)
            sys.stdin.read()
    except EmbeddedError as error:
        print(json.dumps({"error": str(error)}), flush=True)  # noqa: T201
        sys.exit(1)


if __name__ == "__main__":
    main()
