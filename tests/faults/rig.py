"""The rig: durable servers, processes that may be killed, a bad network, and three ledgers."""

import asyncio
import base64
import os
import shutil
import signal
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from datetime import datetime
from pathlib import Path
from random import Random
from typing import Any, Self
from uuid import UUID

import psycopg
from psycopg import sql
from psycopg.rows import dict_row
from redis.exceptions import OutOfMemoryError

import migrations
from cli.embedded import EmbeddedServers
from shared import deps as shared_deps
from shared.clock import SystemClock
from shared.deps import Deps
from shared.domain import signing
from shared.domain.states import TERMINAL
from shared.ids import EndpointId, new_id
from shared.queue.connection import connect
from shared.queue.lanes import Lanes
from shared.services import webhooks
from shared.settings import Settings, environment
from shared.store import endpoints
from shared.store.database import Store
from tests.factories import a_prompt, a_tenant
from tests.faults import facts
from tests.faults.checkouts import Checkout
from tests.faults.client import Customer
from tests.faults.judging import judged
from tests.faults.processes import Child, Launcher
from tests.faults.proxy import Proxy
from tests.faults.receiver import Receiver
from tests.faults.referee import Figures, Violation
from tests.faults.vendors import ScriptedVendors
from tests.faults.waiting import until

CHAT = "chat"
SLUG = "task"
HOOK = "main"
MASTER_KEY = "test:" + base64.b64encode(bytes(range(32))).decode()
LEASE_S = 2.0
SCHEDULE_S = (0.0, 0.3, 0.3, 0.5, 0.5, 1.0, 1.0, 2.0, 2.0, 2.0)
FIGURES = Figures(lease_s=LEASE_S, webhook_schedule_s=SCHEDULE_S)

SETTINGS: Mapping[str, object] = {
    "dev_mode": True,
    "master_key": MASTER_KEY,
    "api_port": 0,
    "openai_api_key": "sk-made-up",
    "lease_s": LEASE_S,
    "renew_s": 0.4,
    "self_fence_s": 1.5,
    "reap_s": 0.2,
    "sweep_s": 0.3,
    "poll_s": 0.3,
    "redis_away_s": 0.6,
    "drain_s": 5,
    "slots": 100,
    "retry_backoff_s": 0.05,
    "retry_backoff_max_s": 0.5,
    "call_timeout_s": 30,
    "breaker_failures": 100_000,  # several scenarios fail calls in a row and mean something else
    "webhook_schedule_s": ",".join(map(str, SCHEDULE_S)),
    "webhook_lease_s": LEASE_S,
    "webhook_timeout_s": 1.5,
    "webhook_poll_s": 0.2,
    "webhook_pause_s": 0.1,
    "webhook_pause_max_s": 0.2,
}
_EXPECTED = ("session_was_reaped",)
_BODY = {
    "model": "openai/mock-answer",
    "messages": [{"role": "user", "content": "Do {{ case }}."}],
}
EMPTY = """
TRUNCATE runs, attempts, events, deliveries, delivery_tries, idempotency_keys, worker_sessions,
  threads, turns, messages, failing_endpoints, usage_sums, usage_marks, usage_open CASCADE
"""
# More credits than any scenario spends: what is judged is that all books agree.
_METER = """
WITH account AS (
  INSERT INTO accounts AS a (workspace_id, metered, balance_nanousd)
  SELECT id, true, 1000000000000 FROM workspaces
  ON CONFLICT (workspace_id) DO UPDATE SET metered = true,
    balance_nanousd = a.balance_nanousd + excluded.balance_nanousd
  RETURNING workspace_id
), line AS (
  INSERT INTO ledger (id, workspace_id, kind, amount_nanousd)
  SELECT gen_random_uuid(), workspace_id, 'grant', 1000000000000 FROM account
)
UPDATE workspaces SET accounted = true, catalog_version = catalog_version + 1
"""
_UNMETER = """
WITH hold AS (DELETE FROM holds),
  account AS (UPDATE accounts SET metered = false, held_nanousd = 0)
UPDATE workspaces SET accounted = false, catalog_version = catalog_version + 1 WHERE accounted
"""
# What a scenario did to endpoints: all but the first go, and that one is as it was made.
_OTHERS_GO = """
DELETE FROM webhook_secrets s WHERE s.id <> (SELECT x.id FROM webhook_secrets x
  WHERE x.endpoint_id = %(first)s ORDER BY x.id LIMIT 1);
DELETE FROM webhook_endpoints WHERE id <> %(first)s;
UPDATE webhook_secrets SET expires_at = NULL;
UPDATE webhook_endpoints SET url = %(url)s, disabled_at = NULL, disabled_reason = NULL
"""


