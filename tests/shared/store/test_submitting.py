"""Submissions: one row per key, stale catalogs noticed, turns numbered without gaps or doubles."""

import asyncio
from collections import Counter
from collections.abc import Sequence
from random import Random
from typing import Any
from uuid import UUID

import pytest
from msgspec.structs import replace

from shared.ids import RunId, WorkspaceId, new_id
from shared.store import submitting, sweeping
from shared.store.submitting import Existing, NewRun, Stale, Stored, Taken
from tests.shared.store.rig import Rig, base64

FAR = "2999-01-01T00:00:00Z"
DAY_S = 86_400
_OWN = {"id", "created_at", "available_at", "expires_at"}


def _keyed(rig: Rig, key: str, *, fingerprint: str = "ab", **changes: Any) -> NewRun:
    columns = {
        "operation": "runs.submit",
        "idempotency_key": key,
        "fingerprint": fingerprint * 32,
        "key_kept_s": DAY_S,
    }
    return rig.new(**(columns | changes))


async def _insert(rig: Rig, *new: NewRun) -> Sequence[Stored | Stale | Taken]:
    return await submitting.insert(rig.store, new)


async def _made_by_key(rig: Rig, key: str = "k") -> Existing | None:
    found = await submitting.find_by_keys(
        rig.store, rig.tenant.workspace_id, "runs.submit", [key, "another"]
    )
    return found.get(key)


async def test_a_stored_run_waits_with_everything_it_was_given(rig: Rig) -> None:
    new = rig.new(
        priority="low",
        params='{"temperature":1}',
        env_vars=base64(b"sealed"),
        metadata='{"a":["b"]}',
        tags=("x", "y"),
        tag="live",
        traceparent="00-ab",
        max_attempts=7,
        on_unknown_outcome="fail",
        model_overridden=True,
        deadline=FAR,
    )

    (stored,) = await _insert(rig, new)

    row = await rig.row(RunId(UUID(new.id)))
    assert isinstance(stored, Stored)
    assert ("queued", new.id, new.thread_id) == (
        stored.status,
        str(stored.run_id),
        str(stored.thread_id),
    )
    assert {
        "status": "queued",
        "priority": "low",
        "params": {"temperature": 1},
        "env_vars": "\\x" + b"sealed".hex(),
        "metadata": {"a": ["b"]},
        "tags": ["x", "y"],
        "tag": "live",
        "traceparent": "00-ab",
        "max_attempts": 7,
        "on_unknown_outcome": "fail",
        "model_overridden": True,
        "deadline": "2999-01-01T00:00:00+00:00",
        "inputs": {"name": "Ada"},
        "turn": None,
        "needs_turn": False,
        "calls": 0,
    }.items() <= row.items()


async def test_answers_come_in_the_order_of_the_batch(rig: Rig) -> None:
    await _insert(rig, taken := rig.new())
    again = replace(taken, again=True)
    batch = [rig.new(), again, rig.new(catalog_version=99), rig.new(run_at=FAR)]

    answers = await _insert(rig, *reversed(batch))

    assert [Stored, Stale, Taken, Stored] == [type(answer) for answer in answers]
    assert ["scheduled", "queued"] == [
        answer.status for answer in answers if isinstance(answer, Stored)
    ]


async def test_an_empty_batch_is_answered_with_nothing(rig: Rig) -> None:
    assert [] == await _insert(rig)


async def test_a_scheduled_run_expires_counted_from_its_moment(rig: Rig) -> None:
    await _insert(rig, rig.new(run_at=FAR, expires_in_s=60))

    (row,) = await rig.rows("SELECT expires_at - available_at AS wait, status FROM runs")
    assert {"wait": "00:01:00", "status": "scheduled"} == row


async def test_a_moment_that_has_passed_means_now(rig: Rig) -> None:
    (stored,) = await _insert(rig, rig.new(run_at="2001-01-01T00:00:00Z", expires_in_s=60))

    (row,) = await rig.rows("SELECT available_at = created_at AS now, status FROM runs")
    assert isinstance(stored, Stored)
    assert {"now": True, "status": "queued"} == row


