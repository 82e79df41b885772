"""Accepting runs: resolve the prompt, store the run, then tell the workers."""

import asyncio
import dataclasses
import hashlib
from base64 import b64encode
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import Any
from uuid import UUID

import msgspec
import psycopg

from shared import crashpoints, metrics
from shared.clock import rfc3339
from shared.deps import Deps, Target
from shared.domain import credits as money
from shared.domain import submissions, versions
from shared.domain.aliases import Aliases
from shared.domain.flow_runs import FlowPart
from shared.domain.states import READS_HISTORY, Lane, Memory
from shared.domain.submissions import Submission
from shared.domain.versions import CompiledVersion
from shared.errors import (
    ConflictError,
    CreditsExhaustedError,
    Flaw,
    NotFoundError,
    OutcomeUnknownError,
    QuotaExceededError,
    UnacceptableError,
    UnavailableError,
)
from shared.ids import RunId, WorkspaceId, new_id
from shared.queue.port import Ring
from shared.services import backlogs, billing, rings, routes, targets
from shared.services.keys import Principal
from shared.services.targets import Located
from shared.store import aliases, database, submitting
from shared.store.submitting import Existing, NewRun, Stale, Stored, Taken
from shared.vault import VaultError

LATEST = "__latest__"
REFUSED = (
    UnacceptableError,
    NotFoundError,
    ConflictError,
    QuotaExceededError,
    CreditsExhaustedError,
)
OPERATION = "runs.submit"
STALE_TRIES = 5
MAX_SPELLINGS = 5_000  # of prompts, versions and environments that one workspace uses

Wanted = tuple[str, str, str | None]  # a slug, and the names of a version and an environment
Locate = Callable[[Deps, WorkspaceId, str | None], Awaitable[Located]]


class Request(msgspec.Struct, frozen=True):
    """A submission and what its HTTP request says about it. `fingerprint` goes with the key.

    `ends_at` is the monotonic second by which the caller has to be told. `stores` is called with
    the run's id just before it may come to exist. `says_402` is for the flows door, where nothing
    left to spend is another error than at the others. `flow` is what that door adds; it takes
    missing inputs. `locate` finds what no slug leads to.
    """

    slug: str
    version: str
    body: Submission
    ends_at: float
    idempotency_key: str | None = None
    fingerprint: bytes | None = None
    traceparent: str | None = None
    replayed_from: RunId | None = None
    flow: FlowPart | None = None
    locate: Locate | None = None
    stores: Callable[[str], None] | None = None
    says_402: bool = False


class Accepted(msgspec.Struct, frozen=True):
    """A run that is stored. `replayed` when an earlier request with the same key made it."""

    id: RunId
    thread: UUID
    status: str
    replayed: bool = False


async def submit(deps: Deps, principal: Principal, request: Request) -> Accepted:
    """Record a run, then tell the workers.

    The ring goes out after the commit: a worker must never look for a row that is not there yet.
    Raises `NotFoundError`, `UnacceptableError`, `ForbiddenError`, `ConflictError`,
    `UnavailableError` when certainly nothing was stored, `OutcomeUnknownError` otherwise.
    """
    chosen = (new_id(), request.body.thread or new_id())
    for tries in range(STALE_TRIES):
        new = await _prepared_or_made(deps, principal, request, chosen)
        if isinstance(new, Accepted):
            return new
        if tries:
            new = msgspec.structs.replace(new, again=True)
        if request.stores is not None:
            request.stores(new.id)
        try:
            stored = await _store(deps, new, request.ends_at)
        finally:
            backlogs.entered(deps, [new])
        if isinstance(stored, Stored):
            metrics.SUBMITTED.add(new.priority)
            crashpoints.reach("after_commit")
            if stored.status == "queued":
                lane = Lane(new.priority)
                await rings.ring(deps, Ring(stored.run_id, lane))
            crashpoints.reach("after_notify")
            return Accepted(stored.run_id, stored.thread_id, stored.status)
        if isinstance(stored, Taken):
            return await _before(request.ends_at, _existing(deps, principal, request, new), new.id)
        deps.targets.discard(principal.workspace_id)
    raise UnavailableError("The workspace's prompts keep changing; try again.")


async def _prepared_or_made(
    deps: Deps, principal: Principal, request: Request, chosen: tuple[UUID, UUID]
) -> NewRun | Accepted:
    """The row to insert; or, where the request would be refused today, the run its key made.

    A row has entered the backlog: `backlogs.entered` has to follow, whatever becomes of it.
    """
    try:
        submissions.check(request.body, now=deps.clock.now())
        with database.nothing_written():
            new = await prepare(deps, principal, request, chosen)
            if asyncio.get_running_loop().time() < request.ends_at:
                await backlogs.enter(deps, [new])
                return new
    except REFUSED:
        with database.nothing_written():
            earlier = await _made_before(deps, principal, request)
        if earlier is None:
            raise
        return earlier
    # Whoever asked has been told, or is about to be, that nothing was stored.
    raise UnavailableError("The database is too slow; nothing was stored.")


