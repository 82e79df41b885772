"""Runs through the flows door: an ordinary run, and an answer that shows all of it."""

from collections.abc import Mapping
from typing import NoReturn

import msgspec

from shared.deps import Deps
from shared.domain import flow_answers, flow_runs
from shared.domain.flow_answers import Facts, FlowAnswer
from shared.domain.flow_runs import FlowRequest
from shared.domain.prompts import PINNED
from shared.domain.states import ErrorOrigin, RunStatus
from shared.errors import (
    NotFoundError,
    RunFailedError,
    RunOverLimitError,
    RunRefusedError,
    RunStoppedError,
    RunUnfinishedError,
    UnacceptableError,
)
from shared.ids import RunId, VersionId
from shared.services import submissions
from shared.services.keys import Principal
from shared.services.submissions import Accepted, Request
from shared.store import flow_runs as stored

ANSWERED = frozenset({RunStatus.SUCCEEDED, RunStatus.INCOMPLETE})
_facts = msgspec.json.Decoder(Facts)


async def submit(
    deps: Deps,
    principal: Principal,
    body: FlowRequest,
    request: Request,
    debug_url: str | None = None,
) -> Accepted:
    """Submit a run of a flow; `request` carries the flow as its slug, the key and the time.

    Raises what a submission raises, and `ConflictError` for a flow without a pin.
    """
    flow_runs.check(body)
    wanted = msgspec.structs.replace(
        request,
        version=PINNED if body.version is None else str(body.version),
        body=flow_runs.submission_of(body, debug_url),
        flow=flow_runs.part_of(body),
    )
    return await submit_as(deps, principal, wanted, flow_runs.POINTERS)


async def submit_as(
    deps: Deps, principal: Principal, wanted: Request, pointers: Mapping[str, str]
) -> Accepted:
    """Submit for a request in other words; refusals point at what `pointers` say stands there."""
    try:
        return await submissions.submit(
            deps, principal, msgspec.structs.replace(wanted, says_402=True)
        )
    except UnacceptableError as error:
        raise flow_runs.pointed(error, pointers) from error


async def answer(deps: Deps, principal: Principal, run_id: RunId) -> FlowAnswer:
    """The whole run that has an answer. Raises what it came to where there is none."""
    facts = await find(deps, principal, run_id)
    demand_answer(facts)
    return await _shown(deps, facts)


async def read(deps: Deps, principal: Principal, flow: str, run_id: RunId) -> FlowAnswer:
    """A run of a flow as it is now. Raises `NotFoundError`."""
    found = await stored.facts_of_flow(
        deps.store, principal.workspace_id, flow, run_id, principal.environment_ids
    )
    if found is None:
        raise NotFoundError
    return await _shown(deps, _facts.decode(found))


async def find(deps: Deps, principal: Principal, run_id: RunId) -> Facts:
    """What the store knows of a run. Raises `NotFoundError`.

    Those who ask while others are being answered are answered together.
    """
    found = await deps.facts.submit(run_id)
    if (
        found is None
        or found.workspace_id != principal.workspace_id
        or not principal.reaches(found.environment_id)
    ):
        raise NotFoundError
    return _facts.decode(found.text)


def demand_answer(facts: Facts) -> None:
    """Raise the error that stands for a run without an answer."""
    if not facts.done:
        raise RunUnfinishedError(str(facts.id))
    if facts.status not in ANSWERED:
        _raise(facts)


async def _shown(deps: Deps, facts: Facts) -> FlowAnswer:
    entrypoint = None if facts.flow is None else facts.flow.entrypoint
    compiled = await deps.compiled(VersionId(facts.version_id), entrypoint=entrypoint)
    return flow_answers.answer(facts, compiled)


def _raise(facts: Facts) -> NoReturn:
    """Who has to act decides on the status: the caller, the clock, or those behind us."""
    run_id, error = str(facts.id), facts.error
    if facts.status != RunStatus.FAILED or error is None:
        raise RunStoppedError(run_id, f"The run {run_id} was {facts.status.value}.")
    detail = f"The run {run_id} failed, {error.code}: {error.message}"
    if error.code == RunOverLimitError.code:
        raise RunOverLimitError(run_id, detail, error)
    kinds = {
        ErrorOrigin.CALLER: RunRefusedError,
        ErrorOrigin.TEMPLATE: RunRefusedError,
        ErrorOrigin.POLICY: RunStoppedError,
    }
    kind = kinds.get(ErrorOrigin(error.origin), RunFailedError) if error.origin else RunFailedError
    raise kind(run_id, detail, error)
