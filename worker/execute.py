"""Carrying one run from its claim to its end: render, announce the call, call, settle."""

import asyncio
import hashlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress

import msgspec
import psycopg
from msgspec import Raw

from shared import crashpoints, log, metrics
from shared.deps import Deps
from shared.domain.completions import (
    Completion,
    CompletionRequest,
    Message,
    ProviderError,
)
from shared.domain.price_book import PriceBook
from shared.domain.states import ErrorOrigin, Lane, Memory, RunStatus
from shared.ids import RunId
from shared.queue.port import Ring
from shared.services import rings
from shared.store import claiming, database, ending
from shared.store.claiming import ClaimedRun, Intent, Later, Refusal, Unknown
from shared.store.ending import DueDelivery, Moved, Outcome
from worker import chain, outcomes, payment, watching
from worker.books import Books
from worker.breaker import Breakers
from worker.caps import RunningCaps
from worker.handler import NotNowError, Taken
from worker.patience import AGAIN_MAX_S, AGAIN_S, patiently, put_off, uncancelled
from worker.planning import GiveUpError, Plan, Planner, Wait
from worker.providers.registry import Providers
from worker.running import Stop, stop_reason
from worker.session import Session
from worker.spill import Spill

_log = log.get(__name__)
HELD_MAX_BYTES = 256 * 1024 * 1024
IMPORT_S = 10.0


