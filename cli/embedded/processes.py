"""Start, watch, find and end server processes; the process table is the truth, not pid files."""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

_PROC = Path("/proc")
_POLL_S = 0.003


@dataclass(frozen=True)
class Account:
    """The unprivileged user servers run as when we are root."""

    uid: int
    gid: int


@dataclass(frozen=True)
class Process:
    """A line of the process table."""

    pid: int
    program: str  # base name of what was started
    command: str  # the whole command line, joined by spaces
    folder: tuple[int, int] | None  # device and inode of its working folder, where known


class Server:
    """A running server: our own child, or one that an earlier Runlane left behind."""

    def __init__(self, pid: int, child: "subprocess.Popen[bytes] | None" = None) -> None:
        self.pid = pid
        self._child = child

    def running(self) -> bool:
        if self._child is not None:
            return self._child.poll() is None
        return alive(self.pid)

    @property
    def code(self) -> int | None:
        """What our own child ended with."""
        return self._child.returncode if self._child is not None else None

    def send(self, number: signal.Signals) -> None:
        """Send a signal; a server that is gone is what every sender wanted."""
        if self.running():
            try:
                os.kill(self.pid, number)
            except ProcessLookupError:
                return

    def ended(self, timeout_s: float) -> bool:
        """Wait until it is gone; False when it still runs after the time."""
        return until(lambda: not self.running(), timeout_s)


def launch(
    argv: Sequence[str],
    folder: Path,
    account: Account | None,
    log: IO[bytes],
    given: IO[bytes] | None = None,
) -> Server:
    """Start a server inside folder, in a session of its own so that Ctrl-C does not reach it.

    The folder is entered before the account changes: its parents may stay closed to it.
    """
    child = subprocess.Popen(
        list(argv),
        cwd=folder,
        env=clean_environment(),
        stdin=given if given is not None else subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        start_new_session=True,
        umask=0o077,
        user=account.uid if account else None,
        group=account.gid if account else None,
        extra_groups=[] if account else None,
    )
    return Server(child.pid, child)


def clean_environment() -> dict[str, str]:
    """Return what a server gets to see: the caller's PG* variables would change its ways."""
    return {"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"}


def until(condition: Callable[[], bool], timeout_s: float) -> bool:
    """Poll a condition; False when it did not come true in time."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() >= deadline:
            return False
        time.sleep(_POLL_S)
    return True


def alive(pid: int) -> bool:
    """Whether a process of this number runs; an ended one nobody waited for does not."""
    return number_taken(pid) and not _zombie(pid)


def number_taken(pid: int) -> bool:
    """Whether the system has a process of this number, running or only not waited for."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # another user's
        return True
    return True


def table() -> Iterator[Process]:
    """Yield the processes we may look at."""
    if _PROC.joinpath("self", "cmdline").exists():
        yield from _table_of_linux()
    else:
        yield from _table_of_ps()


def _table_of_linux() -> Iterator[Process]:
    for entry in _PROC.iterdir():
        if not entry.name.isdigit():
            continue
        try:
            words = entry.joinpath("cmdline").read_bytes().rstrip(b"\0").split(b"\0")
            status = entry.joinpath("cwd").stat()
        except OSError:  # ended meanwhile, or another user's
            continue
        argv = [os.fsdecode(word) for word in words]
        yield Process(
            pid=int(entry.name),
            program=argv[0].rsplit("/", 1)[-1],
            command=" ".join(argv),
            folder=(status.st_dev, status.st_ino),
        )


def _table_of_ps() -> Iterator[Process]:
    listing = subprocess.run(
        ["/bin/ps", "-axww", "-o", "pid=,command="], check=False, capture_output=True
    )
    for line in os.fsdecode(listing.stdout).splitlines():
        pid, _, command = line.strip().partition(" ")
        program = command.split(" -", 1)[0].rsplit("/", 1)[-1]
        yield Process(pid=int(pid), program=program, command=command, folder=None)


def _zombie(pid: int) -> bool:
    try:
        state = _PROC.joinpath(str(pid), "stat").read_bytes().rpartition(b")")[2].split()[0]
    except OSError:  # no /proc here, or gone since
        return False
    return state in (b"Z", b"X")
