"""Endpoints that fail: paused after failures in a row, probed, disabled after days, and healed."""

from dataclasses import dataclass
from random import Random
from typing import Any, Literal
from uuid import UUID

import pytest

from shared.store import deliveries
from shared.store.deliveries import FIRST, Recorded, Try
from tests.shared.store.rig import Rig, Row

HOUR_S, DAY_S = 3600.0, 86_400.0
PAUSE_S, PAUSE_MAX_S, PAUSE_FAILURES = 60.0, 1800.0, 10
OLD = 1_700_000_000_000 << 80
Answer = Literal["well", "failed", "unsigned"]
FAILED: tuple[Answer] = ("failed",)
UNSIGNED: tuple[Answer] = ("unsigned",)


async def _some(rig: Rig, count: int) -> None:
    """One endpoint to which so many deliveries are due."""
    await rig.endpoint()
    for _ in range(count):
        await rig.finished()


async def _answer(rig: Rig, *answers: Answer) -> list[Recorded]:
    """Let the endpoint answer so many requests at once; all its deliveries are due afterwards."""
    rows = await rig.rows("SELECT id, lease_no FROM deliveries ORDER BY id")
    tries = [
        Try(
            delivery_id=row["id"],
            lease_no=row["lease_no"],
            status="succeeded" if answer == "well" else "pending",
            started_at="2026-11-22T12:00:00Z",
            duration_ms=1,
            outcome="unsigned" if answer == "unsigned" else "answered",
            blamed=answer == "failed",
        )
        for row, answer in zip(rows, answers, strict=False)
    ]
    assert len(answers) == len(tries)
    recorded = await deliveries.record(rig.store, rig.deps.settings, tries)
    await rig.run(
        "UPDATE deliveries SET status = 'pending', finished_at = NULL, next_try_at = now()"
    )
    return recorded


async def _later(rig: Rig, seconds: float) -> None:
    """Let time pass for what is remembered of the endpoint."""
    columns = ("failing_since", "spaced_at", "paused_until", "probe_until")
    moved = ", ".join(f"{name} = {name} - make_interval(secs => %(s)s)" for name in columns)
    await rig.run(f"UPDATE failing_endpoints SET {moved}", s=seconds)


async def _failing(rig: Rig) -> Row | None:
    rows = await rig.rows(
        "SELECT *, extract(epoch FROM paused_until - now())::float8 AS left_s,"
        " extract(epoch FROM now() - failing_since)::float8 AS since_s FROM failing_endpoints"
    )
    return rows[0] if rows else None


async def _claimed(rig: Rig) -> int:
    claim = await deliveries.claim_due(rig.store, limit=100, lease_s=45)
    return len(claim.found)


async def test_an_endpoint_that_answers_well_leaves_no_trace(rig: Rig) -> None:
    await _some(rig, 2)

    await _answer(rig, "well", "well")

    assert None is await _failing(rig)


async def test_ten_failures_in_a_row_pause_an_endpoint_and_burn_no_tries(rig: Rig) -> None:
    await _some(rig, 5)
    first = await _answer(rig, *FAILED * 5)
    second = await _answer(rig, *FAILED * 4)
    before = await _claimed(rig)
    await rig.run("UPDATE deliveries SET next_try_at = now()")

    (tenth,) = await _answer(rig, "failed")

    row = await _failing(rig)
    assert {False} == {one.paused for one in first + second}
    assert (5, True) == (before, tenth.paused)
    assert row is not None
    assert PAUSE_S - 5 < row["left_s"] <= PAUSE_S
    assert {row["endpoint_id"]} == {str(one) for one in await deliveries.paused(rig.store)}
    assert 0 == await _claimed(rig)
    assert [3, 2, 2, 2, 1] == [delivery["tries"] for delivery in await rig.deliveries()]


