"""Workspaces with one of everything, and the requests that the routes themselves ask for.

What is tested here is read from the routes, so a new route is covered as it is written. A new path
parameter needs a line in `a_world` and one in `unknown`; the tests say so.
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from itertools import product
from typing import Any
from uuid import UUID

import httpx

from api import openapi
from api.app import create_litestar
from api.openapi import Operation
from shared.deps import Deps
from shared.ids import new_id
from shared.store.tables import METADATA
from tests.api.clients import client_with
from tests.factories import Tenant, a_tenant

PATH_PARAMETER = re.compile(r"\{(\w+)\}")
_BODY = {"model": "sim/echo", "messages": [{"role": "user", "content": "Hello {{ name }}"}]}
_SAID = """
INSERT INTO messages (workspace_id, thread_id, channel, turn, position, run_id, environment_id,
  role, content)
SELECT r.workspace_id, r.thread_id, r.channel, 1, p, r.id, r.environment_id,
  CASE p WHEN 1 THEN 'user' ELSE 'assistant' END, 'said in ' || e.name
FROM runs r JOIN environments e ON e.id = r.environment_id, generate_series(1, 2) AS p
WHERE r.thread_id = ANY(%(threads)s::uuid[])
"""
_FORGETFUL = {"api_keys": {"last_used_at"}}  # columns that reading alone changes
_VARIES = re.compile(
    r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"  # ids
    r"|\d{4}-\d\d-\d\dT[\d:.]+Z"  # moments
    r'|rl_[0-9A-Za-z_]+|whsec_[^"]+'  # keys and secrets just made
    r'|(?<="requestId":")[^"]+'
)


@dataclass(frozen=True)
class World:
    """A workspace with two or more of everything that lists show."""

    label: str
    tenant: Tenant
    things: Mapping[str, tuple[str, ...]]
    """By path parameter, the ways to name what is there; the first is the plainest."""
    elsewhere: Mapping[str, str] = field(default_factory=dict)
    """The same for things of the environment `<label>-other`."""

    def path(self, operation: Operation) -> str:
        return filled(operation, {name: values[0] for name, values in self.things.items()})


@cache
def operations() -> tuple[Operation, ...]:
    """Every operation that wants a key."""
    return tuple(sorted(openapi.operations(create_litestar()), key=openapi.place))


@cache
def document() -> Any:
    return json.loads(json.dumps(openapi.document(create_litestar())))


def example(operation: Operation) -> Any:
    """The documented body of an operation; `None` if it takes none."""
    entry = document()["paths"][operation.path][operation.method]
    content = entry.get("requestBody", {}).get("content", {})
    return content.get("application/json", {}).get("example")


def parameters(operation: Operation) -> list[str]:
    return PATH_PARAMETER.findall(operation.path)


def filled(operation: Operation, things: Mapping[str, str]) -> str:
    """The path of an operation about these things."""
    missing = set(parameters(operation)) - things.keys()
    assert not missing, (
        f"{operation.method.upper()} {operation.path} has path parameters that tests/api/world.py "
        f"knows no thing for; name one in `a_world` and in `unknown`: {', '.join(sorted(missing))}"
    )
    return operation.path.format(**things).removeprefix("/api/v1")


def query(operation: Operation, environment: str) -> dict[str, str]:
    """The query parameters that an operation cannot do without, or not with a limited key."""
    needed = {
        "diffEnvironments": ("sourceEnvironment", "targetEnvironment"),
        "listParameters": ("environment",),
    }
    return dict.fromkeys(needed.get(operation.id, ()), environment)


def replaced(
    operation: Operation, ours: World, theirs: Mapping[str, tuple[str, ...]]
) -> Iterator[tuple[str, str, str]]:
    """Each path parameter in turn names something of theirs, what follows it too.

    Answers the parameter, the path, and the same path with something unknown in that place. Left
    out is what a PUT makes by naming it.
    """
    names = parameters(operation)
    for place, name in enumerate(names):
        if operation.method == "put" and place == len(names) - 1:
            continue
        before = {one: ours.things[one][0] for one in names[:place] if one in ours.things}
        for values in product(*(theirs.get(one, ()) for one in names[place:])):
            things = before | dict(zip(names[place:], values, strict=True))
            path = filled(operation, things)
            yield name, path, filled(operation, things | {name: unknown()[name]})


@cache
def unknown() -> Mapping[str, str]:
    """By path parameter, what nobody has."""
    names = dict.fromkeys(
        ("run_id", "thread_id", "webhook_id", "delivery_id", "key_id", "version", "edition")
    )
    return {name: str(new_id()) for name in names} | {
        "slug": "nobodys-prompt",
        "flow": "nobodys-flow",
        "alias": "nobodys-alias",
        "number": "99",
        "a": "99",
        "b": "99",
        "tag": "nobodys-tag",
        "name": "nobodys-env",
        "key": "NOBODYS_KEY",
    }


async def a_world(deps: Deps, label: str, versions: int = 2) -> World:
    """Make a workspace through its own API; a larger one has version numbers that others lack."""
    tenant = await a_tenant(deps)
    async with client_with(deps, tenant.key) as client:
        made = _Maker(client, label)
        await made.prompts(versions)
        await made.environments()
        await made.aliases()
        await made.post("/environments/production/pins/{slug}", {"version": 1}, "PUT")
        webhooks = [await made.webhook(), await made.webhook(), await made.webhook(made.other)]
        runs = [await made.run(), await made.run(), await made.run(made.other)]
        await made.post(
            "/prompts/{slug}/1/runs", {"inputs": {"name": "Ada"}}
        )  # one that still waits
        threads = [await made.thread(), await made.thread(made.other)]
        keys = [await made.key(), await made.key(), await made.key(made.other)]
        deliveries = {hook: await made.delivery(hook) for hook in webhooks}
        revision = (await client.get(f"/prompts/{made.slug}/{versions}")).json()["id"]
        prompt_id = (await client.get(f"/prompts/{made.slug}")).json()["id"]
    await deps.store.execute(_SAID, {"threads": threads})
    number = str(versions)
    things = {
        "slug": (made.slug,),
        "flow": (made.slug, prompt_id),
        "edition": (revision, number),
        "alias": (made.alias,),
        "version": (revision, number, made.tag),
        "number": (number,),
        "a": (number, revision, made.tag),
        "b": (number, revision, made.tag),
        "tag": (made.tag,),
        "name": (made.environment,),
        "key": (made.variable,),
        "run_id": (runs[0],),
        "thread_id": (threads[0],),
        "webhook_id": (webhooks[0],),
        "delivery_id": (deliveries[webhooks[0]],),
        "key_id": (keys[0],),
    }
    elsewhere = {
        "name": made.other,
        "key": made.variable,
        "run_id": runs[2],
        "thread_id": threads[1],
        "webhook_id": webhooks[2],
        "delivery_id": deliveries[webhooks[2]],
        "key_id": keys[2],
    }
    return World(label, tenant, things, elsewhere)


class _Maker:
    """Makes things of a workspace, named after it."""

    def __init__(self, client: httpx.AsyncClient, label: str) -> None:
        self._client = client
        self.slug = f"{label}-prompt"
        self.tag = f"{label}-tag"
        self.environment = f"{label}-env"
        self.other = f"{label}-other"
        self.variable = f"{label.upper()}_KEY"
        self.alias = f"{label}-alias"

    async def post(self, path: str, body: Any, method: str = "POST") -> Any:
        answer = await self._client.request(method, path.format(slug=self.slug), json=body)
        assert answer.is_success, answer.text
        return answer.json()

    async def prompts(self, versions: int) -> None:
        for slug in (self.slug, f"{self.slug}-2"):
            await self.post("/prompts", {"name": slug, "slug": slug})
        for _ in range(versions):
            await self.post("/prompts/{slug}/versions", _BODY)
        await self.post(f"/prompts/{self.slug}-2/versions", _BODY)
        for tag, version in product((self.tag, f"{self.tag}-2"), (1, 2)):
            await self.post(f"/prompts/{self.slug}/tags/{tag}", {"version": version}, "PUT")

    async def environments(self) -> None:
        for name in (self.environment, self.other):
            await self.post("/environments", {"name": name})
            budget = {"day": 10**9, "month": 10**10}
            await self.post(f"/budgets/environments/{name}", budget, "PUT")
            for key in (self.variable, f"{self.variable}_2"):
                path = f"/environments/{name}/variables/{key}"
                await self.post(path, {"value": f"secret of {name}"}, "PUT")
            for version in (1, 2):
                await self.post(f"/environments/{name}/pins/{{slug}}", {"version": version}, "PUT")
            await self.post(f"/environments/{name}/pins/{{slug}}-2", {"version": 1}, "PUT")

    async def aliases(self) -> None:
        for name in (self.alias, f"{self.alias}-2"):
            await self.post(f"/models/aliases/{name}", {"models": ["sim/echo"]}, "PUT")

    async def webhook(self, environment: str | None = None) -> str:
        url = f"https://{self.environment}.example/hook"
        body = {"url": url, "environments": [environment or self.environment]}
        return str((await self.post("/webhooks", body))["id"])

    async def run(self, environment: str | None = None) -> str:
        """A run that ended, of which the webhooks of its environment are told."""
        body = {"inputs": {"name": "Ada"}, "environment": environment or self.environment}
        run_id = (await self.post("/prompts/{slug}/1/runs", body))["id"]
        await self.post(f"/runs/{run_id}/cancel", {})
        return str(run_id)

    async def thread(self, environment: str | None = None) -> str:
        """A thread; what is said in it needs no worker."""
        body = {"inputs": {"name": "Ada"}, "environment": environment or self.environment}
        run = await self.post("/prompts/{slug}/1/runs", body | {"thread": str(new_id())})
        await self.post(f"/runs/{run['id']}/cancel", {})
        return str(run["thread"])

    async def key(self, environment: str | None = None) -> str:
        within = [environment or self.environment]
        body = {"name": "a key", "scopes": ["runs:read"], "environments": within}
        return str((await self.post("/keys", body))["id"])

    async def delivery(self, webhook: str) -> str:
        listed = await self._client.get(f"/webhooks/{webhook}/deliveries")
        return str(listed.json()["data"][0]["id"])


async def contents(deps: Deps) -> dict[str, list[str]]:
    """Every row of every table, but for what reading alone changes."""
    found = {}
    for table, row in _all_rows():
        rows = await deps.store.fetch(f"SELECT {row} FROM {table} t ORDER BY 1", {})
        found[table] = [str(row[0]) for row in rows]
    return found


async def digests(deps: Deps) -> dict[str, tuple[int, int]]:
    """The same in short, table by table: how many rows, and a sum over what they hold."""
    statement = " UNION ALL ".join(
        f"SELECT '{table}', count(*), coalesce(sum(hashtextextended({row}, 0)), 0) FROM {table} t"
        for table, row in _all_rows()
    )
    rows = await deps.store.fetch(statement, {})
    return {table: (count, int(total)) for table, count, total in rows}


def _all_rows() -> Iterator[tuple[str, str]]:
    for table in METADATA.sorted_tables:
        left_out = ", ".join(f"'{column}'" for column in _FORGETFUL.get(table.name, ()))
        yield table.name, f"(to_jsonb(t) - ARRAY[{left_out}]::text[])::text"


async def ids_of(deps: Deps, workspace_id: UUID) -> set[str]:
    """The ids of everything a workspace has."""
    found = set()
    for table in METADATA.sorted_tables:
        if {"id", "workspace_id"} <= set(table.columns.keys()):
            query = f"SELECT id FROM {table.name} WHERE workspace_id = %(workspace)s"
            listed = await deps.store.fetch(query, {"workspace": workspace_id})
            found |= {str(row[0]) for row in listed}
    return found


def told(answer: httpx.Response) -> tuple[int, str]:
    """Status and body, without what differs between two answers to the same question."""
    return answer.status_code, _VARIES.sub("*", answer.text)
