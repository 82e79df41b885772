"""Hosts whose clocks are off by an hour, either way: leases, waits and signatures hold."""

import pytest

from tests.faults.rig import HOOK, Rig
from tests.faults.vendors import model_of

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.xdist_group("faults")]

HOUR_S = 3600
TOLERANCE_S = 60
FAILS_FIRST = model_of("500", "429-after-1", "answer")
HANGS_ONCE = model_of("hang", "answer")


@pytest.mark.parametrize("api_skew_s", [HOUR_S, -HOUR_S], ids=["ahead", "behind"])
async def test_hosts_an_hour_apart_come_to_the_same_ends(rig: Rig, api_skew_s: int) -> None:
    await rig.api(clock_skew_s=api_skew_s)
    jumping = await rig.worker(clock_skew_s=HOUR_S)
    dying = [await rig.customer.accepted(f"f57 hangs {n}", HANGS_ONCE) for n in range(3)]
    for run_id in dying:
        await rig.called(run_id)
    await jumping.kill()
    workers = [await rig.worker(clock_skew_s=skew_s) for skew_s in (-HOUR_S, HOUR_S, 0)]
    rig.receiver.script(HOOK, [500] * 10)
    runs = [await rig.customer.accepted(f"f57 {number}", FAILS_FIRST) for number in range(12)]
    runs.append(await rig.customer.accepted("f57 short", FAILS_FIRST, maxDuration=60))
    rows = [await rig.ended(run_id) for run_id in runs]
    retried = [await rig.ended(run_id) for run_id in dying]

    assert [] == await rig.verdict()
    assert {("succeeded", 0)} == {(row["status"], row["deaths"]) for row in rows}
    assert {("succeeded", 1)} == {(row["status"], row["deaths"]) for row in retried}
    assert [] == [
        hook.timestamp
        for hook in rig.receiver.ledger
        if abs(int(hook.timestamp) - hook.received_at.timestamp()) > TOLERANCE_S
    ]
    assert all(worker.alive for worker in workers)
    assert [] == [line for worker in workers for line in worker.said("session_was_reaped")]
