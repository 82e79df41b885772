"""`runlane listen`: events from a real API to a program here, through restarts and refusals."""

import asyncio
import signal
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Self

import aiohttp
import httpx
import pytest
from aiohttp import web
from standardwebhooks import Webhook

from cli import listen
from cli.client import Server
from cli.serve import StartError
from shared.clock import SystemClock
from shared.deps import Deps
from shared.domain import signing
from tests.cli.served import Api
from tests.e2e.processes import RUNLANE, Process, clean_env
from tests.factories import Tenant, a_key
from tests.worker.lane_rig import until

SECRET = signing.new_secret()


@dataclass
class Program:
    """What somebody writes: takes events, and answers as told."""

    status: int = 204
    received: list[tuple[dict[str, str], bytes]] = field(default_factory=list)
    url: str = ""

    async def __aenter__(self) -> Self:
        app = web.Application()
        app.router.add_post("/hook", self._take)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}/hook"
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._runner.cleanup()

    async def _take(self, request: web.Request) -> web.Response:
        headers = {name.lower(): value for name, value in request.headers.items()}
        self.received.append((headers, await request.read()))
        return web.Response(status=self.status, headers={"location": "/elsewhere"})


@dataclass
class Listener:
    """A listener that runs in this process, and what it says."""

    task: "asyncio.Task[None]"
    lines: list[str]

    async def says(self, text: str) -> str:
        await until(lambda: self.task.done() or any(text in line for line in self.lines), 20)
        assert not self.task.done(), self.task
        return next(line for line in self.lines if text in line)


@pytest.fixture
async def program() -> AsyncIterator[Program]:
    async with Program() as program:
        yield program


@asynccontextmanager
async def _listening(
    served: Api, key: str, target: str, environment: str | None = None
) -> AsyncIterator[Listener]:
    lines: list[str] = []
    clock = SystemClock()
    headers = {"Authorization": f"Bearer {key}"}
    async with (
        aiohttp.ClientSession(headers=headers) as asking,
        aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=0.5)) as sending,
    ):
        feed = listen.Feed(asking, served.url, environment)
        await feed.page()
        forwarder = listen.Forwarder(sending, target, SECRET, clock)
        task = asyncio.create_task(listen.follow(feed, forwarder, clock, lines.append))
        yield Listener(task, lines)
        task.cancel()
        await asyncio.wait([task])


def _run(served: Api, key: str, forward: str, **given: Any) -> Coroutine[Any, Any, None]:
    given = {"environment": None, "secret": None} | given
    return listen.run(Server(served.url, key), forward, clock=SystemClock(), **given)


async def _canceled(client: httpx.AsyncClient, **fields: object) -> str:
    body = {"inputs": {"name": "Ada"}, **fields}
    run_id = str((await client.post("/prompts/greeting/1/runs", json=body)).json()["id"])
    await client.post(f"/runs/{run_id}/cancel")
    return run_id


async def test_events_are_forwarded_signed_and_shown_each_in_a_line(
    served: Api, tenant: Tenant, client: httpx.AsyncClient, program: Program
) -> None:
    earlier = await _canceled(client)

    async with _listening(served, tenant.key, program.url) as listener:
        run_id = await _canceled(client)
        line = await listener.says(run_id)

    ((headers, body),) = program.received
    event = Webhook(SECRET).verify(body, headers)
    assert (run_id, "run.canceled") == (event["data"]["run"]["id"], event["type"])
    assert (event["id"], "application/json") == (headers["webhook-id"], headers["content-type"])
    assert f"  run.canceled  run {run_id}  → 204 in " in line
    assert [] == [line for line in listener.lines if earlier in line]


async def test_only_the_wanted_environment_is_forwarded(
    served: Api, tenant: Tenant, client: httpx.AsyncClient, program: Program
) -> None:
    await client.post("/environments", json={"name": "staging"})

    async with _listening(served, tenant.key, program.url, "staging") as listener:
        await _canceled(client)
        run_id = await _canceled(client, environment="staging")
        await listener.says(run_id)

    assert 1 == len(program.received)


async def test_what_becomes_of_an_event_is_said_and_the_next_one_goes_on(
    served: Api, tenant: Tenant, client: httpx.AsyncClient, program: Program
) -> None:
    async with _listening(served, tenant.key, program.url) as listener:
        program.status = 500
        failed = await listener.says(await _canceled(client))
        program.status = 302
        moved = await listener.says(await _canceled(client))
        program.status = 204
        good = await listener.says(await _canceled(client))

    assert ["→ 500", "→ 302", "→ 204"] == [
        line[line.index("→") :][:5] for line in (failed, moved, good)
    ]
    assert 3 == len(program.received)


