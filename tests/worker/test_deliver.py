"""Deliveries over real sockets: signed, tried again as scheduled, settled once, never lost."""

import asyncio
import hashlib
import hmac
from base64 import b64encode
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Self

import msgspec
import pytest
from aiohttp import web
from standardwebhooks import Webhook
from standardwebhooks.webhooks import WebhookVerificationError

from shared.deps import Deps
from shared.domain import signing
from shared.ids import DeliveryId, EndpointId, new_id
from shared.store import deliveries
from shared.store.ending import DueDelivery
from shared.tasks import end
from shared.vault import Vault
from tests.shared.store.rig import Rig, Row, a_rig, outcome
from tests.worker.execute_rig import CutStore, store_that_can_be_cut  # noqa: F401 (a fixture)
from tests.worker.lane_rig import until
from worker.deliver import Deliverer
from worker.http import GuardedClient

RECORD = "INSERT INTO delivery_tries"
SECRET = signing.new_secret()


@dataclass(frozen=True)
class Request:
    """One delivery as it came in."""

    headers: Mapping[str, str]
    body: bytes


@dataclass
class Receiver:
    """A customer's server on loopback that answers as told, 200 when not told."""

    answers: list[web.Response] = field(default_factory=list)
    requests: list[Request] = field(default_factory=list)
    gate: asyncio.Event | None = None
    url: str = ""

    async def __aenter__(self) -> Self:
        app = web.Application()
        app.router.add_post("/hook", self._serve)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        host, port = self._runner.addresses[0][:2]
        self.url = f"http://{host}:{port}/hook"
        return self

    async def __aexit__(self, *_: object) -> None:
        if self.gate is not None:
            self.gate.set()
        await self._runner.cleanup()

    async def _serve(self, request: web.Request) -> web.Response:
        headers = {name.lower(): value for name, value in request.headers.items()}
        self.requests.append(Request(headers, await request.read()))
        if self.gate is not None:
            await self.gate.wait()
        return self.answers.pop(0) if self.answers else web.Response()


@pytest.fixture
async def rig(deps: Deps) -> Rig:
    return await a_rig(deps)


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with Receiver() as made:
        yield made


@asynccontextmanager
async def _sender(deps: Deps) -> AsyncIterator[Deliverer]:
    client = GuardedClient(deps.settings)
    deliverer = Deliverer(deps, client)
    yield deliverer
    await deliverer.drain(5)
    await client.aclose()


async def _send(deps: Deps, due: DueDelivery) -> None:
    async with _sender(deps) as deliverer:
        deliverer.send(due)


async def _delivery(rig: Rig, receiver: Receiver, **columns: Any) -> DueDelivery:
    """A delivery leased to us, signed with `SECRET`."""
    endpoint = await rig.endpoint(receiver.url, **columns)
    await _set_secret(rig, endpoint)
    run = await rig.called()
    (moved,) = await rig.settle(outcome(run, output="Hello"))
    return moved.deliveries[0]


async def _set_secret(rig: Rig, endpoint: EndpointId, text: str = SECRET) -> None:
    (row,) = await rig.rows(
        "SELECT id FROM webhook_secrets WHERE endpoint_id = %(id)s ORDER BY id LIMIT 1", id=endpoint
    )
    sealed = rig.deps.vault.seal(
        text.encode(), "webhook_secrets", row["id"], rig.tenant.workspace_id
    )
    await rig.run(
        "UPDATE webhook_secrets SET sealed = %(sealed)s WHERE id = %(id)s",
        sealed=sealed,
        id=row["id"],
    )


async def _row(rig: Rig) -> Row:
    (row,) = await rig.rows(
        "SELECT *, extract(epoch FROM next_try_at - now())::float8 AS wait FROM deliveries"
    )
    return row


async def _status(rig: Rig) -> str:
    return str((await _row(rig))["status"])


async def _try(rig: Rig, delivery_id: DeliveryId) -> Row:
    return (await rig.tries(delivery_id))[-1]


# What is sent


async def test_a_delivery_verifies_with_the_endpoints_secret(
    rig: Rig, deps: Deps, receiver: Receiver
) -> None:
    due = await _delivery(rig, receiver)

    await _send(deps, due)

    (request,) = receiver.requests
    event = Webhook(SECRET).verify(request.body, dict(request.headers))
    assert due.body.encode() == request.body
    assert str(due.event_id) == request.headers["webhook-id"] == event["id"]
    assert "application/json" == request.headers["content-type"]
    assert ("run.succeeded", "Hello") == (event["type"], event["data"]["run"]["output"])
    row, made = await _row(rig), await _try(rig, due.id)
    assert ("succeeded", 1) == (row["status"], row["tries"])
    assert ("answered", 200, "127.0.0.1") == (
        made["outcome"],
        made["status_code"],
        made["address"],
    )


