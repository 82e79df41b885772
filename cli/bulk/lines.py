"""The file of inputs: one JSON object a line, read as a stream, judged as the API would."""

import asyncio
import hashlib
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import IO, Any

import msgspec

from api import strict_json
from cli.client import UsageError
from shared.domain import submissions
from shared.domain.submissions import BatchItem
from shared.errors import AppError

MAX_LINE_BYTES = 8_000_000
"""What fits into one request, whatever else is in it."""
_PIECE_BYTES = 1 << 20
_BREATH = 1000
_BOM = b"\xef\xbb\xbf"
_LIMITS = strict_json.Limits()


class BadLineError(Exception):
    """A line that cannot be submitted; the message says why."""


@dataclass(frozen=True)
class Defaults:
    """What lines that do not say so themselves get."""

    fields: dict[str, Any]


@dataclass(frozen=True)
class Line:
    """A line that can be submitted; `item` is what stands for it in a batch."""

    number: int
    key: str
    item: bytes

    @property
    def nodes(self) -> int:
        """At least as many values as the API counts in it."""
        return self.item.count(b",") + self.item.count(b":") + self.item.count(b"[") + 1


@dataclass(frozen=True)
class Bad:
    """A line that cannot be submitted, and why."""

    number: int
    message: str


@dataclass
class Survey:
    """What a first look over the whole file found; `bad` holds the first few."""

    digest: str
    count: int = 0
    bad_count: int = 0
    bad: list[Bad] = field(default_factory=list)


class Source:
    """The lines of a file, as often as they are asked for. A pipe is kept in a file meanwhile."""

    def __init__(self, path: Path | None, standard_input: IO[bytes]) -> None:
        try:
            if path is not None and path.is_file():
                self._file: IO[bytes] = path.open("rb")
            else:
                with standard_input if path is None else path.open("rb") as piped:
                    self._file = _kept(piped)
        except OSError as error:
            raise UsageError(f"{path or 'The input'} cannot be read ({error.strerror}).") from error

    def lines(self) -> Iterator[tuple[int, bytes | None]]:
        """Each line that is not blank, with its number; `None` for one that is too long."""
        self._file.seek(0)
        number = 0
        while raw := self._file.readline(MAX_LINE_BYTES + 1):
            number += 1
            if len(raw) > MAX_LINE_BYTES:
                while raw and not raw.endswith(b"\n"):
                    raw = self._file.readline(_PIECE_BYTES)
                yield number, None
                continue
            raw = (raw.removeprefix(_BOM) if number == 1 else raw).strip()
            if raw:
                yield number, raw


async def survey(source: Source, defaults: Defaults, now: datetime, *, shown: int) -> Survey:
    """Look at every line before the first is sent; Ctrl-C ends it within a moment."""
    digest = hashlib.sha256()
    found = Survey("")
    for number, raw in source.lines():
        digest.update(b"\n" if raw is None else raw + b"\n")
        found.count += 1
        if found.count % _BREATH == 0:
            await asyncio.sleep(0)
        try:
            read(raw, defaults, now)
        except BadLineError as error:
            found.bad_count += 1
            if len(found.bad) < shown:
                found.bad.append(Bad(number, str(error)))
    found.digest = digest.hexdigest()
    return found


def submittable(
    source: Source, defaults: Defaults, now: datetime, name: str
) -> Iterator[Line | Bad]:
    """Each line as it is sent, with its idempotency key: of the batch, the place, the content."""
    for number, raw in source.lines():
        try:
            item = read(raw, defaults, now)
        except BadLineError as error:
            yield Bad(number, str(error))
            continue
        own = item.get("idempotencyKey")
        content = hashlib.sha256(msgspec.json.encode(item, order="sorted")).hexdigest()
        key = own or f"{name}-{number}-{content[:32]}"
        yield Line(number, key, msgspec.json.encode(item | {"idempotencyKey": key}))


def read(raw: bytes | None, defaults: Defaults, now: datetime) -> dict[str, Any]:
    """A line as an item of a batch. Raises `BadLineError`.

    A line whose `inputs` is an object is a whole submission; any other holds the inputs alone.
    """
    if raw is None:
        raise BadLineError(f"it is longer than {MAX_LINE_BYTES:,} bytes")
    try:
        document = strict_json.read(raw, _LIMITS)
    except AppError as error:
        raise BadLineError(error.detail.rstrip(".")) from error
    whole = isinstance(document.get("inputs"), dict)
    item = defaults.fields | (document if whole else {"inputs": document})
    if item.get("prompt") is None:
        raise BadLineError("it names no prompt, and --prompt is not given")
    try:
        checked = msgspec.convert(item, BatchItem)
        # What the clock decides is the server's to judge: a repeated line may be late by now.
        timeless = msgspec.structs.replace(checked, run_at=None, deadline=None)
        submissions.check(timeless, now=now)
    except msgspec.ValidationError as error:
        raise BadLineError(_reason(error, whole=whole)) from error
    except AppError as error:
        raise BadLineError(error.detail.rstrip(".")) from error
    return item


def _reason(error: msgspec.ValidationError, *, whole: bool) -> str:
    hint = "" if whole else " (a whole submission has an object `inputs`)"
    return f"{error}{hint}"


def _kept(piped: IO[bytes]) -> IO[bytes]:
    kept = tempfile.TemporaryFile()  # noqa: SIM115 (it lives as long as the command)
    while piece := piped.read(_PIECE_BYTES):
        kept.write(piece)
    return kept
