"""The pruner: what was kept for long enough goes, and nothing else does."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import msgspec
import pytest
from sqlalchemy import LargeBinary, Text
from sqlalchemy.dialects.postgresql import JSON, JSONB

from shared.deps import Deps
from shared.domain.environments import Retention
from shared.domain.recovery import Window
from shared.errors import NotFoundError
from shared.ids import RunId, WorkspaceId, new_id
from shared.services import deliveries, workspaces
from shared.settings import Settings
from shared.store import pruning, sessions
from shared.store.deliveries import Try
from shared.store.ending import ERASED, DueDelivery
from shared.store.pruning import Kept
from shared.store.tables import METADATA
from shared.tasks import end
from tests.shared.store.rig import Rig, a_rig, back, failed, outcome
from tests.worker.lane_rig import until
from worker.prune import Pruner

FOR_EVER = Kept(None, None)
TABLES = (
    "runs",
    "attempts",
    "events",
    "deliveries",
    "delivery_tries",
    "messages",
    "turns",
    "idempotency_keys",
)
SECRET = "Ada Lovelace"
SECRETS: dict[type, str] = {
    Text: "%(secret)s::text",
    JSON: "to_json(%(secret)s::text)",
    JSONB: "jsonb_build_object('name', %(secret)s::text)",
    LargeBinary: "convert_to(%(secret)s, 'UTF8')",
}
"""A column of a type, and SQL that makes a value with the secret in it."""
_EVENTS = "(SELECT id FROM events WHERE run_id = %(run)s)"
_DELIVERIES = f"(SELECT id FROM deliveries WHERE event_id IN {_EVENTS})"
OF_RUN = {
    "runs": "id = %(run)s",
    "attempts": "run_id = %(run)s",
    "events": "run_id = %(run)s",
    "messages": "run_id = %(run)s",
    "holds": "run_id = %(run)s",
    "idempotency_keys": "run_id = %(run)s",
    "deliveries": f"event_id IN {_EVENTS}",
    "delivery_tries": f"delivery_id IN {_DELIVERIES}",
}
"""Tables with something of a run, and SQL for its rows."""
_WORDS_OF_OURS = {
    "runs": "status status_reason priority on_unknown_outcome incomplete_reason error_code "
    "error_origin traceparent token_usage cost",
    "attempts": "provider model outcome billed provider_request_id usage usage_raw cost "
    "price_version error_code",
    "events": "type",
    "messages": "role",
    "deliveries": "status",
    "delivery_tries": "outcome address",
}
_NAMES_GIVEN_BY_CALLERS = {
    "runs": "tag channel metadata tags model models params",
    "messages": "channel",
    "idempotency_keys": "operation key fingerprint",
}
_GONE_WHEN_A_RUN_ENDS = {"runs": "env_vars"}
STAYS = {
    f"{table}.{column}"
    for kept in (_WORDS_OF_OURS, _NAMES_GIVEN_BY_CALLERS, _GONE_WHEN_A_RUN_ENDS)
    for table, columns in kept.items()
    for column in columns.split()
}
"""What erasing leaves, as docs/how-to/keep-data-no-longer-than-needed.md says."""
TURN = [{"role": "user", "content": f"I am {SECRET}"}, {"role": "assistant", "content": SECRET}]


@pytest.fixture(name="settings")
def settings_with_quick_pruning(settings: Settings) -> Settings:
    return settings.model_copy(update={"prune_s": 0.02, "prune_batch": 3, "prune_share": 1.0})


@pytest.fixture
async def rig(deps: Deps) -> Rig:
    """All that is called in it passes for added up, or nothing would be deleted."""
    rig = await a_rig(deps)
    await rig.run("INSERT INTO usage_marks SELECT id, 'infinity' FROM workspaces")
    return rig


@asynccontextmanager
async def _pruning(*processes: Deps) -> AsyncIterator[None]:
    pruners = [Pruner(deps) for deps in processes]
    tasks = [asyncio.create_task(pruner.run_forever()) for pruner in pruners]
    try:
        yield
    finally:
        await end(tasks)
        for pruner in pruners:
            await pruner.close()


async def _keep(rig: Rig, contents: int | None = None, runs: int | None = None) -> None:
    await rig.run(
        "UPDATE environments SET retain_contents_days = %(contents)s, retain_runs_days = %(runs)s",
        contents=contents,
        runs=runs,
    )


async def _aged(rig: Rig, run_id: RunId, days: float) -> RunId:
    await rig.change(run_id, f"finished_at = now() - interval '{days} days'")
    return run_id


async def _telling(rig: Rig, **changes: Any) -> tuple[RunId, tuple[DueDelivery, ...]]:
    """A finished turn of a thread, with the secret wherever a run's texts get to."""
    columns = {
        "inputs": f'{{"name":"{SECRET}"}}',
        "thread_id": str(new_id()),
        "thread_given": True,
        "turns": True,
        "idempotency_key": str(new_id()),
        "operation": "runs.submit",
        "fingerprint": "00" * 32,
        "key_kept_s": 3600,
    }
    run = await rig.called(**columns)
    await rig.change(
        run.id,
        f"""messages = '[{{"role":"user","content":"{SECRET}"}}]', messages_sha256 = '\\x00'""",
    )
    missed = back(
        run,
        attempt=1,
        output=SECRET,
        outcome="incomplete",
        billed="yes",
        attempt_error_code="schema_mismatch",
        attempt_error=f"'{SECRET}' is not of type 'object'",
        last_error=SECRET,
    )
    await rig.settle(missed)
    again = await rig.claim(run.session_id, run.id)
    ended = outcome(
        again,
        attempt=0,
        output=SECRET,
        outcome=None,
        billed=None,
        turn=msgspec.Raw(msgspec.json.encode(TURN)),
        **changes,
    )
    (moved,) = await rig.settle(ended)
    assert moved.applied
    return run.id, moved.deliveries


