"""What every test may ask for: real servers, started once per test process."""

import asyncio
import base64
import gc
import subprocess
from collections.abc import AsyncIterator, Generator, Iterator
from pathlib import Path
from random import Random
from typing import Any
from uuid import uuid4

import httpx
import pytest
import structlog
import uvloop

import migrations
from api.app import create_app
from cli.embedded import EmbeddedServers, start
from shared import deps as shared_deps
from shared.clock import SystemClock
from shared.deps import Deps
from shared.queue.connection import connect
from shared.queue.lanes import Lanes
from shared.settings import Settings
from shared.store.database import Store
from shared.tasks import end
from tests import servers as private_servers
from tests.e2e import processes
from tests.factories import Tenant, a_tenant
from tests.faults.processes import Launcher
from worker.main import WorkerProcess

# As it comes, structlog draws an exception with every variable in it: for seconds.
structlog.configure(
    processors=[
        structlog.processors.add_log_level,
        structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback),
    ]
)

asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())  # the loop that the product runs on

LONGEST = ("tests/e2e", "tests/faults", "tests/cli", "tests/walks")


def pytest_collection() -> None:
    gc.disable()  # what is imported and collected now stays until the end


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the longest files, or one of them goes on alone when all others are through."""
    items.sort(key=lambda item: not item.nodeid.startswith(LONGEST))


def pytest_collection_finish() -> None:
    """Spare every garbage collection of the tests the walk over a million lasting objects."""
    gc.freeze()
    gc.enable()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show what the processes of a failed test said."""
    report = yield
    if report.failed:
        for process in processes.running:
            report.sections.append((f"{process.name} ({process.pid})", process.said()))
    return report


@pytest.fixture(scope="session")
def servers() -> Iterator[EmbeddedServers]:
    """PostgreSQL and Valkey on 127.0.0.1, not durable, shared by this process's tests."""
    with private_servers.running() as running:
        yield running


@pytest.fixture(scope="session")
def database_url(servers: EmbeddedServers) -> str:
    """The database `runlane` of the shared server; no migration has run in it."""
    return servers.database_url


@pytest.fixture(scope="session")
def redis_url(servers: EmbeddedServers) -> str:
    return servers.redis_url


@pytest.fixture(scope="session")
def launcher() -> Iterator[Launcher]:
    """Starts `runlane` processes without the seconds that importing it takes each time."""
    launcher = Launcher()
    yield launcher
    launcher.close()


@pytest.fixture
def empty_database_url(servers: EmbeddedServers) -> Iterator[str]:
    """A database of the test's own, empty, for migrations."""
    name = f"test_{uuid4().hex}"
    yield servers.postgres.create_database(name)
    servers.postgres.drop_database(name)


@pytest.fixture
def empty_redis_url(servers: EmbeddedServers) -> str:
    """The shared Valkey without a key in it."""
    private_servers.empty_redis(servers)
    return servers.redis_url


@pytest.fixture(scope="session")
def used_data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder whose servers have run and ended; copy it, never start it."""
    folder = tmp_path_factory.mktemp("used")
    with start(folder, durable=False):
        pass
    return folder


@pytest.fixture
def data_dir(used_data_dir: Path, tmp_path: Path) -> Path:
    """A data folder of the test's own that saves it the second a first start takes."""
    folder = tmp_path / "data"
    subprocess.run(["/bin/cp", "-a", used_data_dir, folder], check=True)
    return folder


@pytest.fixture(scope="session")
def migrated_url(servers: EmbeddedServers) -> str:
    """A database with the newest schema, shared by this process's tests and emptied after each."""
    url = servers.postgres.create_database("migrated")
    migrations.upgrade(url)
    return url


@pytest.fixture(scope="session")
def settings(migrated_url: str, redis_url: str) -> Settings:
    """Development settings with short times; tests that need others copy and change them."""
    return Settings(
        database_url=migrated_url,
        redis_url=redis_url,
        dev_mode=True,
        master_key="test:" + base64.b64encode(bytes(range(32))).decode(),
        rate_submissions_per_minute=0,
        rate_requests_per_minute=0,
        rate_failures_per_minute=0,
        retry_backoff_s=0.02,
        flow_wait_s=0.2,  # in most tests nobody works
        lease_s=2,
        renew_s=0.4,
        self_fence_s=1.6,
        reap_s=0.2,
        sweep_s=0.2,
        webhook_poll_s=0.1,
        webhook_schedule_s=(0, 0.1, 0.1, 0.1),
    )


@pytest.fixture(scope="session")
async def database(migrated_url: str) -> AsyncIterator[Store]:
    """Connections to the migrated database that last as long as the process."""
    store = Store(migrated_url, size=3)
    await store.open(wait_s=10)
    yield store
    await store.close()


@pytest.fixture
async def store(database: Store) -> AsyncIterator[Store]:
    """The migrated database; every table is emptied afterwards."""
    yield database
    await private_servers.empty_database(database)


@pytest.fixture
async def lanes(settings: Settings, servers: EmbeddedServers) -> AsyncIterator[Lanes]:
    """The lanes in the shared Valkey, empty at first."""
    private_servers.empty_redis(servers)
    lanes, others = connect(settings.redis_url.get_secret_value()), asyncio.all_tasks()
    yield lanes
    # The loop goes on: what a test left running would speak to the servers of the next one.
    await end(asyncio.all_tasks() - others - {asyncio.current_task()})
    await lanes.aclose()


@pytest.fixture
def deps(settings: Settings, store: Store, lanes: Lanes) -> Deps:
    """A process's state over real servers."""
    return shared_deps.build(settings, SystemClock(), Random(7), store, lanes)


@pytest.fixture
async def worker(deps: Deps, lanes: Lanes) -> AsyncIterator[WorkerProcess]:
    """A worker in this process."""
    worker = WorkerProcess(deps, lanes)
    await worker.start()
    yield worker
    await worker.stop()


@pytest.fixture
async def tenant(deps: Deps) -> Tenant:
    """A workspace with an admin key and a default environment, `production`."""
    return await a_tenant(deps)


@pytest.fixture
async def client(deps: Deps, tenant: Tenant) -> AsyncIterator[httpx.AsyncClient]:
    """The API as the tenant's admin sees it, base URL and key set."""
    app: Any = create_app(deps)  # Litestar types its scopes more closely than httpx
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app),
        base_url="http://runlane.test/api/v1",
        headers={"Authorization": f"Bearer {tenant.key}"},
    ) as client:
        yield client
