"""`runlane dev`: API, worker, PostgreSQL and Valkey in one process, ready in a second."""

import asyncio
import os
import secrets
import signal
import sys
from base64 import b64encode
from contextlib import ExitStack
from pathlib import Path

from pydantic import SecretStr
from rich.console import Console

import migrations
from cli import database, dev_env, first_start
from cli.embedded import FolderLock, start
from cli.serve import StartError, Stop, new_event_loop, opened
from cli.serve_api import serve_api
from cli.serve_worker import serve_worker
from cli.watched import watched
from shared.settings import Settings

_console = Console(highlight=False, soft_wrap=True)
_OWNER_ONLY = 0o600


def run(settings: Settings) -> None:
    """Run everything until a signal ends it. Raises `StartError` or `EmbeddedError`."""
    # Before the loop takes the signal over, and after: no end may leave servers behind.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    with ExitStack() as stack:
        lock = stack.enter_context(FolderLock(settings.data_dir))
        settings = _with_servers(settings, stack)
        database_url = settings.database_url.get_secret_value()
        database.probe(database_url)
        migrations.upgrade(database_url)
        with asyncio.Runner(loop_factory=new_event_loop) as runner:
            runner.run(_watched(settings, lock))
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)
        _console.print("Stopping …")


def _with_servers(settings: Settings, stack: ExitStack) -> Settings:
    """Fill in what the settings leave open: servers of our own, development's defaults, a key."""
    changes: dict[str, object] = {"dev_mode": True}
    needs_database = not settings.database_url.get_secret_value()
    needs_redis = not settings.redis_url.get_secret_value()
    if needs_database or needs_redis:
        _console.print("Starting PostgreSQL and Valkey …")
        servers = stack.enter_context(
            start(settings.data_dir, postgres=needs_database, valkey=needs_redis)
        )
        if needs_database:
            changes["database_url"] = SecretStr(servers.database_url)
        if needs_redis:
            changes["redis_url"] = SecretStr(servers.redis_url)
    if not settings.master_key.get_secret_value():
        changes["master_key"] = SecretStr(_master_key(settings.data_dir / "master.key"))
    if "retry_backoff_s" not in settings.model_fields_set:
        changes["retry_backoff_s"] = 0.2
    return settings.model_copy(update=changes)


def _master_key(path: Path) -> str:
    """Read the folder's own master key; the first start makes it, for the owner's eyes only."""
    if not path.exists():
        key = "dev1:" + b64encode(secrets.token_bytes(32)).decode()
        write_private(path, key + "\n")
    return path.read_text().strip()


def write_private(path: Path, text: str) -> None:
    """Write a file that only its owner may read, whole or not at all."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, _OWNER_ONLY)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
    draft.replace(path)


async def _watched(settings: Settings, lock: FolderLock) -> None:
    async with watched(settings, "runlane"):
        await _serve(settings, lock)


async def _serve(settings: Settings, lock: FolderLock) -> None:
    stop = Stop()
    stop.listen()
    env_file = settings.data_dir / "dev.env"
    async with opened(settings) as (state, _):
        key, new = await first_start.prepare(state, dev_env.read(env_file).get("RUNLANE_API_KEY"))

    listening = asyncio.Event()

    async def ready(url: str) -> None:
        write_private(env_file, f"export RUNLANE_URL={url}\nexport RUNLANE_API_KEY={key}\n")
        lock.write(url)
        _console.print(first_start.greeting(url, env_file, new=new))
        listening.set()

    async def work() -> None:
        await listening.wait()  # a port that is taken ends all this before any work is done
        if not stop.asked.is_set():
            await serve_worker(settings, stop)

    parts = [
        asyncio.create_task(serve_api(settings, stop, ready)),
        asyncio.create_task(work()),
    ]
    try:
        await asyncio.wait(parts, return_when=asyncio.FIRST_EXCEPTION)
    finally:
        stop.asked.set()
        listening.set()
        results = await asyncio.gather(*parts, return_exceptions=True)
    for result in results:
        if isinstance(result, StartError):
            raise result
    for result in results:
        if isinstance(result, BaseException):
            raise result
