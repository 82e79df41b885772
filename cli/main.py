"""The `runlane` command."""

import asyncio
import gc
import sys
from collections.abc import Callable, Coroutine
from typing import Annotated, Any, TypeVar

import psycopg
import typer
from pydantic import ValidationError
from redis import RedisError

import migrations
from cli import database, dev, doctor, receive, serve
from cli.embedded import EmbeddedError
from cli.first_start import read_env
from cli.serve import StartError, Stop
from shared import log
from shared.deps import Deps
from shared.domain.states import Lane
from shared.errors import AppError
from shared.ids import WorkspaceId, parse
from shared.services import diagnosis, key_management, operations, workspaces
from shared.settings import Settings, environment
from shared.vault import VaultError

Result = TypeVar("Result")

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Run prompts for your product: queued, durable, with signed webhooks.",
)
workspaces_app = typer.Typer(no_args_is_help=True, help="Tenants, for the operator.")
keys_app = typer.Typer(no_args_is_help=True, help="API keys, for the operator.")
lanes_app = typer.Typer(no_args_is_help=True, help="The three priority lanes, for the operator.")
app.add_typer(lanes_app, name="lanes")
app.add_typer(workspaces_app, name="workspaces")
app.add_typer(keys_app, name="keys")


def main() -> None:
    """Run the command line; what a person can act on is one sentence, never a traceback."""
    try:
        app()
    except ValidationError as error:
        _fail("; ".join(f"{_setting(e['loc'])}: {e['msg']}" for e in error.errors()))
    except (EmbeddedError, StartError, VaultError, receive.ReceiveError) as error:
        _fail(str(error))
    except AppError as error:
        _fail(error.detail)
    except RedisError as error:
        _fail(f"The Redis of REDIS_URL cannot be used ({error}).")
    except psycopg.OperationalError as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        _fail(f"The database of DATABASE_URL cannot be used ({lines[0]}).")
    finally:
        gc.freeze()  # or the end of the interpreter spends seconds on what it frees anyway


@app.command("dev")
def run_dev() -> None:
    """Start everything here: API, worker, private PostgreSQL and Valkey."""
    dev.run(_settings("WARNING"))


@app.command("api")
def run_api() -> None:
    """Serve the HTTP API over DATABASE_URL and REDIS_URL."""
    _run(serve.serve_api)


@app.command("worker")
def run_worker() -> None:
    """Execute runs and deliver webhooks over DATABASE_URL and REDIS_URL."""
    _run(serve.serve_worker)


@app.command()
def migrate() -> None:
    """Bring the database of DATABASE_URL to the newest schema."""
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

    async def examine() -> bool:
        async with serve.opened(_settings("ERROR"), worker=True) as (state, lanes):
            return doctor.show(await diagnosis.examine(state, lanes, fix=fix))

    if not asyncio.run(examine()):
        sys.exit(1)


@app.command("receive")
def receive_webhooks(
    port: Annotated[int, typer.Option(help="Port to listen on; 0 takes any.")] = 0,
    environments: Annotated[
        list[str] | None, typer.Option("--environment", "-e", help="Only these environments.")
    ] = None,
) -> None:
    """Receive webhooks on this machine, check their signatures and print them."""
    env_file = _settings().data_dir / "dev.env"
    known = read_env(env_file) | dict(environment())
    url, key = known.get("RUNLANE_URL"), known.get("RUNLANE_API_KEY")
    if not url or not key:
        raise receive.ReceiveError(
            "Set RUNLANE_URL and RUNLANE_API_KEY, or start `runlane dev` first."
        )
    asyncio.run(receive.run(url, key, port, environments or []))


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
    """Make a workspace and print its id."""

    async def make(state: Deps) -> str:
        made = await workspaces.create_workspace(
            state,
            name,
            server_credentials=server_credentials,
            environments=environments or ["production"],
        )
        return str(made.id)

    print(asyncio.run(_with_deps(make)))


@keys_app.command("create")
def create_key(
    workspace: Annotated[str, typer.Argument(help="The workspace's id.")],
    name: Annotated[str, typer.Option(help="What the key is for.")] = "operator",
    scopes: Annotated[
        list[str] | None, typer.Option("--scope", "-s", help="Repeat; admin when left out.")
    ] = None,
) -> None:
    """Make an API key of a workspace and print it; it is never shown again."""
    workspace_id = parse(workspace)
    if workspace_id is None:
        raise StartError(
            "A workspace is named by its id, as `runlane workspaces create` prints it."
        )

    async def make(state: Deps) -> str:
        made = await key_management.create_for(
            state, WorkspaceId(workspace_id), name, scopes or ["admin"]
        )
        return made.key

    print(asyncio.run(_with_deps(make)))


@lanes_app.command("show")
def show_lanes() -> None:
    """Show how many runs wait in each lane, and which lanes are paused."""
    for line in asyncio.run(_with_deps(_lane_lines)):
        print(line)


@lanes_app.command("pause")
def pause_lane(lane: Lane) -> None:
    """Start no run of a lane until it is resumed; submissions go on."""
    asyncio.run(_with_deps(lambda state: operations.pause(state, lane)))
    print(f"The lane {lane} is paused. Resume it with: runlane lanes resume {lane}")


@lanes_app.command("resume")
def resume_lane(lane: Lane) -> None:
    """Let the runs of a lane start again."""
    asyncio.run(_with_deps(lambda state: operations.resume(state, lane)))
    print(f"The lane {lane} goes on.")


async def _lane_lines(state: Deps) -> list[str]:
    views = await operations.lanes(state)
    return [
        f"{view.lane:8} {view.waiting:8} waiting{'  (paused)' if view.paused else ''}"
        for view in views
    ]


async def _with_deps(work: Callable[[Deps], Coroutine[Any, Any, Result]]) -> Result:
    async with serve.opened(_settings()) as (state, _):
        return await work(state)


def _run(work: Callable[[Settings, Stop], Coroutine[Any, Any, None]]) -> None:
    settings = _settings()

    async def until_stopped() -> None:
        stop = Stop()
        stop.listen()
        await work(settings, stop)

    with asyncio.Runner(loop_factory=serve.new_event_loop) as runner:
        runner.run(until_stopped())


def _settings(level: str | None = None) -> Settings:
    settings = Settings()
    log.configure(level or settings.log_level)
    return settings


def _setting(place: tuple[int | str, ...]) -> str:
    return str(place[0]).upper() if place else "settings"


def _fail(sentence: str) -> None:
    print(sentence, file=sys.stderr)
    sys.exit(1)


if __name__ == "__main__":
    main()
