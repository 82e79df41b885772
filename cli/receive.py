"""`runlane receive`: a webhook receiver here that checks signatures and prints events."""

import asyncio
import hmac
import json
import signal
from collections.abc import Mapping
from http import HTTPStatus

import aiohttp
from aiohttp import web

from cli import client
from cli.serve import StartError
from shared.clock import SystemClock
from shared.domain import signing
from shared.settings import environment

TOLERANCE_S = 300
_TIMEOUT = aiohttp.ClientTimeout(total=10)


def where() -> client.Server:
    """The server and the key of the environment, completed by what a `runlane dev` here noted."""
    known = environment()
    try:
        return client.find_server(known.get("RUNLANE_URL"), known.get("RUNLANE_API_KEY"))
    except client.UsageError as error:
        raise StartError(str(error)) from error


async def run(server: client.Server, port: int, environments: list[str]) -> None:
    """Register a webhook with the server's API, print what arrives, and take it back at the end."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    secrets: list[str] = []
    app = web.Application()
    app.router.add_post("/", lambda request: _received(request, secrets))
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", port)
    try:
        await site.start()
    except OSError as error:
        await runner.cleanup()
        raise StartError(f"Port {port} is taken: choose another with --port.") from error
    headers = {"Authorization": f"Bearer {server.key}"}
    async with aiohttp.ClientSession(headers=headers, timeout=_TIMEOUT) as session:
        base = f"{server.url}/api/v1/webhooks"
        here = f"http://127.0.0.1:{_port_of(runner)}/"
        try:
            made = await _register(session, base, here, environments)
            secrets.append(made["secret"])
            print(f"Receiving webhooks at {here} (Ctrl-C ends it)", flush=True)
            await stop.wait()
            await session.delete(f"{base}/{made['id']}")
        except (aiohttp.ClientError, TimeoutError) as error:
            raise StartError(
                f"No Runlane answers at {server.url} ({client.reason(error)})."
            ) from error
        finally:
            await runner.cleanup()


def verified(headers: Mapping[str, str], body: bytes, secret: str, *, now_s: float) -> bool:
    """Check a Standard Webhooks signature (standardwebhooks.com) as a receiver should."""
    try:
        timestamp_s, event_id = int(headers["webhook-timestamp"]), headers["webhook-id"]
        given = headers["webhook-signature"].split()
    except (KeyError, ValueError):
        return False
    signed = signing.sign_standard([secret], event_id=event_id, timestamp_s=timestamp_s, body=body)
    expected = signed["webhook-signature"].encode()
    fresh = abs(now_s - timestamp_s) <= TOLERANCE_S
    return fresh and any(hmac.compare_digest(expected, one.encode()) for one in given)


async def _register(
    session: aiohttp.ClientSession, base: str, here: str, environments: list[str]
) -> dict[str, str]:
    body = {"url": here, "environments": environments, "description": "runlane receive"}
    async with session.post(base, json=body) as response:
        if response.status == HTTPStatus.UNAUTHORIZED:
            raise StartError(
                "The server does not accept the key in RUNLANE_API_KEY: it is wrong, expired,"
                " revoked, or of another server."
            )
        answer: dict[str, str] = await response.json(content_type=None)
        if response.status != HTTPStatus.CREATED:
            raise StartError(f"The webhook was refused: {answer.get('detail', response.status)}")
        return answer


async def _received(request: web.Request, secrets: list[str]) -> web.Response:
    body = await request.read()
    now_s = SystemClock().now().timestamp()
    good = bool(secrets) and verified(request.headers, body, secrets[0], now_s=now_s)
    print(f"{'signature ok' if good else 'SIGNATURE WRONG'}  {_summary(body)}", flush=True)
    return web.Response(status=204 if good else 401)


def _summary(body: bytes) -> str:
    event = json.loads(body)
    run = event.get("data", {}).get("run", {})
    return f"{event['type']}  run {run.get('id', '-')}  {json.dumps(run.get('output'))}"


def _port_of(runner: web.AppRunner) -> int:
    address = runner.addresses[0]
    return int(address[1])
