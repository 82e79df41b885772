"""Usage that is added up: the same as the calls say, at every moment, once, and for ever."""

import asyncio
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import psycopg
import pytest

from shared.deps import Deps
from shared.domain.usage import GroupBy
from shared.ids import RunId
from shared.settings import Settings
from shared.store import pruning, sessions, tallying, usage
from shared.store.claiming import ClaimedRun
from shared.store.pruning import Kept
from shared.store.usage import Sum
from shared.tasks import end
from tests.shared.store.rig import Rig, a_rig, outcome
from tests.worker.lane_rig import until
from worker.tally import Tallier

NOON = datetime(2026, 3, 14, 12, tzinfo=UTC)
ALWAYS = (NOON - timedelta(days=200), NOON + timedelta(days=100))
LATE = timedelta(days=20)
FIGURES = "calls, runs, input_tokens, output_tokens, cost_nanousd"

Picture = Mapping[str, tuple[Sum, list[Sum]]]


@pytest.fixture(name="settings")
def settings_that_add_up_quickly(settings: Settings) -> Settings:
    quick = {"tally_s": 0.02, "tally_lag_s": 0.0, "tally_batch": 3, "tally_share": 1.0}
    return settings.model_copy(update=quick)


@pytest.fixture
async def rig(deps: Deps) -> Rig:
    return await a_rig(deps)


async def _called(rig: Rig, at: datetime, **changes: Any) -> ClaimedRun:
    """A run whose call is under way since then."""
    run = await rig.called(**changes)
    await rig.run("UPDATE attempts SET started_at = %(at)s WHERE run_id = %(id)s", at=at, id=run.id)
    return run


async def _settle(rig: Rig, run: ClaimedRun, cost: int) -> None:
    used = msgspec.Raw(b'{"input": 7, "output": 2}')
    await rig.settle(outcome(run, usage=used, attempt_cost_nanousd=cost))


async def _done(rig: Rig, at: datetime, cost: int, **changes: Any) -> RunId:
    run = await _called(rig, at, **changes)
    await _settle(rig, run, cost)
    return run.id


async def _lost(rig: Rig, at: datetime) -> ClaimedRun:
    """A run whose worker died during the call."""
    run = await _called(rig, at)
    await rig.die(run.session_id)
    await sessions.reap(rig.store, poison_deaths=9)
    return run


async def _tally(rig: Rig, at: datetime = NOON + LATE, limit: int = 2) -> None:
    """Add up all that was begun before then."""
    while await tallying.tally(rig.store, rig.tenant.workspace_id, at, limit):
        pass
    await rig.run("UPDATE usage_open SET look_at = now()")
    await tallying.close(rig.store, 100)


async def _picture(rig: Rig, *span: datetime) -> Picture:
    """What is told, in every way it can be asked for."""
    since, until_ = span or ALWAYS
    workspace = rig.tenant.workspace_id
    return {by.value: await usage.sums(rig.store, workspace, by, (since, until_)) for by in GroupBy}


async def _sums(rig: Rig, span: str) -> list[dict[str, Any]]:
    return await rig.rows(
        f"SELECT kind, begins_at, name, {FIGURES} FROM usage_sums WHERE span = '{span}' "
        "ORDER BY 1, 2, 3"
    )


async def _some(rig: Rig) -> list[RunId]:
    """Calls of several hours and days, some with tags, and several in one moment."""
    hours = (0, 0.5, 0.5, 0.5, 1, 26, 26.25, 24 * 9, 24 * 9 + 2)
    tags = ((), ("a", "b"), ("b",))
    return [
        await _done(rig, NOON + timedelta(hours=at), 10**place + 1, tags=tags[place % 3])
        for place, at in enumerate(hours)
    ]


async def test_what_is_told_stays_the_same_however_far_it_is_added_up(rig: Rig) -> None:
    await _some(rig)
    await _lost(rig, NOON + timedelta(minutes=20))
    before = await _picture(rig)

    for hours in (0.25, 0.5, 24.1, 26.1, 400):
        await _tally(rig, NOON + timedelta(hours=hours))
        assert before == await _picture(rig)

    assert (10, 10, 63, 18, 111_111_111 + 9) == msgspec.structs.astuple(before["day"][0])[1:]
    (hours_of_all,) = {sum(row["calls"] for row in await _sums(rig, s)) for s in ("hour", "day")}
    assert 5 * 9 + 3 + 2 * 3 + 3 == hours_of_all


@pytest.mark.parametrize(
    ("since", "until_"),
    [(0, 26), (0.5, 26.25), (0.1, 0.6), (0.6, 24 * 9 + 2.5), (-30, 24 * 9), (0.5, 1), (25, 300)],
)
async def test_a_span_may_begin_and_end_within_an_hour(
    since: float, until_: float, rig: Rig
) -> None:
    await _some(rig)
    await _lost(rig, NOON + timedelta(minutes=40))
    span = NOON + timedelta(hours=since), NOON + timedelta(hours=until_)
    before = await _picture(rig, *span)

    await _tally(rig, NOON + timedelta(hours=26.1))
    between = await _picture(rig, *span)
    await _tally(rig)

    assert 0 < before["day"][0].calls
    assert before == between == await _picture(rig, *span)


