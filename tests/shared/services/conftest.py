"""Services are tested over a database that can be cut off at chosen statements."""

from collections.abc import AsyncIterator

import pytest

from shared.settings import Settings
from tests.servers import empty_database
from tests.worker.execute_rig import CutStore


@pytest.fixture(name="store")
async def store_that_can_be_cut(settings: Settings) -> AsyncIterator[CutStore]:
    store = CutStore(settings.database_url.get_secret_value())
    await store.open(wait_s=10)
    yield store
    await empty_database(store)
    await store.close()
