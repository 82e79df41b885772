"""Carrying one run from its claim to its end: render, announce the call, call, settle."""

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TypeVar
from uuid import UUID

import msgspec
import psycopg
from msgspec import Raw

from shared import crashpoints, log
from shared.batching import Batcher
from shared.deps import Deps, Recent
from shared.domain import models, versions
from shared.domain.completions import (
    Completion,
    CompletionRequest,
    Message,
    ModelParams,
    ProviderError,
)
from shared.domain.states import ErrorOrigin, Lane, Memory, RunStatus
from shared.domain.templates import TemplateError
from shared.domain.versions import CompiledVersion
from shared.ids import RunId
from shared.queue.port import Ring
from shared.services import rings
from shared.store import claiming, database, ending, reading
from shared.store.claiming import ClaimedRun, Intent, Later, Refusal
from shared.store.ending import DueDelivery, Moved, Outcome
from shared.vault import VaultError
from worker import outcomes
from worker.breaker import Breakers
from worker.lanes import Taken
from worker.providers.base import Provider
from worker.providers.prices import PriceBook
from worker.providers.registry import Providers
from worker.running import Stop, stop_reason
from worker.session import Session

Result = TypeVar("Result")

_log = log.get(__name__)
_AGAIN_S, _AGAIN_MAX_S = 0.1, 2.0
_inputs = msgspec.json.Decoder(dict[str, str])
_params = msgspec.json.Decoder(ModelParams)
_messages = msgspec.json.Decoder(tuple[Message, ...])


class _Call(msgspec.Struct):
    """How far a run has come, for whoever has to stop it."""

    intent: "asyncio.Future[int | Refusal] | None" = None
    sent: bool = False


class _Plan(msgspec.Struct, frozen=True):
    """Everything a call needs."""

    provider: Provider
    model: models.ModelName
    messages: tuple[Message, ...]
    own: tuple[Message, ...]
    params: ModelParams
    template: versions.TemplateBody
    api_key: str

    @property
    def circuit(self) -> tuple[str, str, str]:
        digest = hashlib.sha256(self.api_key.encode()).hexdigest()[:16]
        return (self.model.provider, digest, self.model.model)


class _GiveUpError(Exception):
    """The run cannot be called at all; `args` are code, message, origin."""


