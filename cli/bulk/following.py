"""Waiting for the runs of a file of results, and writing their outputs into it."""

import asyncio
import contextlib
import os
import tempfile
from collections import deque
from collections.abc import Iterator

import msgspec

from cli import output, progress, runs
from cli.bulk.results import Entry, Results
from cli.client import Client, CommandError, RefusedError

AT_ONCE = 32
_LIVE = frozenset({None, "scheduled", "queued", "running"})


async def follow(api: Client, results: Results, total: int) -> int:
    """Wait for all runs, in the order of their lines; answers how many did not succeed.

    The file is replaced when all are over, and stays as it is until then.
    """
    waiting: deque[asyncio.Task[Entry]] = deque()
    bad = done = 0
    with _beside(results) as file, progress.bar("Waiting", total, 0) as says:
        file.write(msgspec.json.encode(results.head) + b"\n")

        async def write_first() -> None:
            nonlocal bad, done
            first = waiting[0]
            entry = await first
            del waiting[0]
            file.write(msgspec.json.encode(entry) + b"\n")
            bad += entry.id is not None and entry.status != "succeeded"
            done += 1
            says(done, "")

        try:
            for entry in results.known():
                waiting.append(asyncio.create_task(_ended(api, entry)))
                if len(waiting) >= AT_ONCE:
                    await write_first()
            while waiting:
                await write_first()
        except (asyncio.CancelledError, CommandError):
            output.note("All lines are submitted. The same command again goes on waiting.")
            raise
        finally:
            for task in waiting:
                task.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)
        results.replace(file)
    return bad


async def _ended(api: Client, entry: Entry) -> Entry:
    if entry.id is None or entry.status not in _LIVE:
        return entry
    try:
        run = await runs.until_done(api, entry.id, None, lambda _: None)
    except RefusedError as error:
        raise CommandError(f"Line {entry.line}, run {entry.id}: {error}") from error
    return msgspec.structs.replace(
        entry,
        status=run["status"],
        output=run["output"],
        incomplete_reason=run["incompleteReason"],
        error=run["error"],
        token_usage=run["tokenUsage"],
        cost=run["cost"],
    )


@contextlib.contextmanager
def _beside(results: Results) -> "Iterator[tempfile._TemporaryFileWrapper[bytes]]":
    """A file in the same folder, which goes unless it took the other's place."""
    folder = results.path.absolute().parent
    with tempfile.NamedTemporaryFile(dir=folder, prefix=".runs-", delete=False) as file:
        try:
            yield file
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(file.name)  # noqa: PTH108 (the name of an open file)