def _answered(due: DueDelivery) -> Try:
    return Try(
        delivery_id=str(due.id),
        lease_no=due.lease_no,
        started_at="2026-01-01T00:00:00Z",
        duration_ms=1,
        outcome="answered",
        status="succeeded",
        status_code=200,
        excerpt=f"thanks for {SECRET}",
    )


async def _everything(rig: Rig) -> str:
    """Every row of what belongs to runs, as text."""
    return str([await rig.rows(f"SELECT * FROM {table}") for table in TABLES])


async def _counts(rig: Rig) -> dict[str, int]:
    return {table: len(await rig.rows(f"SELECT 1 FROM {table}")) for table in TABLES}


async def _seed(rig: Rig, run_id: RunId) -> set[str]:
    """Write the secret into every text of a run and of what belongs to it that is not `STAYS`.

    Answers the columns. One that a migration adds is among them: erase it, or say here why not.
    """
    seeded = set()
    for table, of_run in OF_RUN.items():
        for column in METADATA.tables[table].columns:
            place = f"{table}.{column.name}"
            kind = SECRETS.get(type(column.type))
            if kind is None or place in STAYS:
                continue
            statement = f"UPDATE {table} SET {column.name} = {kind} WHERE {of_run}"
            await rig.run(statement, secret=SECRET, run=run_id)
            seeded.add(place)
    return seeded


async def _places(rig: Rig) -> set[str]:
    """Every column of every table that has the secret in it somewhere."""
    found = set()
    for table in METADATA.sorted_tables:
        for row in await rig.rows(f"SELECT * FROM {table.name}"):
            found |= {f"{table.name}.{name}" for name, value in row.items() if _tells(value)}
    return found


def _tells(value: object) -> bool:
    return SECRET in str(value) or SECRET.encode().hex() in str(value)


async def test_erasing_leaves_no_text_of_a_run_in_any_column_of_any_table(rig: Rig) -> None:
    await rig.endpoint()
    run_id, (due,) = await _telling(rig)
    await rig.record(_answered(due))
    await rig.change(run_id, "error_origin = 'provider'")
    seeded = await _seed(rig, run_id)
    before = await _places(rig)
    await _keep(rig, contents=0)

    erased = await pruning.erase(rig.store, FOR_EVER, 10)
    after = await _places(rig)

    assert 1 == erased
    assert seeded == before
    assert {"runs.transcript", "runs.flow", "attempts.late_output", "attempts.verbatim"} < before
    assert set() == after


async def test_an_answer_that_comes_after_its_run_was_erased_is_charged_and_not_kept(
    rig: Rig,
) -> None:
    run = await rig.called(on_unknown_outcome="fail")
    await rig.die(run.session_id)
    await sessions.reap(rig.store, poison_deaths=3)
    await _keep(rig, contents=0)

    erased = await pruning.erase(rig.store, FOR_EVER, 10)
    late = outcome(
        run, output=SECRET, verbatim=f'"{SECRET}"', attempt_error=SECRET, attempt_cost_nanousd=42
    )
    (moved,) = await rig.settle(late)

    (attempt,) = await rig.attempts(run.id)
    assert (1, False) == (erased, moved.applied)
    assert (True, "succeeded", 42) == (attempt["late"], attempt["outcome"], attempt["cost_nanousd"])
    assert set() == await _places(rig)