async def prepare(
    deps: Deps, principal: Principal, request: Request, chosen: tuple[UUID, UUID]
) -> NewRun:
    """Make the row of a checked submission; `chosen` are the ids of the run and its thread.

    Raises `NotFoundError`, `UnacceptableError`, `ForbiddenError`, `ConflictError`, and
    `QuotaExceededError` or `CreditsExhaustedError` where nothing is left to spend.
    """
    wanted = (request.slug, request.version, request.body.environment)
    target = await resolve(deps, principal.workspace_id, *wanted, locate=request.locate)
    targets.demand_reach(principal, target.environment_id)
    if request.flow is None:
        _check_inputs(target.compiled, request.body.inputs)
    elif request.flow.entrypoint is not None:
        compiled = await deps.compiled(target.version_id, entrypoint=request.flow.entrypoint)
        target = dataclasses.replace(target, compiled=compiled)
    if target.accounted:
        await billing.demand_room(deps, principal, target.environment_id, says_402=request.says_402)
    return _new_run(deps, principal, request, target, chosen)


async def resolve(
    deps: Deps,
    workspace_id: WorkspaceId,
    slug: str,
    version: str,
    environment: str | None,
    *,
    locate: Locate | None = None,
) -> Target:
    """Find a published version and an environment; a stale answer is noticed at the insert.

    Raises `NotFoundError` for the prompt or version, `UnacceptableError` for the environment.
    """
    known = deps.targets.get(workspace_id)
    wanted = (slug, version, environment)
    if known is not None and wanted in known:
        return known[wanted]
    return await deps.resolving.get(
        (workspace_id, *wanted), lambda: _resolve(deps, workspace_id, wanted, locate)
    )


async def _resolve(
    deps: Deps, workspace_id: WorkspaceId, wanted: Wanted, locate: Locate | None
) -> Target:
    if locate is None:
        found = await targets.locate(deps, workspace_id, *wanted)
    else:
        found = await locate(deps, workspace_id, wanted[-1])
    compiled = await deps.compiled(found.version_id, found.body)
    known = deps.targets.get(workspace_id)
    target = Target(
        catalog_version=found.catalog_version,
        prompt_id=found.prompt_id,
        version_id=found.version_id,
        tag=found.tag,
        environment_id=found.environment_id,
        max_queued_runs=found.max_queued_runs,
        compiled=compiled,
        aliases=_aliases(known, found),
        accounted=found.accounted,
    )
    if known is None or any(t.catalog_version != target.catalog_version for t in known.values()):
        known = {}
        deps.targets.put(workspace_id, known)
    if len(known) >= MAX_SPELLINGS:
        known.clear()
    known[wanted] = target
    return target


def _aliases(known: Mapping[Any, Target] | None, found: Located) -> Aliases:
    """The workspace's aliases, once for all that is remembered of it."""
    first = next(iter(known.values()), None) if known else None
    if first is not None and first.catalog_version == found.catalog_version:
        return first.aliases
    return aliases.read(found.aliases)


def _check_inputs(compiled: CompiledVersion, inputs: Mapping[str, str]) -> None:
    missing = versions.missing(compiled, inputs)
    if missing:
        raise UnacceptableError(
            f"Inputs are missing: {', '.join(missing)}.",
            code="missing_inputs",
            flaws=[Flaw(f"/inputs/{name}", "This input is needed.") for name in missing],
        )


def _new_run(
    deps: Deps, principal: Principal, request: Request, target: Target, ids: tuple[UUID, UUID]
) -> NewRun:
    body, settings, (run_id, thread_id) = request.body, deps.settings, ids
    template = target.compiled.settings
    run_at = submissions.start_of(body)
    route = routes.choose(deps, principal.workspace_id, template, body, target.aliases)
    return NewRun(
        id=str(run_id),
        workspace_id=str(principal.workspace_id),
        catalog_version=target.catalog_version,
        environment_id=str(target.environment_id),
        prompt_id=str(target.prompt_id),
        version_id=str(target.version_id),
        key_id=str(principal.key_id),
        priority=(body.priority or Lane.NORMAL).value,
        expires_in_s=body.expires_in or settings.expires_in_s,
        max_duration_s=body.max_duration or settings.max_duration_s,
        max_attempts=body.max_attempts or settings.max_attempts,
        on_unknown_outcome=(body.on_unknown_outcome or "retry"),
        thread_id=str(thread_id),
        channel=body.channel or submissions.DEFAULT_CHANNEL,
        inputs=msgspec.json.encode(body.inputs).decode(),
        metadata=msgspec.json.encode(body.metadata or {}).decode(),
        tags=tuple(body.tags or ()),
        model=route.models[0],
        models=route.models if route.by_alias else None,
        model_overridden=body.model is not None,
        thread_given=body.thread is not None,
        turns=template.memory != Memory.STATELESS,
        history_read=template.memory in READS_HISTORY,
        tag=target.tag,
        params=None if body.params is None else msgspec.json.encode(body.params).decode(),
        flow=None if request.flow is None else msgspec.json.encode(request.flow).decode(),
        env_vars=_seal_variables(deps, body.env_vars, principal.workspace_id, run_id),
        traceparent=request.traceparent,
        run_at=None if run_at is None else rfc3339(run_at),
        deadline=None if body.deadline is None else rfc3339(body.deadline),
        replayed_from=None if request.replayed_from is None else str(request.replayed_from),
        operation=None if request.idempotency_key is None else OPERATION,
        idempotency_key=request.idempotency_key,
        fingerprint=None if request.fingerprint is None else request.fingerprint.hex(),
        key_kept_s=settings.idempotency_days * 86_400,
        max_queued_runs=backlogs.cap(settings, target.max_queued_runs),
        max_nanousd=money.nanousd_of(body.max_request_cost_credits),
    )


