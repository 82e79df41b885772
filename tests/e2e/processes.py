"""The `runlane` command as child processes, the way a person or a service manager starts it."""

import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Self

from cli.embedded import processes
from shared.settings import environment
from tests.waiting import until

ROOT = Path(__file__).parents[2]
BIN = Path(sys.prefix) / "bin"
RUNLANE = str(BIN / "runlane")
ORDINARY_UID = 65534
START_S = 60.0
END_S = 30.0

# Another user, who still reads a checkout below a closed folder such as /root.
_AS_ORDINARY_USER = (
    "setpriv",
    f"--reuid={ORDINARY_UID}",
    f"--regid={ORDINARY_UID}",
    "--clear-groups",
    "--inh-caps=+dac_override",
    "--ambient-caps=+dac_override",
)

running: list["Process"] = []
"""What runs now; a failing test shows what these said."""


class Process:
    """A child process whose output is kept; as a context manager it ends with its block."""

    def __init__(
        self, argv: Sequence[str], *, env: Mapping[str, str], cwd: Path | None = None
    ) -> None:
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 (closed with the process)
        self._child = subprocess.Popen(
            list(argv),
            env=dict(env),
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=self._file,
            stderr=subprocess.STDOUT,
        )
        self.pid = self._child.pid
        self.name = " ".join(argv[-2:])
        running.append(self)

    def said(self) -> str:
        """Everything it printed until now, standard error included."""
        return os.pread(self._file.fileno(), 10_000_000, 0).decode(errors="replace")

    def says(self, text: str, timeout_s: float = START_S) -> str:
        """Wait until it has printed something; answers all it printed."""
        until(lambda: text in self.said() or self._ended(), timeout_s, otherwise=self.said)
        assert text in self.said(), f"{self.name} ended with {self.code}: {self.said()}"
        return self.said()

    @property
    def code(self) -> int | None:
        return self._child.poll()

    def send(self, number: signal.Signals) -> None:
        self._child.send_signal(number)

    def kill(self) -> None:
        """SIGKILL it alone; what it started stays behind."""
        self._child.kill()
        self._child.wait(END_S)

    def end(self) -> int:
        """Ask it to end, wait for that; its exit code."""
        if self.code is None:
            self.send(signal.SIGTERM)
        try:
            return self._child.wait(END_S)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"{self.name} did not end: {self.said()}") from None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self.end()
        finally:
            self.forget()

    def forget(self) -> None:
        """Drop what it said, once it has ended."""
        running.remove(self)
        self._file.close()

    def _ended(self) -> bool:
        return self.code is not None


def servers_in(data_dir: Path) -> list[str]:
    """The server processes of a data folder that run now, by the folders they work in."""
    places = [data_dir / name for name in ("postgres", "valkey")]
    folders = {
        (status.st_dev, status.st_ino) for status in (p.stat() for p in places if p.exists())
    }
    return [process.command for process in processes.table() if process.folder in folders]


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def spare_curl(folder: Path) -> Path:
    """Put a `curl` into a folder, for the end of a PATH: not every system has one."""
    curl = folder / "curl"
    curl.write_text(f"#!{BIN}/python\n{Path(__file__).with_name('curl.py').read_text()}")
    curl.chmod(0o700)
    return folder


def clean_env(home: Path, **variables: str) -> dict[str, str]:
    """What a fresh login has, an empty home included; coverage still sees into the process."""
    measured = {name: value for name, value in environment().items() if name.startswith("COV")}
    return {"PATH": os.defpath, "HOME": str(home), "LC_ALL": "C.UTF-8", **measured, **variables}


def as_ordinary_user(argv: Sequence[str]) -> list[str]:
    """The same command for a user who is not root, whoever runs the tests."""
    return [*_AS_ORDINARY_USER, *argv] if os.geteuid() == 0 else list(argv)


def hand_over(folder: Path) -> None:
    """Give a folder to whom `as_ordinary_user` runs commands as."""
    if os.geteuid() == 0:
        os.chown(folder, ORDINARY_UID, ORDINARY_UID)


@contextmanager
def served(process: Process) -> Iterator[str]:
    """Run `runlane dev` for the length of a block; its URL, as it prints it."""
    with process:
        yield url_of(process)


def url_of(process: Process) -> str:
    """Wait until `runlane dev` is ready; its URL."""
    told = process.says("Runlane is ready at http")
    return told.partition("ready at ")[2].split()[0]


def run(*argv: str, env: Mapping[str, str], cwd: Path | None = None) -> tuple[int, str, str]:
    """Run a command to its end; exit code, standard output, standard error."""
    done = subprocess.run(
        argv, env=dict(env), cwd=cwd, check=False, capture_output=True, text=True, timeout=START_S
    )
    return done.returncode, done.stdout, done.stderr