async def test_an_answer_that_comes_while_its_run_is_erased_is_not_kept(rig: Rig) -> None:
    run = await rig.called(on_unknown_outcome="fail")
    await rig.die(run.session_id)
    await sessions.reap(rig.store, poison_deaths=3)
    await _keep(rig, contents=0)
    late = outcome(run, output=SECRET, verbatim=SECRET)

    async with await rig.store.connect_alone() as holder, holder.transaction():
        await holder.execute("SELECT 1 FROM attempts FOR UPDATE")
        erasing = asyncio.create_task(pruning.erase(rig.store, FOR_EVER, 10))
        await rig.blocked()
        settling = asyncio.create_task(rig.settle(late))
        await rig.blocked(2)
    await asyncio.gather(erasing, settling)

    assert set() == await _places(rig)


async def test_erasing_leaves_a_run_s_texts_nowhere_and_its_figures_everywhere(rig: Rig) -> None:
    await rig.endpoint()
    run_id, (due,) = await _telling(rig, token_usage=msgspec.Raw(b'{"input":7}'), cost_nanousd=42)
    await rig.record(_answered(due))
    await _keep(rig, contents=0)

    erased = await pruning.erase(rig.store, FOR_EVER, 10)

    assert 1 == erased
    assert SECRET not in await _everything(rig)
    row = await rig.row(run_id)
    assert ("succeeded", {"input": 7}, 42) == (
        row["status"],
        row["token_usage"],
        row["cost_nanousd"],
    )
    assert [(None, None, None)] == [(row["inputs"], row["messages"], row["output"])]
    (event,) = await rig.events(run_id)
    assert (None, False) == (
        event["data"]["run"]["output"],
        event["data"]["run"]["outputTruncated"],
    )
    assert event["data"]["run"]["contentsErasedAt"] is not None
    assert 0 == await pruning.erase(rig.store, FOR_EVER, 10)


async def test_contents_wait_for_the_webhook(rig: Rig) -> None:
    await rig.endpoint()
    _, (due,) = await _telling(rig)
    await _keep(rig, contents=0, runs=1)

    early = await pruning.erase(rig.store, FOR_EVER, 10)
    await rig.record(_answered(due))
    later = await pruning.erase(rig.store, FOR_EVER, 10)

    assert (0, 1) == (early, later)
    assert SECRET in due.body


async def test_each_run_goes_when_its_environment_s_time_is_over_and_takes_all_along(
    rig: Rig,
) -> None:
    await rig.endpoint()
    await _keep(rig, runs=30)
    old, (due,) = await _telling(rig)
    await rig.record(_answered(due))
    await _aged(rig, old, 31)
    young = await _aged(rig, await rig.finished(), 29)
    waiting, running = await rig.queued(), (await rig.claimed()).id
    (kept,) = [one for one in await rig.deliveries() if str(one["event_id"]) != str(due.event_id)]

    deleted = await pruning.delete(rig.store, FOR_EVER, 10)

    assert 1 == deleted
    assert {str(young), str(waiting), str(running)} == {
        row["id"] for row in await rig.rows("SELECT id FROM runs")
    }
    assert [kept] == await rig.deliveries()
    counts = {"attempts": 1, "events": 1, "delivery_tries": 0, "messages": 0, "turns": 1}
    assert counts | {"runs": 3, "deliveries": 1, "idempotency_keys": 0} == await _counts(rig)


async def test_an_environment_goes_before_its_workspace_and_that_before_the_settings(
    rig: Rig,
) -> None:
    run_id = await _aged(rig, await rig.finished(), 10)
    kept: list[int] = []
    for environment, workspace, settings in (
        (None, None, None),
        (20, 5, 5),
        (None, 20, 5),
        (None, None, 20),
        (None, None, 5),
    ):
        await _keep(rig, runs=environment)
        await rig.run("UPDATE workspaces SET retain_runs_days = %(days)s", days=workspace)
        await pruning.delete(rig.store, Kept(None, settings), 10)
        kept.append(len(await rig.rows("SELECT 1 FROM runs WHERE id = %(id)s", id=run_id)))

    assert [1, 1, 1, 1, 0] == kept


async def test_the_operator_says_what_a_workspace_keeps(rig: Rig) -> None:
    workspace = rig.tenant.workspace_id
    await _aged(rig, await rig.finished(), 10)
    await workspaces.retain(rig.deps, workspace, Retention(contents_days=11, runs_days=9))
    (row,) = await rig.rows("SELECT actor, details FROM audit_log")

    assert {"actor": "operator", "details": {"contentsDays": 11, "runsDays": 9}} == row
    assert 1 == await pruning.delete(rig.store, FOR_EVER, 10)
    with pytest.raises(NotFoundError):
        await workspaces.retain(rig.deps, WorkspaceId(new_id()), Retention())


async def test_contents_stay_no_longer_than_the_run_would(rig: Rig) -> None:
    await _aged(rig, await rig.finished(), 10)

    assert 0 == await pruning.erase(rig.store, Kept(None, 11), 10)
    assert 1 == await pruning.erase(rig.store, Kept(None, 9), 10)
    assert 1 == await pruning.delete(rig.store, Kept(3, 9), 10)


