"""Sending lines as batches: a few in flight, their results in order."""

import asyncio
import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from http import HTTPStatus

from cli import client
from cli.bulk.lines import Bad, Line
from cli.bulk.results import Entry
from cli.client import Client, CommandError, RefusedError

BATCH_LINES = 1000
BATCH_BYTES = 2_000_000
"""A body that a slow line still carries within the 10 seconds the server gives it."""
BATCH_NODES = 90_000
"""The server takes 100,000 values in a batch."""
IN_FLIGHT = 4

_PLACE = re.compile(r"/runs/(\d+)(.*)")

Chunk = Sequence[Line | Bad]


class LineRefusedError(CommandError):
    """The server does not take a line; nothing of its batch was submitted."""

    def __init__(self, entry: Entry) -> None:
        self.entry = entry
        error = entry.error or {}
        place = f" at {error['pointer']}" if error.get("pointer") else ""
        super().__init__(f"Line {entry.line}: {error.get('message')} ({error.get('code')}{place})")


def chunks(lines: Iterable[Line | Bad]) -> Iterator[Chunk]:
    """Cut lines into what the API takes at once."""
    chunk: list[Line | Bad] = []
    size = nodes = 0
    for line in lines:
        more_size = len(line.item) if isinstance(line, Line) else 0
        more_nodes = line.nodes if isinstance(line, Line) else 0
        full = (
            len(chunk) >= BATCH_LINES
            or size + more_size > BATCH_BYTES
            or nodes + more_nodes > BATCH_NODES
        )
        if chunk and full:
            yield chunk
            chunk, size, nodes = [], 0, 0
        chunk.append(line)
        size += more_size
        nodes += more_nodes
    if chunk:
        yield chunk


class Sender:
    """Submits chunks; `stop` lets those in flight come to their end and begins no other."""

    def __init__(self, api: Client, *, skip_bad: bool) -> None:
        self._api = api
        self._skip_bad = skip_bad
        self.stopping = False

    def stop(self) -> None:
        self.stopping = True

    async def send_all(
        self, wanted: Iterable[Chunk], done: Callable[[Sequence[Entry]], None]
    ) -> None:
        """Submit chunk after chunk; `done` gets their results in order.

        Raises `LineRefusedError` and what the client raises; what was in flight is then unknown.
        """
        flying: deque[asyncio.Task[Sequence[Entry]]] = deque()
        loop = asyncio.get_running_loop()

        async def land() -> None:
            first = flying[0]
            done(await first)
            del flying[0]

        try:
            for chunk in wanted:
                if self.stopping:
                    break
                flying.append(loop.create_task(self._send(chunk)))
                if len(flying) >= IN_FLIGHT:
                    await land()
            while flying:
                await land()
        finally:
            for task in flying:
                task.cancel()
            await asyncio.gather(*flying, return_exceptions=True)

    async def _send(self, chunk: Chunk) -> Sequence[Entry]:
        entries = [_of_bad(line) for line in chunk if isinstance(line, Bad)]
        entries += await self._submit([line for line in chunk if isinstance(line, Line)])
        return sorted(entries, key=lambda entry: entry.line)

    async def _submit(self, lines: list[Line]) -> list[Entry]:
        """Submit lines, without those the server refuses where that is wanted."""
        refused: list[Entry] = []
        while lines:
            try:
                ids = await self._post(lines)
            except RefusedError as error:
                if error.status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE and len(lines) > 1:
                    half = len(lines) // 2
                    parts = [await self._submit(lines[:half]), await self._submit(lines[half:])]
                    return refused + parts[0] + parts[1]
                place, entry = _refusal(error, lines)
                if entry is None:
                    raise
                if not self._skip_bad:
                    raise LineRefusedError(entry) from error
                refused.append(entry)
                lines = lines[:place] + lines[place + 1 :]
            else:
                made = zip(lines, ids, strict=True)
                return refused + [Entry(line.number, line.key, run_id) for line, run_id in made]
        return refused

    async def _post(self, lines: Sequence[Line]) -> list[str]:
        body = b'{"runs":[' + b",".join(line.item for line in lines) + b"]}"
        where = client.path("runs", "batch")
        # Each item has a key of its own: that makes the whole repeatable.
        answer = await self._api.call("POST", where, body=body, repeatable=True)
        return [run["id"] for run in answer.document["runs"]]


def _refusal(error: RefusedError, lines: Sequence[Line]) -> tuple[int, Entry | None]:
    """Which line the server does not take; none where it is something else."""
    for pointer, message in error.flaws:
        found = _PLACE.fullmatch(pointer)
        if found and int(found[1]) < len(lines):
            line = lines[int(found[1])]
            detail = error.detail.partition("]: ")[2] or message
            known = {"code": error.code, "message": detail, "pointer": found[2]}
            return int(found[1]), Entry(line.number, line.key, error=known)
    if len(lines) == 1 and error.status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
        known = {"code": error.code, "message": error.detail, "pointer": ""}
        return 0, Entry(lines[0].number, lines[0].key, error=known)
    return 0, None


def _of_bad(line: Bad) -> Entry:
    return Entry(line.number, error={"code": "bad_line", "message": line.message, "pointer": ""})
