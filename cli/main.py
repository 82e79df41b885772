"""The `runlane` command. Each command imports what it needs: all of it takes seconds to load."""

import asyncio
import gc
import sys
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.commands import credits as credits_commands
from cli.commands import env, keys, pins, prompts, runs, webhooks
from shared.domain.states import Lane

if TYPE_CHECKING:
    from cli.serve import Stop
    from shared.settings import Settings

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Run prompts for your product: queued, durable, with signed webhooks.",
)
workspaces_app = typer.Typer(no_args_is_help=True, help="Tenants, for the operator.")
lanes_app = typer.Typer(no_args_is_help=True, help="The three priority lanes, for the operator.")
secrets_app = typer.Typer(no_args_is_help=True, help="Secrets at rest, for the operator.")
app.add_typer(credits_commands.app, name="credits")
app.add_typer(lanes_app, name="lanes")
app.add_typer(secrets_app, name="secrets")
app.add_typer(workspaces_app, name="workspaces")
app.add_typer(runs.app, name="runs")
app.command("run")(runs.run)
app.add_typer(prompts.app, name="prompts")
app.add_typer(env.app, name="env")
app.add_typer(pins.app, name="pins")
app.add_typer(webhooks.app, name="webhooks")
app.add_typer(keys.app, name="keys")


def _print_version(asked: bool) -> None:  # noqa: FBT001 (typer's signature)
    if asked:
        from importlib.metadata import version

        print(f"runlane {version('runlane')}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[  # noqa: FBT002 (typer's signature)
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version and end."
        ),
    ] = False,
) -> None:
    """Take what goes before a command."""


def main() -> None:
    """Run the command line; what a person can act on is one sentence, never a traceback."""
    try:
        app()
    except Exception as error:  # the outermost edge of the process
        from cli.failures import sentence_of

        sentence = sentence_of(error)
        if sentence is None:
            raise
        print(sentence, file=sys.stderr)
        sys.exit(1)
    finally:
        gc.freeze()  # or the end of the interpreter spends seconds on what it frees anyway


@app.command("dev")
def run_dev() -> None:
    """Start everything here: API, worker, private PostgreSQL and Valkey."""
    settings = _settings("WARNING")
    from cli import dev

    dev.run(settings)


@app.command("api")
def run_api() -> None:
    """Serve the HTTP API over DATABASE_URL and REDIS_URL."""
    from cli.serve_api import serve_api

    _run(serve_api, "runlane-api")


@app.command("worker")
def run_worker() -> None:
    """Execute runs and deliver webhooks over DATABASE_URL and REDIS_URL."""
    from cli.serve_worker import serve_worker

    _run(serve_worker, "runlane-worker")


@app.command()
def migrate() -> None:
    """Bring the database of DATABASE_URL to the newest schema."""
    import migrations
    from cli import database
    from cli.serve import StartError

    url = _settings().database_url.get_secret_value()
    if not url:
        raise StartError("DATABASE_URL is not set.")
    database.probe(url)
    migrations.upgrade(url)
    print(f"The database has schema {migrations.current(url)}.")


@app.command("doctor")
def run_doctor(
    *, fix: Annotated[bool, typer.Option("--fix", help="Repair what can be repaired.")] = False
) -> None:
    """Check that everything that should hold does; exits with 1 when something does not."""
    from cli import operator

    if not operator.examine(_settings("ERROR"), fix=fix):
        sys.exit(1)


@app.command("receive")
def receive_webhooks(
    port: Annotated[int, typer.Option(help="Port to listen on; 0 takes any.")] = 0,
    environments: Annotated[
        list[str] | None, typer.Option("--environment", "-e", help="Only these environments.")
    ] = None,
) -> None:
    """Receive webhooks on this machine, check their signatures and print them."""
    from cli import receive

    asyncio.run(receive.run(receive.where(), port, environments or []))


@app.command("listen")
def listen_for_events(
    forward: Annotated[str, typer.Option(help="Where to post, such as localhost:3000/hook.")],
    environment: Annotated[
        str | None, typer.Option("--environment", "-e", help="Only this environment.")
    ] = None,
    secret: Annotated[
        str | None, typer.Option(help="Sign with this whsec_…; made and printed when left out.")
    ] = None,
) -> None:
    """Forward events to a program on this machine, signed as webhooks are: no tunnel needed."""
    from cli import listen, receive
    from shared.clock import SystemClock

    asyncio.run(listen.run(receive.where(), forward, environment, secret, SystemClock()))