class _Call(msgspec.Struct):
    """How far a run has come, for whoever has to stop it."""

    may_cost_nanousd: int = 0
    announcement: Intent | None = None
    intent: "asyncio.Future[int | Refusal] | None" = None
    number: int | Refusal | None = None
    sent: bool = False
    circuit: tuple[str, str, str] | None = None


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
        self._planner = Planner(deps, providers)
        self._prices = prices
        self._deliver = deliver
        self.breakers = Breakers(deps.settings, deps.clock, watching.opening(prices))
        self.caps = RunningCaps(deps)
        self._spill = Spill(deps.settings.data_dir)
        self._leaving = asyncio.Event()
        self.held_bytes = 0
        self._in_hand: set[tuple[RunId, int]] = set()
        self._claims = log.Spell(_log, "claims_put_off", "claims_resumed")
        self._books = Books(deps)

    def may_start(self) -> bool:
        return self._session.may_start()

    async def take(self, ids: Sequence[RunId]) -> Mapping[RunId, ClaimedRun | None]:
        """Claim in the database; what is not due yet, or locked, is rung again."""
        with put_off(self._claims):
            answers = await claiming.claim(self._deps.store, self._session.id, ids, self.caps.known)
        crashpoints.reach("after_claim")
        taken: dict[RunId, ClaimedRun | None] = {}
        for run_id, answer in answers.items():
            if isinstance(answer, Later):
                await rings.ring(self._deps, Ring(run_id, answer.lane, answer.due_ms))
            elif isinstance(answer, ClaimedRun):
                taken[run_id] = answer
        if len(taken) < len(answers):
            await self.caps.parked()
        unknown = [run_id for run_id, answer in answers.items() if isinstance(answer, Unknown)]
        if unknown:
            _log.warning("unknown_runs_dropped", count=len(unknown), first_id=str(unknown[0]))
        return taken

    async def take_due(self, room: Mapping[Lane, int]) -> list[Taken[ClaimedRun]]:
        """Claim due runs straight from the database, while Redis is away."""
        taken: list[Taken[ClaimedRun]] = []
        with suppress(NotNowError), put_off(self._claims):
            for lane, limit in room.items():
                if limit > 0:
                    claimed = await claiming.claim_due(
                        self._deps.store, self._session.id, lane, limit, self.caps.known
                    )
                    taken.extend(Taken(run.id, lane, run) for run in claimed)
        return taken

    async def run(self, claimed: ClaimedRun) -> None:
        """Carry a claimed run to an outcome and write that down, whatever happens meanwhile."""
        claim = (claimed.id, claimed.claim_no)
        self._in_hand.add(claim)
        try:
            outcome = await self._worked_out(claimed)
            if outcome is not None:
                await uncancelled(self._settle(claimed, payment.by(claimed, outcome)))
        finally:
            self._in_hand.discard(claim)

    def leave(self) -> None:
        """The process is about to end: results that cannot be written now go to files."""
        self._leaving.set()

    async def import_forever(self) -> None:
        """Bring in results that were kept in files, of this process or another."""
        while True:
            for path, outcome in self._spill.kept():
                try:
                    await self._passed_on(await self._books.settle(outcome))
                except psycopg.Error as error:
                    if database.away(error):
                        _log.warning("spilled_result_waits", error=type(error).__name__)
                        break
                    _log.exception("spilled_result_refused", file=path.name)
                    path.rename(path.with_suffix(".refused"))
                    continue
                path.unlink(missing_ok=True)
                _log.info("spilled_result_imported", run_id=outcome.run_id)
            await asyncio.sleep(IMPORT_S)

    async def give_back_forever(self) -> None:
        """Put back what the database says we run while nobody here has it in hand.

        A claim whose answer was lost leaves such runs. One that is found twice, a lease apart, is
        not just on its way from its claim to its task.
        """
        suspects: set[tuple[RunId, int]] = set()
        while True:
            await asyncio.sleep(self._deps.settings.lease_s)
            session = self._session.id
            try:
                held = await claiming.held(self._deps.store, session)
            except psycopg.Error as error:
                if not database.away(error):
                    raise
                continue
            lost = held - self._in_hand
            for run_id, claim_no in suspects & lost:
                metrics.LOST_CLAIMS.add()
                _log.warning("lost_claim", run_id=str(run_id), claim_no=claim_no)
                moved = await self._written(outcomes.unclaimed(run_id, session, claim_no))
                if moved is not None:
                    await self._passed_on(moved)
            suspects = lost

    async def _worked_out(self, run: ClaimedRun) -> Outcome | None:
        call = _Call()
        try:
            return await self._outcome(run, call)
        except asyncio.CancelledError:
            self._let_go(call)
            return await uncancelled(self._stopped(run, call))
        except Exception:  # noqa: BLE001 (the edge of a run: a fault of ours must not leave it running)
            self._let_go(call)
            _log.exception("run_broke", run_id=str(run.id))
            return await uncancelled(self._broken(run, call))

    async def _outcome(self, run: ClaimedRun, call: _Call) -> Outcome | None:
        """Do the work. `None` when the run is not ours any more."""
        if run.seconds_left <= 0:
            return outcomes.overdue(run)
        try:
            plan = await self._planner.plan(run, self.breakers.wait_s)
            if isinstance(plan, Plan):
                call.may_cost_nanousd = self._may_cost(run, plan)
                payment.demand(run, call.may_cost_nanousd)
        except GiveUpError as error:
            code, message, origin = error.args
            return outcomes.refused(run, code, message, origin)
        if isinstance(plan, Wait):
            return outcomes.parked(run, outcomes.CIRCUIT, plan.wait_s)
        call.circuit = plan.access.circuit
        crashpoints.reach("before_intent")
        number = call.number = await self._announced(run, plan, call)
        if isinstance(number, Refusal):
            self._let_go(call)
            return outcomes.of_refusal(run, number, self._deps.settings.budget_wait_s)
        crashpoints.reach("after_intent")
        if run.session_id != self._session.id or not self._session.may_start():
            self._let_go(call)
            return outcomes.interrupted(run, number, sent=False)
        return await self._called(run, plan, number, call)

    async def _announced(self, run: ClaimedRun, plan: Plan, call: _Call) -> int | Refusal:
        """The attempt's number once it is committed, however often the database goes away."""
        call.announcement = _intent_of(run, plan, call.may_cost_nanousd)
        call.intent = self._books.announce(call.announcement)
        try:
            return await asyncio.shield(call.intent)
        except psycopg.Error as error:
            if not database.away(error):
                raise
            _log.warning("intent_unwritten", run_id=str(run.id), error=type(error).__name__)
            return await self._announced_again(call)

    async def _announced_again(self, call: _Call) -> int | Refusal:
        """Repeat the intent: what comes of it holds, even if the lost one is still under way."""
        again = call.announcement
        return await patiently(lambda: self._books.announce(again)) if again is not None else 0

    async def _called(self, run: ClaimedRun, plan: Plan, number: int, call: _Call) -> Outcome:
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
            api_key=plan.access.api_key,
            timeout_s=timeout_s,
            traceparent=run.traceparent,
            tools=plan.template.tools,
            keeps_answer=run.flow is not None,
        )
        call.sent = True
        try:
            completion = await plan.access.provider.complete(request)
        except ProviderError as error:
            crashpoints.reach("after_response")
            return self._failed(run, plan, number, error)
        except MemoryError:
            _log.warning("out_of_memory", run_id=str(run.id))
            return self._failed(run, plan, number, outcomes.out_of_memory())
        crashpoints.reach("after_response")
        self.breakers.record(plan.access.circuit, failed=False)
        return self._answered(run, plan, number, completion)

    def _answered(
        self, run: ClaimedRun, plan: Plan, number: int, completion: Completion
    ) -> Outcome:
        prices = self._prices.prices_of(
            plan.model.provider,
            plan.model.model,
            completion.service_tier,
            self._deps.clock.now(),
        )
        judged = plan.checks.judge(completion)
        outcome = outcomes.answered(run, number, completion, prices, str(plan.model), judged)
        if run.turn is None or plan.template.memory == Memory.READ_ONLY:
            return outcome
        if not judged.remembered.strip():
            return outcome  # vendors refuse empty messages: it would end the thread
        turn = [m for m in plan.own if m.role != "system"]
        turn.append(Message("assistant", judged.remembered))
        return msgspec.structs.replace(outcome, turn=Raw(msgspec.json.encode(turn)))

    def _failed(self, run: ClaimedRun, plan: Plan, number: int, error: ProviderError) -> Outcome:
        ours = error.origin == ErrorOrigin.PLATFORM
        blames = not ours and (error.kind != "refused" or error.credential_bad)
        self.breakers.record(plan.access.circuit, failed=blames, at_once=error.credential_bad)
        prices = self._prices.prices_of(
            plan.model.provider, plan.model.model, None, self._deps.clock.now()
        )
        how = (self._deps.settings, self._deps.random)
        then = chain.after(run, plan.models, str(plan.model), error)
        return outcomes.failed(run, number, error, prices, how, then)

    async def _stopped(self, run: ClaimedRun, call: _Call) -> Outcome | None:
        """The run's task was cancelled: by its user, or because the worker goes away."""
        try:
            number = await self._number(call)
        except psycopg.Error:
            if stop_reason() is not Stop.USER:
                return None  # the reaper sees whether the attempt was written
            number = await self._announced_again(call)
        if isinstance(number, Refusal):
            return outcomes.of_refusal(run, number, self._deps.settings.budget_wait_s)
        if stop_reason() is Stop.USER:
            return outcomes.canceled(run, number, sent=call.sent)
        return outcomes.interrupted(run, number, sent=call.sent)

    async def _broken(self, run: ClaimedRun, call: _Call) -> Outcome | None:
        try:
            number = await self._number(call)
        except psycopg.Error:
            number = await self._announced_again(call)
        return None if isinstance(number, Refusal) else outcomes.broken(run, number, sent=call.sent)

    async def _number(self, call: _Call) -> int | Refusal:
        """The attempt that was announced, 0 for none; raises when the database is away."""
        if call.number is not None or call.intent is None:
            return call.number or 0
        try:
            return await call.intent
        except psycopg.Error as error:
            if database.away(error):
                raise
            return 0

    def _may_cost(self, run: ClaimedRun, plan: Plan) -> int:
        """What the call may cost at most; 0 where nobody asks."""
        if not run.accounted and run.max_nanousd is None:
            return 0
        tier, now = plan.params.service_tier, self._deps.clock.now()
        prices = self._prices.prices_of(plan.model.provider, plan.model.model, tier, now)
        return payment.worst_case(plan, prices, self._deps.settings.hold_output_tokens)

    def _let_go(self, call: _Call) -> None:
        """Leave probing to the next: this call may have been the one that was let through."""
        if call.circuit is not None:
            self.breakers.release(call.circuit)

    async def _settle(self, run: ClaimedRun, outcome: Outcome) -> None:
        """Write the outcome down for as long as it takes, then pass on what follows from it."""
        crashpoints.reach("before_finish_commit")
        try:
            moved = await self._written(outcome)
        except Exception:  # noqa: BLE001 (this very outcome cannot be written: it must not run for ever)
            _log.exception("outcome_refused", run_id=str(run.id))
            broken = outcomes.broken(run, outcome.attempt, sent=True)
            moved = await self._written(payment.by(run, broken))
        crashpoints.reach("after_finish_commit")
        if moved is None:
            return
        if not moved.applied and not moved.known:
            _log.warning("late_result", run_id=str(run.id), claim_no=run.claim_no)
        await self._passed_on(moved)
        await self.caps.left(run.environment_id)

    async def _written(self, outcome: Outcome) -> Moved | None:
        """Write until it is written; `None` when it was kept in a file instead.

        That is for the process's end, and for when more is waiting than memory should hold.
        """
        size = ending.size_of(outcome)
        self.held_bytes += size
        wait_s = AGAIN_S
        try:
            while True:
                try:
                    return await self._books.settle(outcome)
                except psycopg.Error as error:
                    if not database.away(error):
                        raise
                too_much = self.held_bytes > HELD_MAX_BYTES
                if (too_much or self._leaving.is_set()) and self._spill.write(outcome):
                    return None
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._leaving.wait(), wait_s)
                wait_s = min(2 * wait_s, AGAIN_MAX_S)
        finally:
            self.held_bytes -= size

    async def _passed_on(self, moved: Moved) -> None:
        """Ring, announce and deliver what follows from a run that moved."""
        if not moved.applied:
            return
        if moved.status == RunStatus.QUEUED and moved.lane is not None:
            await rings.ring(self._deps, Ring(moved.run_id, moved.lane, moved.due_ms))
        else:
            rings.announce(self._deps, moved.run_id)
        await rings.ring_turns(self._deps, [moved.next_turn])
        for delivery in moved.deliveries:
            self._deliver(delivery)


def _intent_of(run: ClaimedRun, plan: Plan, may_cost_nanousd: int) -> Intent:
    first = run.attempts == 0
    rendered = msgspec.json.encode(plan.own) if first else b""
    return Intent(
        run_id=str(run.id),
        session_id=str(run.session_id),
        claim_no=run.claim_no,
        attempts_before=run.attempts,
        provider=plan.model.provider,
        model=plan.model.model,
        messages=Raw(rendered) if first else None,
        sha256=hashlib.sha256(rendered).hexdigest() if first else None,
        history_from=plan.history_from,
        account=str(run.workspace_id) if run.accounted else None,
        hold_nanousd=may_cost_nanousd if run.accounted else None,
    )