async def test_during_a_rotation_old_and_new_secret_verify_and_afterwards_only_the_new(
    rig: Rig, deps: Deps, receiver: Receiver
) -> None:
    receiver.answers = [web.Response(status=500)]
    due = await _delivery(rig, receiver)
    newer = await rig.secret(due.endpoint_id)
    await _let_expire(rig, due.endpoint_id, "now() + interval '1 hour'")
    async with _polling(deps):
        await rig.run("UPDATE deliveries SET next_try_at = now()")
        await until(lambda: len(receiver.requests) == 1)
        await _let_expire(rig, due.endpoint_id, "now()")
        await rig.run("UPDATE deliveries SET next_try_at = now()")
        await until(lambda: len(receiver.requests) == 2)

    first, second = receiver.requests
    assert [True, True] == [_verifies(SECRET, first), _verifies(newer, first)]
    assert [False, True] == [_verifies(SECRET, second), _verifies(newer, second)]


async def _let_expire(rig: Rig, endpoint: EndpointId, moment: str) -> None:
    """The older of two secrets is good until then."""
    await rig.run(
        f"UPDATE webhook_secrets SET expires_at = {moment} WHERE id ="
        " (SELECT id FROM webhook_secrets WHERE endpoint_id = %(id)s ORDER BY id LIMIT 1)",
        id=endpoint,
    )


def _verifies(secret: str, request: Request) -> bool:
    try:
        Webhook(secret).verify(request.body, dict(request.headers))
    except WebhookVerificationError:
        return False
    return True


async def test_the_headers_an_endpoint_asks_for_are_sent_along(
    rig: Rig, deps: Deps, receiver: Receiver
) -> None:
    endpoint_id = EndpointId(new_id())
    place = ("webhook_endpoints", "headers", endpoint_id, rig.tenant.workspace_id)
    sealed = deps.vault.seal(b'{"X-Tenant": "acme"}', *place)
    at_once = await _delivery(rig, receiver, id=endpoint_id, headers=sealed)
    await rig.run("UPDATE deliveries SET next_try_at = now()")
    claim = await deliveries.claim_due(deps.store, limit=1, lease_s=60)

    await _send(deps, at_once)
    await _send(deps, claim.found[0])

    assert ["acme", "acme"] == [request.headers["x-tenant"] for request in receiver.requests]
    assert all(_verifies(SECRET, request) for request in receiver.requests)


async def test_the_trace_of_a_run_goes_along_with_every_try(
    rig: Rig, deps: Deps, receiver: Receiver
) -> None:
    await _set_secret(rig, await rig.endpoint(receiver.url))
    receiver.answers = [web.Response(status=500)]
    run = await rig.called(traceparent="00-ab")
    (moved,) = await rig.settle(outcome(run, output="Hello"))

    await _send(deps, moved.deliveries[0])
    async with _polling(deps):
        await until(lambda: _is(rig, "succeeded"))

    assert ["00-ab", "00-ab"] == [request.headers["traceparent"] for request in receiver.requests]


async def test_an_endpoint_may_do_without_the_output(
    rig: Rig, deps: Deps, receiver: Receiver
) -> None:
    due = await _delivery(rig, receiver, include_output=False)

    await _send(deps, due)

    (request,) = receiver.requests
    event = Webhook(SECRET).verify(request.body, dict(request.headers))
    assert not {"output", "outputTruncated"} & event["data"]["run"].keys()
    assert str(due.run_id) == event["data"]["run"]["id"]


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({}, "completed"),
        ({"status": "incomplete", "incomplete_reason": "max_tokens"}, "completed"),
        ({"status": "failed", "error_code": "x", "output": None}, "failed"),
        ({"status": "canceled", "output": None}, "failed"),
    ],
)
async def test_the_other_products_format_is_exactly_its_own(
    rig: Rig, deps: Deps, receiver: Receiver, changes: dict[str, Any], status: str
) -> None:
    endpoint = await rig.endpoint(receiver.url, format="promptjuggler")
    await _set_secret(rig, endpoint)
    await rig.secret(endpoint)  # a newer one, which its receivers do not know yet
    run = await rig.called()
    (moved,) = await rig.settle(outcome(run, **changes))

    await _send(deps, moved.deliveries[0])

    (request,) = receiver.requests
    timestamp, _, signature = request.headers["promptjuggler-signature"].partition(",v1=")
    signed = timestamp.removeprefix("t=").encode() + b"." + request.body
    assert {"id": str(run.id), "status": status} == msgspec.json.decode(request.body)
    assert hmac.new(SECRET.encode(), signed, hashlib.sha256).hexdigest() == signature
    assert "webhook-signature" not in request.headers