async def test_a_program_that_is_not_there_is_named_as_such(
    served: Api, tenant: Tenant, client: httpx.AsyncClient
) -> None:
    async with _listening(served, tenant.key, "http://127.0.0.1:9/hook") as listener:
        line = await listener.says(await _canceled(client))

    assert line.endswith("→ not delivered: connection refused, nothing listens there")


async def test_a_restart_of_the_api_is_waited_for_and_loses_no_event(
    served: Api, tenant: Tenant, client: httpx.AsyncClient, program: Program
) -> None:
    async with _listening(served, tenant.key, program.url) as listener:
        await listener.says(await _canceled(client))
        await served.stop()
        told = await listener.says("No Runlane answers at")
        while_away = await _canceled(client)
        await served.start()
        await listener.says("It answers again.")
        await listener.says(while_away)

    assert told.endswith("(connection refused, nothing listens there). Trying again until it does…")
    assert 1 == sum("No Runlane" in line for line in listener.lines)
    assert 2 == len(program.received)


async def test_a_refused_key_ends_it_with_a_sentence(
    served: Api, deps: Deps, tenant: Tenant, program: Program
) -> None:
    wrong, _ = await a_key(deps, tenant.workspace_id, ("webhooks:write",))

    with pytest.raises(StartError, match="does not accept the key in RUNLANE_API_KEY"):
        await _run(served, "rl_wrong", program.url)
    with pytest.raises(StartError, match="answers 403: This needs the scope runs:read"):
        await _run(served, wrong, program.url)
    with pytest.raises(StartError, match="answers 422: There is no environment of this name"):
        await _run(served, tenant.key, program.url, environment="nowhere")


async def test_a_key_that_is_revoked_meanwhile_ends_it(
    served: Api, deps: Deps, tenant: Tenant, program: Program
) -> None:
    key, key_id = await a_key(deps, tenant.workspace_id)

    async with _listening(served, key, program.url) as listener:
        await deps.store.execute(
            "UPDATE api_keys SET revoked_at = now() WHERE id = %(id)s", {"id": key_id}
        )
        deps.keys.discard(key[3:11])
        await until(listener.task.done, 10)

    with pytest.raises(StartError, match="does not accept the key"):
        listener.task.result()


async def test_an_api_that_is_not_there_at_the_start_is_named(served: Api, tenant: Tenant) -> None:
    served.port = 9

    with pytest.raises(StartError, match=r"No Runlane answers at http://127.0.0.1:9 .*running\?"):
        await _run(served, tenant.key, "localhost:3000/hook")


@pytest.mark.parametrize("forward", ["", "ftp://here/", "http://", "http://[::1", "here:x/hook"])
async def test_an_address_that_is_none_is_refused(
    served: Api, tenant: Tenant, forward: str
) -> None:
    with pytest.raises(StartError, match="is no address: try http://localhost:3000/hook"):
        await _run(served, tenant.key, forward)


async def test_a_secret_that_nobody_should_sign_with_is_refused(
    served: Api, tenant: Tenant, program: Program
) -> None:
    with pytest.raises(signing.SecretError):
        await _run(served, tenant.key, program.url, secret="whsec_AAAA")


async def test_the_command_prints_its_secret_and_ends_with_ctrl_c(
    served: Api, tenant: Tenant, client: httpx.AsyncClient, program: Program, tmp_path: Any
) -> None:
    env = clean_env(tmp_path, RUNLANE_URL=served.url, RUNLANE_API_KEY=tenant.key)
    argv = [RUNLANE, "listen", "--forward", program.url.removeprefix("http://")]

    with Process(argv, env=env, cwd=tmp_path) as process:
        await until(lambda: "Signed with the secret" in process.said(), 30)
        run_id = await _canceled(client)
        await until(lambda: run_id in process.said(), 20)
        process.send(signal.SIGINT)
        await until(lambda: process.code is not None, 10)
        said = process.said()

    assert 0 == process.code
    banner, secret = said.splitlines()[:2]
    assert f"Forwarding events of {served.url} to {program.url} (Ctrl-C ends it)" == banner
    ((headers, body),) = program.received
    assert Webhook(secret.split()[-1]).verify(body, headers)
    assert "Traceback" not in said
