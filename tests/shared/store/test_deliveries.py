"""Deliveries: found when due, leased once, settled by the holder of the lease only."""

import asyncio
from typing import Any

import pytest

from shared.store.deliveries import Try
from shared.store.ending import DueDelivery
from tests.shared.store.rig import Rig

NOW_DUE = "UPDATE deliveries SET next_try_at = now() - interval '1 s'"


def _try(due: DueDelivery, **changes: Any) -> Try:
    columns: dict[str, Any] = {
        "delivery_id": str(due.id),
        "lease_no": due.lease_no,
        "status": "pending",
        "started_at": "2026-11-22T12:00:00.123Z",
        "duration_ms": 7,
        "outcome": "answered",
        "status_code": 500,
        "excerpt": "oops",
        "address": "127.0.0.1",
        "wait_s": 300,
    }
    return Try(**(columns | changes))


async def _row(rig: Rig) -> dict[str, Any]:
    (row,) = await rig.rows(
        "SELECT *, extract(epoch FROM next_try_at - now())::float8 AS wait FROM deliveries"
    )
    return row


async def test_a_lease_that_runs_out_passes_to_another(rig: Rig) -> None:
    first = await rig.delivery()
    leased = await rig.due()
    await rig.run(NOW_DUE)

    (second,) = await rig.due()

    assert [] == leased
    assert (first.lease_no + 1, 0) == (second.lease_no, second.tries)
    assert (first.event_id, first.body, first.url, first.secrets, first.run_id) == (
        second.event_id,
        second.body,
        second.url,
        second.secrets,
        second.run_id,
    )
    assert 40 < (await _row(rig))["wait"] <= 45


async def test_the_longest_due_come_first_and_each_once(rig: Rig) -> None:
    await rig.endpoint()
    for _ in range(12):
        await rig.finished()
    await rig.run(
        "UPDATE deliveries y SET next_try_at = now() - n * interval '1 s' FROM"
        " (SELECT id, row_number() OVER (ORDER BY id) AS n FROM deliveries) s WHERE s.id = y.id"
    )

    first = await rig.due(limit=2)
    rest = await asyncio.gather(*(rig.due(limit=5) for _ in range(4)))

    rows = [row["id"] for row in await rig.deliveries()]
    claimed = [str(due.id) for batch in rest for due in batch]
    assert set(rows[-2:]) == {str(due.id) for due in first}
    assert sorted(rows[:-2]) == sorted(claimed)


async def test_a_failed_try_waits_as_long_as_it_says(rig: Rig) -> None:
    due = await rig.delivery()

    written = await rig.record(_try(due))

    row, (made,) = await _row(rig), await rig.tries(due.id)
    assert [True] == written
    assert ("pending", 1, None) == (row["status"], row["tries"], row["finished_at"])
    assert 295 < row["wait"] <= 300
    assert {
        "number": 1,
        "started_at": "2026-11-22T12:00:00.123+00:00",
        "duration_ms": 7,
        "status_code": 500,
        "outcome": "answered",
        "excerpt": "oops",
        "address": "127.0.0.1",
    }.items() <= made.items()


@pytest.mark.parametrize("status", ["succeeded", "exhausted"])
async def test_an_end_is_final(rig: Rig, status: str) -> None:
    due = await rig.delivery()
    await rig.record(_try(due, status=status, wait_s=0))
    await rig.run(NOW_DUE)

    row = await _row(rig)
    assert (status, 1) == (row["status"], row["tries"])
    assert row["finished_at"] is not None
    assert [] == await rig.due()
    assert [False] == await rig.record(_try(due, lease_no=row["lease_no"]))
    assert 1 == len(await rig.tries(due.id))


async def test_a_sender_that_was_too_slow_writes_nothing(rig: Rig) -> None:
    slow = await rig.delivery()
    await rig.run(NOW_DUE)
    (quick,) = await rig.due()

    written = await rig.record(_try(slow, status="exhausted"))

    assert [False] == written
    assert [True] == await rig.record(_try(quick, status="succeeded"))
    assert [False] == await rig.record(_try(slow, status="exhausted"))
    assert ("succeeded", 1) == ((await _row(rig))["status"], len(await rig.tries(slow.id)))


async def test_a_try_whose_commit_was_lost_is_not_counted_twice(rig: Rig) -> None:
    due = await rig.delivery()
    await rig.record(_try(due))

    again = await rig.record(_try(due))

    assert [False] == again
    assert (1, 1) == ((await _row(rig))["tries"], len(await rig.tries(due.id)))


async def test_tries_are_numbered_in_their_order(rig: Rig) -> None:
    first = await rig.delivery()
    for _ in range(3):
        await rig.run(NOW_DUE)
        (due,) = await rig.due()
        await rig.record(_try(due))

    assert [1, 2, 3] == [made["number"] for made in await rig.tries(first.id)]


async def test_a_batch_of_tries_answers_in_its_order(rig: Rig) -> None:
    await rig.endpoint()
    for _ in range(3):
        await rig.finished()
    await rig.run(NOW_DUE)
    one, two, three = await rig.due()

    written = await rig.record(_try(three), _try(one, lease_no=9), _try(two, status="succeeded"))

    assert [True, False, True] == written


@pytest.mark.parametrize("column", ["disabled_at", "deleted_at"])
async def test_nothing_is_sent_to_an_endpoint_that_left_meanwhile(rig: Rig, column: str) -> None:
    due = await rig.delivery()
    await rig.run(NOW_DUE)
    await rig.run(f"UPDATE webhook_endpoints SET {column} = now()")

    claimed = await rig.due()

    row = await _row(rig)
    assert [] == claimed
    assert ("canceled", 0) == (row["status"], row["tries"])
    assert [] == await rig.tries(due.id)


async def test_a_rotated_secret_signs_the_next_try(rig: Rig) -> None:
    due = await rig.delivery()
    await rig.secret(due.endpoint_id)
    await rig.run(NOW_DUE)

    (again,) = await rig.due()

    assert (1, 2) == (len(due.secrets), len(again.secrets))
    assert due.secrets[0] == again.secrets[1]
