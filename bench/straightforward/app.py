"""The straightforward program's API: `uvicorn bench.straightforward.app:app`."""

import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import UUID

from arq import create_pool
from litestar import Litestar, Request, get, post
from litestar.datastructures import State
from litestar.exceptions import NotAuthorizedException, NotFoundException
from litestar.params import FromPath, JSONBody
from pydantic import BaseModel
from sqlmodel import select

from bench.straightforward import config
from bench.straightforward.models import ApiKey, Prompt, PromptVersion, Run


class RunRequest(BaseModel):
    inputs: dict[str, str]
    priority: str = "normal"


class RunCreated(BaseModel):
    id: UUID
    status: str


class RunRead(BaseModel):
    id: UUID
    status: str
    output: str | None
    error: str | None


async def _workspace(request: Request[object, object, State]) -> UUID:
    key = request.headers.get("Authorization", "").removeprefix("Bearer ")
    async with request.app.state.sessions() as session:
        digest = hashlib.sha256(key.encode()).hexdigest()
        found = (await session.exec(select(ApiKey).where(ApiKey.key_hash == digest))).first()
    if found is None:
        raise NotAuthorizedException
    return UUID(str(found.workspace_id))


@post("/api/v1/prompts/{slug:str}/{version:str}/runs", status_code=200)
async def create_run(
    slug: FromPath[str],
    version: FromPath[str],
    data: JSONBody[RunRequest],
    request: Request[object, object, State],
) -> RunCreated:
    workspace_id = await _workspace(request)
    async with request.app.state.sessions() as session:
        statement = (
            select(PromptVersion)
            .join(Prompt)
            .where(
                Prompt.workspace_id == workspace_id,
                Prompt.slug == slug,
                PromptVersion.tag == version,
            )
        )
        found = (await session.exec(statement)).first()
        if found is None:
            raise NotFoundException
        run = Run(
            workspace_id=workspace_id,
            version_id=found.id,
            inputs=data.inputs,
            priority=data.priority,
        )
        session.add(run)
        await session.commit()
    await request.app.state.queue.enqueue_job("execute_run", str(run.id), _job_id=f"run:{run.id}")
    return RunCreated(id=run.id, status=run.status)


@get("/api/v1/runs/{run_id:uuid}")
async def read_run(run_id: FromPath[UUID], request: Request[object, object, State]) -> RunRead:
    workspace_id = await _workspace(request)
    async with request.app.state.sessions() as session:
        run = await session.get(Run, run_id)
        if run is None or run.workspace_id != workspace_id:
            raise NotFoundException
        return RunRead(id=run.id, status=run.status, output=run.output, error=run.error)


@asynccontextmanager
async def _lifespan(app: Litestar) -> AsyncIterator[None]:
    settings = config.Config()
    engine = config.engine(settings)
    app.state.sessions = config.sessions(engine)
    app.state.queue = await create_pool(config.redis_settings(settings))
    try:
        yield
    finally:
        await app.state.queue.aclose()
        await engine.dispose()


app = Litestar([create_run, read_run], lifespan=[_lifespan], openapi_config=None)
