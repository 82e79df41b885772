"""Runlane under test: real processes over the bench's own servers, set up as an operator would."""

import asyncio
import base64
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from bench import client, cpu, processes
from bench.errors import BenchError
from bench.peers import Peers
from bench.processes import Child
from bench.servers import Servers
from bench.system import System

_TEMPLATE = "runlane_ready"
_COMMAND = (sys.executable, "-m", "cli.main")
_ROOT = Path(__file__).parent.parent
_VERSION = {
    "model": "openai/gpt-4o-mini",
    "systemInstruction": "You greet people in one short sentence.",
    "messages": [{"role": "user", "content": "Say hello to {{ name }}."}],
}


class Runlane:
    """Makes a database once, and from then on systems over copies of it."""

    name = "runlane"

    def __init__(self, servers: Servers, peers: Peers) -> None:
        self._servers = servers
        self._env = {
            "DATABASE_URL": servers.embedded.postgres.url_of(_TEMPLATE),
            "REDIS_URL": servers.redis_url(0),
            "DATA_DIR": str(servers.folder),
            "DEV_MODE": "true",  # webhooks to loopback, on any port
            "MASTER_KEY": "bench:" + base64.b64encode(bytes(range(32))).decode(),
            "OPENAI_BASE_URL": peers.openai_url,
            "OPENAI_API_KEY": "sk-bench",
        }
        self._key = ""

    async def prepare(self, peers: Peers) -> None:
        """Migrate, make workspace, key, prompt and webhook; the result is the template."""
        self._servers.embedded.postgres.create_database(_TEMPLATE)
        await asyncio.to_thread(self._command, "migrate")
        workspace = await asyncio.to_thread(self._command, "workspaces", "create", "bench")
        self._key = await asyncio.to_thread(self._command, "workspaces", "create-key", workspace)
        with self._processes(self._env, workers=0) as (url, _):
            async with client.connected(url) as api:
                await self._ask(api, "POST", "/prompts", {"name": "Greeting", "slug": "greeting"})
                await self._ask(api, "POST", "/prompts/greeting/versions", _VERSION)
                await self._ask(api, "PUT", "/prompts/greeting/tags/production", {"version": 1})
                await self._ask(api, "POST", "/webhooks", {"url": peers.webhook_url})

    @contextmanager
    def running(
        self,
        *,
        workers: int = 1,
        env: Mapping[str, str] | None = None,
        cores: Sequence[int] = (cpu.SYSTEM_CORE,),
        database_url: str | None = None,
    ) -> Iterator[System]:
        """Run an API and workers over a fresh database, or over the one given; Redis is empty."""
        self._servers.flush_redis()
        with ExitStack() as stack:
            if database_url is None:
                database_url = stack.enter_context(self.database("runlane_bench"))
            given = self._env | {"DATABASE_URL": database_url} | dict(env or {})
            url, children = stack.enter_context(
                self._processes(given, workers=workers, cores=cores)
            )
            yield System(
                self.name,
                url,
                self._key,
                database_url,
                {"api": children[:1], "worker": children[1:]},
                self._servers.groups,
            )

    @contextmanager
    def database(self, name: str) -> Iterator[str]:
        with self._servers.database(name, _TEMPLATE) as url:
            yield url

    def worker(self, system: System, *, env: Mapping[str, str], name: str) -> Child:
        """Start one more worker of a system, on every core; whoever asks ends it."""
        given = self._env | {"DATABASE_URL": system.database_url} | dict(env)
        child = self._worker(given, name)
        child.wait_for("worker_ready")
        processes.settle([child])
        return child

    @contextmanager
    def _processes(
        self,
        env: Mapping[str, str],
        *,
        workers: int,
        cores: Sequence[int] = (cpu.SYSTEM_CORE,),
    ) -> Iterator[tuple[str, list[Child]]]:
        port = free_port()
        with processes.ended_after([]) as children:
            with cpu.on_cores():
                log = self._servers.folder / "api.log"
                children.append(
                    Child((*_COMMAND, "api"), {**env, "API_PORT": str(port)}, log, _ROOT)
                )
            for number in range(workers):
                children.append(self._worker(env, f"worker{number}"))
            children[0].wait_for("api_ready")
            for worker in children[1:]:
                worker.wait_for("worker_ready")
            processes.settle(children, *cores)
            yield f"http://127.0.0.1:{port}", children

    def _worker(self, env: Mapping[str, str], name: str) -> Child:
        with cpu.on_cores():
            return Child((*_COMMAND, "worker"), env, self._servers.folder / f"{name}.log", _ROOT)

    def _command(self, *words: str) -> str:
        env = processes.kept_environment() | self._env | {"LOG_LEVEL": "ERROR"}
        ended = subprocess.run(
            (*_COMMAND, *words), env=env, cwd=_ROOT, capture_output=True, text=True, check=False
        )
        if ended.returncode != 0:
            raise BenchError(f"runlane {words[0]}: {ended.stderr[-2000:]}")
        return ended.stdout.strip()

    async def _ask(self, api: client.Connection, method: str, path: str, body: Any) -> Any:
        answer = await api.ask(client.request(method, f"/api/v1{path}", self._key, body))
        if answer.status >= 300:
            raise BenchError(f"{method} {path}: {answer.status} {answer.body[:300]!r}")
        return answer.json()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
