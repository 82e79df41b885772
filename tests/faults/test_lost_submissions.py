"""Submissions whose API process or database answer is lost half-way."""

import pytest

from tests.faults.rig import Rig
from tests.faults.vendors import model_of

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.xdist_group("faults")]

ANSWER = model_of("answer")


async def test_a_run_committed_by_an_api_that_died_before_the_ring_is_swept_up(rig: Rig) -> None:
    api = await rig.api(crash_point="after_commit:kill")
    await rig.worker()

    reply = await rig.customer.submit("f2", ANSWER, key="f2")
    await api.ended()
    (stored,) = await rig.rows("SELECT id::text FROM runs")
    row = await rig.ended(stored["id"], within_s=10)
    await rig.api()
    again = await rig.customer.submit("f2", ANSWER, key="f2")

    assert 0 == reply.status
    assert "succeeded" == row["status"]
    assert (200, stored["id"]) == (again.status, again.run_id)
    assert "true" == again.headers["idempotent-replayed"]
    assert [] == await rig.verdict()
