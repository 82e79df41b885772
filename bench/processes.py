"""Start a program, wait until it says that it is ready, end it by its process id."""

import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from bench import cpu
from bench.errors import BenchError
from shared.settings import environment

READY_S = 30.0
STOP_S = 10.0
_POLL_S = 0.02
_REST_S = 0.5
_RESTING_MS = 20.0  # in so long: a tick or two
_KEPT = ("PATH", "HOME", "LANG", "VIRTUAL_ENV", "TMPDIR")


class Child:
    """A running program; what it says goes to `log_path`."""

    def __init__(
        self, argv: Sequence[str], env: Mapping[str, str], log_path: Path, cwd: Path | None = None
    ) -> None:
        self.log_path = log_path
        with log_path.open("ab") as log:
            self._said_from = log.tell()
            self._process = subprocess.Popen(
                list(argv),
                env=kept_environment() | dict(env),
                cwd=cwd,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C ends the bench, which then ends this
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    def wait_for(self, word: str, timeout_s: float = READY_S) -> None:
        """Wait until the program has said this word."""
        deadline = time.monotonic() + timeout_s
        while word not in self.said():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                raise BenchError(
                    f"{self.log_path.name}: never said {word!r}:\n{self.said()[-2000:]}"
                )
            time.sleep(_POLL_S)

    def said(self) -> str:
        with self.log_path.open("rb") as log:
            log.seek(self._said_from)
            return log.read().decode(errors="replace")

    def kill(self) -> None:
        """End it as a crash would."""
        self._process.kill()
        self._process.wait()

    def stop(self) -> None:
        """End it in order, or by force when that takes too long."""
        for number in (signal.SIGTERM, signal.SIGTERM, signal.SIGKILL):
            if self._process.poll() is not None:
                return
            self._process.send_signal(number)
            try:
                self._process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                continue


def settle(children: Sequence[Child], *cores: int) -> None:
    """Wait until freshly started programs rest, then put them on these cores (none: all).

    Programs go on loading libraries after they say that they are ready, a second of CPU and more:
    it would be counted as the cost of the first runs. And starting on one core takes twice as long.
    """
    groups = {"all": [child.pid for child in children]}
    deadline = time.monotonic() + READY_S
    before_ms, resting_ms = 0.0, _RESTING_MS * len(children)
    while (now_ms := cpu.cpu_ms(groups)["all"]) - before_ms > resting_ms:
        if time.monotonic() > deadline:
            raise BenchError("Programs that have nothing to do are still busy after their start.")
        before_ms = now_ms
        time.sleep(_REST_S)
    for child in children:
        cpu.move_tree(child.pid, *cores)


@contextmanager
def ended_after(children: list[Child]) -> Iterator[list[Child]]:
    """End whatever is in the list at the end of the block, the last first."""
    try:
        yield children
    finally:
        for child in reversed(children):
            child.stop()


def kept_environment() -> dict[str, str]:
    """The few variables a program needs; everything else would make runs differ."""
    given = environment()
    return {name: given[name] for name in _KEPT if name in given}


def free_folder(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
