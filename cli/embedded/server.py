"""What both servers have in common: start or adopt, stop, restart, kill."""

import contextlib
import os
import re
import secrets
import signal
import socket
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, ClassVar, Literal

from cli.embedded import folders, processes
from cli.embedded.errors import EmbeddedError, ServerFailedError
from cli.embedded.wheels import Binaries

StopMode = Literal["fast", "immediate"]

# Below the range the kernel hands to outgoing connections: a client that keeps dialling a server
# that is down can otherwise be given that very port, and take it.
_PORTS = range(20_000, 32_000)
_PORT_TRIES = 100
_LAUNCH_TRIES = 3
_LOG_MAX_BYTES = 10_000_000
_BEFORE_THE_WORDS = re.compile(r"^.*?(FATAL|PANIC|ERROR|error|# [A-Z]\w+):\s+")
_APPEND = os.O_WRONLY | os.O_CREAT | os.O_APPEND


@dataclass(frozen=True)
class Place:
    """Where and as whom the servers of one data folder run."""

    data_dir: Path
    account: processes.Account | None
    binaries: Binaries
    sockets: Path


@dataclass(frozen=True)
class Options:
    tcp: bool
    durable: bool


class EmbeddedServer(ABC):
    """One server of a data folder. The caller holds the folder's lock."""

    name: ClassVar[str]  # for people
    programs: ClassVar[tuple[str, ...]]  # how its processes' names begin
    folder_name: ClassVar[str]
    socket_port: ClassVar[int]  # the port that stands in the URL when there is no TCP
    start_timeout_s: ClassVar[float] = 60  # replaying a long log takes a while
    stop_timeout_s: ClassVar[float] = 30
    orphan_timeout_s: ClassVar[float] = 5
    health_timeout_s: ClassVar[float] = 3

    def __init__(self, place: Place, options: Options) -> None:
        self.place = place
        self.options = options
        self.port = self.socket_port
        self._server: processes.Server | None = None
        self._log_start = 0

    @property
    def data_dir(self) -> Path:
        return self.place.data_dir / self.folder_name

    @property
    def log_path(self) -> Path:
        return self.place.data_dir / "logs" / f"{self.folder_name}.log"

    @property
    def pid(self) -> int:
        """The server's process; after its end, the one it was."""
        if self._server is None:
            raise EmbeddedError(f"The embedded {self.name} has not been started.")
        return self._server.pid

    @property
    def running(self) -> bool:
        return self._server is not None and self._server.running()

    def start(self) -> None:
        """Start it, or adopt a healthy one left by a Runlane that was killed; wait until ready."""
        if self.running:
            return
        with folders.writing(self.place.data_dir):
            folders.make_server_folder(self.place.sockets, self.place.account)
            self.prepare()
            again = self._server is not None
            if not again:
                self.port = self._remembered_port()
                if self._adopt():
                    return
            self.clear(self.data_dir)
            self._launch_on_free_port(fixed=again or not self.options.tcp)

    def stop(self, mode: StopMode = "fast") -> None:
        """End it in order (`fast`) or as a crash would (`immediate`); returns when it is gone."""
        if self._server is None:
            return
        self._server.send(self.stop_signal(mode))
        if self._server.ended(self.stop_timeout_s):
            return
        for harder in (self.stop_signal("immediate"), signal.SIGKILL):
            self._server.send(harder)
            if self._server.ended(self.orphan_timeout_s):
                return
        raise self.failed(f"process {self.pid} did not end")

    def restart(self, mode: StopMode = "fast") -> None:
        """Stop and start on the same port."""
        self.stop(mode)
        self.start()

    def kill(self) -> None:
        """SIGKILL; returns when it is gone."""
        if self._server is not None:
            self._server.send(signal.SIGKILL)
            self._server.ended(self.orphan_timeout_s)

    @property
    @abstractmethod
    def url(self) -> str:
        """Where clients connect."""

    @abstractmethod
    def prepare(self) -> None:
        """Make what the server needs on disk."""

    @abstractmethod
    def command(self) -> Sequence[str]:
        """What to start; an orphan is adopted only when its command line is the same."""

    @abstractmethod
    def ready(self, pid: int) -> bool:
        """Whether the server just started answers."""

    @abstractmethod
    def healthy(self, pid: int) -> bool:
        """Whether an orphan answers; bounded in time, since it may be frozen."""

    @abstractmethod
    def stop_signal(self, mode: StopMode) -> signal.Signals: ...

    def run_to_end(self, argv: Sequence[str], folder: Path, given: IO[bytes]) -> None:
        """Run a tool of the server inside folder, as the server's user."""
        with self._log() as log:
            tool = processes.launch(argv, folder, self.place.account, log, given)
            try:
                tool.ended(self.start_timeout_s)
            finally:
                tool.send(signal.SIGKILL)
                tool.ended(self.orphan_timeout_s)
        if tool.code != 0:
            raise self.failed(self._last_words())

    def found(self, folder: Path) -> Iterator[processes.Process]:
        """Yield this server's processes, helpers too, that work in folder or on our sockets."""
        identity = _identity(folder)
        for process in processes.table():
            if process.program.startswith(self.programs) and (
                process.folder == identity or str(self.place.sockets) in process.command
            ):
                yield process

    def clear(self, folder: Path) -> None:
        """End what an earlier start left running inside folder."""
        found = list(self.found(folder))
        # PostgreSQL's helpers are titled `postgres: …` and end with the server, or without one.
        leaders = [process for process in found if ":" not in process.program]
        for process in leaders or found:
            processes.Server(process.pid).send(self.stop_signal("fast"))
        if found and not self._gone(folder):
            for process in self.found(folder):
                processes.Server(process.pid).send(signal.SIGKILL)
            if not self._gone(folder):
                raise self.failed("processes of an earlier start do not end")

    def failed(self, reason: str) -> ServerFailedError:
        """Return the error that tells what went wrong and where the log is."""
        return ServerFailedError(self.name, reason.rstrip("."), self.log_path)

    def _adopt(self) -> bool:
        wanted = " ".join(self.command())
        folder = _identity(self.data_dir)
        for found in self.found(self.data_dir):
            if (
                found.command == wanted
                and found.folder in (None, folder)
                and self._becomes_healthy(found.pid)
            ):
                self._server = processes.Server(found.pid)
                return True
        return False

    def _becomes_healthy(self, pid: int) -> bool:
        # It may be recovering from the crash of one of its own processes.
        return processes.until(lambda: self.healthy(pid), self.health_timeout_s)

    def _gone(self, folder: Path) -> bool:
        return processes.until(
            lambda: next(self.found(folder), None) is None, self.orphan_timeout_s
        )

    def _launch_on_free_port(self, *, fixed: bool) -> None:
        for tries_left in reversed(range(_LAUNCH_TRIES)):
            try:
                self._launch()
            except ServerFailedError:
                taken = any("already in use" in line for line in self._said())
                if fixed or tries_left == 0 or not taken:
                    raise
                self.port = _free_port()
            else:
                return

    def _launch(self) -> None:
        with self._log() as log:
            server = processes.launch(self.command(), self.data_dir, self.place.account, log)
        self._server = server
        processes.until(
            lambda: not server.running() or self.ready(server.pid), self.start_timeout_s
        )
        if not self.ready(server.pid) or not server.running():
            self.kill()
            self._server = None
            raise self.failed(self._last_words())
        if self.options.tcp:
            self._port_file.write_text(str(self.port))

    @property
    def _port_file(self) -> Path:
        return self.place.data_dir / f"{self.folder_name}.port"

    def _remembered_port(self) -> int:
        if not self.options.tcp:
            return self.socket_port
        with contextlib.suppress(FileNotFoundError, ValueError):
            return int(self._port_file.read_text())
        return _free_port()

    @contextlib.contextmanager
    def _log(self) -> Iterator[IO[bytes]]:
        self.log_path.parent.mkdir(mode=0o700, exist_ok=True)
        with contextlib.suppress(FileNotFoundError):
            if self.log_path.stat().st_size > _LOG_MAX_BYTES:
                self.log_path.replace(self.log_path.with_suffix(".log.1"))
        with os.fdopen(os.open(self.log_path, _APPEND, 0o600), "ab") as log:
            self._log_start = log.tell()
            yield log

    def _said(self) -> list[str]:
        """Return the log's lines since the last launch."""
        with self.log_path.open("rb") as log:
            log.seek(self._log_start)
            lines = log.read().decode(errors="replace").split("\n")
        return [line.strip() for line in lines if line.strip()]

    def _last_words(self) -> str:
        """Return what says most about a failed start."""
        said = self._said()
        for mark in ("could not", "error", "FATAL", "PANIC", "Could not", "Fatal"):
            for line in reversed(said):
                if mark in line:
                    return _BEFORE_THE_WORDS.sub("", line)
        return said[-1] if said else "it said nothing"


def _identity(folder: Path) -> tuple[int, int]:
    status = folder.stat()
    return (status.st_dev, status.st_ino)


def _free_port() -> int:
    for _ in range(_PORT_TRIES):
        port = secrets.choice(_PORTS)
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with contextlib.suppress(OSError):
                probe.bind(("127.0.0.1", port))
                return port
    raise EmbeddedError("No free TCP port was found on 127.0.0.1.")
