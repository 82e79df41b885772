"""What every test may ask for: real servers, started once per test process."""

import subprocess
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from cli.embedded import EmbeddedServers, start
from tests import servers as private_servers


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