class Rig:
    """An async context manager over servers that are running already."""

    def __init__(self, servers: EmbeddedServers, launcher: Launcher, folder: Path) -> None:
        self.servers = servers
        self.vendors = ScriptedVendors()
        self.receiver = Receiver()
        self.to_redis = Proxy(servers.valkey.port)
        self.to_postgres = {kind: Proxy(servers.postgres.port) for kind in ("api", "worker")}
        self.children: list[Child] = []
        self._launcher = launcher
        self._folder = folder
        self._stack = AsyncExitStack()
        self._launched = 0
        self.expected_errors: set[str] = set()

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(self.vendors)
            await stack.enter_async_context(self.receiver)
            self.to_vendors = Proxy(int(self.vendors.url.rpartition(":")[2]))
            self.to_receiver = Proxy(self.receiver.port)
            for proxy in self._proxies():
                await stack.enter_async_context(proxy)
            await asyncio.to_thread(self._prepare_database)
            await self._make_tenant()
            self.customer = await stack.enter_async_context(Customer(self.tenant.key, SLUG))
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.kill_all()
        await self._stack.aclose()

    # Processes

    async def api(self, **settings: object) -> Child:
        """Start an API and make it the one the customer talks to."""
        child = self._launch("api", settings)
        self.customer.url = str((await child.says("api_ready"))["url"])
        return child

    def launch_api(self, **settings: object) -> Child:
        """Start an API that may die before it is ready."""
        return self._launch("api", settings)

    async def worker(self, **settings: object) -> Child:
        """Start a worker and wait until it claims."""
        child = self.launch_worker(**settings)
        await child.says("worker_ready")
        return child

    def launch_worker(self, **settings: object) -> Child:
        """Start a worker that may die before it is ready."""
        return self._launch("worker", settings)

    async def older(self, checkout: Checkout, kind: str, **settings: object) -> Child:
        """Start a process of an earlier version and wait until it is ready."""
        child = self._launch(kind, settings, checkout)
        await child.says(f"{kind}_ready", within_s=30)
        return child

    async def doctor(self) -> tuple[int, str]:
        """What `runlane doctor` answers and says."""
        return await self.command("doctor", columns=200)

    async def command(self, words: str, **settings: object) -> tuple[int, str]:
        """Run a command of `runlane` to its end; its exit code and what it said."""
        child = self._launch(words, settings)
        return await child.ended(), child.log.read_text()

    async def kill_all(self) -> None:
        for child in self.children:
            await child.kill()

    def _launch(
        self, kind: str, settings: Mapping[str, object], launcher: Launcher | Checkout | None = None
    ) -> Child:
        self._launched += 1
        name = f"{kind.replace(' ', '-')}-{self._launched}"
        env = {
            **environment(),
            "DATA_DIR": str(self._folder / name),
            **{key.upper(): str(value) for key, value in {**SETTINGS, **settings}.items()},
            "DATABASE_URL": self._url_through(self.to_postgres.get(kind, self.to_postgres["api"])),
            "REDIS_URL": f"redis://127.0.0.1:{self.to_redis.port}/0",
            "OPENAI_BASE_URL": f"http://127.0.0.1:{self.to_vendors.port}/v1",
        }
        by = launcher or self._launcher
        child = by.launch(name, kind.split(), env, self._folder / f"{name}.log")
        self.children.append(child)
        return child

    # What is in the store

    async def rows(self, statement: str, *values: object, **named: object) -> list[dict[str, Any]]:
        """Ask the database past every proxy."""
        url = self.servers.database_url
        async with await psycopg.AsyncConnection.connect(
            url, autocommit=True, row_factory=dict_row
        ) as connection:
            cursor = await connection.execute(sql.SQL(statement), named or values)
            return await cursor.fetchall() if cursor.description else []

    async def run(self, run_id: str) -> dict[str, Any]:
        """The run's row, with its attempts in order."""
        (row,) = await self.rows("SELECT * FROM runs WHERE id = %s", run_id)
        row["tried"] = await self.rows(
            "SELECT * FROM attempts WHERE run_id = %s ORDER BY number", run_id
        )
        return row

    async def ended(self, run_id: str, *, within_s: float = 15.0) -> dict[str, Any]:
        """Wait until the run is over; answers its row."""
        await self.reached(run_id, *TERMINAL, within_s=within_s)
        return await self.run(run_id)

    async def reached(self, run_id: str, *statuses: str, within_s: float = 15.0) -> None:
        """Wait until the run has one of these statuses."""

        async def look() -> bool:
            found = await self.rows("SELECT status FROM runs WHERE id = %s", run_id)
            return bool(found) and found[0]["status"] in statuses

        await until(look, f"run {run_id} is {' or '.join(statuses)}", within_s=within_s)

    async def waits(self, run_id: str, reason: str, *, tries: int = 0) -> dict[str, Any]:
        """Wait until the API shows a run that waits for this reason; `left_s` is how long still."""

        async def look() -> dict[str, Any] | None:
            shown = await self.customer.read(run_id)
            waiting = ("queued", reason) == (shown["status"], shown["statusReason"])
            if not waiting or not shown["nextAttemptAt"] or len(shown["attempts"]) < tries:
                return None
            left = datetime.fromisoformat(shown["nextAttemptAt"]) - SystemClock().now()
            return {**shown, "left_s": left.total_seconds()}

        return await until(look, f"run {run_id} waits for {reason}")

    async def called(self, run_id: str, count: int = 1) -> None:
        """Wait until the vendor has seen so many calls of a run."""

        async def look() -> bool:
            return len(self.vendors.calls_of(run_id)) >= count

        await until(look, f"run {run_id} was called {count} times")

    async def hooked(self, run_id: str, count: int = 1) -> None:
        """Wait until the receiver has seen so many deliveries of a run."""

        async def look() -> bool:
            return len(self.receiver.hooks_of(run_id)) >= count

        await until(look, f"run {run_id} was delivered {count} times")

    # The end of a scenario

    async def quiet(self, *, within_s: float = 20.0) -> None:
        """Wait until no run is live and no delivery is pending."""

        async def look() -> bool:
            (left,) = await self.rows(
                "SELECT (SELECT count(*) FROM runs WHERE finished_at IS NULL)"
                " + (SELECT count(*) FROM deliveries WHERE finished_at IS NULL) AS count"
            )
            return bool(left["count"] == 0)

        await until(look, "everything has come to its end", within_s=within_s)

    async def disabled(self, model: str) -> int:
        """Submit runs until the only endpoint is disabled for its failures; answers how many."""
        sent = 0

        async def look() -> bool:
            nonlocal sent
            sent += 1
            await self.customer.accepted(f"until disabled {sent}", model)
            (row,) = await self.rows("SELECT disabled_reason FROM webhook_endpoints")
            return bool(row["disabled_reason"] == "failing")

        await until(look, "the endpoint is disabled")
        return sent

    async def verdict(self, *, within_s: float = 20.0) -> Sequence[Violation]:
        """Wait for quiescence and let the referee judge."""
        await self.quiet(within_s=within_s)
        return await self.judged()

    async def judged(self) -> Sequence[Violation]:
        parties = (self.customer, self.vendors, self.receiver)
        return await judged(self.servers.database_url, parties, FIGURES)

    def complaints(self) -> Sequence[str]:
        """What our processes logged as errors, or could not even log, beside what is expected."""
        return [
            f"{child.name}: {line}"
            for child in self.children
            for line in child.log.read_text().splitlines()
            if line.startswith(("Traceback", "--- Logging error"))
            or (
                '"level": "error"' in line
                and not any(event in line for event in (*_EXPECTED, *self.expected_errors))
            )
        ]

    async def clear(self) -> None:
        """Forget everything but the tenant: a fresh start without the cost of one."""
        await self.kill_all()
        self.children.clear()
        self.expected_errors.clear()
        for proxy in self._proxies():
            await proxy.pass_on()
        self.servers.start()
        await self.rows(EMPTY)
        await self.rows(_UNMETER)
        await self.rows(facts.FORGET)
        for statement in _OTHERS_GO.split(";"):
            await self.rows(statement, first=self.endpoint_id, url=self._url_of(HOOK))
        await self.flush_redis()
        self.customer.orders.clear()
        self.customer.cancels.clear()
        self.vendors.ledger.clear()
        self.vendors.released.clear()
        self.receiver.forget()
        self.receiver.secrets = {HOOK: self._secret}
        self.vendors.of_keys.clear()

    async def meter(self) -> None:
        """Let the tenant pay for its runs, with plenty of credits."""
        await self.rows(_METER)

    # Redis, past the proxy

    @asynccontextmanager
    async def redis(self) -> AsyncIterator[Lanes]:
        lanes = connect(self.servers.redis_url)
        try:
            yield lanes
        finally:
            await lanes.aclose()

    async def flush_redis(self) -> None:
        async with self.redis() as client:
            await client.flushall()

    async def no_rings_wait(self) -> None:
        """Wait until every lane is empty."""

        async def look() -> bool:
            async with self.redis() as client:
                return not any((await client.waiting()).values())

        await until(look, "nothing waits in Redis")

    @asynccontextmanager
    async def full_redis(self) -> AsyncIterator[None]:
        """Let Redis refuse whatever needs memory."""
        async with self.redis() as client:
            await client.config_set("maxmemory", "1mb")
            try:
                with suppress(OutOfMemoryError):
                    for _ in range(32):
                        await client.append("filler", "x" * 65_536)
                yield
            finally:
                await client.config_set("maxmemory", 0)
                await client.delete("filler")

    @contextmanager
    def frozen_redis(self) -> Iterator[None]:
        """Let Redis accept connections and say nothing."""
        os.kill(self.servers.valkey.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(self.servers.valkey.pid, signal.SIGCONT)

    def keep_redis_files(self, folder: Path) -> None:
        """Copy what Valkey has on disk."""
        shutil.copytree(self.servers.valkey.data_dir, folder)

    def replace_redis_files(self, folder: Path | None = None) -> None:
        """Delete what a killed Valkey left on disk; put copied files there instead."""
        place = self.servers.valkey.data_dir
        for path in place.iterdir():
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()
        if folder is not None:
            shutil.copytree(folder, place, dirs_exist_ok=True)
            owner = place.stat()
            for path in place.rglob("*"):
                os.chown(path, owner.st_uid, owner.st_gid)

    # Making it

    def _proxies(self) -> Sequence[Proxy]:
        return (*self.to_postgres.values(), self.to_redis, self.to_vendors, self.to_receiver)

    def _url_through(self, proxy: Proxy) -> str:
        # Plain text on this link: the proxy has to see what it cuts.
        here = self.servers.database_url.replace(
            f":{self.servers.postgres.port}/", f":{proxy.port}/"
        )
        return f"{here}?sslmode=disable&gssencmode=disable"

    def _prepare_database(self) -> None:
        url = self.servers.database_url
        migrations.upgrade(url)
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(sql.SQL(facts.WITNESS))
            connection.execute("ALTER SYSTEM SET track_commit_timestamp = on")
        self.servers.postgres.restart()

    @asynccontextmanager
    async def _deps(self) -> AsyncIterator[Deps]:
        """What a process of ours would have, for calling its services."""
        settings = Settings(dev_mode=True, master_key=MASTER_KEY)
        store = Store(self.servers.database_url, size=2)
        await store.open(wait_s=10)
        try:
            async with self.redis() as lanes:
                yield shared_deps.build(settings, SystemClock(), Random(1), store, lanes)
        finally:
            await store.close()

    async def endpoints(self, *names: str) -> list[UUID]:
        """Let the receiver's paths of these names be endpoints of the tenant."""
        made = []
        async with self._deps() as deps:
            for name in names:
                body = webhooks.NewWebhook(url=self._url_of(name))
                endpoint = await webhooks.create(deps, self.tenant.principal, body)
                self.receiver.secrets[name] = endpoint.secret
                made.append(UUID(endpoint.id))
        return made

    async def add_secret(self, endpoint_id: UUID) -> str:
        """Give an endpoint a newer secret beside those it has; answers its text."""
        text, secret_id = signing.new_secret(), new_id()
        workspace_id = self.tenant.workspace_id
        async with self._deps() as deps:
            sealed = deps.vault.seal(text.encode(), "webhook_secrets", secret_id, workspace_id)
            async with deps.store.transaction() as tx:
                await endpoints.insert_secret(
                    tx, secret_id, workspace_id, EndpointId(endpoint_id), sealed
                )
        return text

    def _url_of(self, name: str) -> str:
        return f"http://127.0.0.1:{self.to_receiver.port}/hooks/{name}"

    async def _make_tenant(self) -> None:
        """A workspace with an admin key, a prompt and an endpoint."""
        async with self._deps() as deps:
            self.tenant = await a_tenant(deps, server_credentials=True)
            await a_prompt(deps, self.tenant, SLUG, _BODY)
            await a_prompt(deps, self.tenant, CHAT, _BODY | {"memory": "read_write"})
        (self.endpoint_id,) = await self.endpoints(HOOK)
        self._secret = self.receiver.secrets[HOOK]