@workspaces_app.command("create")
def create_workspace(
    name: str,
    environments: Annotated[
        list[str] | None,
        typer.Option("--environment", "-e", help="Repeat; the first is the default."),
    ] = None,
    server_credentials: Annotated[
        bool | None,
        typer.Option(help="May it use the server's own provider keys? The first one may."),
    ] = None,
) -> None:
    """Make a workspace and print its id; `create-key` makes its first key."""
    from cli import operator

    wanted = environments or ["production"]
    print(
        operator.create_workspace(_settings(), name, wanted, server_credentials=server_credentials)
    )


@workspaces_app.command("create-key")
def create_key(
    workspace: Annotated[str, typer.Argument(help="The workspace's id.")],
    name: Annotated[str, typer.Option(help="What the key is for.")] = "operator",
    scopes: Annotated[
        list[str] | None, typer.Option("--scope", "-s", help="Repeat; admin when left out.")
    ] = None,
) -> None:
    """Make an API key of a workspace, straight in the database, and print it.

    It is never shown again. With a key at hand, `runlane keys create` makes others.
    """
    from cli import operator

    print(operator.create_key(_settings(), workspace, name, scopes or ["admin"]))


@workspaces_app.command("retain")
def retain(
    workspace: Annotated[str, typer.Argument(help="The workspace's id.")],
    contents_days: Annotated[
        int | None,
        typer.Option(min=0, max=3650, help="Inputs, messages, output. 0: until delivered."),
    ] = None,
    runs_days: Annotated[int | None, typer.Option(min=1, max=3650, help="Runs.")] = None,
) -> None:
    """Say for how many days after its end a run and its contents stay in a workspace.

    Environments that say it themselves go by that; what is left out goes by the settings.
    """
    from cli import operator

    operator.retain(_settings(), workspace, contents_days, runs_days)


@lanes_app.command("show")
def show_lanes() -> None:
    """Show how many runs wait in each lane, and which lanes are paused."""
    from cli import operator

    for line in operator.lane_lines(_settings()):
        print(line)


@lanes_app.command("pause")
def pause_lane(lane: Lane) -> None:
    """Start no run of a lane until it is resumed; submissions go on."""
    from cli import operator

    operator.pause(_settings(), lane)
    print(f"The lane {lane} is paused. Resume it with: runlane lanes resume {lane}")


@lanes_app.command("resume")
def resume_lane(lane: Lane) -> None:
    """Let the runs of a lane start again."""
    from cli import operator

    operator.resume(_settings(), lane)
    print(f"The lane {lane} goes on.")


@secrets_app.command("rotate")
def rotate_secrets() -> None:
    """Seal every secret anew under the newest key of MASTER_KEY, beside what runs.

    Cut off, it is simply repeated. Exits with 1 when something is still under another key.
    """
    from cli import operator

    done = operator.rotate_secrets(
        _settings("ERROR"), lambda table, at, of: print(f"{table}: {at} of {of}")
    )
    for one in done.unopened:
        print(f"{one.table} {one.key}: {one.reason}", file=sys.stderr)
    print(f"{done.count} secrets sealed anew, {len(done.unopened)} cannot be opened.")
    if done.left:
        print(f"{done.left} are under an older key again: restart what runs, then repeat this.")
    if done.unopened or done.left:
        sys.exit(1)


def _run(work: "Callable[[Settings, Stop], Coroutine[Any, Any, None]]", service: str) -> None:
    from cli.serve import Stop, new_event_loop
    from cli.watched import watched

    settings = _settings()

    async def until_stopped() -> None:
        stop = Stop()
        stop.listen()
        async with watched(settings, service):
            await work(settings, stop)

    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        runner.run(until_stopped())


def _settings(level: str | None = None) -> "Settings":
    from shared import log
    from shared.settings import Settings

    settings = Settings()
    log.configure(level or settings.log_level)
    return settings


if __name__ == "__main__":
    main()
