"""Running a run again: a new run with what the old one was asked for."""

from typing import Literal

import msgspec

from shared.deps import Deps
from shared.domain import credits as money
from shared.domain.completions import RunParams
from shared.domain.flow_runs import read_part
from shared.domain.states import Lane, UnknownOutcome
from shared.domain.submissions import Submission
from shared.errors import ConflictError, NotFoundError
from shared.ids import RunId
from shared.services import submissions
from shared.services.keys import Principal
from shared.services.submissions import Accepted, Request
from shared.store import reading
from shared.store.reading import ToReplay


class Replay(msgspec.Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    """The body: the very version of old, or what its tag or pin (else the latest) is now.

    `envVars` have to be given again: the old run's were erased when it ended.
    """

    version: Literal["same", "current"] | None = None
    env_vars: dict[str, str] | None = None


async def replay(
    deps: Deps, principal: Principal, run_id: RunId, wanted: Replay, request: Request
) -> Accepted:
    """Submit a run again, on no thread; `request` carries the key and the time of the HTTP request.

    Raises `NotFoundError` for an unknown run or a deleted prompt, `ConflictError` for one whose
    inputs are erased, and what a submission raises.
    """
    old = await reading.to_replay(
        deps.store, principal.workspace_id, run_id, principal.environment_ids
    )
    if old is None:
        raise NotFoundError
    if old.erased:
        raise ConflictError(
            "The inputs of this run are erased: it cannot be run again.", code="contents_erased"
        )
    current = old.tag or submissions.LATEST
    return await submissions.submit(
        deps,
        principal,
        msgspec.structs.replace(
            request,
            slug=old.slug,
            version=current if wanted.version == "current" else old.version_id,
            body=_submission(old, wanted),
            replayed_from=run_id,
            flow=None if old.flow is None else read_part(old.flow),
        ),
    )


def _submission(old: ToReplay, wanted: Replay) -> Submission:
    """What was asked for then."""
    return Submission(
        inputs=msgspec.json.decode(old.inputs, type=dict[str, str]),
        priority=Lane(old.priority),
        environment=old.environment,
        env_vars=wanted.env_vars,
        metadata=msgspec.json.decode(old.metadata, type=dict[str, str | list[str]]),
        channel=old.channel,
        model=old.model,
        params=None if old.params is None else msgspec.json.decode(old.params, type=RunParams),
        tags=old.tags,
        max_duration=old.max_duration_s,
        max_attempts=old.max_attempts,
        on_unknown_outcome=UnknownOutcome(old.on_unknown_outcome),
        max_request_cost_credits=money.credits_of(old.max_nanousd),
    )
