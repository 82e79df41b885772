"""Bad input made from the routes themselves: bodies cut off, ids mistaken, answers sent back."""

import json
from collections.abc import AsyncIterator
from uuid import UUID

import httpx
import pytest

from shared.deps import Deps
from tests.api import world
from tests.api.clients import client_with
from tests.api.refusals import JSON, refused
from tests.api.world import World, a_world

STEP_BYTES = 1000


@pytest.fixture
async def ours(deps: Deps) -> World:
    return await a_world(deps, "ours")


@pytest.fixture
async def client(deps: Deps, ours: World) -> AsyncIterator[httpx.AsyncClient]:
    async with client_with(deps, ours.tenant.key) as client:
        yield client


async def test_a_body_cut_off_anywhere_is_refused_and_changes_nothing(
    deps: Deps, ours: World, client: httpx.AsyncClient
) -> None:
    before, wrong, asked = await world.digests(deps), {}, 0

    for one in world.operations():
        if world.example(one) is not None:
            whole = json.dumps(world.example(one), indent=STEP_BYTES).encode()
            for length in (1, *range(STEP_BYTES, len(whole) - 1, STEP_BYTES), len(whole) - 1):
                answer = await client.request(
                    one.method, ours.path(one), content=whole[:length], headers=JSON
                )
                asked += 1
                if (400, "invalid_json") != refused(answer):
                    wrong[one.id, length] = answer.text

    assert {} == wrong
    assert before == await world.digests(deps)
    assert asked > 100


async def test_an_id_of_something_else_is_like_an_unknown_one(
    deps: Deps, ours: World, client: httpx.AsyncClient
) -> None:
    before, wrong, asked = await world.digests(deps), {}, 0
    things = {name: values[0] for name, values in ours.things.items()}
    ids = {name: value for name, value in things.items() if len(value) == len(str(UUID(int=0)))}

    for one in world.operations():
        names = world.parameters(one)
        for name in names[:-1] if one.method == "put" else names:
            for value in [one for one in ids.values() if one not in ours.things[name]]:
                path = world.filled(one, things | {name: value})
                answer = await client.request(one.method, path, json=world.example(one))
                asked += 1
                if answer.status_code != 404:
                    wrong[one.id, name, path] = answer.text

    assert {} == wrong
    assert before == await world.digests(deps)
    assert asked > 100


async def test_an_answer_sent_back_is_refused_for_what_is_only_read(
    deps: Deps, ours: World, client: httpx.AsyncClient
) -> None:
    reads = [one for one in world.operations() if one.method == "get"]
    answers = {one.path: (await client.get(ours.path(one))).json() for one in reads}
    shown = [  # but for the bodies of versions: they are there to be sent again
        entry
        for path, body in answers.items()
        for entry in (body[:1] if isinstance(body, list) else (body, *body.get("data", ())[:1]))
        if not path.endswith("/versions/{number}")
    ]
    before, wrong, asked = await world.digests(deps), {}, 0

    for one in world.operations():
        if one.handler.parsed_data_field is not None:
            for body in shown:
                answer = await client.request(one.method, ours.path(one), json=body)
                asked += 1
                if answer.status_code != 422:
                    wrong[one.id, str(body)[:80]] = answer.text

    assert {} == wrong
    assert before == await world.digests(deps)
    assert asked > 100
