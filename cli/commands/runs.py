"""`runlane run` and `runlane runs`."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from cli.commands import options
from cli.commands.options import Json, Key, Url
from shared.domain.states import Lane, RunStatus

app = typer.Typer(no_args_is_help=True, help="Runs: submit many, list, show, wait, cancel, replay.")


class Which(StrEnum):
    """The version that a replay runs."""

    SAME = "same"
    CURRENT = "current"


RunId = Annotated[str, typer.Argument(metavar="ID", help="A run's id.")]
RunIds = Annotated[list[str], typer.Argument(metavar="ID...", help="Ids of runs.")]
Inputs = Annotated[
    list[str] | None,
    typer.Option(
        "--input", "-i", metavar="NAME=VALUE", help="Repeat; NAME=@FILE takes a file's text."
    ),
]
Environment = Annotated[
    str | None,
    typer.Option("--environment", "-e", metavar="NAME", help="Its name; else the default one."),
]
Priority = Annotated[
    Lane | None, typer.Option("--priority", "--lane", "-p", help="The lane; else normal.")
]
Model = Annotated[
    str | None, typer.Option("--model", metavar="MODEL", help="Instead of the template's.")
]
Tags = Annotated[
    list[str] | None, typer.Option("--tag", "-t", metavar="TAG", help="Repeat, up to 10.")
]
Metadata = Annotated[
    list[str] | None, typer.Option("--metadata", metavar="KEY=VALUE", help="Repeat.")
]
Moment = Annotated[str | None, typer.Option(metavar="MOMENT", help="Such as 2026-11-22T12:00:00Z.")]
Wait = Annotated[
    bool, typer.Option("--wait/--no-wait", help="Wait for the answer and print it, not the id.")
]
Timeout = Annotated[
    float | None,
    typer.Option(
        "--timeout", min=0, metavar="SECONDS", help="How long to wait; the run goes on then."
    ),
]
Out = Annotated[
    Path | None, typer.Option("--out", "-o", help="The file of results; else FILE.runs.jsonl.")
]
SkipBad = Annotated[
    bool, typer.Option("--skip-bad", help="Leave out lines that cannot be submitted.")
]
OwnKey = Annotated[
    str | None,
    typer.Option("--idempotency-key", help="Of your own: the same one again is the same run."),
]


def run(
    slug: Annotated[str, typer.Argument(help="The prompt.")],
    version: Annotated[
        str, typer.Argument(help="A number, a tag, __latest__, or __pinned__.")
    ] = "__latest__",
    inputs: Inputs = None,
    environment: Environment = None,
    priority: Priority = None,
    model: Model = None,
    tags: Tags = None,
    metadata: Metadata = None,
    wait: Wait = False,
    timeout: Timeout = None,
    idempotency_key: OwnKey = None,
    as_json: Json = False,
    url: Url = None,
    key: Key = None,
) -> None:
    """Run a prompt and print the run's id; with --wait, its answer."""
    body = _given(
        inputs=options.pairs(inputs, files=True),
        environment=environment,
        priority=priority,
        model=model,
        tags=tags,
        metadata=options.pairs(metadata) or None,
    )
    from cli import client, runs

    wish = runs.Wish(wait=wait or timeout is not None, timeout_s=timeout, as_json=as_json)
    client.run(url, key, lambda api: runs.submit(api, slug, version, body, idempotency_key, wish))


@app.command("submit")
def submit_file(
    file: Annotated[
        str, typer.Option("--file", "-f", help="One JSON object a line; - is standard input.")
    ],
    prompt: Annotated[str | None, typer.Option(help="For lines that name none.")] = None,
    version: Annotated[str, typer.Option(help="The same.")] = "__latest__",
    environment: Environment = None,
    priority: Priority = None,
    model: Model = None,
    tags: Tags = None,
    out: Out = None,
    name: Annotated[str | None, typer.Option(help="The batch's; else made of its content.")] = None,
    skip_bad: SkipBad = False,
    wait: Annotated[
        bool, typer.Option("--wait", help="Wait for all; the results get the outputs.")
    ] = False,
    as_json: Json = False,
    url: Url = None,
    key: Key = None,
) -> None:
    """Submit every line of a file, each exactly once, also when the command is repeated.

    A line is a whole submission when its `inputs` is an object; else it holds the inputs alone.
    """
    fields = _given(
        prompt=prompt,
        version=version,
        environment=environment,
        priority=priority,
        model=model,
        tags=tags,
    )
    from cli import client
    from cli.bulk import submit
    from cli.bulk.lines import Defaults
    from shared.clock import SystemClock

    path = None if file == "-" else Path(file)
    order = submit.Order(path, out, name, Defaults(fields), skip_bad, wait, as_json)
    client.run(url, key, lambda api: submit.submit(api, order, SystemClock()))


