"""The vendors' APIs on loopback, for every test of a worker."""

from collections.abc import AsyncIterator

import pytest

from tests.vendors import VendorServer
from tests.worker.execute_rig import VENDORS


@pytest.fixture
async def vendors() -> AsyncIterator[VendorServer]:
    async with VendorServer() as server:
        yield server


@pytest.fixture(params=VENDORS)
def vendor(request: pytest.FixtureRequest) -> str:
    return str(request.param)