# What answers mean


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        (lambda: web.Response(status=204), "succeeded"),
        (lambda: web.Response(status=299, body=b"x" * 100_000), "succeeded"),
        (lambda: web.Response(status=410), "exhausted"),
        (lambda: web.Response(status=302, headers={"location": "/hook"}), "pending"),
        (lambda: web.Response(status=404), "pending"),
        (lambda: web.Response(status=500, body=b"\xff\x00\xed\xa0\x80"), "pending"),
        (lambda: web.Response(status=429, headers={"retry-after": "nonsense"}), "pending"),
    ],
)
async def test_an_answer_decides_what_becomes_of_a_delivery(
    rig: Rig, deps: Deps, receiver: Receiver, answer: Callable[[], web.Response], status: str
) -> None:
    response = answer()
    receiver.answers = [response]
    due = await _delivery(rig, receiver)

    await _send(deps, due)

    made = await _try(rig, due.id)
    assert (status, response.status, "answered") == (
        await _status(rig),
        made["status_code"],
        made["outcome"],
    )
    assert 1 == len(receiver.requests)
    assert len(made["excerpt"].encode()) <= 2048


@pytest.mark.parametrize(
    ("status", "told", "wait"),
    [
        (503, "60", (55, 60)),
        (429, "99999", (3590, 3600)),
        (503, "0", (-1, 0.2)),
        (500, "60", (-1, 0.2)),
    ],
)
async def test_a_receivers_wish_makes_the_wait_longer_never_shorter(
    rig: Rig,
    deps: Deps,
    receiver: Receiver,
    status: int,
    told: str,
    wait: tuple[float, float],
) -> None:
    receiver.answers = [web.Response(status=status, headers={"retry-after": told})]
    due = await _delivery(rig, receiver)

    await _send(deps, due)

    least, most = wait
    assert least < (await _row(rig))["wait"] <= most


async def test_no_answer_is_a_failure_with_its_reason(
    rig: Rig, deps: Deps, receiver: Receiver
) -> None:
    due = await _delivery(rig, receiver)
    await receiver.__aexit__()

    await _send(deps, due)

    made = await _try(rig, due.id)
    assert ("pending", "connect", None) == (
        await _status(rig),
        made["outcome"],
        made["status_code"],
    )


async def test_a_receiver_that_says_nothing_is_given_up_in_time(
    rig: Rig, deps: Deps, receiver: Receiver
) -> None:
    receiver.gate = asyncio.Event()
    due = await _delivery(rig, receiver)
    settings = deps.settings.model_copy(update={"webhook_timeout_s": 0.1})

    await _send(replace(deps, settings=settings), due)

    assert ("pending", "timeout") == (await _status(rig), (await _try(rig, due.id))["outcome"])


async def test_an_address_that_is_not_allowed_is_not_visited_nor_told(
    rig: Rig, deps: Deps, receiver: Receiver
) -> None:
    due = await _delivery(rig, receiver)
    strict = replace(deps, settings=deps.settings.model_copy(update={"dev_mode": False}))

    await _send(strict, due)

    made = await _try(rig, due.id)
    assert ("blocked_address", None, []) == (made["outcome"], made["address"], receiver.requests)
    assert "127.0.0.1" not in made["excerpt"]


@pytest.mark.parametrize("kind", ["standard", "promptjuggler"])
async def test_what_cannot_be_signed_is_not_sent_and_burns_its_tries(
    rig: Rig, deps: Deps, receiver: Receiver, kind: str
) -> None:
    due = await _delivery(rig, receiver, format=kind)
    other = replace(deps, vault=Vault.parse("other:" + b64encode(bytes(32)).decode()))

    await _send(other, due)
    await rig.run("UPDATE deliveries SET lease_no = %(no)s", no=due.lease_no)
    await _send(deps, msgspec.structs.replace(due, secrets=()))

    assert ["unsigned", "unsigned"] == [made["outcome"] for made in await rig.tries(due.id)]
    assert [] == receiver.requests
    assert ("pending", 2) == (await _status(rig), (await _row(rig))["tries"])