async def test_when_the_pause_is_over_one_probe_goes_out_until_it_is_answered(rig: Rig) -> None:
    await _some(rig, 10)
    await _answer(rig, *FAILED * 10)
    await _later(rig, PAUSE_S)

    first, second = await _claimed(rig), await _claimed(rig)
    await _later(rig, 45)
    after_its_lease = await _claimed(rig)

    assert [1, 0, 1] == [first, second, after_its_lease]


async def test_a_probe_that_fails_doubles_the_pause_and_one_that_succeeds_ends_it(rig: Rig) -> None:
    await _some(rig, 10)
    await _answer(rig, *FAILED * 10)
    pauses = []
    for _ in range(7):
        await _later(rig, PAUSE_MAX_S)
        await _claimed(rig)
        await _answer(rig, "failed")
        pauses.append((await _failing(rig) or {})["pause_s"])
    await _later(rig, PAUSE_MAX_S)

    await _answer(rig, "well")

    assert [120, 240, 480, 960, 1800, 1800, 1800] == pauses
    assert None is await _failing(rig)
    assert 10 == await _claimed(rig)


async def test_what_was_under_way_when_the_pause_began_does_not_make_it_longer(rig: Rig) -> None:
    await _some(rig, 10)
    await _answer(rig, *FAILED * 10)

    await _answer(rig, *FAILED * 10)

    assert PAUSE_S == (await _failing(rig) or {})["pause_s"]


async def test_what_we_could_not_sign_is_not_the_endpoints_fault(rig: Rig) -> None:
    await _some(rig, 10)

    await _answer(rig, *UNSIGNED * 10)

    assert None is await _failing(rig)


async def test_after_five_days_of_failures_far_apart_an_endpoint_is_hopeless(rig: Rig) -> None:
    await _some(rig, 1)
    found = []
    for hours in (0, 60, 59, 2):
        await _later(rig, hours * HOUR_S)
        found += [one.hopeless for one in await _answer(rig, "failed")]

    assert [False, False, False, True] == found


async def test_few_failures_in_five_days_are_no_proof(rig: Rig) -> None:
    await _some(rig, 1)
    found = []
    for hours in (0, 11, 200, 11):
        await _later(rig, hours * HOUR_S)
        found += [one.hopeless for one in await _answer(rig, "failed")]

    assert [False] * 4 == found


@dataclass
class Model:
    """The rules of FIGURES in plain words, on a clock of their own."""

    now_s: float = 0
    since_s: float = 0
    failures: int = 0
    spaced: int = 0
    spaced_at_s: float = 0
    pause_s: float = 0
    paused_until_s: float = 0

    def takes(self, answers: list[Answer]) -> None:
        failed = answers.count("failed")
        if "well" in answers:
            self.failures, self.pause_s = 0, 0
        elif failed:
            self._fails(failed)

    def _fails(self, failed: int) -> None:
        if not self.failures:
            self.since_s = self.spaced_at_s = self.now_s
            self.spaced = 1
        elif self.now_s - self.spaced_at_s >= HOUR_S * 12:
            self.spaced += 1
            self.spaced_at_s = self.now_s
        self.failures += failed
        if self.failures >= PAUSE_FAILURES and (
            not self.pause_s or self.paused_until_s <= self.now_s
        ):
            self.pause_s = min(2 * self.pause_s, PAUSE_MAX_S) if self.pause_s else PAUSE_S
            self.paused_until_s = self.now_s + self.pause_s

    @property
    def hopeless(self) -> bool:
        return self.failures > 0 and self.spaced >= 3 and self.now_s - self.since_s >= 5 * DAY_S

    @property
    def claimable(self) -> int:
        if not self.pause_s:
            return 4
        return int(self.paused_until_s <= self.now_s)


