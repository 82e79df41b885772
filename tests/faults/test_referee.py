"""The referee finds each kind of violation, and none in a story where all went well.

The story: a first call is lost with its worker, a second one answers, its webhook is refused once.
"""

from collections.abc import Callable
from dataclasses import replace as with_changes
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import msgspec
import pytest

from tests.faults.client import Cancel, Order, Reply
from tests.faults.facts import (
    AttemptFact,
    DeliveryFact,
    EndpointFact,
    EventFact,
    Facts,
    IntentFact,
    MoveFact,
    RunFact,
    TryFact,
)
from tests.faults.receiver import Hook
from tests.faults.referee import Case, Figures, Ledgers, SeenCall, judge

change = msgspec.structs.replace

RUN, STRANGER, EVENT = UUID(int=1), UUID(int=2), UUID(int=3)
ENDPOINT, DELIVERY, ENVIRONMENT = UUID(int=4), UUID(int=5), UUID(int=6)
DEAD, ALIVE = UUID(int=7), UUID(int=8)
NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)


def at(seconds: float) -> datetime:
    return NOON + timedelta(seconds=seconds)


def move(second: float, was: str, became: str, claim_no: int, session: UUID | None) -> MoveFact:
    return MoveFact(
        run_id=RUN,
        at=at(second),
        tx=str(int(second * 10)),
        was=was,
        became=became,
        claim_was=claim_no - (became == "running"),
        claim_no=claim_no,
        session_id=session,
        due_at=at(0),
        meddled=False,
    )


def hook(second: float, status: int) -> Hook:
    body = b'{"data":{"run":{"id":"%s"}}}' % str(RUN).encode()
    return Hook("main", str(EVENT), "0", "v1,x", body, at(second), verified=True, status=status)


FACTS = Facts(
    runs=[RunFact(RUN, "succeeded", "a case", 3, "retry", 2, None, at(60), at(4))],
    attempts=[
        AttemptFact(RUN, 1, 1, DEAD, "lost", "unknown", late=False),
        AttemptFact(RUN, 2, 2, ALIVE, "succeeded", "yes", late=False),
    ],
    intents=[IntentFact(RUN, 1, at(1)), IntentFact(RUN, 2, at(3))],
    moves=[
        move(0.5, "queued", "running", 1, DEAD),
        move(2.0, "running", "queued", 1, None),
        move(2.5, "queued", "running", 2, ALIVE),
        move(4.0, "running", "succeeded", 2, None),
    ],
    events=[EventFact(EVENT, RUN, "run.succeeded", "40", ENVIRONMENT, at(4))],
    endpoints=[EndpointFact(ENDPOINT, "main", (), (), at(-9), None, None)],
    deliveries=[DeliveryFact(DELIVERY, EVENT, ENDPOINT, "succeeded")],
    tries=[
        TryFact(DELIVERY, 1, at(4.1), 10, 500),
        TryFact(DELIVERY, 2, at(5.2), 10, 200),
    ],
)
LEDGERS = Ledgers(
    orders=[Order("a case", "a key", [Reply(0), Reply(200, {"id": str(RUN)})])],
    calls=[
        SeenCall(str(RUN), 1, "mock-429-after-1-then-answer", at(1.1)),
        SeenCall(str(RUN), 2, "mock-429-after-1-then-answer", at(3.1)),
    ],
    hooks=[hook(4.1, 500), hook(5.2, 200)],
)
STORY = Case(FACTS, LEDGERS, Figures(webhook_schedule_s=(0, 1, 1), webhook_jitter=0.2))


def with_facts(**lists: list[Any]) -> Case:
    return with_changes(STORY, facts=change(FACTS, **lists))


def with_ledgers(**lists: list[Any]) -> Case:
    return with_changes(STORY, ledgers=with_changes(LEDGERS, **lists))


def with_changed(name: str, place: int, **changes: Any) -> Case:
    rows = list(getattr(FACTS, name))
    rows[place] = change(rows[place], **changes)
    return with_facts(**{name: rows})


def with_changed_entry(name: str, place: int, **changes: Any) -> Case:
    entries = list(getattr(LEDGERS, name))
    entries[place] = with_changes(entries[place], **changes)
    return with_ledgers(**{name: entries})


def under_fail(case: Case) -> Case:
    runs = [change(case.facts.runs[0], on_unknown_outcome="fail")]
    return with_changes(case, facts=change(case.facts, runs=runs))


def refused_but_stored() -> Case:
    return with_ledgers(orders=[Order("a case", None, [Reply(503)])])


def answered_twice() -> Case:
    replies = [Reply(200, {"id": str(RUN)}), Reply(200, {"id": str(STRANGER)})]
    return with_ledgers(orders=[Order("a case", "a key", replies)])


def stored_twice() -> Case:
    return with_facts(runs=[FACTS.runs[0], change(FACTS.runs[0], id=STRANGER)])


def called_once_more() -> Case:
    return with_ledgers(calls=[*LEDGERS.calls, LEDGERS.calls[1]])


def canceled(answered_at: datetime, status: str) -> Case:
    reply = Reply(200, {"status": status})
    return with_ledgers(cancels=[Cancel(str(RUN), reply, answered_at)])