class Executor:
    """The claim loop's handler: what a claimed id becomes."""

    def __init__(
        self,
        deps: Deps,
        session: Session,
        providers: Providers,
        prices: PriceBook,
        deliver: Callable[[DueDelivery], None],
    ) -> None:
        self._deps = deps
        self._session = session
        self._providers = providers
        self._prices = prices
        self._deliver = deliver
        self._breakers = Breakers(deps.settings, deps.clock)
        self._variables: Recent[UUID, tuple[int, Mapping[str, bytes]]] = Recent(1_000)
        self._intents: Batcher[Intent, int | Refusal] = Batcher(
            lambda batch: claiming.intend(deps.store, batch),
            size_of=lambda intent: len(bytes(intent.messages or b"")),
            connection_lost=database.lost,
        )
        self._outcomes: Batcher[Outcome, Moved] = Batcher(
            lambda batch: ending.settle(deps.store, batch, lease_s=deps.settings.webhook_lease_s),
            size_of=lambda outcome: 2 * len(outcome.output or "") + 1024,
            connection_lost=database.lost,
        )

    def may_start(self) -> bool:
        return self._session.may_start()

    async def take(self, ids: Sequence[RunId]) -> Mapping[RunId, ClaimedRun | None]:
        """Claim in the database; what is not due yet, or locked, is rung again."""
        answers = await claiming.claim(self._deps.store, self._session.id, ids)
        crashpoints.reach("after_claim")
        taken: dict[RunId, ClaimedRun | None] = {}
        for run_id, answer in answers.items():
            if isinstance(answer, Later):
                await rings.ring(self._deps, Ring(run_id, answer.lane, answer.due_ms))
            elif answer is not None:
                taken[run_id] = answer
        return taken

    async def take_due(self, room: Mapping[Lane, int]) -> list[Taken[ClaimedRun]]:
        """Claim due runs straight from the database, while Redis is away."""
        taken: list[Taken[ClaimedRun]] = []
        for lane, limit in room.items():
            if limit > 0:
                claimed = await claiming.claim_due(self._deps.store, self._session.id, lane, limit)
                taken.extend(Taken(run.id, lane, run) for run in claimed)
        return taken

    async def run(self, claimed: ClaimedRun) -> None:
        """Carry a claimed run to an outcome and write that down, whatever happens meanwhile."""
        call = _Call()
        try:
            outcome = await self._outcome(claimed, call)
        except asyncio.CancelledError:
            outcome = await _uncancelled(self._stopped(claimed, call))
        if outcome is not None:
            await _uncancelled(self._settle(claimed, outcome))

    async def _outcome(self, run: ClaimedRun, call: _Call) -> Outcome | None:
        """Do the work. `None` when the run is not ours any more."""
        try:
            plan = await self._plan(run)
        except _GiveUpError as error:
            code, message, origin = error.args
            return outcomes.refused(run, code, message, origin)
        if run.seconds_left <= 0:
            return outcomes.refused(
                run,
                "deadline_exceeded",
                "The run was not done by its deadline.",
                ErrorOrigin.POLICY,
            )
        wait_s = self._breakers.wait_s(plan.circuit)
        if wait_s > 0:
            return outcomes.parked(run, outcomes.CIRCUIT, wait_s)
        crashpoints.reach("before_intent")
        call.intent = self._intents.enqueue(_intent_of(run, plan))
        number = await self._announced(run, plan, call)
        if isinstance(number, Refusal):
            self._breakers.release(plan.circuit)
            return _refused_intent(run, number)
        crashpoints.reach("after_intent")
        if run.session_id != self._session.id or not self._session.may_start():
            self._breakers.release(plan.circuit)
            return outcomes.interrupted(run, number, sent=False)
        return await self._called(run, plan, number, call)

    async def _announced(self, run: ClaimedRun, plan: _Plan, call: _Call) -> int | Refusal:
        """The attempt's number once it is committed; a lost connection loses the claim, not money.

        After a lost commit the attempt row may be there: the run goes on only through the reaper
        or a new claim, so the answer is `lost`.
        """
        if call.intent is None:
            raise RuntimeError("an intent is announced before it is awaited")
        try:
            return await asyncio.shield(call.intent)
        except psycopg.Error as error:
            if not database.away(error):
                raise
            _log.warning("intent_unwritten", run_id=str(run.id), error=type(error).__name__)
            call.intent = None
            return await self._patiently(lambda: self._intent_again(run, plan, call))

    async def _intent_again(self, run: ClaimedRun, plan: _Plan, call: _Call) -> int | Refusal:
        open_attempt = await claiming.open_attempt(self._deps.store, run)
        if open_attempt is not None:
            return open_attempt
        call.intent = self._intents.enqueue(_intent_of(run, plan))
        return await asyncio.shield(call.intent)

    async def _called(self, run: ClaimedRun, plan: _Plan, number: int, call: _Call) -> Outcome:
        timeout_s = min(
            plan.template.timeout_seconds or self._deps.settings.call_timeout_s, run.seconds_left
        )
        request = CompletionRequest(
            run_id=str(run.id),
            attempt=number,
            model=plan.model.model,
            messages=plan.messages,
            params=plan.params,
            response_format=msgspec.to_builtins(plan.template.response_format),
            api_key=plan.api_key,
            timeout_s=timeout_s,
            traceparent=run.traceparent,
        )
        call.sent = True
        try:
            completion = await plan.provider.complete(request)
        except ProviderError as error:
            crashpoints.reach("after_response")
            return self._failed(run, plan, number, error)
        crashpoints.reach("after_response")
        self._breakers.record(plan.circuit, failed=False)
        return self._answered(run, plan, number, completion)

    def _answered(
        self, run: ClaimedRun, plan: _Plan, number: int, completion: Completion
    ) -> Outcome:
        prices = self._prices.prices_of(
            plan.model.provider,
            plan.model.model,
            completion.service_tier,
            self._deps.clock.now(),
        )
        outcome = outcomes.answered(run, number, completion, prices, str(plan.model))
        if run.turn is None or plan.template.memory == Memory.READ_ONLY:
            return outcome
        turn = [m for m in plan.own if m.role != "system"]
        turn.append(Message("assistant", completion.text))
        return msgspec.structs.replace(outcome, turn=Raw(msgspec.json.encode(turn)))

    def _failed(self, run: ClaimedRun, plan: _Plan, number: int, error: ProviderError) -> Outcome:
        blames = error.kind != "refused" or error.credential_bad
        self._breakers.record(plan.circuit, failed=blames, at_once=error.credential_bad)
        prices = self._prices.prices_of(
            plan.model.provider, plan.model.model, None, self._deps.clock.now()
        )
        how = (self._deps.settings, self._deps.random)
        return outcomes.failed(run, number, error, prices, how)

    async def _stopped(self, run: ClaimedRun, call: _Call) -> Outcome | None:
        """The run's task was cancelled: by its user, or because the worker goes away."""
        number: int | Refusal = 0
        if call.intent is not None:
            try:
                number = await call.intent
            except psycopg.Error:
                return None  # the reaper sees whether the attempt was written
        if isinstance(number, Refusal):
            return _refused_intent(run, number)
        if stop_reason() is Stop.USER:
            return outcomes.canceled(run, number, sent=call.sent)
        return outcomes.interrupted(run, number, sent=call.sent)

    async def _settle(self, run: ClaimedRun, outcome: Outcome) -> None:
        """Write the outcome down for as long as it takes, then pass on what follows from it."""
        crashpoints.reach("before_finish_commit")
        moved = await self._patiently(lambda: self._outcomes.submit(outcome))
        crashpoints.reach("after_finish_commit")
        if not moved.applied:
            if not moved.known:
                _log.warning("late_result", run_id=str(run.id), claim_no=run.claim_no)
            return
        if moved.status == RunStatus.QUEUED and moved.lane is not None:
            await rings.ring(self._deps, Ring(run.id, moved.lane, moved.due_ms))
        else:
            rings.announce(self._deps, run.id)
        await rings.ring_turns(self._deps, [moved.next_turn])
        for delivery in moved.deliveries:
            self._deliver(delivery)

    async def _patiently(self, step: Callable[[], Awaitable[Result]]) -> Result:
        """Repeat a step that is safe to repeat until the database is back."""
        wait_s = _AGAIN_S
        while True:
            try:
                return await step()
            except psycopg.Error as error:
                if not database.away(error):
                    raise
            await asyncio.sleep(wait_s)
            wait_s = min(2 * wait_s, _AGAIN_MAX_S)

    # What a call needs

    async def _plan(self, run: ClaimedRun) -> _Plan:
        compiled = await self._patiently(lambda: self._deps.compiled(run.version_id))
        provider_name, _, bare = run.model.partition("/")
        provider = await self._providers.get(provider_name)
        if provider is None:
            raise _GiveUpError(
                "unknown_provider",
                f"This server has no provider '{provider_name}'.",
                ErrorOrigin.TEMPLATE,
            )
        own = _render(compiled, _inputs.decode(run.inputs))
        return _Plan(
            provider=provider,
            model=models.ModelName(provider_name, bare),
            messages=await self._with_history(run, own),
            own=own,
            params=_merged(compiled.settings.model_params, run.params),
            template=compiled.settings,
            api_key="" if provider_name == "sim" else await self._api_key(run, provider_name),
        )

    async def _with_history(self, run: ClaimedRun, own: tuple[Message, ...]) -> tuple[Message, ...]:
        if not run.history_read:
            return own
        stored = await self._patiently(lambda: reading.history(self._deps.store, run.id))
        system = tuple(message for message in own if message.role == "system")
        return (*system, *_messages.decode(stored), *own[len(system) :])

    async def _api_key(self, run: ClaimedRun, provider: str) -> str:
        """The run's own variable, else its environment's, else the server's where allowed."""
        name = f"{provider.upper()}_API_KEY"
        vault = self._deps.vault
        try:
            if run.env_vars is not None:
                place = ("runs", "env_vars", run.id, run.workspace_id)
                given = _inputs.decode(vault.open(run.env_vars, *place))
                if given.get(name):
                    return given[name]
            sealed = (await self._variables_of(run)).get(name)
            if sealed is not None:
                where = ("environment_variables", name, run.environment_id, run.workspace_id)
                return vault.open(sealed, *where).decode()
        except VaultError as error:
            raise _GiveUpError("secret_unreadable", str(error), ErrorOrigin.PLATFORM) from error
        servers = getattr(self._deps.settings, name.lower()).get_secret_value()
        if servers and run.server_credentials:
            return str(servers)
        raise _GiveUpError(
            "missing_credentials",
            f"No {name}: set it as a variable of the environment, or give it in envVars.",
            ErrorOrigin.CALLER,
        )

    async def _variables_of(self, run: ClaimedRun) -> Mapping[str, bytes]:
        known = self._variables.get(run.environment_id)
        if known is None or known[0] != run.variables_version:
            found = await self._patiently(
                lambda: reading.variables(self._deps.store, run.environment_id)
            )
            known = (run.variables_version, found)
            self._variables.put(run.environment_id, known)
        return known[1]


