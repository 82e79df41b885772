"""Deliveries as a client of the API sees them: listed, read, sent again, recovered."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import msgspec
import pytest

from api import hook_shapes
from shared import deps as shared_deps
from shared.deps import Deps
from shared.ids import RunId
from shared.settings import Settings
from shared.store import redelivery
from shared.store.deliveries import Try
from shared.store.ending import DueDelivery
from shared.store.run_json import UUID7
from tests.api.clients import client_with, problem, without_request_id
from tests.factories import a_key, a_tenant
from tests.shared.store.rig import Rig, a_rig, failed, outcome

UNKNOWN_ID = "019abcde-0000-7000-8000-000000000000"


@pytest.fixture
async def rig(deps: Deps) -> Rig:
    return await a_rig(deps)


@pytest.fixture
async def client(rig: Rig) -> AsyncIterator[httpx.AsyncClient]:
    async with client_with(rig.deps, rig.tenant.key) as client:
        yield client


def _ago(seconds: float) -> str:
    return (datetime.now(UTC) - timedelta(seconds=seconds)).isoformat()  # noqa: TID251 (a client's)


async def _ended(rig: Rig) -> RunId:
    """A run that succeeds; its event goes to every endpoint there is."""
    run = await rig.called()
    (moved,) = await rig.settle(outcome(run))
    assert moved.applied
    return run.id


async def _tried(rig: Rig, due: DueDelivery, status: str) -> None:
    """One request was answered with 500, or 200, and the delivery has this status now."""
    code = 200 if status == "succeeded" else 500
    made = Try(
        delivery_id=str(due.id),
        lease_no=due.lease_no,
        status=status,
        started_at="2026-11-22T12:00:00.000Z",
        duration_ms=12,
        outcome="answered",
        status_code=code,
        excerpt="out of order",
        address="127.0.0.1",
        wait_s=3600,
    )
    assert [True] == await rig.record(made)


async def _delivered(rig: Rig, status: str, **columns: Any) -> DueDelivery:
    due = await rig.delivery(**columns)
    if status in {"succeeded", "exhausted"}:
        await _tried(rig, due, status)
    elif status == "canceled":
        await rig.run("UPDATE deliveries SET status = 'canceled', finished_at = now()")
    return due


async def _due(rig: Rig) -> DueDelivery:
    (due,) = await rig.due()
    return due


async def _recover(client: httpx.AsyncClient, endpoint: object, **window: str) -> Any:
    answer = await client.post(f"/webhooks/{endpoint}/recover", json={"since": _ago(60), **window})
    assert 200 == answer.status_code, answer.text
    return answer.json()


# Reading


async def test_a_delivery_shows_where_it_went_and_every_attempt(
    rig: Rig, client: httpx.AsyncClient
) -> None:
    due = await _delivered(rig, "exhausted")

    shown = (await client.get(f"/deliveries/{due.id}")).json()

    msgspec.convert(shown, hook_shapes.Delivery)
    (attempt,) = shown.pop("attempts")
    assert {
        "number": 1,
        "startedAt": "2026-11-22T12:00:00.000Z",
        "durationMs": 12,
        "status": 500,
        "outcome": "answered",
        "excerpt": "out of order",
        "address": "127.0.0.1",
    } == attempt
    assert shown.pop("createdAt") <= shown.pop("finishedAt")
    assert {
        "id": str(due.id),
        "eventId": str(due.event_id),
        "type": "run.succeeded",
        "run": str(due.run_id),
        "environment": "production",
        "webhook": str(due.endpoint_id),
        "url": "https://example.com/hook",
        "status": "exhausted",
        "tries": 1,
        "nextTryAt": None,
    } == shown


async def test_deliveries_of_a_webhook_come_newest_first_with_their_last_attempt(
    rig: Rig, client: httpx.AsyncClient
) -> None:
    first = await _delivered(rig, "pending")
    await _tried(rig, first, "pending")
    for _ in range(2):
        await _ended(rig)
    path = f"/webhooks/{first.endpoint_id}/deliveries"

    newest = (await client.get(path, params={"limit": 2})).json()
    after = {"limit": 2, "after": newest["nextCursor"]}
    oldest = (await client.get(path, params=after)).json()

    kept = [row["id"] for row in await rig.deliveries()]
    pages = [newest["data"], oldest["data"]]
    expected = [str(one) for one in reversed(kept)]
    assert [expected[:2], expected[2:]] == [[one["id"] for one in page] for page in pages]
    assert [None, None, 500] == [
        one["lastAttempt"] and one["lastAttempt"]["status"] for page in pages for one in page
    ]
    msgspec.convert(newest, hook_shapes.WebhookDeliveryList)
    assert (False, None) == (oldest["hasMore"], oldest["nextCursor"])


async def test_deliveries_are_filtered_by_status_and_cursors_keep_to_their_filter(
    rig: Rig, client: httpx.AsyncClient
) -> None:
    due = await _delivered(rig, "succeeded")
    for _ in range(2):
        await _ended(rig)
    path = f"/webhooks/{due.endpoint_id}/deliveries"

    counts = {
        status: len((await client.get(path, params={"status": status})).json()["data"])
        for status in ("pending", "succeeded", "exhausted", "canceled")
    }
    both = await client.get(path, params={"status": ["pending", "succeeded"]})
    cursor = (await client.get(path, params={"limit": 1})).json()["nextCursor"]
    elsewhere = await client.get(path, params={"after": cursor, "status": "pending"})
    unknown = await client.get(path, params={"status": "lost"})

    assert {"pending": 2, "succeeded": 1, "exhausted": 0, "canceled": 0} == counts
    assert 3 == len(both.json()["data"])
    assert (400, "invalid_cursor", []) == problem(elsewhere)
    assert (400, "bad_request") == problem(unknown)[:2]


async def test_deliveries_of_a_run_are_those_of_its_event(
    rig: Rig, client: httpx.AsyncClient
) -> None:
    due = await _delivered(rig, "succeeded")
    await _ended(rig)

    answer = await client.get(f"/runs/{due.run_id}/deliveries")

    (shown,) = msgspec.json.decode(answer.content, type=hook_shapes.DeliveryList).data
    assert (due.id, 1) == (shown.id, len(shown.attempts))


# Sending again


@pytest.mark.parametrize("status", ["succeeded", "exhausted", "canceled"])
async def test_a_delivery_is_sent_again_with_the_whole_schedule_and_the_same_event(
    rig: Rig, client: httpx.AsyncClient, status: str
) -> None:
    first = await _delivered(rig, status)

    answer = await client.post(f"/deliveries/{first.id}/resend")
    again = await _due(rig)
    await _tried(rig, again, "exhausted")

    assert (202, "pending") == (answer.status_code, answer.json()["status"])
    assert (first.id, first.event_id, 0) == (again.id, again.event_id, again.tries)
    assert again.lease_no > first.lease_no
    attempts = (await client.get(f"/deliveries/{first.id}")).json()["attempts"]
    assert [number + 1 for number in range(len(attempts))] == [one["number"] for one in attempts]
    assert (1 if status == "canceled" else 2) == len(attempts)


async def test_a_sender_that_was_overtaken_by_a_resend_records_nothing(
    rig: Rig, client: httpx.AsyncClient
) -> None:
    slow = await _delivered(rig, "canceled")

    await client.post(f"/deliveries/{slow.id}/resend")
    late = Try(
        delivery_id=str(slow.id),
        lease_no=slow.lease_no,
        status="succeeded",
        started_at="2026-11-22T12:00:00Z",
        duration_ms=1,
        outcome="answered",
    )

    assert [False] == await rig.record(late)


async def test_a_pending_delivery_and_one_to_a_disabled_or_deleted_webhook_is_not_sent_again(
    rig: Rig, client: httpx.AsyncClient
) -> None:
    due = await _delivered(rig, "pending")

    pending = await client.post(f"/deliveries/{due.id}/resend")
    await _tried(rig, due, "exhausted")
    await rig.run("UPDATE webhook_endpoints SET disabled_at = now()")
    disabled = await client.post(f"/deliveries/{due.id}/resend")
    await client.delete(f"/webhooks/{due.endpoint_id}")
    deleted = await client.post(f"/deliveries/{due.id}/resend")

    assert (409, "delivery_pending", []) == problem(pending)
    assert (409, "webhook_disabled", []) == problem(disabled) == problem(deleted)
    assert "exhausted" == (await client.get(f"/deliveries/{due.id}")).json()["status"]


# Testing


async def test_a_ping_goes_to_one_webhook_whatever_events_it_wants(
    rig: Rig, client: httpx.AsyncClient
) -> None:
    endpoint = await rig.endpoint(events=["run.failed"])
    await rig.endpoint()

    answer = await client.post(f"/webhooks/{endpoint}/test")
    due = await _due(rig)

    shown = msgspec.json.decode(answer.content, type=hook_shapes.Delivery)
    assert (202, due.id, "ping") == (answer.status_code, shown.id, shown.type)
    assert (endpoint, None, "ping") == (due.endpoint_id, due.run_id, due.event_type)
    event = msgspec.json.decode(due.body, type=hook_shapes.PingEvent)
    assert (due.event_id, endpoint) == (event.id, event.data.webhook)


async def test_a_webhook_is_tested_five_times_a_minute_and_each_for_itself(
    rig: Rig, settings: Settings
) -> None:
    busy, other = [await rig.endpoint() for _ in range(2)]
    production = settings.model_copy(update={"dev_mode": False})
    deps = rig.deps
    strict = shared_deps.build(production, deps.clock, deps.random, deps.store, deps.lanes)

    async with client_with(strict, rig.tenant.key) as client:
        first = [await client.post(f"/webhooks/{busy}/test") for _ in range(6)]
        elsewhere = await client.post(f"/webhooks/{other}/test")
        await rig.run("UPDATE events SET created_at = created_at - interval '1 minute'")
        later = await client.post(f"/webhooks/{busy}/test")

    assert [202] * 5 + [429] == [answer.status_code for answer in first]
    refused = first[-1]
    assert (429, "rate_limited", []) == problem(refused)
    assert 55 <= int(refused.headers["retry-after"]) <= 60
    assert f'"ping";r=0;t={refused.headers["retry-after"]}' == refused.headers["ratelimit"]
    assert [202, 202] == [elsewhere.status_code, later.status_code]


async def test_a_disabled_webhook_is_not_tested(rig: Rig, client: httpx.AsyncClient) -> None:
    endpoint = await rig.endpoint(disabled_at="now", disabled_reason="gone")

    answer = await client.post(f"/webhooks/{endpoint}/test")

    assert (409, "webhook_disabled", []) == problem(answer)
    assert [] == await rig.deliveries()


# Recovering


async def test_recovery_sends_what_ended_badly_and_what_came_while_disabled(
    rig: Rig, client: httpx.AsyncClient
) -> None:
    exhausted = await _delivered(rig, "exhausted")
    endpoint = exhausted.endpoint_id
    canceled = await _ended(rig)
    await rig.run(
        "UPDATE deliveries SET status = 'canceled', finished_at = now() WHERE status = 'pending'"
    )
    await rig.run("UPDATE webhook_endpoints SET disabled_at = now()")
    unwritten = await _ended(rig)
    refused = await client.post(f"/webhooks/{endpoint}/recover", json={"since": _ago(60)})
    await client.post(f"/webhooks/{endpoint}/enable")
    good = await _ended(rig)
    await rig.run(
        "UPDATE deliveries SET status = 'succeeded', finished_at = now() WHERE status = 'pending'"
    )

    recovered = await _recover(client, endpoint)
    again = await _recover(client, endpoint)

    assert (409, "webhook_disabled", []) == problem(refused)
    assert {"recovered": 3, "continueFrom": None} == recovered
    assert {"recovered": 0, "continueFrom": None} == again
    due = await rig.due()
    assert {exhausted.run_id, canceled, unwritten} == {one.run_id for one in due}
    assert {0} == {one.tries for one in due}
    assert exhausted.event_id in {one.event_id for one in due}
    written = {row["run_id"]: row["id"] for row in await rig.rows("SELECT id, run_id FROM events")}
    sent = {str(one.run_id): str(one.event_id) for one in due}
    assert sent | {str(good): written[str(good)]} == written


async def test_recovery_keeps_to_its_window_and_to_what_the_webhook_wants(
    rig: Rig, client: httpx.AsyncClient
) -> None:
    early = await _ended(rig)
    endpoint = await rig.endpoint(disabled_at="now", events=["run.succeeded", "ping"])
    dates = {"before": 50, "at": 40, "behind": 30}
    runs = {name: await _ended(rig) for name in dates}
    await rig.settle(failed(await rig.called()))
    await rig.run("UPDATE events SET created_at = now() - interval '35 s'")
    for name, seconds in dates.items():
        await rig.run(
            f"UPDATE events SET created_at = now() - interval '{seconds} s' WHERE run_id = %(id)s",
            id=runs[name],
        )
    await rig.run(
        "UPDATE webhook_endpoints SET created_at = now() - interval '1 h', disabled_at = NULL"
    )
    await rig.run(
        "UPDATE events SET created_at = now() - interval '2 h' WHERE run_id = %(id)s", id=early
    )

    recovered = await _recover(client, endpoint, since=_ago(45), until=_ago(35))

    assert {"recovered": 1, "continueFrom": None} == recovered
    assert [runs["at"]] == [due.run_id for due in await rig.due()]


async def test_recovery_leaves_alone_what_came_before_the_webhook_and_its_pings(
    rig: Rig, client: httpx.AsyncClient
) -> None:
    await _ended(rig)
    endpoint = await rig.endpoint()
    await client.post(f"/webhooks/{endpoint}/test")
    await rig.run("UPDATE deliveries SET status = 'exhausted', finished_at = now()")

    assert {"recovered": 0, "continueFrom": None} == await _recover(client, endpoint)


async def test_a_large_recovery_goes_on_where_its_answer_says(rig: Rig, settings: Settings) -> None:
    endpoint = await rig.endpoint()
    runs = [await _ended(rig) for _ in range(5)]
    await rig.run("UPDATE deliveries SET status = 'exhausted', finished_at = now()")
    few = settings.model_copy(update={"webhook_recover_max": 3})
    deps = rig.deps
    small = shared_deps.build(few, deps.clock, deps.random, deps.store, deps.lanes)

    async with client_with(small, rig.tenant.key) as client:
        first = await _recover(client, endpoint)
        oldest = await rig.due()
        rest = await _recover(client, endpoint, since=first["continueFrom"])

    assert 3 == first["recovered"]
    assert set(runs[:3]) == {due.run_id for due in oldest}
    assert {"recovered": 2, "continueFrom": None} == rest


async def test_recovery_finds_what_was_missed_behind_thousands_that_were_not(
    rig: Rig, client: httpx.AsyncClient
) -> None:
    endpoint = await rig.endpoint(events=["run.succeeded"])
    await rig.run(
        f"""INSERT INTO events (id, workspace_id, type, body)
            SELECT {UUID7}, %(workspace)s, 'run.failed', '{{}}' FROM generate_series(1, 10001)""",
        workspace=rig.tenant.workspace_id,
    )
    await _ended(rig)
    await rig.run("UPDATE deliveries SET status = 'exhausted', finished_at = now()")

    assert {"recovered": 1, "continueFrom": None} == await _recover(client, endpoint)


async def test_a_recovery_that_was_cut_off_is_simply_repeated(
    rig: Rig, client: httpx.AsyncClient
) -> None:
    endpoint = await rig.endpoint()
    for _ in range(5):
        await _ended(rig)
    await rig.run("UPDATE deliveries SET status = 'exhausted', finished_at = now()")
    window = (datetime.fromisoformat(_ago(60)), datetime.fromisoformat(_ago(-60)))
    place = (rig.tenant.workspace_id, endpoint, window)
    async with rig.store.transaction() as tx:
        begun = await redelivery.recover(tx, *place, None, 2)

    recovered = await _recover(client, endpoint)

    assert begun is not None
    assert (2, 3) == (begun.count, recovered["recovered"])
    assert [("pending", 0)] * 5 == [(row["status"], row["tries"]) for row in await rig.deliveries()]


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({}, "/since"),
        ({"since": None}, "/since"),
        ({"since": "yesterday"}, "/since"),
        ({"since": "2026-11-22T12:00:00"}, "/since"),
        ({"since": 1}, "/since"),
        ({"since": _ago(14 * 86_400 + 60)}, "/since"),
        ({"since": _ago(-3600)}, "/since"),
        ({"since": "0001-01-01T00:00:00+14:00"}, "/since"),
        ({"since": _ago(60), "until": _ago(120)}, "/until"),
        ({"since": _ago(60), "until": "tomorrow"}, "/until"),
        ({"since": _ago(60), "limit": 5}, "/limit"),
    ],
)
async def test_a_window_that_makes_no_sense_is_refused(
    rig: Rig, client: httpx.AsyncClient, body: dict[str, object], pointer: str
) -> None:
    due = await _delivered(rig, "exhausted")

    answer = await client.post(f"/webhooks/{due.endpoint_id}/recover", json=body)

    assert (422, "invalid", [pointer]) == problem(answer)
    assert "exhausted" == (await client.get(f"/deliveries/{due.id}")).json()["status"]


async def test_a_window_may_end_in_the_future(rig: Rig, client: httpx.AsyncClient) -> None:
    due = await _delivered(rig, "exhausted")

    recovered = await _recover(client, due.endpoint_id, until="9999-12-31T23:59:59.999999Z")

    assert {"recovered": 1, "continueFrom": None} == recovered


# Who may


PATHS = [
    ("GET", "/deliveries/{delivery}", None),
    ("POST", "/deliveries/{delivery}/resend", None),
    ("GET", "/webhooks/{webhook}/deliveries", None),
    ("POST", "/webhooks/{webhook}/test", None),
    ("POST", "/webhooks/{webhook}/recover", {"since": _ago(60)}),
]


@pytest.mark.parametrize(("method", "path", "body"), PATHS)
async def test_a_foreign_delivery_is_not_found_like_an_unknown_one(
    rig: Rig, method: str, path: str, body: object
) -> None:
    due = await _delivered(rig, "exhausted")
    stranger = await a_tenant(rig.deps)
    pairs = [(due.id, due.endpoint_id), (UNKNOWN_ID, UNKNOWN_ID), ("x" * 1_000, "x"),
             (due.endpoint_id, due.id)]  # fmt: skip

    async with client_with(rig.deps, stranger.key) as other:
        answers = [
            await other.request(method, path.format(delivery=delivery, webhook=hook), json=body)
            for delivery, hook in pairs
        ]

    assert {404} == {answer.status_code for answer in answers}
    assert 1 == len({msgspec.json.encode(without_request_id(answer)) for answer in answers})
    assert ["exhausted"] == [row["status"] for row in await rig.deliveries()]


async def test_reading_scope_reads_deliveries_and_sends_none(rig: Rig) -> None:
    due = await _delivered(rig, "exhausted")
    key, _ = await a_key(rig.deps, rig.tenant.workspace_id, ("webhooks:read",))

    async with client_with(rig.deps, key) as reader:
        statuses = [
            (
                await reader.request(
                    method, path.format(delivery=due.id, webhook=due.endpoint_id), json=body
                )
            ).status_code
            for method, path, body in PATHS
        ]

    assert [200, 403, 200, 403, 403] == statuses


async def test_a_limited_key_sees_deliveries_of_its_environments_only(
    rig: Rig, client: httpx.AsyncClient
) -> None:
    wide = await _delivered(rig, "exhausted")
    await client.post("/environments", json={"name": "staging"})
    body = {"name": "x", "scopes": ["webhooks:write"], "environments": ["staging"]}
    made = await client.post("/keys", json=body)

    async with client_with(rig.deps, made.json()["key"]) as limited:
        answers = [
            await limited.request(
                method, path.format(delivery=wide.id, webhook=wide.endpoint_id), json=body
            )
            for method, path, body in PATHS
        ]

    assert {(403, "environment_forbidden")} == {problem(answer)[:2] for answer in answers}


@pytest.mark.parametrize("path", ["/deliveries/{delivery}/resend", "/webhooks/{webhook}/test"])
async def test_a_field_that_nobody_asked_for_is_refused(
    rig: Rig, client: httpx.AsyncClient, path: str
) -> None:
    due = await _delivered(rig, "exhausted")

    answer = await client.post(
        path.format(delivery=due.id, webhook=due.endpoint_id), json={"force": True}
    )

    assert (422, "invalid", ["/force"]) == problem(answer)
    assert 1 == len(await rig.deliveries())
