"""What tests of a worker share: vendors on loopback, or one in this process, and its hands."""

from collections.abc import AsyncIterator

import pytest

from shared.deps import Deps
from tests.vendors import VendorServer
from tests.worker.execute_rig import VENDORS, Hands, ScriptedProvider, hands


@pytest.fixture
async def vendors() -> AsyncIterator[VendorServer]:
    async with VendorServer() as server:
        yield server


@pytest.fixture(params=VENDORS)
def vendor(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def provider() -> ScriptedProvider:
    return ScriptedProvider()


@pytest.fixture
async def worker(deps: Deps, provider: ScriptedProvider) -> AsyncIterator[Hands]:
    """Hands that call the scripted provider, without a claim loop."""
    async with hands(deps, provider) as made:
        yield made