def called_without_intent() -> Case:
    return with_ledgers(calls=[*LEDGERS.calls, SeenCall(str(RUN), 3, "gpt", at(5))])


def sent_although_disabled() -> Case:
    return with_facts(endpoints=[change(FACTS.endpoints[0], disabled_at=at(-5))])


DOCTORED: dict[str, tuple[int, Callable[[], Case]]] = {
    "an accepted run is gone": (1, lambda: with_facts(runs=[])),
    "a run did not end": (2, lambda: with_changed("runs", 0, status="queued", finished_at=None)),
    "a run ended long after its deadline": (
        2,
        lambda: with_changed("runs", 0, finished_at=at(90)),
    ),
    "one key was answered with several runs": (4, answered_twice),
    "one key made several rows": (4, stored_twice),
    "a claim number moved without a claim, or not with one": (
        6,
        lambda: with_changed("moves", 1, claim_no=2),
    ),
    "an attempt belongs to nobody's claim": (
        6,
        lambda: with_changed("attempts", 0, session_id=ALIVE),
    ),
    "an older claim's answer was taken": (
        6,
        lambda: with_changed("attempts", 0, outcome="succeeded", billed="yes"),
    ),
    "an answer that counts is not the run's": (6, lambda: with_changed("runs", 0, status="failed")),
    "an answer does not come from exactly one attempt": (
        6,
        lambda: with_changed("attempts", 1, late=True),
    ),
    "a run changed after its end": (7, lambda: with_changed("moves", 3, meddled=True)),
    "a call was made without an intent": (8, called_without_intent),
    "a call was made before its intent was committed": (
        8,
        lambda: with_changed("intents", 1, committed_at=at(3.2)),
    ),
    "one intent, several calls": (9, called_once_more),
    "more calls than allowed": (9, lambda: with_changed("runs", 0, max_attempts=1)),
    "called again although an earlier call may have counted": (9, lambda: under_fail(STORY)),
    "a call the vendor saw is booked as not sent": (
        10,
        lambda: with_changed("attempts", 0, outcome="not_sent"),
    ),
    "an unknown outcome claims to know its price": (
        10,
        lambda: with_changed("attempts", 0, billed="no"),
    ),
    "a run is over and one of its attempts is not": (
        10,
        lambda: with_changed("attempts", 0, outcome=None),
    ),
    "a call was announced after its run was canceled": (12, lambda: canceled(at(2), "running")),
    "a cancel was told another end": (12, lambda: canceled(at(9), "canceled")),
    "not exactly one event for an end": (13, lambda: with_facts(events=[])),
    "an event tells another end": (13, lambda: with_changed("events", 0, type="run.failed")),
    "an event was not written in the ending transaction": (
        13,
        lambda: with_changed("events", 0, tx="41"),
    ),
    "an endpoint was forgotten": (14, lambda: with_facts(deliveries=[])),
    "a delivery did not end": (14, lambda: with_changed("deliveries", 0, status="pending")),
    "a delivery counts as received and was not": (
        14,
        lambda: with_changed_entry("hooks", 1, status=500),
    ),
    "a delivery was given up without a try": (
        14,
        lambda: with_changes(
            STORY,
            facts=change(
                FACTS, deliveries=[change(FACTS.deliveries[0], status="exhausted")], tries=[]
            ),
        ),
    ),
    "a delivery has another id than its event": (
        15,
        lambda: with_changed_entry("hooks", 0, id=str(STRANGER)),
    ),
    "the same event was told in two ways": (
        15,
        lambda: with_changed_entry("hooks", 0, body=LEDGERS.hooks[0].body + b" "),
    ),
    "a delivery cannot be verified": (
        16,
        lambda: with_changed_entry("hooks", 0, verified=False),
    ),
    "a submission was refused and stored": (25, refused_but_stored),
    "a webhook was tried before its time": (
        33,
        lambda: with_changed("tries", 1, started_at=at(4.8)),
    ),
    "a run was claimed before its time": (33, lambda: with_changed("moves", 2, due_at=at(2.6))),
    "a vendor was called before the time it gave": (
        33,
        lambda: with_changes(
            with_changed("attempts", 0, outcome="not_started", billed="no"),
            ledgers=with_changed_entry("calls", 0, received_at=at(2.2)).ledgers,
        ),
    ),
    "one request made several rows": (
        4,
        lambda: with_ledgers(orders=[Order("a case", None, [Reply(503)])]),
    ),
    "a disabled endpoint was sent something": (33, sent_although_disabled),
}


def test_a_story_that_went_well_breaks_no_rule() -> None:
    assert [] == judge(STORY)


@pytest.mark.parametrize("what", DOCTORED)
def test_each_kind_of_violation_is_found(what: str) -> None:
    number, doctored = DOCTORED[what]

    found = judge(doctored())

    assert (number, what) in {(violation.invariant, violation.what) for violation in found}


def test_an_endpoint_made_after_an_event_is_owed_nothing() -> None:
    case = with_facts(endpoints=[change(FACTS.endpoints[0], created_at=at(10))], deliveries=[])

    assert [] == judge(case)