async def test_a_call_counts_for_each_of_its_tags_and_once_in_all(rig: Rig) -> None:
    await _done(rig, NOON, 5, tags=("a", "b", "a"))
    await _done(rig, NOON, 3)

    await _tally(rig)

    whole, groups = (await _picture(rig))["tag"]
    assert (2, 8) == (whole.calls, whole.cost_nanousd)
    assert {("a", 1, 5), ("b", 1, 5), (None, 1, 3)} == {
        (one.name, one.calls, one.cost_nanousd) for one in groups
    }


async def test_a_late_result_is_told_at_once_and_added_up_once(rig: Rig) -> None:
    run = await _lost(rig, NOON)
    await _tally(rig)
    lost = (await _picture(rig))["model"][0]

    await _settle(rig, run, 42)
    late = await _picture(rig)
    await _tally(rig)
    await _tally(rig)

    assert (1, 0) == (lost.calls, lost.cost_nanousd)
    assert (1, 42) == (late["model"][0].calls, late["model"][0].cost_nanousd)
    assert late == await _picture(rig)
    assert [] == await rig.rows("SELECT * FROM usage_open")


async def test_usage_outlives_the_runs_also_those_nobody_ever_answered(rig: Rig) -> None:
    await _some(rig)
    lost = await _lost(rig, NOON)
    await rig.change(lost.id, "status = 'failed', error_code = 'gone', finished_at = now()")
    before = await _picture(rig)
    await rig.run("UPDATE runs SET finished_at = now() - interval '2 days'")

    early = await pruning.delete(rig.store, Kept(None, 1), 100)
    await _tally(rig, NOON + timedelta(hours=26.1))
    some = await pruning.delete(rig.store, Kept(None, 1), 100)
    between = await _picture(rig)
    await _tally(rig)
    rest = await pruning.delete(rig.store, Kept(None, 1), 100)

    assert (0, 7, 3) == (early, some, rest)
    assert [] == await rig.rows("SELECT 1 FROM attempts UNION ALL SELECT 1 FROM usage_open")
    assert before == between == await _picture(rig)


async def test_calls_of_deleted_runs_are_in_one_of_two_spans_that_meet_within_an_hour(
    rig: Rig,
) -> None:
    await _some(rig)
    await _tally(rig)
    await rig.run("UPDATE runs SET finished_at = now() - interval '2 days' WHERE tags <> '{b}'")
    await pruning.delete(rig.store, Kept(None, 1), 100)

    whole = (await _picture(rig))["day"][0]
    for minutes in (0, 15, 30, 31, 60, 1575):
        middle = NOON + timedelta(minutes=minutes)
        halves = [
            (await _picture(rig, *span))["day"][0]
            for span in ((ALWAYS[0], middle), (middle, ALWAYS[1]))
        ]
        assert (whole.calls, whole.cost_nanousd) == (
            sum(half.calls for half in halves),
            sum(half.cost_nanousd for half in halves),
        )


async def test_two_that_add_up_at_once_count_nothing_twice(rig: Rig) -> None:
    await _some(rig)
    lost = [await _lost(rig, NOON) for _ in range(4)]
    before = await _picture(rig)

    workspace = rig.tenant.workspace_id
    await asyncio.gather(
        *(tallying.tally(rig.store, workspace, NOON + LATE, 3) for _ in range(6)),
    )
    between = await _picture(rig)
    for run in lost:
        await _settle(rig, run, 1)
    after = await _picture(rig)
    await rig.run("UPDATE usage_open SET look_at = now()")
    await asyncio.gather(*(tallying.close(rig.store, 3) for _ in range(4)))

    assert before == between
    assert after == await _picture(rig)
    assert [] == await rig.rows("SELECT * FROM usage_open")


async def test_what_is_cut_off_in_the_middle_has_added_nothing(rig: Rig) -> None:
    await _some(rig)
    await _tally(rig, NOON + timedelta(hours=0.7))
    before = await _picture(rig)
    workspace = rig.tenant.workspace_id

    connection = await rig.store.connect_alone()
    async with connection, connection.transaction(force_rollback=True):
        await connection.execute("SELECT 1 FROM usage_sums FOR UPDATE")
        cut = asyncio.create_task(tallying.tally(rig.store, workspace, NOON + LATE, 100))
        await rig.blocked()
        await rig.run(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE wait_event_type = 'Lock' AND datname = current_database()"
        )
        with pytest.raises(psycopg.OperationalError):
            await cut
    after = await _picture(rig)
    await _tally(rig)

    assert before == after == await _picture(rig)


async def test_a_call_that_is_not_committed_yet_holds_the_bound_back(rig: Rig) -> None:
    connection = await rig.store.connect_alone()
    async with connection, connection.transaction():
        run_id = await rig.queued()
        await connection.execute("UPDATE runs SET calls = 0 WHERE id = %s", (run_id,))
        (began,) = await (await connection.execute("SELECT now()")).fetchall()
        held = await tallying.bound(rig.store, 0)
    free = await tallying.bound(rig.store, 0)

    assert held <= began[0] < free


async def test_workers_add_up_beside_each_other_until_all_is_told(rig: Rig) -> None:
    await _some(rig)
    before = await _picture(rig)

    async def added_up() -> bool:
        days = [row for row in await _sums(rig, "day") if "all" == row["kind"]]
        return 9 == sum(int(row["calls"]) for row in days)

    talliers = [Tallier(rig.deps) for _ in range(2)]
    tasks = [asyncio.create_task(tallier.run_forever()) for tallier in talliers]
    await until(added_up)
    await end(tasks)
    for tallier in talliers:
        await tallier.close()

    assert before == await _picture(rig)