@app.command("list")
def list_runs(
    status: Annotated[list[RunStatus] | None, typer.Option(help="Repeat for several.")] = None,
    prompt: Annotated[str | None, typer.Option(help="A prompt's slug.")] = None,
    version: Annotated[int | None, typer.Option(help="A version's number.")] = None,
    tag: Annotated[str | None, typer.Option(help="One of the run's tags.")] = None,
    environment: Annotated[
        str | None, typer.Option("--environment", "-e", help="Its name.")
    ] = None,
    priority: Annotated[
        Lane | None, typer.Option("--priority", "--lane", "-p", help="The lane.")
    ] = None,
    thread: Annotated[str | None, typer.Option(help="A thread's id.")] = None,
    created_after: Moment = None,
    created_before: Moment = None,
    metadata: Metadata = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="How many at most.")] = 20,
    everything: Annotated[
        bool, typer.Option("--all", help="All that match, however many.")
    ] = False,
    as_json: Json = False,
    url: Url = None,
    key: Key = None,
) -> None:
    """List runs, newest first; all options together have to match."""
    query: dict[str, Any] = _given(
        status=[str(one) for one in status or ()] or None,
        prompt=prompt,
        version=None if version is None else str(version),
        tag=tag,
        environment=environment,
        priority=priority,
        thread=thread,
        createdAfter=created_after,
        createdBefore=created_before,
    )
    query |= {f"metadata[{name}]": value for name, value in options.pairs(metadata).items()}
    from cli import client, runs

    most = None if everything else limit
    client.run(url, key, lambda api: runs.listed(api, query, most, as_json=as_json))


@app.command("show")
def show_run(run_id: RunId, as_json: Json = False, url: Url = None, key: Key = None) -> None:
    """Show a run: its status, each provider call, tokens, cost and output."""
    from cli import client, runs

    client.run(url, key, lambda api: runs.show(api, run_id, as_json=as_json))


@app.command("cancel")
def cancel_runs(run_ids: RunIds, as_json: Json = False, url: Url = None, key: Key = None) -> None:
    """Ask runs to stop; one that is over stays as it is."""
    from cli import client, runs

    client.run(url, key, lambda api: runs.cancel(api, run_ids, as_json=as_json))


@app.command("replay")
def replay_run(
    run_id: RunId,
    version: Annotated[
        Which | None, typer.Option(help="The very version of old, or the one of now; else same.")
    ] = None,
    wait: Wait = False,
    timeout: Timeout = None,
    as_json: Json = False,
    url: Url = None,
    key: Key = None,
) -> None:
    """Run a run's inputs again and print the new run's id; with --wait, its answer."""
    from cli import client, runs

    wish = runs.Wish(wait=wait or timeout is not None, timeout_s=timeout, as_json=as_json)
    client.run(url, key, lambda api: runs.replay(api, run_id, version, wish))


@app.command("wait")
def wait_for_runs(
    run_ids: RunIds,
    timeout: Timeout = None,
    as_json: Json = False,
    url: Url = None,
    key: Key = None,
) -> None:
    """Wait for the end of runs; exits with 1 unless all of them succeeded."""
    from cli import client, runs

    wish = runs.Wish(wait=True, timeout_s=timeout, as_json=as_json)
    client.run(url, key, lambda api: runs.wait_for_all(api, run_ids, wish))


def _given(**values: Any) -> dict[str, Any]:
    """Only what was given."""
    return {name: value for name, value in values.items() if value is not None}
