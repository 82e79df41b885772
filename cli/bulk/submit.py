"""The command itself: look at all lines, submit those that are not, wait where asked to."""

import asyncio
import contextlib
import re
import signal
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from cli import output, progress
from cli.bulk import following, lines, sending
from cli.bulk.lines import Bad, Defaults, Line, Source, Survey
from cli.bulk.results import Entry, Head, Results
from cli.client import Client, CommandError, UsageError
from shared.clock import Clock

PATIENCE_S = 300.0
"""How long a server that went away in the middle is tried."""
LAST_PATIENCE_S = 5.0
"""The same after Ctrl-C."""
SHOWN_BAD = 10
_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")
_NAME_DIGITS = 16


class StoppedError(CommandError):
    """Ctrl-C: a person wanted it to stop."""

    exit_code = 130


@dataclass(frozen=True)
class Order:
    """What was typed. `path` is `None` for standard input."""

    path: Path | None
    out: Path | None
    name: str | None
    defaults: Defaults
    skip_bad: bool
    wait: bool
    as_json: bool


@dataclass
class Count:
    """Where it stands, in lines."""

    total: int
    known: int = 0
    submitted: int = 0
    skipped: int = 0

    @property
    def done(self) -> int:
        return self.known + self.submitted + self.skipped


async def submit(api: Client, order: Order, clock: Clock) -> None:
    """Submit every line once and say so. Raises `CommandError`."""
    if order.name is not None and not _NAME.fullmatch(order.name):
        raise UsageError("--name is 1 to 64 letters, digits, dots, dashes and underscores.")
    source = Source(order.path, sys.stdin.buffer)
    with progress.spinner("Looking at every line"):
        survey = await lines.survey(source, order.defaults, clock.now(), shown=SHOWN_BAD)
    _refuse_bad(survey, skip=order.skip_bad)
    name = order.name or survey.digest[:_NAME_DIGITS]
    with Results(_out(order, name)) as results:
        name = _named(results, order.name, name, api.url)
        count = Count(survey.count)
        wanted = lines.submittable(source, order.defaults, clock.now(), name)
        await _send(api, order, results, _unknown(wanted, results, count), count)
        _summarise(order, count, results.path)
        bad = await following.follow(api, results, count.total) if order.wait else 0
    if order.wait and not bad:
        output.note("All of their runs succeeded.")
    if bad:
        raise CommandError(f"{bad:,} of {count.total:,} runs did not succeed: see {results.path}.")
    if count.skipped:
        raise CommandError(
            f"{count.skipped:,} lines were skipped: {results.path} says why. Submit them mended, in"
            " a file of their own."
        )


async def _send(
    api: Client, order: Order, results: Results, wanted: Iterable[Line | Bad], count: Count
) -> None:
    sender = sending.Sender(api, skip_bad=order.skip_bad)
    api.patience_s = PATIENCE_S
    with progress.bar("Submitting", count.total, count.known) as says, _interruptible(api, sender):
        api.on_trouble = lambda text: says(count.done, f"{text}, trying again")

        def done(entries: Sequence[Entry]) -> None:
            results.add(entries)
            made = sum(entry.id is not None for entry in entries)
            count.submitted += made
            count.skipped += len(entries) - made
            says(count.done, "")

        try:
            await sender.send_all(sending.chunks(wanted), done)
        except CommandError:
            output.note(_how_to_go_on(count))
            raise
    if sender.stopping:
        raise StoppedError(_how_to_go_on(count))


def _unknown(wanted: Iterable[Line | Bad], results: Results, count: Count) -> Iterator[Line | Bad]:
    """The lines behind those that the file of results knows. Raises `UsageError`."""
    known = results.known()
    for line in wanted:
        entry = next(known, None)
        if entry is None:
            yield line
            continue
        same = isinstance(line, Line) and entry.key == line.key
        if entry.line != line.number or (entry.id is not None and not same):
            raise UsageError(
                f"{results.path} is of other lines: line {entry.line} was submitted with another"
                f" content, place or option than line {line.number} has now. Choose another --out"
                " for a new batch."
            )
        if entry.id is None:
            count.skipped += 1
        else:
            count.known += 1
    if next(known, None) is not None:
        raise UsageError(f"{results.path} knows more lines than there are now.")


def _named(results: Results, wanted: str | None, name: str, server: str) -> str:
    """The batch's name: what the file of results says, so that mended lines keep the others'."""
    if results.head is None:
        results.begin(Head(name, server))
        return name
    if wanted is not None and wanted != results.head.batch:
        raise UsageError(
            f"{results.path} is of the batch {results.head.batch}: choose another --out."
        )
    if results.head.server != server:
        raise UsageError(
            f"{results.path} holds runs of {results.head.server}: choose another --out."
        )
    return results.head.batch


def _out(order: Order, name: str) -> Path:
    if order.out is not None:
        return order.out
    if order.path is None:
        return Path(f"{name}.runs.jsonl")
    return order.path.with_name(f"{order.path.name}.runs.jsonl")


def _refuse_bad(survey: Survey, *, skip: bool) -> None:
    for bad in survey.bad:
        output.note(f"Line {bad.number}: {bad.message}.")
    left = survey.bad_count - len(survey.bad)
    if left:
        output.note(f"… and {left:,} more.")
    if survey.bad_count and not skip:
        raise UsageError(
            f"{survey.bad_count:,} of {survey.count:,} lines cannot be submitted, so nothing was."
            " --skip-bad leaves them out."
        )
    if survey.count == 0:
        raise UsageError("There is no line to submit.")


def _summarise(order: Order, count: Count, path: Path) -> None:
    before = f", {count.known:,} of them before" if count.known else ""
    made = count.known + count.submitted
    output.note(f"{made:,} of {count.total:,} lines are submitted{before}. Results: {path}")
    if order.as_json:
        output.json_document(
            {
                "lines": count.total,
                "submitted": count.submitted,
                "known": count.known,
                "skipped": count.skipped,
                "results": str(path),
            }
        )


def _how_to_go_on(count: Count) -> str:
    made = count.known + count.submitted
    return (
        f"{made:,} of {count.total:,} lines are known to be submitted. The same command again goes"
        " on; no line is submitted twice."
    )


@contextlib.contextmanager
def _interruptible(api: Client, sender: sending.Sender) -> Iterator[None]:
    """Let the first Ctrl-C end it in good order, and the second at once."""
    loop, task = asyncio.get_running_loop(), asyncio.current_task()

    def interrupted() -> None:
        if sender.stopping and task is not None:
            task.cancel()
        sender.stop()
        api.patience_s = LAST_PATIENCE_S

    loop.add_signal_handler(signal.SIGINT, interrupted)
    try:
        yield
    finally:
        loop.remove_signal_handler(signal.SIGINT)
        signal.signal(signal.SIGINT, signal.default_int_handler)