async def test_the_text_of_a_vendor_s_error_is_erased_and_its_code_is_not(rig: Rig) -> None:
    run = await rig.called()
    await rig.settle(failed(run, error_message=f"cannot greet {SECRET}"))
    await _keep(rig, contents=0)

    await pruning.erase(rig.store, FOR_EVER, 10)

    row = await rig.row(run.id)
    assert ("failed", "provider_refused", ERASED) == (
        row["status"],
        row["error_code"],
        row["error_message"],
    )
    assert SECRET not in await _everything(rig)


async def test_the_pruner_goes_on_until_nothing_is_left_also_beside_another(
    rig: Rig, settings: Settings
) -> None:
    for _ in range(8):
        await _aged(rig, await rig.finished(), 2)
    kept = await rig.finished()
    await _keep(rig, runs=1)

    async def left() -> bool:
        return 1 == len(await rig.rows("SELECT 1 FROM runs"))

    async with _pruning(rig.deps, rig.deps):
        await until(left)

    assert [str(kept)] == [row["id"] for row in await rig.rows("SELECT id FROM runs")]


async def test_two_pruners_at_once_take_different_runs(rig: Rig) -> None:
    for _ in range(20):
        await _aged(rig, await rig.finished(), 2)

    done = await asyncio.gather(
        *(pruning.delete(rig.store, Kept(None, 1), 5) for _ in range(3)),
        *(pruning.erase(rig.store, Kept(1, None), 5) for _ in range(3)),
    )

    assert sum(done[:3]) == 20 - len(await rig.rows("SELECT 1 FROM runs"))


async def test_keys_that_hold_no_longer_are_forgotten(rig: Rig) -> None:
    for _ in range(4):
        await _telling(rig)
    await rig.run(
        "UPDATE idempotency_keys SET expires_at = now() - interval '1 s' WHERE key <> "
        "(SELECT min(key) FROM idempotency_keys)"
    )

    async def forgotten() -> bool:
        return 1 == len(await rig.rows("SELECT 1 FROM idempotency_keys"))

    async with _pruning(rig.deps):
        await until(forgotten)

    assert 4 == len(await rig.rows("SELECT 1 FROM runs"))


async def _to_be_deleted(rig: Rig) -> DueDelivery:
    """The delivery, over and done with, of the one run whose time is over."""
    await rig.endpoint()
    run_id, (due,) = await _telling(rig)
    await rig.record(_answered(due))
    await _aged(rig, run_id, 2)
    await _keep(rig, runs=1)
    return due


async def _recover(rig: Rig, due: DueDelivery) -> int:
    window = Window(since=rig.deps.clock.now() - timedelta(hours=1))
    principal = rig.tenant.principal
    return (await deliveries.recover(rig.deps, principal, str(due.endpoint_id), window)).recovered


async def _resend(rig: Rig, due: DueDelivery) -> int:
    with pytest.raises(NotFoundError):
        await deliveries.resend(rig.deps, rig.tenant.principal, str(due.id))
    return 0


@pytest.mark.parametrize(
    ("again", "before"),
    [
        (_resend, ()),
        (_recover, ("UPDATE deliveries SET status = 'exhausted'",)),
        (_recover, ("DELETE FROM delivery_tries", "DELETE FROM deliveries")),
    ],
    ids=["resend", "recover", "recover what was never tried"],
)
async def test_what_is_sent_again_while_its_run_is_deleted_is_gone(
    rig: Rig, again: Callable[[Rig, DueDelivery], Coroutine[Any, Any, int]], before: tuple[str, ...]
) -> None:
    due = await _to_be_deleted(rig)
    for statement in before:
        await rig.run(statement)

    async with await rig.store.connect_alone() as holder, holder.transaction():
        await holder.execute("SELECT 1 FROM events FOR UPDATE")
        deleting = asyncio.create_task(pruning.delete(rig.store, FOR_EVER, 10))
        await rig.blocked()
        asking = asyncio.create_task(again(rig, due))
        await rig.blocked(2)

    assert (1, 0) == (await deleting, await asking)
    assert [] == await rig.deliveries()


async def test_a_run_whose_webhook_was_sent_again_just_before_its_deletion_stays(rig: Rig) -> None:
    due = await _to_be_deleted(rig)

    async with await rig.store.connect_alone() as sender, sender.transaction():
        await sender.execute("UPDATE deliveries SET status = 'pending', finished_at = NULL")
        deleting = asyncio.create_task(pruning.delete(rig.store, FOR_EVER, 10))
        await rig.blocked()

    assert 0 == await deleting
    assert [(str(due.id), "pending")] == [
        (one["id"], one["status"]) for one in await rig.deliveries()
    ]
