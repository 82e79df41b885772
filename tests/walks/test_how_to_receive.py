"""The receivers of the how-to page, run from the page itself, against real deliveries."""

import asyncio
import re
import shutil
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from aiohttp import web
from standardwebhooks import Webhook
from svix.webhooks import Webhook as SvixWebhook
from svix.webhooks import WebhookVerificationError

from shared.clock import SystemClock
from shared.deps import Deps
from shared.domain import signing
from tests.e2e.processes import ROOT, Process, clean_env
from tests.factories import Tenant, a_prompt
from tests.worker.lane_rig import until
from worker.main import WorkerProcess

PAGE = (ROOT / "docs/how-to/receive-webhooks.md").read_text()
# Python is there; of the others, those that this machine has.
PROGRAMS = {
    "python": ("python", [sys.executable], "receiver.py"),
    "node": ("js", [shutil.which("node") or ""], "receiver.cjs"),
    "go": ("go", [shutil.which("go") or "", "run"], "receiver.go"),
}
LANGUAGES = [name for name, (_, command, _) in PROGRAMS.items() if command[0]]
SHELLS = ["bash"] if shutil.which("openssl") and shutil.which("curl") else []


def block(language: str, containing: str = "") -> str:
    """A code block of the page."""
    blocks = re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    (found,) = [one for one in blocks if containing in one]
    return str(found)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


@asynccontextmanager
async def receiver(language: str, secret: str, folder: Path) -> AsyncIterator[tuple[str, Process]]:
    """The page's program in a language, listening; its URL."""
    kind, command, name = PROGRAMS[language]
    (folder / name).write_text(block(kind))
    port = free_port()
    env = clean_env(folder, PORT=str(port), WEBHOOK_SECRET=secret)
    with Process([*command, str(folder / name)], env=env, cwd=folder) as process:

        async def listens() -> bool:
            assert process.code is None, process.said()
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except ConnectionRefusedError:
                return False
            writer.close()
            await writer.wait_closed()
            return True

        await until(listens, 30)
        yield f"http://127.0.0.1:{port}/hook", process
        process.kill()


async def _delivered(client: httpx.AsyncClient, run_id: str) -> Any:
    """Wait for the end of a run's one delivery."""
    found: list[Any] = []

    async def over() -> bool:
        found[:] = (await client.get(f"/runs/{run_id}/deliveries")).json()["data"]
        return bool(found) and found[0]["status"] != "pending"

    await until(over, 20)
    return found[0]


@pytest.mark.parametrize("language", LANGUAGES)
async def test_a_receiver_of_the_page_takes_deliveries_and_nothing_forged(
    language: str,
    client: httpx.AsyncClient,
    deps: Deps,
    tenant: Tenant,
    worker: WorkerProcess,
    tmp_path: Path,
) -> None:
    secret = signing.new_secret()
    await a_prompt(deps, tenant)

    async with receiver(language, secret, tmp_path) as (url, process):
        made = await client.post("/webhooks", json={"url": url, "secret": secret})
        run = await client.post("/prompts/greeting/1/runs", json={"inputs": {"name": "Ada"}})
        delivery = await _delivered(client, run.json()["id"])
        await client.post(f"/webhooks/{made.json()['id']}/rotate-secret", json={})
        again = await client.post("/prompts/greeting/1/runs", json={"inputs": {"name": "Bo"}})
        during_overlap = await _delivered(client, again.json()["id"])
        forged = await _forged(url, secret)
        said = process.said()

    assert ["succeeded"] * 2 == [one["status"] for one in (delivery, during_overlap)]
    assert f"run.succeeded {delivery['eventId']}" in said
    assert [204, 401, 401, 401, 401, 401] == forged


async def _forged(url: str, secret: str) -> list[int]:
    """What a good request is answered with, and then what others are that differ in one thing."""
    body, now_s = b'{"id":"e","type":"ping"}', int(SystemClock().now().timestamp())

    def signed(secret: str, timestamp_s: int) -> dict[str, str]:
        return signing.sign_standard([secret], event_id="e", timestamp_s=timestamp_s, body=body) | {
            "content-type": "application/json"
        }

    good = signed(secret, now_s)
    requests = [
        (good, body),
        (good, body + b" "),
        (good | {"webhook-id": "f"}, body),
        (signed(signing.new_secret(), now_s), body),
        (signed(secret, now_s - 301), body),
        ({"content-type": "application/json"}, body),
    ]
    async with httpx.AsyncClient(trust_env=False) as sender:
        return [
            (await sender.post(url, content=content, headers=headers)).status_code
            for headers, content in requests
        ]


@pytest.mark.parametrize("shell", SHELLS)
async def test_the_shell_s_signature_is_what_a_receiver_of_the_page_expects(
    shell: str, tmp_path: Path
) -> None:
    secret = signing.new_secret()
    script = block("sh", "openssl dgst")
    secrets = [secret, signing.new_secret()]

    async with receiver("python", secret, tmp_path) as (url, process):
        port = url.split(":")[2].split("/")[0]
        answers = [await _typed(shell, script, tmp_path, port, one) for one in secrets]
        said = process.said()

    assert ["204", "401"] == answers
    assert "ping test-1" in said


async def _typed(shell: str, script: str, folder: Path, port: str, secret: str) -> str:
    env = clean_env(folder, PORT=port, WEBHOOK_SECRET=secret)
    child = await asyncio.create_subprocess_exec(
        *(shell, "-euo", "pipefail", "-c", script),
        cwd=folder,
        env=env,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await child.communicate()
    assert b"" == err
    return out.decode().strip()


async def test_a_delivery_verifies_with_the_packages_of_both_houses(
    client: httpx.AsyncClient, deps: Deps, tenant: Tenant, worker: WorkerProcess
) -> None:
    received: list[tuple[dict[str, str], bytes]] = []

    async def take(request: web.Request) -> web.Response:
        headers = {name.lower(): value for name, value in request.headers.items()}
        received.append((headers, await request.read()))
        return web.Response(status=204)

    app = web.Application()
    app.router.add_post("/hook", take)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}/hook"
    made = (await client.post("/webhooks", json={"url": url, "headers": {"X-Team": "a"}})).json()
    rotated = (await client.post(f"/webhooks/{made['id']}/rotate-secret", json={})).json()
    sent = (await client.post(f"/webhooks/{made['id']}/test")).json()
    await until(lambda: bool(received), 20)
    await runner.cleanup()

    headers, body = received[0]
    for secret in (made["secret"], rotated["secret"]):
        assert sent["eventId"] == Webhook(secret).verify(body, headers)["id"]
        SvixWebhook(secret).verify(body, headers)
    with pytest.raises(WebhookVerificationError):
        SvixWebhook(signing.new_secret()).verify(body, headers)
    assert (sent["eventId"], "a") == (headers["webhook-id"], headers["x-team"])
