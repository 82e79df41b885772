"""What an endpoint missed is sent again, whole, although the API dies in the middle."""

from datetime import timedelta

import httpx
import pytest

from shared.clock import SystemClock
from tests.faults.rig import HOOK, Rig
from tests.faults.vendors import model_of

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.xdist_group("faults")]

QUICK = model_of("slow-1")


async def _post(rig: Rig, path: str, **body: object) -> httpx.Response | None:
    """Ask about the rig's endpoint; `None` when the API died over it."""
    url = f"{rig.customer.url}/api/v1/webhooks/{rig.endpoint_id}/{path}"
    headers = {"Authorization": f"Bearer {rig.tenant.key}"}
    async with httpx.AsyncClient(headers=headers, trust_env=False) as client:
        try:
            return await client.post(url, json=body)
        except httpx.TransportError:
            return None


def _since() -> str:
    return (SystemClock().now() - timedelta(hours=1)).isoformat()


async def _events(rig: Rig) -> set[str]:
    return {str(row["id"]) for row in await rig.rows("SELECT id FROM events")}


def _received(rig: Rig) -> set[str]:
    return {hook.id for hook in rig.receiver.ledger if hook.status == 200}


async def test_what_exhausted_its_schedule_or_was_canceled_is_recovered_under_its_ids(
    rig: Rig,
) -> None:
    await rig.api()
    await rig.worker(
        webhook_schedule_s="0,0.1,0.1",
        webhook_disable_s=1,
        webhook_disable_apart_s=0.3,
        webhook_pause_failures=100_000,
    )
    rig.receiver.script(HOOK, [500] * 10_000)
    asked = await rig.disabled(QUICK)
    await rig.ended(await rig.customer.accepted("f51 while disabled", QUICK))
    await rig.quiet()
    missed = await rig.rows("SELECT DISTINCT status FROM deliveries")
    rig.receiver.script(HOOK, [])

    enabled = await _post(rig, "enable")
    recovered = await _post(rig, "recover", since=_since())
    await rig.quiet()

    assert {row["status"] for row in missed} <= {"exhausted", "canceled"}
    assert enabled is not None
    assert recovered is not None
    assert (200, 200) == (enabled.status_code, recovered.status_code)
    assert asked + 1 == recovered.json()["recovered"]
    assert await _events(rig) == _received(rig)
    # The referee knows neither this scenario's schedule nor that it begins anew.
    assert set() == {found.invariant for found in await rig.verdict()} - {33}


async def test_a_recovery_whose_api_died_in_the_middle_is_carried_on(rig: Rig) -> None:
    await rig.api()
    await rig.rows("UPDATE webhook_endpoints SET disabled_at = now()")
    await rig.worker()
    for number in range(130):
        await rig.customer.accepted(f"f52 {number}", QUICK)
    await rig.quiet(within_s=60)
    await rig.rows("UPDATE webhook_endpoints SET disabled_at = NULL")
    doomed = await rig.api(crash_point="recover_mid_batch:kill")

    unanswered = await _post(rig, "recover", since=_since())
    await doomed.ended()
    (half,) = await rig.rows("SELECT count(*) FROM deliveries")
    await rig.api()
    answered = await _post(rig, "recover", since=_since())
    await rig.quiet(within_s=60)

    assert None is unanswered
    assert answered is not None
    assert (100, 30) == (half["count"], answered.json()["recovered"])
    assert 130 == len(rig.receiver.ledger)
    assert await _events(rig) == _received(rig)
    assert [] == await rig.verdict()
