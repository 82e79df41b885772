"""One rig for all fault scenarios of a test process; each scenario finds it empty."""

from collections.abc import AsyncIterator, Generator, Iterator

import pytest
import pytest_asyncio

from cli.embedded import EmbeddedServers
from tests import servers as private_servers
from tests.faults.processes import Launcher
from tests.faults.rig import Rig


@pytest.fixture(scope="session")
def durable_servers(launcher: Launcher) -> Iterator[EmbeddedServers]:  # it imports meanwhile
    with private_servers.running(durable=True) as servers:
        yield servers


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def session_rig(
    durable_servers: EmbeddedServers,
    launcher: Launcher,
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[Rig]:
    async with Rig(durable_servers, launcher, tmp_path_factory.mktemp("rig")) as rig:
        yield rig


@pytest_asyncio.fixture(loop_scope="session")
async def rig(session_rig: Rig) -> AsyncIterator[Rig]:
    """Servers, ledgers and a network in good order; no process of ours runs yet."""
    await session_rig.clear()
    yield session_rig
    await session_rig.kill_all()
    assert [] == session_rig.complaints()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show what the processes said beside a scenario that failed."""
    report = yield
    rig = getattr(item, "funcargs", {}).get("rig")
    if report.when == "call" and report.failed and isinstance(rig, Rig):
        for child in rig.children:
            report.sections.append((f"log of {child.name}", child.last_words()))
    return report
