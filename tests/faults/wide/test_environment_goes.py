"""An environment that is deleted by force while its API dies between two batches."""

import httpx
import pytest

from tests.faults.rig import Rig
from tests.faults.vendors import model_of

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.xdist_group("faults")]

RUNS = 130


async def _ask(rig: Rig, method: str, path: str, body: object = None) -> httpx.Response | None:
    """Ask an API of the rig; `None` when it died over it."""
    url = f"{rig.customer.url}/api/v1{path}"
    headers = {"Authorization": f"Bearer {rig.tenant.key}"}
    async with httpx.AsyncClient(headers=headers, trust_env=False) as client:
        try:
            return await client.request(method, url, json=body)
        except httpx.TransportError:
            return None


async def test_a_forced_deletion_whose_api_died_in_the_middle_is_carried_on(rig: Rig) -> None:
    doomed = await rig.api(crash_point="environment_mid_batch:kill")
    await _ask(rig, "POST", "/environments", {"name": "doomed"})
    one = {"prompt": "task", "version": "1", "environment": "doomed"}
    item = one | {"inputs": {"case": "x"}, "model": model_of("answer")}
    made = await _ask(rig, "POST", "/runs/batch", {"runs": [item] * RUNS})
    assert made is not None
    assert 200 == made.status_code, made.text

    cut_off = await _ask(rig, "DELETE", "/environments/doomed?force=true")
    await doomed.ended()
    half = await rig.rows("SELECT status, count(*)::int FROM runs GROUP BY status ORDER BY status")
    await rig.api()
    refused = await _ask(rig, "POST", "/runs/batch", {"runs": [item]})
    shown = await _ask(rig, "GET", "/environments/doomed")
    carried_on = await _ask(rig, "DELETE", "/environments/doomed?force=true")
    gone = await _ask(rig, "GET", "/environments/doomed")
    await rig.worker()
    await rig.quiet(within_s=60)

    assert cut_off is None
    assert [("canceled", 100), ("queued", 30)] == [(row["status"], row["count"]) for row in half]
    statuses = [answer and answer.status_code for answer in (refused, shown, carried_on, gone)]
    assert [422, 200, 204, 404] == statuses
    assert [("canceled", RUNS)] == [
        (row["status"], row["count"])
        for row in await rig.rows("SELECT status, count(*)::int FROM runs GROUP BY status")
    ]
    assert RUNS == len({hook.id for hook in rig.receiver.ledger if hook.status == 200})
    assert [] == await rig.verdict()
