"""The customer of the rig: submits runs and writes down every answer it was given."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from types import TracebackType
from typing import Any, Self

import httpx

from shared.clock import SystemClock

_TIMEOUT_S = 6.0


@dataclass(frozen=True)
class Reply:
    """What one request got; `status` 0 means no answer at all."""

    status: int
    document: dict[str, Any] = field(default_factory=dict)
    headers: httpx.Headers = field(default_factory=httpx.Headers)
    took_s: float = 0.0

    @property
    def accepted(self) -> bool:
        return 200 <= self.status < 300

    @property
    def run_id(self) -> str:
        return str(self.document["id"])


@dataclass(frozen=True)
class Cancel:
    """A cancellation and its answer; from `answered_at` on the run is known to be stopping."""

    run_id: str
    reply: Reply
    answered_at: datetime


@dataclass
class Order:
    """One thing the customer wants done once; `case` stands in the run's metadata and input."""

    case: str
    key: str | None
    replies: list[Reply] = field(default_factory=list)

    @property
    def run_ids(self) -> set[str]:
        return {reply.run_id for reply in self.replies if reply.accepted}


class Customer:
    """An async context manager; `orders` and `cancels` are its ledgers."""

    def __init__(self, key: str, slug: str) -> None:
        self.url = ""
        self.orders: dict[str, Order] = {}
        self.cancels: list[Cancel] = []
        self._slug = slug
        self._clock = SystemClock()
        self._client = httpx.AsyncClient(
            headers={"Authorization": f"Bearer {key}"},
            timeout=_TIMEOUT_S,
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=20),
            trust_env=False,
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._client.aclose()

    async def submit(
        self,
        case: str,
        model: str | None,
        *,
        key: str | None = None,
        slug: str | None = None,
        **body: Any,
    ) -> Reply:
        """Ask once; the same case again belongs to the same order."""
        order = self.orders.setdefault(case, Order(case, key))
        headers = {} if key is None else {"Idempotency-Key": key}
        document = {"inputs": {"case": case}, "metadata": {"case": case}, "model": model, **body}
        loop = asyncio.get_running_loop()
        asked_at = loop.time()
        try:
            path = f"/api/v1/prompts/{slug or self._slug}/__latest__/runs"
            response = await self._client.post(self.url + path, json=document, headers=headers)
        except httpx.TransportError:
            reply = Reply(0)
        else:
            reply = _reply(response)
        reply = replace(reply, took_s=loop.time() - asked_at)
        order.replies.append(reply)
        return reply

    async def submit_many(self, cases: Sequence[str], model: str, **body: Any) -> Sequence[str]:
        """Submit a batch that has to be accepted at once; answers the runs' ids, in order."""
        runs = [
            {
                "prompt": self._slug,
                "version": "__latest__",
                "inputs": {"case": case},
                "metadata": {"case": case},
                "model": model,
                **body,
            }
            for case in cases
        ]
        reply = await self.post("/api/v1/runs/batch", {"runs": runs})
        assert reply.accepted, reply
        for case, run in zip(cases, reply.document["runs"], strict=True):
            self.orders[case] = Order(case, None, [Reply(reply.status, run)])
        return [str(run["id"]) for run in reply.document["runs"]]

    async def accepted(self, case: str, model: str | None, **body: Any) -> str:
        """Submit what has to be accepted at once; answers the run's id."""
        reply = await self.submit(case, model, **body)
        assert reply.accepted, reply
        return reply.run_id

    async def cancel(self, run_id: str) -> Reply:
        """Ask a run to stop."""
        reply = await self.post(f"/api/v1/runs/{run_id}/cancel", {})
        self.cancels.append(Cancel(run_id, reply, self._clock.now()))
        return reply

    async def read(self, run_id: str) -> dict[str, Any]:
        """The run as the API shows it."""
        response = await self._client.get(f"{self.url}/api/v1/runs/{run_id}")
        assert response.is_success, response.text
        document: dict[str, Any] = response.json()
        return document

    async def post(self, path: str, document: dict[str, Any]) -> Reply:
        """Ask for anything else."""
        response = await self._client.post(self.url + path, json=document)
        return _reply(response)

    async def get(self, path: str) -> Reply:
        """Read anything."""
        loop = asyncio.get_running_loop()
        asked_at = loop.time()
        response = await self._client.get(self.url + path)
        return replace(_reply(response), took_s=loop.time() - asked_at)

    async def delete(self, path: str) -> None:
        """Remove something."""
        response = await self._client.delete(self.url + path)
        assert response.is_success, response.text


def _reply(response: httpx.Response) -> Reply:
    try:
        document = response.json()
    except ValueError:
        document = {"code": "no JSON", "text": response.text[:200]}
    return Reply(response.status_code, document, response.headers)
