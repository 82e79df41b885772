"""Cancellations at every moment of a run: it ends once, and what was not sent is not paid."""

import pytest

from tests.faults import cancels
from tests.faults.rig import Rig

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.xdist_group("faults")]


async def test_a_cancel_at_any_moment_leaves_one_end_and_no_call_after_it(rig: Rig) -> None:
    await rig.api()
    for _ in range(2):
        await rig.worker()

    seen = await cancels.race(rig, 60, seed=48)

    assert 60 == seen.total()
    assert [] == await rig.verdict()
