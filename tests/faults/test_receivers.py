"""Receivers that hang, refuse, point elsewhere or change their secret."""

from datetime import timedelta
from typing import Any

import pytest

from tests.faults.receiver import Hook
from tests.faults.rig import HOOK, Rig
from tests.faults.vendors import model_of
from tests.faults.waiting import until

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.xdist_group("faults")]

QUICK = model_of("slow-1")
NO_PAUSE = {"webhook_pause_failures": 100_000}


async def _deliveries(rig: Rig) -> list[dict[str, Any]]:
    return await rig.rows("SELECT * FROM deliveries ORDER BY id")


async def _tries(rig: Rig) -> list[dict[str, Any]]:
    return await rig.rows("SELECT * FROM delivery_tries ORDER BY delivery_id, number")


async def test_an_endpoint_that_is_down_for_the_whole_schedule_is_disabled_in_the_end(
    rig: Rig,
) -> None:
    await rig.api()
    await rig.worker(
        webhook_schedule_s="0,0.1,0.1",
        webhook_disable_s=1,
        webhook_disable_apart_s=0.3,
        **NO_PAUSE,
    )
    rig.receiver.script(HOOK, [500] * 1000)
    run_id = await rig.customer.accepted("f51 first", QUICK)
    await rig.quiet()
    (first,) = await _deliveries(rig)
    made = await _tries(rig)
    await rig.disabled(QUICK)
    await rig.quiet()
    heard = len(rig.receiver.ledger)
    last = await rig.customer.accepted("f51 last", QUICK)
    await rig.ended(last)

    assert ("exhausted", 3) == (first["status"], first["tries"])
    assert [500, 500, 500] == [one["status_code"] for one in made]
    assert 1 == len({hook.id for hook in rig.receiver.hooks_of(run_id)})
    assert {"exhausted", "canceled"} >= {row["status"] for row in await _deliveries(rig)}
    assert [] == rig.receiver.hooks_of(last)
    assert heard == len(rig.receiver.ledger)


async def test_one_hanging_endpoint_among_fifty_delays_no_other_by_more_than_a_second(
    rig: Rig,
) -> None:
    await rig.endpoints(*(f"e{number}" for number in range(49)))
    rig.receiver.hanging.add(HOOK)
    await rig.api()
    await rig.worker(webhook_timeout_s=30, webhook_lease_s=60)  # longer than the scenario
    for number in range(14):
        run_id = await rig.customer.accepted(f"f53 {number}", QUICK)
        await rig.hooked(run_id, 49 if number >= 10 else 50)
    events = {str(row["id"]): row["created_at"] for row in await rig.rows("SELECT * FROM events")}
    waits = sorted(
        hook.received_at - events[hook.id] for hook in rig.receiver.ledger if hook.endpoint != HOOK
    )

    assert waits[round(0.99 * len(waits))] <= timedelta(seconds=1)
    assert 10 == len([hook for hook in rig.receiver.ledger if hook.endpoint == HOOK])


async def test_a_secret_that_is_rotated_while_deliveries_retry_signs_the_next_try(rig: Rig) -> None:
    await rig.api()
    await rig.worker(webhook_schedule_s="0" + ",0.15" * 60, **NO_PAUSE)
    rig.receiver.script(HOOK, [500] * 1000)
    old = rig.receiver.secrets[HOOK]
    await rig.customer.accepted("f54", QUICK)
    before = await _next(rig)
    new = rig.receiver.secrets[HOOK] = await rig.add_secret(rig.endpoint_id)
    overlap = await _next(rig)
    await rig.rows(
        "UPDATE webhook_secrets SET expires_at = now() WHERE id = (SELECT id FROM webhook_secrets"
        " WHERE endpoint_id = %s ORDER BY id LIMIT 1)",
        rig.endpoint_id,
    )
    after = await _next(rig)
    rig.receiver.script(HOOK, [])
    await rig.quiet()

    assert [(True, False), (True, True), (False, True)] == [
        (hook.verifies(old), hook.verifies(new)) for hook in (before, overlap, after)
    ]
    assert 1 == len({(hook.id, hook.body) for hook in rig.receiver.ledger})


async def _next(rig: Rig) -> Hook:
    """The second delivery from now on: the first may have been signed already."""
    count = len(rig.receiver.ledger)

    async def look() -> Hook | None:
        return rig.receiver.ledger[-1] if len(rig.receiver.ledger) >= count + 2 else None

    return await until(look, "two more deliveries")


async def test_a_name_that_comes_to_mean_loopback_is_not_visited(rig: Rig) -> None:
    await rig.api()
    # No port is forbidden to a worker: it is the address that it judges.
    await rig.rows(
        "UPDATE webhook_endpoints SET url = replace(url, '127.0.0.1', 'localhost')",
    )
    await rig.worker(dev_mode=False, webhook_schedule_s="0,0.1,0.1", **NO_PAUSE)

    await rig.customer.accepted("f55", QUICK)
    await rig.quiet()

    made = await _tries(rig)
    assert ["blocked_address"] * 3 == [one["outcome"] for one in made]
    assert [None] * 3 == [one["address"] for one in made]
    assert [] == rig.receiver.ledger


@pytest.mark.parametrize("elsewhere", ["http://169.254.169.254/latest/meta-data/", "/hooks/inner"])
async def test_a_redirect_is_a_failure_and_nobody_goes_there(rig: Rig, elsewhere: str) -> None:
    await rig.api()
    await rig.worker(webhook_schedule_s="0,0.1,0.1", **NO_PAUSE)
    rig.receiver.script(HOOK, [302] * 10)
    rig.receiver.redirects[HOOK] = elsewhere

    await rig.customer.accepted("f56", QUICK)
    await rig.quiet()

    assert [302, 302, 302] == [one["status_code"] for one in await _tries(rig)]
    assert {"127.0.0.1"} == {one["address"] for one in await _tries(rig)}
    assert [HOOK] * 3 == [hook.endpoint for hook in rig.receiver.ledger]