async def test_text_of_every_kind_is_stored_as_it_is(rig: Rig) -> None:
    text = "\x01\t\"\\u0000'}{%s 😀é\u2028"
    new = rig.new(channel=text, metadata="{}", tags=(text,), inputs='{"a":"\\u0001 \\\\u0000"}')

    await _insert(rig, new)

    row = await rig.row(RunId(UUID(new.id)))
    assert (text, [text], {"a": "\x01 \\u0000"}) == (row["channel"], row["tags"], row["inputs"])


# Again


async def test_a_batch_executed_again_changes_nothing(rig: Rig) -> None:
    batch = [rig.new(turns=True), _keyed(rig, "a"), rig.new(run_at=FAR)]
    await _insert(rig, *batch)
    before = await rig.rows("SELECT * FROM runs ORDER BY id")

    again = await _insert(rig, *(replace(run, again=True) for run in batch))

    assert [Taken()] * 3 == again
    assert before == await rig.rows("SELECT * FROM runs ORDER BY id")
    assert [{"last_turn": 1}] == await rig.rows("SELECT last_turn FROM turns")


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"run_at": FAR, "deadline": FAR, "history_read": True},
        {"run_at": "2020-01-01T00:00:00Z", "params": "{}", "model_overridden": True},
    ],
)
async def test_the_short_statement_stores_what_the_whole_one_does(
    rig: Rig, changes: dict[str, Any]
) -> None:
    new = rig.new(**changes)
    other = replace(new, id=str(new_id()), again=True)

    (short,), (whole,) = await _insert(rig, new), await _insert(rig, other)

    assert isinstance(short, Stored)
    assert isinstance(whole, Stored)
    rows = await rig.rows("SELECT * FROM runs ORDER BY id")
    same = [{name: row[name] for name in row.keys() - _OWN} for row in rows]
    assert 2 == len(same)
    assert same[0] == same[1]
    assert (short.thread_id, short.status) == (whole.thread_id, whole.status)


async def test_a_stale_submission_is_noticed_by_the_short_statement_too(rig: Rig) -> None:
    answers = await _insert(rig, rig.new(), rig.new(catalog_version=99))

    assert [Stored, Stale] == [type(answer) for answer in answers]


async def test_a_stored_run_is_found_by_its_id_in_its_workspace_only(rig: Rig) -> None:
    run_id = await rig.queued()

    found = await submitting.find_by_id(rig.store, rig.tenant.workspace_id, run_id)
    foreign = await submitting.find_by_id(rig.store, WorkspaceId(new_id()), run_id)

    assert found is not None
    assert (run_id, "queued", None) == (found.run_id, found.status, found.fingerprint)
    assert foreign is None


# Idempotency keys


async def test_all_or_nothing_means_every_row_or_none(rig: Rig) -> None:
    await _insert(rig, taken := _keyed(rig, "k"))

    refused = await submitting.insert_all(rig.store, [rig.new(turns=True), _keyed(rig, "k")])
    stale = await submitting.insert_all(
        rig.store, [rig.new(turns=True), rig.new(catalog_version=9)]
    )
    stored = await submitting.insert_all(rig.store, [rig.new(turns=True), _keyed(rig, "k2")])

    assert [Stored, Taken] == [type(answer) for answer in refused]
    assert [Stored, Stale] == [type(answer) for answer in stale]
    assert [Stored, Stored] == [type(answer) for answer in stored]
    assert 3 == len(await rig.rows("SELECT 1 FROM runs"))
    found = await _made_by_key(rig)
    assert found is not None
    assert taken.id == str(found.run_id)


async def test_fifty_at_once_with_one_key_make_one_run(rig: Rig) -> None:
    batches = [[_keyed(rig, "k")] for _ in range(50)]

    answers = await asyncio.gather(*(_insert(rig, *batch) for batch in batches))

    assert {Stored: 1, Taken: 49} == Counter(type(answer) for (answer,) in answers)
    assert 1 == len(await rig.rows("SELECT 1 FROM runs"))


