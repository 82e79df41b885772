"""What `runlane run` and `runlane runs` do: submit, wait, list, show, cancel, replay."""

import asyncio
import secrets
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from cli import client, output, progress, run_views
from cli.client import Client, CommandError, Query, RefusedError

POLL_S = 30
"""One long poll; proxies in between often hang up after a minute."""
WATCHED_POLL_S = 5
"""The same where a person may watch the status change."""
PAUSE_S = 0.5
AT_ONCE = 32
PATIENCE_S = 300.0
"""How long a server that went away is tried by those who wait anyway."""


class EndedBadlyError(CommandError):
    """A run is over and has not succeeded, or the time to wait for it is."""


@dataclass(frozen=True)
class Wish:
    """How the end of a run is waited for and shown."""

    wait: bool = False
    timeout_s: float | None = None
    as_json: bool = False


async def submit(
    api: Client, slug: str, version: str, body: dict[str, Any], key: str | None, wish: Wish
) -> None:
    """Submit one run; print its id, or wait for its answer and print that."""
    where = client.path("prompts", slug, version, "runs")
    with _about(f"Prompt {slug}, version {version}"):
        accepted = await _accepted(api, where, body, key)
    await _follow(api, accepted, wish)


async def replay(api: Client, run_id: str, version: str | None, wish: Wish) -> None:
    """Submit a run again; prints as `submit` does."""
    body = {} if version is None else {"version": version}
    with _about(f"Run {run_id}"):
        accepted = await _accepted(api, client.path("runs", run_id, "replay"), body)
    await _follow(api, accepted, wish)


async def listed(api: Client, query: Query, limit: int | None, *, as_json: bool) -> None:
    """Print runs, newest first; what is not drawn for eyes is printed page by page."""
    drawn: list[run_views.Row] = []
    async for page in api.pages(client.path("runs"), query, limit):
        if as_json:
            output.json_lines(page)
        elif output.is_terminal():
            drawn += map(run_views.row, page)
        else:
            output.table(run_views.COLUMNS, [run_views.row(run) for run in page])
    if not as_json and output.is_terminal():
        output.table(run_views.COLUMNS, drawn, none="No run matches.")


async def show(api: Client, run_id: str, *, as_json: bool) -> None:
    """Print everything about a run."""
    with _about(f"Run {run_id}"):
        run = await api.get(client.path("runs", run_id))
    if as_json:
        output.json_document(run)
    else:
        run_views.show(run)


async def cancel(api: Client, run_ids: Sequence[str], *, as_json: bool) -> None:
    """Ask runs to stop; says of each what it is now."""

    async def stop(run_id: str) -> None:
        answer = await api.call("POST", client.path("runs", run_id, "cancel"), repeatable=True)
        stopping = answer.status == HTTPStatus.ACCEPTED
        _print_run(answer.document, "stopping" if stopping else None, as_json=as_json)

    await _each(run_ids, stop)


async def wait_for_all(api: Client, run_ids: Sequence[str], wish: Wish) -> None:
    """Wait until all runs are over; says of each how it ended, as soon as it has."""
    bad: list[str] = []

    with progress.spinner(_counted(len(run_ids))) as says:

        async def await_one(run_id: str) -> None:
            run = await until_done(api, run_id, wish.timeout_s, says)
            _print_run(run, as_json=wish.as_json)
            if run["status"] != "succeeded":
                bad.append(run_id)

        await _each(run_ids, await_one)
    if bad:
        raise EndedBadlyError(f"{len(bad)} of {len(run_ids)} did not succeed.")


async def until_done(
    api: Client, run_id: str, timeout_s: float | None, says: Callable[[str], None]
) -> dict[str, Any]:
    """Wait for a run's end, or for the time to pass; answers the run as it is then."""
    loop = asyncio.get_running_loop()
    ends_s = None if timeout_s is None else loop.time() + timeout_s
    api.patience_s = PATIENCE_S
    api.on_trouble = says
    poll_s = WATCHED_POLL_S
    while True:
        left_s = poll_s if ends_s is None else max(0, min(poll_s, int(ends_s - loop.time())))
        asked_s = loop.time()
        where = client.path("runs", run_id)
        run: dict[str, Any] = await api.get(where, {"wait": str(left_s)}, wait_s=left_s)
        if run["done"] or (ends_s is not None and loop.time() >= ends_s):
            return run
        says(f"Run {run_id} is {run_views.status_of(run)}")
        poll_s = POLL_S if run["status"] == "running" else WATCHED_POLL_S
        if loop.time() - asked_s < PAUSE_S:  # it has no room for another waiter
            await asyncio.sleep(PAUSE_S)


async def _accepted(api: Client, where: str, body: Any, key: str | None = None) -> dict[str, Any]:
    try:
        answer: dict[str, Any] = await api.post(where, body, key=key or _new_key())
    except asyncio.CancelledError:
        output.note("The run may have been submitted: `runlane runs list` shows it then.")
        raise
    return answer


async def _follow(api: Client, accepted: dict[str, Any], wish: Wish) -> None:
    run_id = accepted["id"]
    if not wish.wait:
        output.json_document(accepted) if wish.as_json else output.text(run_id)
        return
    try:
        with progress.spinner(f"Run {run_id} is {accepted['status']}") as says:
            run = await until_done(api, run_id, wish.timeout_s, says)
    except (asyncio.CancelledError, CommandError):
        output.note(f"Run {run_id} goes on. Look at it with: runlane runs show {run_id}")
        raise
    if wish.as_json:
        output.json_document(run)
    elif run["output"] is not None:
        output.text(run["output"])
    if not run["done"]:
        raise EndedBadlyError(
            f"Run {run_id} is still {run_views.status_of(run)} after {wish.timeout_s:g} seconds,"
            f" and goes on. Look at it with: runlane runs show {run_id}"
        )
    if run["status"] != "succeeded":
        raise EndedBadlyError(run_views.sentence_of(run))


async def _each(run_ids: Sequence[str], work: Callable[[str], Coroutine[Any, Any, None]]) -> None:
    """Do something with each run, some at once; a refusal of one keeps the others from nothing."""
    room = asyncio.Semaphore(AT_ONCE)
    refused: list[str] = []

    async def one(run_id: str) -> None:
        async with room:
            try:
                await work(run_id)
            except RefusedError as error:
                refused.append(run_id)
                output.note(f"Run {run_id}: {error}")

    try:
        async with asyncio.TaskGroup() as group:
            for run_id in dict.fromkeys(run_ids):
                group.create_task(one(run_id))
    except* CommandError as errors:
        raise errors.exceptions[0] from None
    if refused:
        raise CommandError(f"{len(refused)} of {len(run_ids)} could not be done.")


@contextmanager
def _about(subject: str) -> Iterator[None]:
    """Say of what nothing was found."""
    try:
        yield
    except RefusedError as error:
        if error.status == HTTPStatus.NOT_FOUND:
            raise CommandError(f"{subject}: {error}") from error
        raise


def _print_run(run: dict[str, Any], status: str | None = None, *, as_json: bool) -> None:
    if as_json:
        output.json_lines([run])
    else:
        output.columns(run["id"], status or run["status"])


def _counted(count: int) -> str:
    return "Waiting for 1 run" if count == 1 else f"Waiting for {count:,} runs"


def _new_key() -> str:
    """A key of this command's own: what it repeats is done once."""
    return f"cli-{secrets.token_hex(16)}"
