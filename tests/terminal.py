"""A person's terminal with a shell in it, for what commands print only where somebody looks."""

import os
import pty
import shlex
import subprocess
import termios
from collections.abc import Mapping
from pathlib import Path
from typing import Self

from tests.waiting import until

_MARK = "\x1e"
_LINES = 40


class Terminal:
    """Keeps one shell, with its variables and folder, for the length of a block.

    A dumb terminal shows no colours and moves nothing.
    """

    def __init__(
        self, folder: Path, env: Mapping[str, str], *, columns: int = 100, kind: str = "dumb"
    ) -> None:
        self._script = folder / ".typed"
        self._screen, slave = pty.openpty()
        termios.tcsetwinsize(slave, (_LINES, columns))
        os.set_blocking(self._screen, False)
        self._shell = subprocess.Popen(
            ["/bin/bash", "--noprofile", "--norc"],
            cwd=folder,
            env={**env, "TERM": kind},
            stdin=subprocess.PIPE,
            stdout=slave,
            stderr=slave,
        )
        os.close(slave)
        self._said = ""

    def type(self, commands: str, timeout_s: float = 60) -> tuple[int, str]:
        """Type commands and wait for them; the last one's exit code, and all that was printed."""
        assert self._shell.stdin is not None
        self._said = ""
        self._script.write_text(commands)
        line = f"source {shlex.quote(str(self._script))} </dev/null; printf '{_MARK}%d{_MARK}' $?\n"
        self._shell.stdin.write(line.encode())
        self._shell.stdin.flush()
        until(self._over, timeout_s, otherwise=lambda: self._said)
        said, code, _ = self._said.split(_MARK)
        return int(code), said.replace("\r\n", "\n")

    def _over(self) -> bool:
        try:
            self._said += os.read(self._screen, 1_000_000).decode()
        except BlockingIOError:
            return False
        return self._said.endswith(_MARK) and self._said.count(_MARK) > 1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._shell.kill()
        self._shell.communicate()
        os.close(self._screen)