async def test_of_a_batch_with_one_key_the_first_makes_the_run(rig: Rig) -> None:
    batch = [_keyed(rig, "k", fingerprint=f"{number:02}") for number in range(5)]

    answers = await _insert(rig, *batch)

    found = await _made_by_key(rig)
    assert [Stored, Taken, Taken, Taken, Taken] == [type(answer) for answer in answers]
    assert found is not None
    assert (batch[0].id, b"\0" * 32) == (str(found.run_id), found.fingerprint)


async def test_a_stale_first_leaves_the_key_to_the_second(rig: Rig) -> None:
    answers = await _insert(rig, _keyed(rig, "k", catalog_version=99), _keyed(rig, "k"))

    assert [Stale, Stored] == [type(answer) for answer in answers]


async def test_keys_of_two_workspaces_have_nothing_to_do_with_each_other(
    rig: Rig, other: Rig
) -> None:
    answers = await _insert(rig, _keyed(rig, "k"), _keyed(other, "k"))

    assert [Stored, Stored] == [type(answer) for answer in answers]


async def test_an_expired_key_makes_a_new_run(rig: Rig) -> None:
    await _insert(rig, old := _keyed(rig, "k"))
    await rig.run("UPDATE idempotency_keys SET expires_at = now() - interval '1 s'")
    gone = await _made_by_key(rig)

    answers = await _insert(
        rig, new := _keyed(rig, "k", fingerprint="cd"), _keyed(rig, "k", fingerprint="ef")
    )

    found = await _made_by_key(rig)
    assert gone is None
    assert [Stored, Taken] == [type(answer) for answer in answers]
    assert found is not None
    assert (new.id, b"\xcd" * 32) == (str(found.run_id), found.fingerprint)
    assert old.id in {row["id"] for row in await rig.rows("SELECT id FROM runs")}


async def test_a_stale_submission_uses_up_no_key(rig: Rig) -> None:
    (first,) = await _insert(rig, _keyed(rig, "k", catalog_version=99))
    (second,) = await _insert(rig, _keyed(rig, "k"))

    assert (Stale, Stored) == (type(first), type(second))


async def test_keys_in_any_order_from_many_requests_do_not_deadlock(rig: Rig) -> None:
    random, thread = Random(5), str(new_id())
    keys = [f"k{number}" for number in range(20)]

    for _ in range(5):
        batches = [
            [
                _keyed(rig, key, thread_id=thread, turns=True, channel=random.choice("ab"))
                for key in random.sample(keys, 10)
            ]
            for _ in range(5)
        ]
        await asyncio.gather(*(_insert(rig, *batch) for batch in batches))

    assert 20 == len(await rig.rows("SELECT 1 FROM runs"))
    assert [] == await rig.rows(
        "SELECT 1 FROM pg_stat_database WHERE datname = current_database() AND deadlocks > 0"
    )


# Stale catalogs


async def test_what_was_resolved_before_a_change_is_refused(rig: Rig) -> None:
    await rig.run("UPDATE workspaces SET catalog_version = catalog_version + 1")

    (answer,) = await _insert(rig, rig.new())

    assert isinstance(answer, Stale)
    assert [] == await rig.rows("SELECT 1 FROM runs")


async def test_a_workspace_that_is_gone_is_stale(rig: Rig) -> None:
    (answer,) = await _insert(rig, rig.new(workspace_id=str(new_id())))

    assert isinstance(answer, Stale)


# Turns


def _turns(rows: Sequence[dict[str, Any]]) -> list[int]:
    return [row["turn"] for row in rows]


async def test_turns_of_a_batch_follow_its_order_in_every_channel(rig: Rig) -> None:
    thread = str(new_id())
    await rig.queued(thread_id=thread, turns=True)
    batch = [
        rig.new(thread_id=thread, turns=True, channel=channel)
        for channel in ("default", "aside", "default", "aside", "default")
    ]
    mixed = [
        rig.new(thread_id=thread),
        batch[0],
        rig.new(thread_id=thread, turns=True, run_at=FAR),
        *batch[1:],
        rig.new(turns=True),
    ]

    await _insert(rig, *mixed)

    turns = [(await rig.row(RunId(UUID(new.id))))["turn"] for new in mixed]
    assert [None, 2, None, 1, 3, 2, 4, 1] == turns


