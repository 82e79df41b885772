"""The receiver of webhooks: a loopback server that keeps everything it was ever sent."""

import asyncio
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Self

import msgspec
from aiohttp import web
from standardwebhooks import Webhook, WebhookVerificationError

from shared.clock import SystemClock


@dataclass(frozen=True)
class Hook:
    """One delivery as it came in. `status` is what it was answered with."""

    endpoint: str
    id: str
    timestamp: str
    signature: str
    body: bytes
    received_at: datetime
    verified: bool
    status: int

    def verifies(self, secret: str) -> bool:
        """Whether this secret is one of those that signed it."""
        headers = {
            "webhook-id": self.id,
            "webhook-timestamp": self.timestamp,
            "webhook-signature": self.signature,
        }
        return _verified(secret, self.body, headers)

    @property
    def document(self) -> dict[str, Any]:
        return msgspec.json.decode(self.body, type=dict[str, Any])

    @property
    def run_id(self) -> str:
        return str(self.document["data"]["run"]["id"])


class Receiver:
    """An async context manager.

    By the path's name: `secrets` verify, `redirects` go along with every answer; who is `hanging`
    is not answered.
    """

    def __init__(self) -> None:
        self.ledger: list[Hook] = []
        self.secrets: dict[str, str] = {}
        self.hanging: set[str] = set()
        self.redirects: dict[str, str] = {}
        self._answers: dict[str, deque[int]] = {}
        self._never = asyncio.Event()
        self._clock = SystemClock()
        app = web.Application()
        app.router.add_post("/hooks/{name}", self._take)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)

    async def __aenter__(self) -> Self:
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        return self

    async def __aexit__(self, *_: object) -> None:
        self._never.set()
        await self._runner.cleanup()

    @property
    def port(self) -> int:
        return int(self._runner.addresses[0][1])

    def script(self, name: str, statuses: list[int]) -> None:
        """Let the endpoint's next deliveries get these; afterwards all get 200."""
        self._answers[name] = deque(statuses)

    def forget(self) -> None:
        """Begin anew: everybody answers 200 again."""
        self.ledger.clear()
        self.hanging.clear()
        self.redirects.clear()
        self._answers.clear()

    def hooks_of(self, run_id: str) -> list[Hook]:
        return [hook for hook in self.ledger if hook.run_id == run_id]

    async def _take(self, request: web.Request) -> web.StreamResponse:
        name = request.match_info["name"]
        body = await request.read()
        script = self._answers.get(name)
        status = script.popleft() if script else 200
        headers = {key.lower(): value for key, value in request.headers.items()}
        self.ledger.append(
            Hook(
                endpoint=name,
                id=headers.get("webhook-id", ""),
                timestamp=headers.get("webhook-timestamp", ""),
                signature=headers.get("webhook-signature", ""),
                body=body,
                received_at=self._clock.now(),
                verified=_verified(self.secrets.get(name, ""), body, headers),
                status=status,
            )
        )
        if name in self.hanging:
            await self._never.wait()
        elsewhere = self.redirects.get(name)
        return web.Response(status=status, headers={"Location": elsewhere} if elsewhere else None)


def _verified(secret: str, body: bytes, headers: Mapping[str, str]) -> bool:
    try:
        Webhook(secret).verify(body, dict(headers))
    except WebhookVerificationError:
        return False
    return True
