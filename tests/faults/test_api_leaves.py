"""An API that is told to go: balancers hear of it first, and what is under way is answered."""

import asyncio
from signal import SIGTERM

import httpx
import pytest

from tests.faults.rig import Rig
from tests.faults.vendors import model_of
from tests.faults.waiting import until

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.xdist_group("faults")]

ANSWER = model_of("answer")


async def test_an_api_told_to_go_says_so_answers_on_and_then_closes_its_door(rig: Rig) -> None:
    leaving = await rig.api(api_linger_s=1.5)
    run_id = await rig.customer.accepted("f24 waited for", ANSWER)
    waited = asyncio.create_task(rig.customer.get(f"/api/v1/runs/{run_id}?wait=30"))
    before = await rig.customer.get("/readyz")

    leaving.send(SIGTERM)
    draining = await until(lambda: _draining(rig), "the API says that it is leaving")
    late = await rig.customer.submit("f24 late", ANSWER)
    code = await leaving.ended()
    under_way = await waited
    with pytest.raises(httpx.ConnectError):
        await rig.customer.get("/readyz")
    await rig.api()
    await rig.worker()

    assert (200, "ready", None) == (
        before.status,
        before.document["status"],
        before.headers.get("connection"),
    )
    assert (503, "draining") == draining
    assert (200, "close") == (late.status, late.headers.get("connection"))
    assert (200, "queued") == (under_way.status, under_way.document["status"])
    assert 0 == code
    assert [] == await rig.verdict()


async def _draining(rig: Rig) -> tuple[int, str] | None:
    reply = await rig.customer.get("/readyz")
    return None if reply.status == 200 else (reply.status, reply.document["status"])