async def test_concurrent_batches_never_share_a_turn(rig: Rig) -> None:
    thread = str(new_id())
    batches = [[rig.new(thread_id=thread, turns=True) for _ in range(4)] for _ in range(10)]

    await asyncio.gather(*(_insert(rig, *batch) for batch in batches))

    rows = await rig.rows("SELECT turn FROM runs ORDER BY turn")
    assert list(range(1, 41)) == _turns(rows)


async def test_a_thread_is_made_when_it_is_named_or_remembers(rig: Rig) -> None:
    named, remembering, plain = (str(new_id()) for _ in range(3))

    await _insert(
        rig,
        rig.new(thread_id=named, thread_given=True),
        rig.new(thread_id=remembering, turns=True),
        rig.new(thread_id=plain),
    )

    rows = await rig.rows("SELECT id FROM threads")
    assert {named, remembering} == {row["id"] for row in rows}


async def test_a_refused_submission_takes_no_turn(rig: Rig) -> None:
    thread = str(new_id())
    await _insert(
        rig,
        _keyed(rig, "k", thread_id=thread, turns=True),
        _keyed(rig, "k", thread_id=thread, turns=True),
        rig.new(catalog_version=99, thread_id=thread, turns=True),
    )

    assert [{"last_turn": 1}] == await rig.rows("SELECT last_turn FROM turns")


async def test_scheduled_runs_take_their_turns_when_they_are_due(rig: Rig) -> None:
    thread = str(new_id())
    later = [await rig.queued(thread_id=thread, turns=True, run_at=FAR) for _ in range(2)]
    await rig.queued(thread_id=thread, turns=True)
    before = await sweeping.start_scheduled(rig.store)
    for run_id in later:
        await rig.change(run_id, "available_at = now()")

    started = await sweeping.start_scheduled(rig.store)

    rows = [await rig.row(run_id) for run_id in later]
    assert (0, []) == before
    assert set(later) == {run_id for run_id, _ in started[1]}
    assert [2, 3] == _turns(rows)
    assert {("queued", False)} == {(row["status"], row["needs_turn"]) for row in rows}
    assert (0, []) == await sweeping.start_scheduled(rig.store)


# Finding what to run


@pytest.mark.parametrize(
    ("kind", "selector", "found"),
    [
        ("number", "1", True),
        ("number", "01", False),
        ("number", "2", False),
        ("number", "9" * 40, False),
        ("latest", "", True),
        ("tag", "live", False),
        ("id", "00000000-0000-0000-0000-000000000000", False),
    ],
)
async def test_a_version_is_found_by_the_name_it_has(
    rig: Rig, kind: str, selector: str, *, found: bool
) -> None:
    resolved = await submitting.resolve(
        rig.store, rig.tenant.workspace_id, "greeting", (kind, selector), None
    )

    assert rig.target.prompt_id == resolved.prompt_id
    assert found == (resolved.version_id == rig.target.version_id)


async def test_names_are_resolved_within_the_workspace_only(rig: Rig, other: Rig) -> None:
    await rig.run("DELETE FROM prompt_versions WHERE id = %(id)s", id=rig.target.version_id)
    kinds = [("id", str(other.target.version_id)), ("number", "1"), ("latest", "")]

    for kind in kinds:
        resolved = await submitting.resolve(
            rig.store, rig.tenant.workspace_id, "greeting", kind, None
        )
        assert resolved.version_id is None


@pytest.mark.parametrize(
    ("name", "found"), [(None, True), ("PRODUCTION", True), ("", False), ("staging", False)]
)
async def test_an_environment_is_found_by_name_or_as_the_default(
    rig: Rig, name: str | None, *, found: bool
) -> None:
    resolved = await submitting.resolve(
        rig.store, rig.tenant.workspace_id, "greeting", ("latest", ""), name
    )

    assert found == (resolved.environment_id == rig.target.environment_id)