@pytest.mark.parametrize("seed", range(6))
async def test_an_endpoints_past_is_what_the_rules_make_of_its_answers(rig: Rig, seed: int) -> None:
    chance, model = Random(seed), Model()
    await _some(rig, 4)
    for _ in range(40):
        passing_s = chance.choice([0, 1, 30, 61, 500, 1801, HOUR_S, 13 * HOUR_S, 2 * DAY_S])
        model.now_s += passing_s + 0.001
        await _later(rig, passing_s)
        kinds: list[Answer] = ["failed", "failed", "failed", "unsigned"]
        answers = [chance.choice(kinds) for _ in range(chance.randint(1, 4))]
        if chance.random() < 0.1:
            answers[0] = "well"
        model.takes(answers)

        recorded = await _answer(rig, *answers)

        _agree(model, await _failing(rig), recorded, answers)
        assert model.claimable == await _claimed(rig)
        await rig.run("UPDATE deliveries SET next_try_at = now()")
        await rig.run("UPDATE failing_endpoints SET probe_until = NULL")


def _agree(model: Model, row: Row | None, recorded: list[Recorded], answers: list[Answer]) -> None:
    if row is None:
        assert 0 == model.failures
        return
    assert (model.failures, model.spaced, model.pause_s) == (
        row["failures"],
        row["spaced_failures"],
        row["pause_s"] or 0,
    )
    assert abs(model.now_s - model.since_s - row["since_s"]) < 20
    if "failed" in answers:
        assert {(model.pause_s > 0, model.hopeless)} == {
            (one.paused, one.hopeless) for one in recorded
        }


async def test_disabling_cancels_what_waits_due_or_not_and_forgets_the_past(rig: Rig) -> None:
    await _some(rig, 3)
    await _answer(rig, *FAILED * 3)
    (row,) = await rig.rows("SELECT id, url FROM webhook_endpoints")
    await rig.run("UPDATE deliveries SET next_try_at = now() + interval '5 hours'")

    await deliveries.disable(rig.store, row["id"], row["url"], "failing")
    claimed = await _claimed(rig)

    (endpoint,) = await rig.rows("SELECT disabled_reason, disabled_at FROM webhook_endpoints")
    assert ("failing", True) == (endpoint["disabled_reason"], endpoint["disabled_at"] is not None)
    assert 0 == claimed
    assert {"canceled"} == {delivery["status"] for delivery in await rig.deliveries()}
    assert None is await _failing(rig)


async def test_an_endpoint_that_has_moved_is_not_disabled_for_its_old_address(rig: Rig) -> None:
    endpoint_id = await rig.endpoint("https://new.example/hook")

    await deliveries.disable(rig.store, endpoint_id, "https://old.example/hook", "gone")

    (endpoint,) = await rig.rows("SELECT disabled_at FROM webhook_endpoints")
    assert None is endpoint["disabled_at"]


async def test_no_claim_gives_an_endpoint_more_than_its_room(rig: Rig) -> None:
    ids = [await rig.endpoint(f"https://example.com/{number}") for number in range(3)]
    for _ in range(3):
        await rig.finished()
    await rig.run("UPDATE deliveries SET next_try_at = now()")

    claim = await deliveries.claim_due(
        rig.store, limit=100, lease_s=45, room=2, rooms={ids[0]: 0, ids[1]: 3}
    )

    found = [due.endpoint_id for due in claim.found]
    assert [0, 3, 2] == [found.count(endpoint_id) for endpoint_id in ids]
    assert (FIRST, False) == (claim.after, claim.more)


async def test_a_claim_that_is_full_goes_on_behind_where_it_ended(rig: Rig) -> None:
    ids = sorted([await rig.endpoint(f"https://example.com/{number}") for number in range(3)])
    await rig.finished()
    await rig.run("UPDATE deliveries SET next_try_at = now()")

    first = await deliveries.claim_due(rig.store, limit=2, lease_s=45)
    second = await deliveries.claim_due(rig.store, limit=2, lease_s=45, after=first.after)

    assert (set(ids[:2]), True) == ({due.endpoint_id for due in first.found}, first.more)
    assert ([ids[2]], False) == ([due.endpoint_id for due in second.found], second.more)


