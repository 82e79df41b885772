"""Child processes of the rig: started, frozen and killed by their ids, and nothing else."""

import json
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from uuid import uuid4

from tests.faults.waiting import until
from tests.waiting import until as until_now

_ROOT = Path(__file__).parents[2]
_SHOWN_LINES = 60
_RUN_S = 60.0


class Child:
    """One process. Its standard output and error go to `log`."""

    def __init__(self, name: str, pid: int, log: Path) -> None:
        self.name = name
        self.pid = pid
        self.log = log

    @property
    def state(self) -> str:
        """The kernel's letter: `S` and `R` live, `T` is frozen, `Z` has ended."""
        return self._stat()[0]

    @property
    def alive(self) -> bool:
        return self.state != "Z"

    @property
    def exit_code(self) -> int:
        """The code of a process that has ended; negative when a signal ended it."""
        return os.waitstatus_to_exitcode(int(self._stat()[-1]))

    def memory_mib(self, name: str) -> float:
        """`VmRSS`, what it has in memory, or `VmHWM`, the most it ever had."""
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith(f"{name}:"):
                return int(line.split()[1]) / 1024
        raise AssertionError(f"{self.name} has ended")

    def send(self, number: signal.Signals) -> None:
        if self.alive:
            os.kill(self.pid, number)

    async def kill(self) -> None:
        """SIGKILL; returns when it is gone."""
        self.send(signal.SIGKILL)
        await self.ended()

    async def ended(self, *, within_s: float = 15.0) -> int:
        """Wait for its end; answers the exit code."""

        async def gone() -> bool:
            return not self.alive

        await until(gone, f"{self.name} ends", within_s=within_s)
        return self.exit_code

    async def frozen(self) -> None:
        """Wait until it is stopped, by a crash point or by a signal."""

        async def stopped() -> bool:
            assert self.alive, f"{self.name} ended instead of stopping"
            return self.state == "T"

        await until(stopped, f"{self.name} stops")

    async def freeze(self) -> None:
        self.send(signal.SIGSTOP)
        await self.frozen()

    def thaw(self) -> None:
        self.send(signal.SIGCONT)

    def limit_memory(self, spare_bytes: int) -> None:
        """Give it so much more address space than it uses, and no more."""
        pages = int(Path(f"/proc/{self.pid}/statm").read_text().split()[0])
        limit = pages * resource.getpagesize() + spare_bytes
        resource.prlimit(self.pid, resource.RLIMIT_AS, (limit, limit))

    async def says(self, event: str, *, within_s: float = 15.0) -> Mapping[str, object]:
        """Wait for an event in its log; answers the first one with its fields."""

        async def said() -> Mapping[str, object] | None:
            found = self.said(event)
            assert found or self.alive, f"{self.name} ended without saying {event}"
            return found[0] if found else None

        return await until(said, f"{self.name} says {event}", within_s=within_s)

    def said(self, event: str) -> list[Mapping[str, object]]:
        """Every such event in its log so far."""
        if not self.log.exists():
            return []
        lines = [line for line in self.log.read_text().splitlines() if f'"{event}"' in line]
        found = [json.loads(line) for line in lines if line.startswith("{")]
        return [line for line in found if line.get("event") == event]

    def last_words(self) -> str:
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        return "\n".join(lines[-_SHOWN_LINES:])

    def _stat(self) -> list[str]:
        text = Path(f"/proc/{self.pid}/stat").read_text()
        return text[text.rindex(")") + 2 :].split()


class Launcher:
    """The process that forks our children; a context manager."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.launcher"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=_ROOT,
            start_new_session=True,
        )

    def launch(
        self,
        name: str,
        args: Sequence[str],
        env: Mapping[str, str],
        log: Path,
        errors: Path | None = None,
    ) -> Child:
        """Start `runlane` with arguments; standard error goes to the log too unless told where."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        order = {
            "args": list(args),
            "env": dict(env),
            "log": str(log),
            "errors": str(errors or log),
        }
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        return Child(name, int(self._process.stdout.readline()), log)

    def run(
        self, args: Sequence[str], env: Mapping[str, str], folder: Path
    ) -> tuple[int, str, str]:
        """Run `runlane` to its end; exit code, standard output, standard error.

        The folder is where what it prints is kept.
        """
        out, err = (folder / f"{name}-{uuid4().hex}" for name in ("out", "err"))
        child = self.launch(" ".join(args), args, env, out, err)
        until_now(lambda: not child.alive, _RUN_S, otherwise=child.last_words)
        return child.exit_code, out.read_text(), err.read_text()

    def close(self) -> None:
        """End it; its children have to be ended first."""
        self._process.communicate()