def _seal_variables(
    deps: Deps, variables: Mapping[str, str] | None, workspace_id: UUID, run_id: UUID
) -> str | None:
    if not variables:
        return None
    try:
        sealed = deps.vault.seal(
            msgspec.json.encode(variables), "runs", "env_vars", run_id, workspace_id
        )
    except VaultError as error:
        raise ConflictError(
            "This server has no master key, so it cannot keep envVars. Set MASTER_KEY.",
            code="no_master_key",
        ) from error
    return b64encode(sealed).decode()


async def _store(deps: Deps, new: NewRun, ends_at: float) -> Stored | Stale | Taken:
    """Insert through the batcher; after a lost connection insert again under the same id."""
    uncertain = False
    while True:
        outcome = deps.submissions.enqueue(new)
        try:
            async with asyncio.timeout_at(ends_at):
                return await asyncio.shield(outcome)
        except TimeoutError as error:
            if deps.submissions.withdraw(outcome) and not uncertain:
                raise UnavailableError("The database is too slow; nothing was stored.") from error
            raise OutcomeUnknownError(new.id) from error
        except psycopg.Error as error:
            keyed = new.idempotency_key is not None
            uncertain = is_uncertain(error, before=uncertain, keyed=keyed)
        new = msgspec.structs.replace(new, again=True)
        await asyncio.sleep(min(0.1, max(ends_at - asyncio.get_running_loop().time(), 0)))


def is_uncertain(error: psycopg.Error, *, before: bool, keyed: bool) -> bool:
    """Whether, after this error, it is unknown if an insert was carried out: then insert again.

    Raises what the caller is told where it is known: that nothing was stored, or that it failed.
    """
    if isinstance(error, psycopg.errors.LockNotAvailable) and keyed and not before:
        raise key_in_use() from error
    if database.lost(error):
        return True
    if not database.refused(error):
        raise error
    if not before:
        raise UnavailableError("The database is away; nothing was stored.") from error
    return True


async def _existing(deps: Deps, principal: Principal, request: Request, new: NewRun) -> Accepted:
    """Answer for a run that is there already: our own lost commit, or the key's first request."""
    own = await submitting.find_by_id(deps.store, principal.workspace_id, RunId(UUID(new.id)))
    if own is not None:
        metrics.SUBMITTED.add(new.priority)
        await rings.ring(deps, Ring(own.run_id, Lane(new.priority)))
        return Accepted(own.run_id, own.thread_id, own.status)
    made = await _made_before(deps, principal, request)
    if made is None:
        raise key_in_use()
    return made


async def _made_before(deps: Deps, principal: Principal, request: Request) -> Accepted | None:
    """The run that the request's key made.

    Its answer stays what it was when the request would be refused today: its deadline has passed,
    its prompt is gone.
    """
    key = request.idempotency_key
    if key is None:
        return None
    made = await submitting.find_by_keys(deps.store, principal.workspace_id, OPERATION, [key])
    return replayed(principal, made[key], request.fingerprint) if key in made else None


def replayed(principal: Principal, found: Existing, fingerprint: bytes | None) -> Accepted:
    """The run that a key made. Raises `UnacceptableError` if the request is not the same."""
    targets.demand_reach(principal, found.environment_id)
    if found.fingerprint != fingerprint:
        raise UnacceptableError(
            "This Idempotency-Key was used with another request.", code="idempotency_key_reused"
        )
    return Accepted(found.run_id, found.thread_id, found.status, replayed=True)


def key_in_use() -> ConflictError:
    """Another request holds the key right now."""
    return ConflictError(
        "A request with the same Idempotency-Key is under way; try again.",
        code="idempotency_key_in_use",
        headers={"Retry-After": "1"},
    )


async def _before(ends_at: float, work: Coroutine[None, None, Accepted], run_id: str) -> Accepted:
    """Wait for work until the request has to be answered, then leave it to end by itself."""
    task = asyncio.create_task(work)
    done, _ = await asyncio.wait({task}, timeout=ends_at - asyncio.get_running_loop().time())
    if not done:
        raise OutcomeUnknownError(run_id)
    try:
        return task.result()
    except psycopg.Error as error:
        raise OutcomeUnknownError(run_id) from error


def fingerprint(method: str, path: str, body: object) -> bytes:
    """SHA-256 over method, concrete path and the body in canonical form (sorted keys)."""
    canonical = msgspec.json.encode(body, order="sorted")
    return hashlib.sha256(f"{method} {path}\n".encode() + canonical).digest()