# Again and again


@asynccontextmanager
async def _polling(deps: Deps) -> AsyncIterator[None]:
    async with _sender(deps) as deliverer:
        task = asyncio.create_task(deliverer.poll_forever(lambda: True))
        try:
            yield
        finally:
            await end([task])


async def test_a_failed_delivery_is_sent_again_under_the_same_id(
    rig: Rig, deps: Deps, receiver: Receiver
) -> None:
    receiver.answers = [web.Response(status=500), web.Response(status=503)]
    due = await _delivery(rig, receiver)
    await _send(deps, due)

    async with _polling(deps):
        await until(lambda: _is(rig, "succeeded"))

    assert {str(due.event_id)} == {r.headers["webhook-id"] for r in receiver.requests}
    assert {due.body.encode()} == {request.body for request in receiver.requests}
    assert [500, 503, 200] == [made["status_code"] for made in await rig.tries(due.id)]


async def _is(rig: Rig, status: str) -> bool:
    return await _status(rig) == status


async def test_after_the_whole_schedule_a_delivery_is_exhausted(
    rig: Rig, deps: Deps, receiver: Receiver
) -> None:
    receiver.answers = [web.Response(status=500) for _ in range(9)]
    settings = deps.settings.model_copy(
        update={"webhook_schedule_s": (0.0, 0.01, 0.01), "webhook_poll_s": 0.02}
    )
    quick = replace(deps, settings=settings)
    due = await _delivery(rig, receiver)
    await _send(quick, due)

    async with _polling(quick):
        await until(lambda: _is(rig, "exhausted"))

    assert [1, 2, 3] == [made["number"] for made in await rig.tries(due.id)]
    assert 3 == len(receiver.requests)


async def test_what_a_dead_worker_was_sending_is_sent_by_another(
    rig: Rig, deps: Deps, receiver: Receiver
) -> None:
    due = await _delivery(rig, receiver)
    await rig.run("UPDATE deliveries SET next_try_at = now()")

    async with _polling(deps):
        await until(lambda: _is(rig, "succeeded"))

    assert [str(due.event_id)] == [r.headers["webhook-id"] for r in receiver.requests]


async def test_who_may_not_start_does_not_look(rig: Rig, deps: Deps, receiver: Receiver) -> None:
    await _delivery(rig, receiver)
    await rig.run("UPDATE deliveries SET next_try_at = now()")
    asked: list[bool] = []

    def may_not() -> bool:
        asked.append(True)
        return False

    async with _sender(deps) as deliverer:
        task = asyncio.create_task(deliverer.poll_forever(may_not))
        await until(lambda: len(asked) > 1)
        await end([task])

    assert ("pending", []) == (await _status(rig), receiver.requests)


@pytest.mark.parametrize("carried_out", [True, False])
async def test_a_connection_lost_while_recording_counts_the_try_once(
    rig: Rig, deps: Deps, receiver: Receiver, store: CutStore, *, carried_out: bool
) -> None:
    receiver.answers = [web.Response(status=500)]
    due = await _delivery(rig, receiver)
    store.cut_at(RECORD, carried_out=carried_out)

    await _send(deps, due)

    assert (1, 1) == ((await _row(rig))["tries"], len(await rig.tries(due.id)))


async def test_a_hanging_receiver_gets_ten_at_once_and_delays_no_other(
    rig: Rig, deps: Deps, receiver: Receiver
) -> None:
    async with Receiver(gate=asyncio.Event()) as slow:
        await rig.endpoint(slow.url)
        await rig.endpoint(receiver.url)
        for _ in range(30):
            await rig.finished()
        await rig.run("UPDATE deliveries SET next_try_at = now()")

        async with _polling(deps):
            await until(lambda: len(receiver.requests) == 30)
            await until(lambda: len(slow.requests) == 10)
            at_once = len(slow.requests)
            assert slow.gate is not None
            slow.gate.set()
            await until(lambda: len(slow.requests) == 30)

    assert 10 == at_once


