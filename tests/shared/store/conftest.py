"""The store's tests ask for a rig, and share a database that is emptied quickly."""

from collections.abc import AsyncIterator

import pytest

from shared.deps import Deps
from shared.settings import Settings
from shared.store.database import Store
from tests.servers import empty_database
from tests.shared.store.rig import Rig, a_rig


@pytest.fixture(name="store")
async def quickly_emptied_store(settings: Settings) -> AsyncIterator[Store]:
    store = Store(settings.database_url.get_secret_value(), size=3)
    await store.open(wait_s=10)
    yield store
    await empty_database(store)
    await store.close()


@pytest.fixture
async def rig(deps: Deps) -> Rig:
    return await a_rig(deps)


@pytest.fixture
async def other(deps: Deps) -> Rig:
    """A second workspace."""
    return await a_rig(deps)
