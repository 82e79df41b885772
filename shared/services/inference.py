"""Calling a model directly: a run like any other, of a prompt that nobody sees."""

from uuid import UUID, uuid5

import msgspec

from shared.deps import Deps
from shared.domain import flow_runs as rules
from shared.domain import inference, versions
from shared.domain.inference import InferenceAnswer, InferenceRequest
from shared.ids import RunId, VersionId, WorkspaceId
from shared.services import flow_runs, targets
from shared.services.keys import Principal
from shared.services.submissions import Accepted, Request
from shared.services.targets import Located
from shared.store import inference as stored

PLACE = "/inference"
"""Stands where a slug would in what is remembered of a workspace; no slug looks like it."""


async def submit(
    deps: Deps,
    principal: Principal,
    body: InferenceRequest,
    request: Request,
    debug_url: str | None = None,
) -> Accepted:
    """Submit a direct call. Raises what a submission raises."""
    inference.check(body)
    asked = inference.flow_request(body)
    rules.check(asked)
    wanted = msgspec.structs.replace(
        request,
        slug=PLACE,
        body=inference.submission_of(body, debug_url),
        flow=rules.part_of(asked),
        locate=locate,
    )
    return await flow_runs.submit_as(deps, principal, wanted, inference.POINTERS)


async def answer(deps: Deps, principal: Principal, run_id: RunId) -> InferenceAnswer:
    """The answer of a run that has one; raises what it came to where there is none."""
    facts = await flow_runs.find(deps, principal, run_id)
    flow_runs.demand_answer(facts)
    compiled = await deps.compiled(VersionId(facts.version_id))
    return inference.answer(facts, compiled)


async def locate(deps: Deps, workspace_id: WorkspaceId, environment: str | None) -> Located:
    """The version that says nothing of its own; made where a workspace has none yet.

    Raises `UnacceptableError` for an unknown environment.
    """
    names = (_prompt_id(workspace_id), _version_id(workspace_id))
    found = await stored.resolve(deps.store, workspace_id, names, environment)
    if found.version_id is None:
        body = versions.to_json(inference.VERSION).decode()
        await stored.make(deps.store, workspace_id, names, (inference.SLUG, body))
        found = await stored.resolve(deps.store, workspace_id, names, environment)
    if found.environment_id is None:
        raise targets.unknown_environment(environment)
    return msgspec.convert(found, Located, from_attributes=True)


def _prompt_id(workspace_id: WorkspaceId) -> UUID:
    """Always the same one of a workspace, so that two processes make one prompt."""
    return uuid5(workspace_id, inference.SLUG)


def _version_id(workspace_id: WorkspaceId) -> UUID:
    return uuid5(_prompt_id(workspace_id), "1")
