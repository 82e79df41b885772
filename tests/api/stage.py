"""What every row of bad input is tried on: a workspace with a few things in it, and a stranger's.

As it is outside development: webhooks need https and public addresses.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, NamedTuple

import httpx

from shared import deps as shared_deps
from shared.clock import rfc3339
from shared.deps import Deps
from shared.domain import api_keys
from shared.ids import new_id
from tests.api.clients import client_with
from tests.factories import a_key, a_prompt, a_tenant

RUNS = "/prompts/greeting/1/runs"
RUN: dict[str, Any] = {"inputs": {"name": "Ada"}}
HOOK: dict[str, Any] = {"url": "https://example.com/hook"}
VERSION: dict[str, Any] = {
    "model": "sim/echo",
    "messages": [{"role": "user", "content": "Hello {{ name }}"}],
}


class Ask(NamedTuple):
    """One request; `{name}` in path and header fields stands for a thing of the stage."""

    path: str
    body: Any = None
    method: str = "POST"
    headers: tuple[tuple[str, str | bytes], ...] = ()
    bare: bool = False
    """Without the stage's own key."""


@dataclass(frozen=True)
class Stage:
    """A client of the workspace, and by name what can be asked about."""

    client: httpx.AsyncClient
    things: Mapping[str, str] = field(default_factory=dict)

    async def ask(self, one: Ask) -> httpx.Response:
        request = self.client.build_request(
            one.method,
            one.path.format_map(self.things),
            **({"content": one.body} if isinstance(one.body, bytes) else {"json": one.body}),
        )
        fields = [
            pair for pair in request.headers.raw if not (one.bare and pair[0] == b"Authorization")
        ]
        given = [(name.encode(), self._bytes(value)) for name, value in one.headers]
        if isinstance(one.body, bytes) and not any(
            name == "content-type" for name, _ in one.headers
        ):
            given.append((b"content-type", b"application/json"))
        request.headers = httpx.Headers([*fields, *given])
        return await self.client.send(request)

    def _bytes(self, value: str | bytes) -> bytes:
        return value if isinstance(value, bytes) else value.format_map(self.things).encode()


async def a_stage(deps: Deps, client: httpx.AsyncClient, ours: Any) -> Stage:
    """Put up the stage for a workspace whose client is given."""
    await a_prompt(deps, ours)
    await a_prompt(deps, ours, "other")
    stranger = await a_tenant(deps)
    await a_prompt(deps, stranger, "theirs")
    builder = Stage(client, {})

    async def made(path: str, body: Any, method: str = "POST", name: str = "id") -> str:
        answer = await builder.ask(Ask(path, body, method))
        assert answer.is_success, (path, answer.text)
        return str(answer.json()[name])

    things = {
        "disabled": await made("/webhooks", HOOK),
        "hook": await made("/webhooks", HOOK),
        "staging": await made("/environments", {"name": "staging"}),
        "draft": await made("/prompts/greeting/versions", VERSION | {"publish": False}),
        "other": await made("/prompts/other/versions", VERSION),
        "tag": await made("/prompts/greeting/tags/live", {"version": 1}, "PUT", "tag"),
        "waiting": await made(RUNS, RUN),
        "done": await made(RUNS, RUN),
        "gone": await made("/webhooks", HOOK),
        "unknown": str(new_id()),
        "key": ours.key,
    }
    await client.delete(f"/webhooks/{things['gone']}")
    await client.post(f"/runs/{things['done']}/cancel")
    for name in ("hook", "disabled"):
        listed = await client.get(f"/webhooks/{things[name]}/deliveries")
        things |= {f"{name}_delivery": listed.json()["data"][0]["id"]}
    await deps.store.execute(
        "UPDATE webhook_endpoints SET disabled_at = now() WHERE id = %(id)s::uuid",
        {"id": things["disabled"]},
    )
    await deps.store.execute(
        "UPDATE deliveries SET status = 'canceled', finished_at = now() WHERE id = %(id)s::uuid",
        {"id": things["disabled_delivery"]},
    )
    async with client_with(deps, stranger.key) as them:
        theirs = await them.post("/prompts/theirs/1/runs", json=RUN)
        hook = await them.post("/webhooks", json=HOOK)
        await them.post(f"/runs/{theirs.json()['id']}/cancel")
        sent = await them.get(f"/webhooks/{hook.json()['id']}/deliveries")
        listed = await them.get("/prompts", params={"limit": 1})
        things |= {
            "their_run": theirs.json()["id"],
            "their_hook": hook.json()["id"],
            "their_delivery": sent.json()["data"][0]["id"],
            "their_key": str(stranger.principal.key_id),
        }
        assert 200 == listed.status_code
    page = (await client.get("/prompts", params={"limit": 1})).json()["nextCursor"]
    things |= {"cursor": page} | await _keys(deps, ours, client)
    return Stage(client, things)


async def _keys(deps: Deps, ours: Any, client: httpx.AsyncClient) -> dict[str, str]:
    """Keys that are good for nothing, or for little."""
    expired, expired_id = await a_key(deps, ours.workspace_id)
    past = rfc3339(deps.clock.now() - timedelta(seconds=1))
    await deps.store.execute(
        "UPDATE api_keys SET expires_at = %(past)s WHERE id = %(id)s",
        {"past": past, "id": expired_id},
    )
    revoked, revoked_id = await a_key(deps, ours.workspace_id)
    await client.delete(f"/keys/{revoked_id}")
    reader, _ = await a_key(deps, ours.workspace_id, ("runs:read",))
    wrong = ours.key[:-1] + ("0" if ours.key[-1] != "0" else "1")
    return {
        "expired_key": expired,
        "revoked_key": revoked,
        "reader_key": reader,
        "unknown_key": api_keys.make().text,
        "wrong_key": wrong,
    }


def outside_development(deps: Deps) -> Deps:
    production = deps.settings.model_copy(update={"dev_mode": False})
    return shared_deps.build(production, deps.clock, deps.random, deps.store, deps.lanes)
