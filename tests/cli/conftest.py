"""What tests of commands share: an API that answers, and a shell to type in."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from shared.deps import Deps
from tests.cli.served import Api, Shell
from tests.factories import Tenant, a_prompt
from tests.faults.processes import Launcher


@pytest.fixture
async def served(deps: Deps, tenant: Tenant) -> AsyncIterator[Api]:
    """The API of a tenant with the prompt `greeting`."""
    await a_prompt(deps, tenant)
    api = Api(deps)
    await api.start()
    yield api
    await api.stop()


@pytest.fixture
def shell(launcher: Launcher, tmp_path: Path, served: Api, tenant: Tenant) -> Shell:
    """Commands of the tenant's admin."""
    return Shell(launcher, tmp_path, served.url, tenant.key)
