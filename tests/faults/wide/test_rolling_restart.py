"""Every process is replaced, one after the other, while a hundred runs a second are submitted."""

from signal import SIGTERM

import pytest

from tests.faults.processes import Child
from tests.faults.rig import Rig
from tests.faults.rolling import Balancer, steadily
from tests.faults.vendors import model_of

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.xdist_group("faults")]

CALLS = model_of("slow-300")
PER_S = 100
ENOUGH = 6_000
LINGER_S = 0.6


async def test_a_rolling_restart_under_load_loses_nothing_and_nobody_notices(rig: Rig) -> None:
    async with Balancer() as balancer:
        apis = [await _api(rig, balancer) for _ in range(2)]
        workers = [await rig.worker() for _ in range(2)]
        await balancer.looked()
        rig.customer.url = balancer.url

        async with steadily(
            lambda number: rig.customer.submit(f"rolling {number}", CALLS),
            per_s=PER_S,
            at_most=ENOUGH,
        ):
            codes = [await _replaced(rig, balancer, api) for api in apis]
            for worker in workers:
                await rig.worker()
                worker.send(SIGTERM)
                codes.append(await worker.ended())
        violations = await rig.verdict(within_s=30)

    rows = await rig.rows("SELECT id::text AS id, status, claim_no FROM runs")
    accepted = {run_id for order in rig.customer.orders.values() for run_id in order.run_ids}
    assert [0] * 4 == codes
    assert {200: len(rig.customer.orders)} == balancer.answers
    assert accepted == {row["id"] for row in rows}
    assert {("succeeded", 1)} == {(row["status"], row["claim_no"]) for row in rows}
    assert dict.fromkeys(accepted, 1) == {
        run_id: len(rig.vendors.calls_of(run_id)) for run_id in accepted
    }
    assert [] == violations
    assert len(accepted) > PER_S


async def _api(rig: Rig, balancer: Balancer) -> tuple[Child, str]:
    child = rig.launch_api(api_linger_s=LINGER_S)
    url = str((await child.says("api_ready"))["url"])
    balancer.upstreams.append(url)
    return child, url


async def _replaced(rig: Rig, balancer: Balancer, old: tuple[Child, str]) -> int:
    """Start another one beside it, let the balancer find it, then ask the old one to go."""
    child, url = old
    await _api(rig, balancer)
    await balancer.looked()
    child.send(SIGTERM)
    code = await child.ended()
    balancer.upstreams.remove(url)
    return code