def _render(compiled: CompiledVersion, inputs: Mapping[str, str]) -> tuple[Message, ...]:
    try:
        return versions.render_messages(compiled, inputs)
    except TemplateError as error:
        raise _GiveUpError(error.code, error.detail, ErrorOrigin.TEMPLATE) from error


def _merged(params: ModelParams, overrides: str | None) -> ModelParams:
    if overrides is None:
        return params
    given = _params.decode(overrides)
    changes = {
        name: value
        for name in ModelParams.__struct_fields__
        if (value := getattr(given, name)) is not None
    }
    return msgspec.structs.replace(params, **changes)


def _intent_of(run: ClaimedRun, plan: _Plan) -> Intent:
    first = run.attempts == 0
    rendered = msgspec.json.encode(plan.own) if first else b""
    return Intent(
        run_id=str(run.id),
        session_id=str(run.session_id),
        claim_no=run.claim_no,
        provider=plan.model.provider,
        model=plan.model.model,
        messages=Raw(rendered) if first else None,
        sha256=hashlib.sha256(rendered).hexdigest() if first else None,
    )


def _refused_intent(run: ClaimedRun, refusal: Refusal) -> Outcome | None:
    match refusal.reason:
        case "canceled":
            return outcomes.canceled(run, 0, sent=False)
        case "exhausted":
            return outcomes.refused(
                run, "attempts_exhausted", "Every allowed call was used up.", ErrorOrigin.POLICY
            )
        case _:
            return None


async def _uncancelled(work: Awaitable[Result]) -> Result:
    """Finish something that must not be cut short, however often the task is cancelled."""
    future = asyncio.ensure_future(work)
    while True:
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            if future.cancelled():
                raise
