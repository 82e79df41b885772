"""A thousand cancellations that race claim, intent and finish."""

import pytest

from tests.faults import cancels
from tests.faults.rig import Rig

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.xdist_group("faults")]


async def test_a_thousand_cancels_at_random_moments_leave_one_end_each(rig: Rig) -> None:
    await rig.api()
    for _ in range(2):
        await rig.worker()

    seen = await cancels.race(rig, 1000, seed=48)

    assert 1000 == seen.total()
    assert {
        ("canceled", "canceled uncalled"),  # before the claim
        ("canceled", "canceled"),  # while it waited for its second call
        ("stopping", "canceled"),  # during a call
        ("stopping", "canceled uncalled"),  # between claim and intent
        ("stopping", "succeeded"),  # when the answer was in hand
        ("succeeded", "succeeded"),  # after the end
        ("failed", "failed"),  # likewise
    } <= seen.keys()
    assert [] == await rig.verdict()