async def test_what_is_put_back_is_due_at_once_and_only_its_holder_can_do_that(rig: Rig) -> None:
    due = await rig.delivery()

    await deliveries.put_back(rig.store, [(due.id, due.lease_no - 1)])
    not_ours = await _claimed(rig)
    await deliveries.put_back(rig.store, [(due.id, due.lease_no)])
    claim = await deliveries.claim_due(rig.store, limit=1, lease_s=45)
    await deliveries.put_back(rig.store, [(due.id, due.lease_no)])

    assert 0 == not_ours
    assert [(due.id, 0)] == [(found.id, found.tries) for found in claim.found]
    assert 0 == await _claimed(rig)


@pytest.mark.parametrize(("answer", "status"), [("well", "succeeded"), ("failed", "canceled")])
async def test_a_request_under_way_when_its_delivery_was_canceled_is_told(
    rig: Rig, answer: Answer, status: str
) -> None:
    due = await rig.delivery()
    await rig.run("UPDATE deliveries SET status = 'canceled', finished_at = now()")
    changes: dict[str, Any] = {
        "status": "succeeded" if answer == "well" else "pending",
        "blamed": answer == "failed",
        "started_at": "2026-11-22T12:00:00Z",
        "duration_ms": 1,
        "outcome": "answered",
    }

    await deliveries.record(
        rig.store, rig.deps.settings, [Try(str(due.id), due.lease_no, **changes)]
    )

    (row,) = await rig.deliveries()
    assert (status, True) == (row["status"], row["finished_at"] is not None)
    assert 1 == len(await rig.tries(due.id))


async def test_a_delivery_sent_again_keeps_its_log_and_counts_its_tries_anew(rig: Rig) -> None:
    due = await rig.delivery()
    await _answer(rig, "failed")
    await _answer(rig, "failed")
    await rig.run("UPDATE deliveries SET tries = 0")

    await _answer(rig, "well")

    (row,) = await rig.deliveries()
    assert 1 == row["tries"]
    assert [1, 2, 3] == [made["number"] for made in await rig.tries(due.id)]


async def test_what_ended_long_ago_is_forgotten_with_its_tries_and_nothing_else(rig: Rig) -> None:
    for number in range(3):
        await rig.endpoint(f"https://example.com/{number}")
    await rig.finished()
    gone, waits, recent = [row["id"] for row in await rig.deliveries()]
    for place, delivery_id in enumerate((gone, waits)):
        await _age(rig, delivery_id, UUID(int=OLD + place))
    await rig.run(
        "UPDATE deliveries SET status = 'succeeded', finished_at = now() WHERE id = %(id)s",
        id=recent,
    )
    await rig.run(
        "UPDATE deliveries SET status = 'pending', finished_at = NULL WHERE id = %(id)s",
        id=UUID(int=OLD + 1),
    )
    await rig.run(
        "INSERT INTO delivery_tries (delivery_id, number, started_at, duration_ms, outcome,"
        " excerpt) SELECT id, 1, now(), 1, 'answered', '' FROM deliveries"
    )

    forgotten = [await deliveries.prune(rig.store, kept_s=30 * DAY_S, limit=10) for _ in range(2)]

    assert [1, 0] == forgotten
    assert ["pending", "succeeded"] == sorted(row["status"] for row in await rig.deliveries())
    assert 2 == len(await rig.rows("SELECT * FROM delivery_tries"))


async def _age(rig: Rig, delivery_id: str, new_id: UUID) -> None:
    """Let a delivery have been made, and have ended, in 2023."""
    await rig.run(
        "UPDATE deliveries SET id = %(new)s, status = 'succeeded', finished_at = '2023-11-15'"
        " WHERE id = %(id)s",
        id=delivery_id,
        new=new_id,
    )
