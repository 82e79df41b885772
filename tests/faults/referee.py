"""The referee: holds what the store says against what customer, vendor and receiver saw.

Each rule answers with the violations it found; the numbers are those of the list of invariants.
Judged after quiescence: everything that was accepted has had its time.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cached_property
from itertools import pairwise
from typing import TypeVar
from uuid import UUID

from shared.domain.states import LIVE, TERMINAL
from tests.faults.client import Cancel, Order
from tests.faults.facts import AttemptFact, DeliveryFact, Facts, MoveFact, RunFact, TryFact
from tests.faults.receiver import Hook
from tests.faults.vendors import step_of

Item = TypeVar("Item")
Key = TypeVar("Key", bound=Hashable)

NOT_TAKEN = frozenset({"not_sent", "not_started"})
"""Outcomes of calls that the vendor certainly did not begin."""
_ANSWERED = frozenset({"succeeded", "incomplete"})
_KNOWN_FAILURES = NOT_TAKEN | {"refused", "server_error"}
_REFUSALS = frozenset({503, 422, 409})
_TICK = timedelta(milliseconds=5)


@dataclass(frozen=True)
class Violation:
    """A broken invariant, with what shows it."""

    invariant: int
    what: str
    evidence: Mapping[str, object]


@dataclass(frozen=True)
class SeenCall:
    """A call as the vendor saw it."""

    run_id: str
    attempt: int
    model: str
    received_at: datetime


@dataclass(frozen=True)
class Ledgers:
    """What the three outside parties wrote down."""

    orders: Sequence[Order] = ()
    calls: Sequence[SeenCall] = ()
    hooks: Sequence[Hook] = ()
    cancels: Sequence[Cancel] = ()


@dataclass(frozen=True)
class Figures:
    """The settings that the rules need. `webhook_lag` is how long a delivery may take."""

    lease_s: float = 2.0
    slack_s: float = 5.0
    webhook_schedule_s: Sequence[float] = (0.0,)
    webhook_jitter: float = 0.2
    webhook_timeout_s: float = 1.5


@dataclass(frozen=True)
class Case:
    """Everything there is to judge."""

    facts: Facts
    ledgers: Ledgers
    figures: Figures = field(default_factory=Figures)

    @cached_property
    def runs(self) -> Mapping[UUID, RunFact]:
        return {run.id: run for run in self.facts.runs}

    @cached_property
    def attempts(self) -> Mapping[tuple[UUID, int], AttemptFact]:
        return {(a.run_id, a.number): a for a in self.facts.attempts}

    @cached_property
    def attempts_of(self) -> Mapping[UUID, list[AttemptFact]]:
        return _grouped(self.facts.attempts, lambda attempt: attempt.run_id)

    @cached_property
    def moves_of(self) -> Mapping[UUID, list[MoveFact]]:
        return _grouped(self.facts.moves, lambda move: move.run_id)

    @cached_property
    def calls_of(self) -> Mapping[str, list[SeenCall]]:
        return _grouped(self.ledgers.calls, lambda call: call.run_id)


def judge(case: Case) -> list[Violation]:
    """Apply every rule."""
    return [violation for rule in _RULES for violation in rule(case)]


def _accepted_is_durable(case: Case) -> Iterator[Violation]:
    for order in case.ledgers.orders:
        for run_id in order.run_ids:
            if UUID(run_id) not in case.runs:
                yield Violation(1, "an accepted run is gone", {"run": run_id, "case": order.case})


def _nothing_is_forgotten(case: Case) -> Iterator[Violation]:
    patience = timedelta(seconds=2 * case.figures.lease_s + case.figures.slack_s)
    for run in case.facts.runs:
        if run.status in LIVE:
            yield Violation(2, "a run did not end", {"run": run.id, "status": run.status})
        elif run.ends_at and run.finished_at and run.finished_at > run.ends_at + patience:
            yield Violation(2, "a run ended long after its deadline", {"run": run.id})


def _one_run_per_key(case: Case) -> Iterator[Violation]:
    made = Counter(run.case for run in case.facts.runs)
    for order in case.ledgers.orders:
        if order.key is None:
            asked = sum(reply.status not in _REFUSALS for reply in order.replies)
            if made[order.case] > asked:
                found = {"case": order.case, "requests": asked, "rows": made[order.case]}
                yield Violation(4, "one request made several rows", found)
            continue
        if len(order.run_ids) > 1:
            yield Violation(4, "one key was answered with several runs", {"runs": order.run_ids})
        if made[order.case] > 1:
            found = {"key": order.key, "rows": made[order.case]}
            yield Violation(4, "one key made several rows", found)


def _claims_only_grow(case: Case) -> Iterator[Violation]:
    for move in case.facts.moves:
        claimed = move.was != "running" and move.became == "running"
        if move.claim_no != move.claim_was + (1 if claimed else 0):
            found = {"run": move.run_id, "from": move.claim_was, "to": move.claim_no}
            yield Violation(6, "a claim number moved without a claim, or not with one", found)


def _owners_alone_write(case: Case) -> Iterator[Violation]:
    for attempt in case.facts.attempts:
        about = {"run": attempt.run_id, "attempt": attempt.number, "outcome": attempt.outcome}
        claims = {
            (move.claim_no, move.session_id)
            for move in case.moves_of.get(attempt.run_id, ())
            if move.became == "running"
        }
        if (attempt.claim_no, attempt.session_id) not in claims:
            yield Violation(6, "an attempt belongs to nobody's claim", about)
        run = case.runs.get(attempt.run_id)
        if run and _counts(attempt) and attempt.outcome in _ANSWERED:
            if attempt.claim_no != run.claim_no:
                yield Violation(6, "an older claim's answer was taken", about)
            elif attempt.outcome != run.status:
                found = {**about, "status": run.status}
                yield Violation(6, "an answer that counts is not the run's", found)


def _answers_have_attempts(case: Case) -> Iterator[Violation]:
    for run in case.facts.runs:
        if run.status not in _ANSWERED:
            continue
        counted = [
            a for a in case.attempts_of.get(run.id, ()) if a.outcome == run.status and _counts(a)
        ]
        if len(counted) != 1:
            found = {"run": run.id, "attempts": [a.number for a in counted]}
            yield Violation(6, "an answer does not come from exactly one attempt", found)


def _counts(attempt: AttemptFact) -> bool:
    """Whether the attempt's answer is to be its run's."""
    return not attempt.late and not attempt.sent_back


def _terminal_is_final(case: Case) -> Iterator[Violation]:
    for move in case.facts.moves:
        if move.meddled or (move.was in TERMINAL and move.became != move.was):
            found = {"run": move.run_id, "was": move.was, "became": move.became}
            yield Violation(7, "a run changed after its end", found)


def _intent_precedes_effect(case: Case) -> Iterator[Violation]:
    committed = {(str(i.run_id), i.number): i.committed_at for i in case.facts.intents}
    for call in case.ledgers.calls:
        about = {"run": call.run_id, "attempt": call.attempt}
        at = committed.get((call.run_id, call.attempt))
        if at is None:
            yield Violation(8, "a call was made without an intent", about)
        elif at > call.received_at:
            yield Violation(8, "a call was made before its intent was committed", about)


def _calls_are_bounded(case: Case) -> Iterator[Violation]:
    for run in case.facts.runs:
        calls = case.calls_of.get(str(run.id), [])
        numbers = [call.attempt for call in calls]
        if len(set(numbers)) < len(numbers):
            yield Violation(9, "one intent, several calls", {"run": run.id, "attempts": numbers})
        outcomes = [_outcome(case, run, call) for call in calls]
        if sum(outcome not in NOT_TAKEN for outcome in outcomes) > run.max_attempts:
            found = {"run": run.id, "calls": outcomes, "allowed": run.max_attempts}
            yield Violation(9, "more calls than allowed", found)
        unknown = [outcome not in _KNOWN_FAILURES for outcome in outcomes[:-1]]
        if run.on_unknown_outcome == "fail" and any(unknown):
            found = {"run": run.id, "calls": outcomes}
            yield Violation(9, "called again although an earlier call may have counted", found)


def _known_not_sent_is_true(case: Case) -> Iterator[Violation]:
    for run in case.facts.runs:
        for call in case.calls_of.get(str(run.id), []):
            if _outcome(case, run, call) == "not_sent":
                found = {"run": run.id, "attempt": call.attempt}
                yield Violation(10, "a call the vendor saw is booked as not sent", found)


def _lost_calls_are_shown(case: Case) -> Iterator[Violation]:
    for attempt in case.facts.attempts:
        if attempt.outcome in {"lost", "unknown"} and attempt.billed != "unknown":
            found = {"run": attempt.run_id, "attempt": attempt.number, "billed": attempt.billed}
            yield Violation(10, "an unknown outcome claims to know its price", found)
        run = case.runs.get(attempt.run_id)
        if attempt.outcome is None and run and run.status in TERMINAL:
            found = {"run": attempt.run_id, "attempt": attempt.number}
            yield Violation(10, "a run is over and one of its attempts is not", found)


def _canceled_runs_rest(case: Case) -> Iterator[Violation]:
    intents = _grouped(case.facts.intents, lambda intent: str(intent.run_id))
    for cancel in (cancel for cancel in case.ledgers.cancels if cancel.reply.accepted):
        about = {"run": cancel.run_id, "answer": cancel.reply.status}
        if any(i.committed_at > cancel.answered_at for i in intents.get(cancel.run_id, ())):
            yield Violation(12, "a call was announced after its run was canceled", about)
        said, run = cancel.reply.document["status"], case.runs.get(UUID(cancel.run_id))
        if run and said in TERMINAL - {run.status}:
            yield Violation(12, "a cancel was told another end", about)


def _one_event_per_end(case: Case) -> Iterator[Violation]:
    events = _grouped(case.facts.events, lambda event: event.run_id)
    for run in case.facts.runs:
        found = events.get(run.id, [])
        ends = [move for move in case.moves_of.get(run.id, ()) if move.became in TERMINAL]
        if len(found) != (1 if run.status in TERMINAL else 0):
            about = {"run": run.id, "status": run.status, "events": len(found)}
            yield Violation(13, "not exactly one event for an end", about)
        for event in found:
            about = {"run": run.id, "status": run.status, "event": event.type}
            if event.type != f"run.{run.status}":
                yield Violation(13, "an event tells another end", about)
            elif ends and event.tx != ends[0].tx:
                yield Violation(13, "an event was not written in the ending transaction", about)


def _every_event_is_delivered(case: Case) -> Iterator[Violation]:
    by_place = {(d.event_id, d.endpoint_id): d for d in case.facts.deliveries}
    tried = {one.delivery_id for one in case.facts.tries}
    taken = {(hook.endpoint, hook.id) for hook in case.ledgers.hooks if 200 <= hook.status < 300}
    for event in case.facts.events:
        for endpoint in case.facts.endpoints:
            gone = endpoint.deleted_at or endpoint.disabled_at
            if (
                endpoint.created_at > event.created_at
                or (gone is not None and gone <= event.created_at)
                or (endpoint.events and event.type not in endpoint.events)
                or (
                    endpoint.environment_ids
                    and event.environment_id not in endpoint.environment_ids
                )
            ):
                continue
            about = {"event": event.id, "run": event.run_id, "endpoint": endpoint.name}
            delivery = by_place.get((event.id, endpoint.id))
            if delivery is None:
                yield Violation(14, "an endpoint was forgotten", about)
                continue
            received = (endpoint.name, str(event.id)) in taken
            yield from _delivery_ended(delivery, about, received=received, tried=tried)


def _delivery_ended(
    delivery: DeliveryFact, about: Mapping[str, object], *, received: bool, tried: set[UUID]
) -> Iterator[Violation]:
    match delivery.status:
        case "pending":
            yield Violation(14, "a delivery did not end", about)
        case "succeeded" if not received:
            yield Violation(14, "a delivery counts as received and was not", about)
        case "exhausted" if delivery.id not in tried:
            yield Violation(14, "a delivery was given up without a try", about)
        case _:
            pass


def _same_event_same_id(case: Case) -> Iterator[Violation]:
    event_of = {str(event.run_id): str(event.id) for event in case.facts.events}
    bodies: dict[tuple[str, str], bytes] = {}
    for hook in case.ledgers.hooks:
        about = {"run": hook.run_id, "webhook-id": hook.id, "endpoint": hook.endpoint}
        if hook.id != event_of.get(hook.run_id):
            yield Violation(15, "a delivery has another id than its event", about)
        if bodies.setdefault((hook.endpoint, hook.id), hook.body) != hook.body:
            yield Violation(15, "the same event was told in two ways", about)
        if not hook.verified:
            yield Violation(16, "a delivery cannot be verified", about)


def _no_try_is_early(case: Case) -> Iterator[Violation]:
    figures = case.figures
    for tries in _grouped(case.facts.tries, lambda one: one.delivery_id).values():
        for before, after in pairwise(tries):
            wait = figures.webhook_schedule_s[before.number] * (1 - figures.webhook_jitter)
            if after.started_at < _end_of(before) + timedelta(seconds=wait) - _TICK:
                found = {"delivery": after.delivery_id, "try": after.number}
                yield Violation(33, "a webhook was tried before its time", found)


def _no_claim_is_early(case: Case) -> Iterator[Violation]:
    for move in case.facts.moves:
        if move.was != "running" and move.became == "running" and move.at < move.due_at:
            found = {"run": move.run_id, "due": move.due_at, "claimed": move.at}
            yield Violation(33, "a run was claimed before its time", found)


def _vendors_wishes_are_kept(case: Case) -> Iterator[Violation]:
    for calls in case.calls_of.values():
        # the vendor counts calls: an attempt that died before its call is none
        for number, (before, after) in enumerate(pairwise(calls), start=1):
            _, told, seconds = step_of(before.model, number).partition("-after-")
            attempt = case.attempts.get((UUID(before.run_id), before.attempt))
            heard = attempt and attempt.outcome in _KNOWN_FAILURES and not attempt.late
            if not told or not seconds.isdigit() or not heard:
                continue
            if after.received_at < before.received_at + timedelta(seconds=int(seconds)):
                found = {"run": after.run_id, "attempt": after.attempt}
                yield Violation(33, "a vendor was called before the time it gave", found)


def _disabled_endpoints_rest(case: Case) -> Iterator[Violation]:
    under_way = timedelta(seconds=case.figures.webhook_timeout_s)
    for endpoint in case.facts.endpoints:
        if endpoint.disabled_at is None:
            continue
        for hook in case.ledgers.hooks:
            late = hook.received_at > endpoint.disabled_at + under_way
            if hook.endpoint == endpoint.name and late:
                found = {"endpoint": endpoint.name, "webhook-id": hook.id}
                yield Violation(33, "a disabled endpoint was sent something", found)


def _refused_means_absent(case: Case) -> Iterator[Violation]:
    made = {run.case for run in case.facts.runs}
    for order in case.ledgers.orders:
        statuses = {reply.status for reply in order.replies}
        if statuses and statuses <= _REFUSALS and order.case in made:
            found = {"case": order.case, "answers": sorted(statuses)}
            yield Violation(25, "a submission was refused and stored", found)


def _money_adds_up(case: Case) -> Iterator[Violation]:
    for fact in case.facts.money:
        found = {"place": fact.place, "says": fact.says, "should say": fact.should_say}
        yield Violation(35, fact.what, found)


_RULES: Sequence[Callable[[Case], Iterable[Violation]]] = (
    _accepted_is_durable,
    _nothing_is_forgotten,
    _one_run_per_key,
    _claims_only_grow,
    _owners_alone_write,
    _answers_have_attempts,
    _terminal_is_final,
    _intent_precedes_effect,
    _calls_are_bounded,
    _known_not_sent_is_true,
    _lost_calls_are_shown,
    _canceled_runs_rest,
    _one_event_per_end,
    _every_event_is_delivered,
    _same_event_same_id,
    _no_try_is_early,
    _no_claim_is_early,
    _vendors_wishes_are_kept,
    _disabled_endpoints_rest,
    _refused_means_absent,
    _money_adds_up,
)


def _outcome(case: Case, run: RunFact, call: SeenCall) -> str | None:
    attempt = case.attempts.get((run.id, call.attempt))
    return attempt.outcome if attempt else None


def _end_of(one: TryFact) -> datetime:
    return one.started_at + timedelta(milliseconds=one.duration_ms)


def _grouped(items: Iterable[Item], key: Callable[[Item], Key]) -> dict[Key, list[Item]]:
    groups: dict[Key, list[Item]] = defaultdict(list)
    for item in items:
        groups[key(item)].append(item)
    return dict(groups)
