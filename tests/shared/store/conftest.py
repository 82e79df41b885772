"""The store's tests ask for a rig, and for a second one."""

import pytest

from shared.deps import Deps
from tests.shared.store.rig import Rig, a_rig


@pytest.fixture
async def rig(deps: Deps) -> Rig:
    return await a_rig(deps)


@pytest.fixture
async def other(deps: Deps) -> Rig:
    """A second workspace."""
    return await a_rig(deps)
