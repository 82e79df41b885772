"""The file of results: which line became which run, in the order of the lines.

Its first line names the batch and the server; each other is a line of the input with its run's id,
or with the error for which it was skipped. A command that is repeated goes on behind its last
whole line. Nothing hangs on it: without it every line is sent again, under the same key.
"""

import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any, Self

import msgspec

from cli.client import UsageError

if sys.platform != "win32":
    import fcntl


class Head(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which batch these are the results of."""

    batch: str
    server: str


class Entry(msgspec.Struct, frozen=True, omit_defaults=True, rename="camel"):
    """What became of one line; the fields from `status` on come with `--wait`."""

    line: int
    key: str | None = None
    id: str | None = None
    status: str | None = None
    output: str | None = None
    incomplete_reason: str | None = None
    error: dict[str, Any] | None = None
    token_usage: dict[str, Any] | None = None
    cost: dict[str, Any] | None = None


_heads = msgspec.json.Decoder(Head)
_entries = msgspec.json.Decoder(Entry)


class Results:
    """The open file; nobody else's command writes it meanwhile. Raises `UsageError`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._file: IO[bytes] = open(  # noqa: SIM115, PTH123 (closed at the end of its block)
                os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600), "r+b"
            )
        except OSError as error:
            raise UsageError(f"{path} cannot be written ({error.strerror}).") from error
        self._lock()
        self._cut_torn_line()
        self.head = self._head()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def begin(self, head: Head) -> None:
        """Name the batch, before anything of it is sent."""
        self.head = head
        self._write([head])

    def known(self) -> Iterator[Entry]:
        """What earlier commands wrote, in order; to be read to its end before anything is added."""
        self._file.seek(0)
        self._file.readline()
        before = 0
        while raw := self._file.readline():
            entry = self._decoded(_entries, raw)
            if entry.line <= before:
                raise self._foreign()
            before = entry.line
            yield entry

    def add(self, entries: Sequence[Entry]) -> None:
        """Write what became of further lines."""
        self._write(entries)

    def replace(self, entries: IO[bytes]) -> None:
        """Put a finished file of entries in the place of this one."""
        entries.flush()
        os.replace(entries.name, self.path)  # noqa: PTH105 (the name of an open file)

    def _write(self, rows: Sequence[msgspec.Struct]) -> None:
        try:
            self._file.seek(0, os.SEEK_END)
            self._file.write(b"".join(msgspec.json.encode(row) + b"\n" for row in rows))
            self._file.flush()
        except OSError as error:
            raise UsageError(f"{self.path} cannot be written ({error.strerror}).") from error

    def _lock(self) -> None:
        if sys.platform == "win32":
            return
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UsageError(f"Another command writes {self.path} right now.") from error

    def _cut_torn_line(self) -> None:
        """Forget the end of a command that was killed while it wrote."""
        end = self._file.seek(0, os.SEEK_END)
        keep = end
        while keep:
            start = max(0, keep - 65_536)
            self._file.seek(start)
            newline = self._file.read(keep - start).rfind(b"\n")
            if newline >= 0:
                keep = start + newline + 1
                break
            keep = start
        if keep < end:
            self._file.seek(0)
            if keep == 0 and not self._file.read(1).startswith(b"{"):
                raise self._foreign()
            self._file.truncate(keep)

    def _head(self) -> Head | None:
        self._file.seek(0)
        raw = self._file.readline()
        return self._decoded(_heads, raw) if raw else None

    def _decoded(self, decoder: "msgspec.json.Decoder[Any]", raw: bytes) -> Any:
        try:
            return decoder.decode(raw)
        except msgspec.MsgspecError as error:
            raise self._foreign() from error

    def _foreign(self) -> UsageError:
        return UsageError(
            f"{self.path} is no file of results of this command: choose another with --out."
        )
