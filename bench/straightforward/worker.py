"""The straightforward program's worker: `arq bench.straightforward.worker.WorkerSettings`."""

import hashlib
import hmac
import json
from typing import Any, ClassVar
from uuid import UUID

import httpx
from openai import AsyncOpenAI, OpenAIError
from sqlmodel import select

from bench.straightforward import config
from bench.straightforward.models import PromptVersion, Run, WebhookDelivery, WebhookEndpoint
from shared.clock import SystemClock

_clock = SystemClock()


async def execute_run(ctx: dict[str, Any], run_id: str) -> None:
    """Run one prompt and tell its workspace; each step has a session of its own."""
    sessions: config.Sessions = ctx["sessions"]
    async with sessions() as session:
        run = await session.get_one(Run, UUID(run_id))
        version = await session.get_one(PromptVersion, run.version_id)
        run.status = "running"
        run.started_at = _clock.now()
        await session.commit()

    text = version.user_message
    for name, value in run.inputs.items():
        text = text.replace("{{ " + name + " }}", value)
    try:
        completion = await ctx["openai"].chat.completions.create(
            model=version.model,
            messages=[
                {"role": "system", "content": version.system_instruction},
                {"role": "user", "content": text},
            ],
        )
    except OpenAIError as error:
        await _finish(sessions, run.id, {"status": "failed", "error": str(error)})
    else:
        await _finish(
            sessions,
            run.id,
            {
                "status": "succeeded",
                "output": completion.choices[0].message.content,
                "input_tokens": completion.usage.prompt_tokens,
                "output_tokens": completion.usage.completion_tokens,
            },
        )
    await _notify(ctx, sessions, run.id)


async def _finish(sessions: config.Sessions, run_id: UUID, changes: dict[str, Any]) -> None:
    async with sessions() as session:
        run = await session.get_one(Run, run_id)
        for name, value in changes.items():
            setattr(run, name, value)
        run.finished_at = _clock.now()
        await session.commit()


async def _notify(ctx: dict[str, Any], sessions: config.Sessions, run_id: UUID) -> None:
    async with sessions() as session:
        run = await session.get_one(Run, run_id)
        statement = select(WebhookEndpoint).where(WebhookEndpoint.workspace_id == run.workspace_id)
        endpoints = (await session.exec(statement)).all()
        deliveries = [
            WebhookDelivery(endpoint_id=endpoint.id, run_id=run.id) for endpoint in endpoints
        ]
        session.add_all(deliveries)
        await session.commit()
    for endpoint, delivery in zip(endpoints, deliveries, strict=True):
        body = json.dumps({"id": str(run.id), "status": run.status, "output": run.output}).encode()
        signature = hmac.new(endpoint.secret.encode(), body, hashlib.sha256).hexdigest()
        headers = {"content-type": "application/json", "x-signature": signature}
        response = await ctx["http"].post(endpoint.url, content=body, headers=headers)
        async with sessions() as session:
            sent = await session.get_one(WebhookDelivery, delivery.id)
            sent.status = "delivered" if response.is_success else "failed"
            sent.status_code = response.status_code
            await session.commit()


async def startup(ctx: dict[str, Any]) -> None:
    ctx["engine"] = config.engine(config.Config())
    ctx["sessions"] = config.sessions(ctx["engine"])
    ctx["openai"] = AsyncOpenAI()
    ctx["http"] = httpx.AsyncClient(timeout=15)


async def shutdown(ctx: dict[str, Any]) -> None:
    await ctx["http"].aclose()
    await ctx["openai"].close()
    await ctx["engine"].dispose()


class WorkerSettings:
    """Read by the `arq` command."""

    functions: ClassVar = [execute_run]
    on_startup = startup
    on_shutdown = shutdown
    redis_settings = config.redis_settings(config.Config())
    max_jobs = 1000
