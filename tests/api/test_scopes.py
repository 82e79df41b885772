"""Every route with every scope, and without a key: read from what each route declares."""

from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from litestar.handlers import HTTPRouteHandler
from litestar.routes import HTTPRoute

from api.app import create_litestar
from api.auth import SCOPE
from api.openapi import Operation
from shared.deps import Deps
from shared.services.keys import SCOPES
from tests.api import world
from tests.api.clients import client_with
from tests.api.refusals import refused
from tests.factories import Tenant, a_key

OPEN = {"/docs", "/docs/errors", "/docs/{asset}", "/livez", "/readyz",
        "/openapi.json", "/api/v1/openapi.json"}  # fmt: skip


FOR_ADMINS = {"listAudit"}
UNLIKE_THEIR_METHOD = {"readSecret", "previewRun"}


def test_every_route_names_a_scope_and_asks_who_is_calling_but_for_a_known_few() -> None:
    declared = {
        (path, handler.fn.__name__): (
            handler.opt.get(SCOPE) in SCOPES,
            "principal" in handler.parsed_fn_signature.parameters,
        )
        for path, handler in _handlers()
    }

    assert {place: (place[0] not in OPEN,) * 2 for place in declared} == declared


def test_reading_asks_for_no_more_than_reading_and_changing_for_writing() -> None:
    asked = {
        one.id: one.handler.opt[SCOPE].partition(":")[2]
        for one in world.operations()
        if one.handler.opt[SCOPE] != "admin"
    }

    expected = {
        one.id: "read" if (one.method == "get") != (one.id in UNLIKE_THEIR_METHOD) else "write"
        for one in world.operations()
        if one.id not in FOR_ADMINS
    }
    assert expected == asked


@pytest.mark.parametrize("scope", SCOPES)
async def test_a_key_may_use_the_routes_of_its_scope_and_no_other(
    deps: Deps, tenant: Tenant, scope: str
) -> None:
    key, _ = await a_key(deps, tenant.workspace_id, (scope,))

    async with client_with(deps, key) as holder:
        answers = {one.id: await _ask(holder, one, scope) for one in world.operations()}

    expected = {one.id: scope not in _enough(one.handler.opt[SCOPE]) for one in world.operations()}
    assert expected == {
        name: answer.status_code == 403 and refused(answer) == (403, "missing_scope")
        for name, answer in answers.items()
    }


async def test_a_key_without_a_scope_changes_nothing(deps: Deps, tenant: Tenant) -> None:
    ours = await world.a_world(deps, "ours")
    before = await world.contents(deps)
    wrong = {}

    for scope in SCOPES:
        key, _ = await a_key(deps, ours.tenant.workspace_id, (scope,))
        async with client_with(deps, key) as holder:
            for one in world.operations():
                if scope not in _enough(one.handler.opt[SCOPE]):
                    answer = await _ask(holder, one, scope, ours.path(one))
                    nonsense = await holder.request(
                        one.method, f"{ours.path(one)}?no=1", json={"no": 1}
                    )
                    if {(403, "missing_scope")} != {refused(answer), refused(nonsense)}:
                        wrong[one.id, scope] = answer.text, nonsense.text

    assert {} == wrong
    after = await world.contents(deps)
    assert len(SCOPES) == len(after.pop("api_keys")) - len(before.pop("api_keys"))
    assert before == after


async def test_without_a_key_every_route_answers_the_same_401(deps: Deps, tenant: Tenant) -> None:
    ours = await world.a_world(deps, "ours")
    before = await world.digests(deps)

    answers = {}
    async with client_with(deps, "") as nobody:
        del nobody.headers["authorization"]
        for one in world.operations():
            for path in (ours.path(one), world.filled(one, world.unknown())):
                answers[one.id, path] = await _ask(nobody, one, "admin", path)

        for one in world.operations():  # whatever else is wrong with the request
            where = world.filled(one, world.unknown())
            for method, path in ((one.method, f"{where}?limit=0&no=1"), (one.method, where)):
                answer = await nobody.request(method, path, json={"no": 1})
                answers[f"{one.id}, wrongly", path] = answer

    assert {(401, "unauthorized")} == {refused(answer) for answer in answers.values()}
    assert 1 == len({world.told(answer) for answer in answers.values()})
    assert {"Bearer"} == {answer.headers["www-authenticate"] for answer in answers.values()}
    assert before == await world.digests(deps)


async def test_which_methods_a_route_has_is_no_secret(deps: Deps) -> None:
    async with client_with(deps, "") as nobody:
        answers = {
            one.id: await nobody.options(world.filled(one, world.unknown()))
            for one in world.operations()
        }

    methods: dict[str, set[str]] = {}
    for one in world.operations():
        methods.setdefault(one.path, {"OPTIONS"}).add(one.method.upper())
    assert {one.id: (204, sorted(methods[one.path])) for one in world.operations()} == {
        name: (answer.status_code, answer.headers["allow"].split(", "))
        for name, answer in answers.items()
    }


def _handlers() -> Iterator[tuple[str, HTTPRouteHandler]]:
    for route in create_litestar().routes:
        if isinstance(route, HTTPRoute):
            for handler in route.route_handlers:
                if handler.http_methods != {"OPTIONS"}:
                    yield route.path_format, handler


def _enough(needed: str) -> set[str]:
    """What a key may have one of to use a route."""
    return {needed, needed.replace(":read", ":write"), "admin"}


async def _ask(
    client: httpx.AsyncClient, operation: Operation, scope: str, path: str | None = None
) -> httpx.Response:
    """Send the documented body, about what nobody has unless a path is given."""
    body: Any = world.example(operation)
    if operation.id == "createKey":
        body = body | {"scopes": [scope]}  # a key makes keys of its own scopes only
    where = world.filled(operation, world.unknown()) if path is None else path
    return await client.request(operation.method.upper(), where, json=body)
