"""The rows of bad input that concern API keys and idempotency keys, at the runs' routes."""

import asyncio
from collections.abc import Iterable
from datetime import timedelta

import httpx
import pytest

from shared.clock import rfc3339
from shared.deps import Deps
from shared.domain import api_keys
from shared.ids import new_id
from tests.api.clients import client_with, without_request_id
from tests.api.refusals import BODY, RUNS, post_raw, refused, stored
from tests.factories import Tenant, a_key, a_prompt


@pytest.fixture(autouse=True)
async def greeting(deps: Deps, tenant: Tenant) -> None:
    """The tenant's prompt `greeting`, which asks for a name."""
    await a_prompt(deps, tenant)


async def test_every_bad_key_gets_one_and_the_same_401(
    client: httpx.AsyncClient, deps: Deps, tenant: Tenant
) -> None:
    expired, expired_id = await a_key(deps, tenant.workspace_id)
    past = rfc3339(deps.clock.now() - timedelta(seconds=1))
    await deps.store.execute(
        "UPDATE api_keys SET expires_at = %(past)s WHERE id = %(id)s",
        {"past": past, "id": expired_id},
    )
    revoked, revoked_id = await a_key(deps, tenant.workspace_id)
    await client.delete(f"/keys/{revoked_id}")
    good = tenant.key.encode()
    given = {
        "none": [],
        "basic": [b"Basic dXNlcjpwYXNz"],
        "bare": [b"Bearer"],
        "empty": [b"Bearer "],
        "no scheme": [good],
        "two words": [b"Bearer " + good + b" " + good],
        "two headers": [b"Bearer " + good, b"Bearer " + good],
        "wrong checksum": [b"Bearer " + good[:-1] + (b"0" if good[-1:] != b"0" else b"1")],
        "cut": [b"Bearer " + good[:-1]],
        "unknown": [b"Bearer " + api_keys.make().text.encode()],
        "expired": [b"Bearer " + expired.encode()],
        "revoked": [b"Bearer " + revoked.encode()],
        "beyond ASCII": [b"Bearer \xc3\xa9" + good],
        "not UTF-8": [b"Bearer \xff\xfe"],
        "NUL-like": [b"Bearer " + good + b"\x00"],
        "long": [b"Bearer " + b"a" * 10_000],
    }

    answers = {name: await _with_keys(client, values) for name, values in given.items()}

    assert dict.fromkeys(given, (401, "unauthorized")) == {
        name: refused(answer) for name, answer in answers.items()
    }
    assert {"Bearer"} == {answer.headers["www-authenticate"] for answer in answers.values()}
    assert 1 == len({str(without_request_id(answer)) for answer in answers.values()})
    assert 0 == await stored(deps)


async def test_key_without_the_scope_is_a_403(deps: Deps, tenant: Tenant) -> None:
    reader, _ = await a_key(deps, tenant.workspace_id, ("runs:read",))
    editor, _ = await a_key(deps, tenant.workspace_id, ("prompts:write",))

    async with client_with(deps, reader) as holder:
        submitted = await holder.post(RUNS, json=BODY)
        canceled = await holder.post(f"/runs/{new_id()}/cancel")
    async with client_with(deps, editor) as holder:
        read = await holder.get(f"/runs/{new_id()}")

    assert {(403, "missing_scope")} == {refused(answer) for answer in (submitted, canceled, read)}
    assert 0 == await stored(deps)


async def test_malformed_idempotency_keys_are_a_400(client: httpx.AsyncClient, deps: Deps) -> None:
    given: list[list[bytes]] = [[b""], [b"k" * 256], [b"a\x01b"], [b"\xc3\xa9"], [b"a", b"b"]]

    answers = [
        await _send(client, BODY, [(b"idempotency-key", value) for value in values])
        for values in given
    ]

    assert {(400, "bad_request")} == {refused(answer) for answer in answers}
    assert 0 == await stored(deps)


async def test_same_key_and_body_in_other_words_is_the_same_run(
    client: httpx.AsyncClient, deps: Deps
) -> None:
    key = {"idempotency-key": "k" * 255}

    first = await post_raw(client, b'{"inputs":{"name":"Ada"},"priority":"low"}', **key)
    second = await post_raw(client, b'{ "priority": "low", "inputs": {"name" : "Ada"} }\n', **key)
    other = await post_raw(client, b'{"inputs":{"name":"Bob"},"priority":"low"}', **key)

    assert [200, 200] == [first.status_code, second.status_code]
    assert first.json()["id"] == second.json()["id"]
    assert "true" == second.headers["idempotent-replayed"]
    assert "idempotent-replayed" not in first.headers
    assert (422, "idempotency_key_reused") == refused(other)
    assert 1 == await stored(deps)


async def test_refused_submission_does_not_use_up_its_key(
    client: httpx.AsyncClient, deps: Deps
) -> None:
    key = {"idempotency-key": "once"}

    refused = await client.post(RUNS, json={"inputs": {}}, headers=key)
    accepted = await client.post(RUNS, json=BODY, headers=key)

    assert (422, 200) == (refused.status_code, accepted.status_code)
    assert "idempotent-replayed" not in accepted.headers
    assert 1 == await stored(deps)


async def test_fifty_at_once_with_one_key_are_one_run(
    client: httpx.AsyncClient, deps: Deps
) -> None:
    key = {"idempotency-key": "at once"}

    answers = await asyncio.gather(*(client.post(RUNS, json=BODY, headers=key) for _ in range(50)))

    accepted = [answer for answer in answers if answer.status_code == 200]
    assert {200, 409} >= {answer.status_code for answer in answers}
    assert all("retry-after" in answer.headers for answer in answers if answer not in accepted)
    assert 1 == len({answer.json()["id"] for answer in accepted})
    assert 1 == await stored(deps)


async def _with_keys(client: httpx.AsyncClient, values: Iterable[bytes]) -> httpx.Response:
    return await _send(client, BODY, [(b"authorization", value) for value in values], bare=True)


async def _send(
    client: httpx.AsyncClient,
    body: object,
    fields: list[tuple[bytes, bytes]],
    *,
    bare: bool = False,
) -> httpx.Response:
    """Post with header fields as they are; `bare` leaves out the client's own key."""
    request = client.build_request("POST", RUNS, json=body)
    if bare:
        del request.headers["authorization"]
    request.headers = httpx.Headers([*request.headers.raw, *fields])
    return await client.send(request)
