"""The straightforward program as a system under test."""

import hashlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

from sqlalchemy import Table
from sqlmodel import Session, SQLModel, create_engine

from bench import cpu, processes
from bench.peers import Peers
from bench.processes import Child
from bench.runlane import free_port
from bench.servers import Servers
from bench.straightforward.models import ApiKey, Prompt, PromptVersion, WebhookEndpoint
from bench.system import System

_TEMPLATE = "straightforward_ready"
_KEY = "straightforward-key"
_ROOT = Path(__file__).parent.parent.parent


class Straightforward:
    """The same servers (a database and a Redis number of its own), the same peers."""

    name = "straightforward"

    def __init__(self, servers: Servers, peers: Peers) -> None:
        self._servers = servers
        self._env = {
            "REDIS_URL": servers.redis_url(1),
            "OPENAI_BASE_URL": peers.openai_url,
            "OPENAI_API_KEY": "sk-bench",
        }

    def prepare(self, peers: Peers) -> None:
        """Make tables, a key, a prompt and a webhook; the result is the template."""
        url = self._servers.embedded.postgres.create_database(_TEMPLATE)
        engine = create_engine(_for_sqlalchemy(url))
        SQLModel.metadata.create_all(engine, tables=_tables())
        workspace_id = uuid4()
        with Session(engine) as session:
            prompt = Prompt(workspace_id=workspace_id, slug="greeting")
            digest = hashlib.sha256(_KEY.encode()).hexdigest()
            session.add(ApiKey(workspace_id=workspace_id, key_hash=digest))
            session.add(prompt)
            session.add(
                WebhookEndpoint(workspace_id=workspace_id, url=peers.webhook_url, secret="secret")  # noqa: S106 (nobody's)
            )
            session.flush()
            session.add(
                PromptVersion(
                    prompt_id=prompt.id,
                    tag="production",
                    model="gpt-4o-mini",
                    system_instruction="You greet people in one short sentence.",
                    user_message="Say hello to {{ name }}.",
                )
            )
            session.commit()
        engine.dispose()

    @contextmanager
    def running(self, *, workers: int = 1) -> Iterator[System]:
        """Run its API and its worker over a fresh database; Redis is empty."""
        self._servers.flush_redis()
        port = free_port()
        uvicorn = (sys.executable, "-m", "uvicorn", "bench.straightforward.app:app")
        quiet = ("--port", str(port), "--no-access-log")
        arq = (str(Path(sys.executable).with_name("arq")), _WORKER)
        with (
            self._servers.database("straightforward_bench", _TEMPLATE) as url,
            processes.ended_after([]) as children,
        ):
            env = {**self._env, "DATABASE_URL": _for_sqlalchemy(url), "PYTHONPATH": str(_ROOT)}
            with cpu.on_cores():
                api = Child((*uvicorn, *quiet), env, self._servers.folder / "sf-api.log", _ROOT)
                children.append(api)
                log = self._servers.folder / "sf-worker.log"
                children.extend(Child(arq_words, env, log, _ROOT) for arq_words in [arq] * workers)
            api.wait_for("Application startup complete")
            for worker in children[1:]:
                worker.wait_for("Starting worker")
            processes.settle(children, cpu.SYSTEM_CORE)
            yield System(
                self.name,
                f"http://127.0.0.1:{port}",
                _KEY,
                url,
                {"api": children[:1], "worker": children[1:]},
                self._servers.groups,
            )


_WORKER = "bench.straightforward.worker.WorkerSettings"


def _tables() -> list[Table]:
    names = ("apikey", "prompt", "promptversion", "webhookendpoint", "run", "webhookdelivery")
    return [SQLModel.metadata.tables[name] for name in names]


def _for_sqlalchemy(url: str) -> str:
    return url.replace("postgresql://", "postgresql+psycopg://", 1)
