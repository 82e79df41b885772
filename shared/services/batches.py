"""Many submissions in one request: all of them, or none."""

import asyncio
from collections.abc import Mapping, Sequence
from uuid import UUID

import psycopg

from shared import metrics
from shared.deps import Deps
from shared.domain import submissions as rules
from shared.domain.states import Lane
from shared.errors import (
    AppError,
    Flaw,
    OutcomeUnknownError,
    UnacceptableError,
)
from shared.ids import RunId, new_id
from shared.queue.port import Ring
from shared.services import backlogs, rings, submissions
from shared.services.keys import Principal
from shared.services.submissions import Accepted, Request
from shared.store import submitting
from shared.store.submitting import Existing, NewRun, Stale, Stored, Taken

AGAIN_S = 0.1


async def submit(deps: Deps, principal: Principal, requests: Sequence[Request]) -> list[Accepted]:
    """Record all runs in one transaction, then ring them; answers in the order asked.

    Items with an idempotency key that made a run before are answered with that run. Raises what a
    single submission raises; flaws point into `/runs/<place>`.
    """
    _check_keys(requests)
    chosen = [(new_id(), request.body.thread or new_id()) for request in requests]
    for _ in range(submissions.STALE_TRIES):
        done = await _replays(deps, principal, requests)
        fresh = [place for place in range(len(requests)) if place not in done]
        rows = [await _row(deps, principal, requests[i], chosen[i], i) for i in fresh]
        await backlogs.enter(deps, rows)
        try:
            answers = await _store(deps, principal, rows, requests[0].ends_at)
        finally:
            backlogs.entered(deps, rows)
        if answers is not None:
            made = dict(zip(fresh, answers, strict=True))
            for row in rows:
                metrics.SUBMITTED.add(row.priority)
            await _ring(deps, rows, answers)
            return [done.get(i) or made[i] for i in range(len(requests))]
        deps.targets.discard(principal.workspace_id)
    raise submissions.key_in_use()


def _check_keys(requests: Sequence[Request]) -> None:
    seen: set[str] = set()
    for place, request in enumerate(requests):
        key = request.idempotency_key
        if key is not None and key in seen:
            message = "This key stands twice in the batch."
            raise UnacceptableError(message, flaws=[Flaw(f"/runs/{place}/idempotencyKey", message)])
        if key is not None:
            seen.add(key)


async def _replays(
    deps: Deps, principal: Principal, requests: Sequence[Request]
) -> Mapping[int, Accepted]:
    keys = [r.idempotency_key for r in requests if r.idempotency_key is not None]
    if not keys:
        return {}
    found = await submitting.find_by_keys(
        deps.store, principal.workspace_id, submissions.OPERATION, keys
    )
    answers: dict[int, Accepted] = {}
    for place, request in enumerate(requests):
        existing: Existing | None = found.get(request.idempotency_key or "")
        if existing is not None:
            try:
                answers[place] = submissions.replayed(principal, existing, request.fingerprint)
            except AppError as error:
                raise _at(place, error) from error
    return answers


async def _row(
    deps: Deps, principal: Principal, request: Request, chosen: tuple[UUID, UUID], place: int
) -> NewRun:
    try:
        rules.check(request.body, now=deps.clock.now())
        return await submissions.prepare(deps, principal, request, chosen)
    except AppError as error:
        raise _at(place, error) from error


async def _store(
    deps: Deps, principal: Principal, rows: Sequence[NewRun], ends_at: float
) -> list[Accepted] | None:
    """Insert all or nothing, again under the same ids after a lost connection.

    `None` when something changed meanwhile and all has to be looked at again.
    """
    if not rows:
        return []
    first = RunId(UUID(rows[0].id))
    uncertain = False
    while asyncio.get_running_loop().time() < ends_at:
        try:
            if uncertain and await submitting.find_by_id(deps.store, principal.workspace_id, first):
                return [Accepted(RunId(UUID(r.id)), UUID(r.thread_id), "queued") for r in rows]
            answers = await submitting.insert_all(deps.store, rows)
        except psycopg.Error as error:
            keyed = any(row.idempotency_key is not None for row in rows)
            uncertain = submissions.is_uncertain(error, before=uncertain, keyed=keyed)
            await asyncio.sleep(AGAIN_S)
        else:
            return _accepted(answers)
    raise OutcomeUnknownError(str(first))


def _accepted(answers: Sequence[Stored | Stale | Taken]) -> list[Accepted] | None:
    stored = [answer for answer in answers if isinstance(answer, Stored)]
    if len(stored) < len(answers):
        return None
    return [Accepted(one.run_id, one.thread_id, one.status) for one in stored]


async def _ring(deps: Deps, rows: Sequence[NewRun], made: Sequence[Accepted]) -> None:
    now = [
        Ring(one.id, Lane(row.priority))
        for row, one in zip(rows, made, strict=True)
        if one.status == "queued"
    ]
    await rings.ring_many(deps, now)


def _at(place: int, error: AppError) -> AppError:
    """Say where in the batch it went wrong."""
    flaws = [Flaw(f"/runs/{place}{flaw.pointer}", flaw.message) for flaw in error.flaws]
    flaws = flaws or [Flaw(f"/runs/{place}", error.detail)]
    kind = type(error) if error.status in {403, 409, 422} else UnacceptableError
    return kind(f"runs[{place}]: {error.detail}", flaws=flaws, code=error.code)