async def test_what_finds_no_room_after_a_finish_is_sent_when_there_is_some(
    rig: Rig, deps: Deps, receiver: Receiver
) -> None:
    receiver.gate = asyncio.Event()
    await rig.endpoint(receiver.url)
    moved = [await rig.called() for _ in range(25)]
    settled = await rig.settle(*(outcome(run) for run in moved))
    rarely = replace(deps, settings=deps.settings.model_copy(update={"webhook_poll_s": 30}))

    async with _sender(rarely) as deliverer:
        for one in settled:
            deliverer.send(one.deliveries[0])
        await until(lambda: len(receiver.requests) == 10)
        task = asyncio.create_task(deliverer.poll_forever(lambda: True))
        receiver.gate.set()
        await until(lambda: _all_are(rig, "succeeded"))
        await end([task])

    assert 25 == len({request.headers["webhook-id"] for request in receiver.requests})


async def _all_are(rig: Rig, status: str) -> bool:
    return {status} == {row["status"] for row in await rig.deliveries()}


async def test_gone_disables_the_endpoint_and_cancels_what_waits_for_it(
    rig: Rig, deps: Deps, receiver: Receiver
) -> None:
    due = await _delivery(rig, receiver)
    await rig.finished()
    await rig.run(
        "UPDATE deliveries SET next_try_at = now() + interval '1 hour' WHERE id <> %(id)s",
        id=due.id,
    )
    receiver.answers = [web.Response(status=410)]

    async with _sender(deps) as deliverer:
        task = asyncio.create_task(deliverer.poll_forever(lambda: True))
        deliverer.send(due)
        await until(lambda: _over(rig))
        await end([task])

    (endpoint,) = await rig.rows("SELECT disabled_at, disabled_reason FROM webhook_endpoints")
    assert ("gone", False) == (endpoint["disabled_reason"], endpoint["disabled_at"] is None)
    assert {str(due.id): "exhausted"}.items() <= {
        row["id"]: row["status"] for row in await rig.deliveries()
    }.items()
    assert 1 == len(receiver.requests)


async def _over(rig: Rig) -> bool:
    return ["canceled", "exhausted"] == sorted(row["status"] for row in await rig.deliveries())


async def test_a_paused_endpoint_is_sent_nothing_and_gets_all_after_its_probe(
    rig: Rig, deps: Deps, receiver: Receiver
) -> None:
    quick = {"webhook_pause_failures": 3, "webhook_pause_s": 1.0}
    some = replace(deps, settings=deps.settings.model_copy(update=quick))
    await rig.endpoint(receiver.url)
    for _ in range(6):
        await rig.finished()
    await rig.run("UPDATE deliveries SET next_try_at = now()")
    receiver.answers = [web.Response(status=500) for _ in range(6)]

    async with _polling(some):
        await until(lambda: _paused(rig))
        before = len(receiver.requests)
        await until(lambda: _all_are(rig, "succeeded"))

    assert (6, 12) == (before, len(receiver.requests))
    assert 2 == max(row["tries"] for row in await rig.deliveries())


async def _paused(rig: Rig) -> bool:
    return bool(await rig.rows("SELECT 1 FROM failing_endpoints WHERE paused_until IS NOT NULL"))


async def test_a_ping_is_sent_as_it_is_in_every_format(
    rig: Rig, deps: Deps, receiver: Receiver
) -> None:
    due = await _delivery(rig, receiver, format="promptjuggler")

    await _send(deps, msgspec.structs.replace(due, run_id=None, body='{"type":"ping"}'))

    (request,) = receiver.requests
    assert b'{"type":"ping"}' == request.body
    assert "promptjuggler-signature" in request.headers


async def test_leaving_waits_for_what_is_being_sent(
    rig: Rig, deps: Deps, receiver: Receiver
) -> None:
    receiver.gate = asyncio.Event()
    due = await _delivery(rig, receiver)
    async with _sender(deps) as deliverer:
        deliverer.send(due)
        await until(lambda: bool(receiver.requests))
        leaving = asyncio.create_task(deliverer.drain(5))
        receiver.gate.set()

        await leaving

        assert "succeeded" == await _status(rig)


async def test_what_takes_too_long_when_leaving_is_left_to_others(
    rig: Rig, deps: Deps, receiver: Receiver
) -> None:
    receiver.gate = asyncio.Event()
    due = await _delivery(rig, receiver)
    async with _sender(deps) as deliverer:
        deliverer.send(due)
        await until(lambda: bool(receiver.requests))

        await deliverer.drain(0.01)

    assert ("pending", 0) == (await _status(rig), (await _row(rig))["tries"])
