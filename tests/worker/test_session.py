"""A worker's lease: renewed while it can be, fenced when it cannot, new after a death."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import datetime

import pytest

from shared.clock import DatabaseClock, SystemClock
from shared.deps import Deps
from shared.ids import RunId
from shared.settings import Settings
from shared.store import ending
from tests.clocks import StillClock
from tests.shared.store.rig import LEASE_IS_OVER, Rig, Row, a_rig
from tests.worker.lane_rig import until
from worker.session import Session


@pytest.fixture(name="settings")
def settings_with_quick_renewals(settings: Settings) -> Settings:
    return settings.model_copy(update={"renew_s": 0.02, "lease_s": 30.0, "self_fence_s": 24.0})


@pytest.fixture
async def rig(deps: Deps) -> Rig:
    return await a_rig(deps)


@pytest.fixture
def canceled() -> list[RunId]:
    return []


@pytest.fixture
async def session(deps: Deps, canceled: list[RunId]) -> AsyncIterator[Session]:
    made = Session(deps, canceled.append)
    await made.open()
    yield made
    await made.close()


async def _rows(rig: Rig) -> list[Row]:
    return await rig.rows("SELECT *, lease_expires_at > now() AS alive FROM worker_sessions")


async def test_an_open_session_is_in_the_table_and_may_start(rig: Rig, session: Session) -> None:
    (row,) = await _rows(rig)

    assert (str(session.id), True, None) == (row["id"], row["alive"], row["reaped_at"])
    assert session.may_start()


async def test_before_it_is_open_nothing_may_start(deps: Deps) -> None:
    assert not Session(deps, print).may_start()


async def test_the_lease_is_renewed_again_and_again(rig: Rig, session: Session) -> None:
    await rig.run(LEASE_IS_OVER, id=session.id)

    async def alive() -> bool:
        return bool((await _rows(rig))[0]["alive"])

    await until(alive)


async def test_cancel_requests_arrive_with_a_renewal(
    rig: Rig, session: Session, canceled: list[RunId]
) -> None:
    run = await rig.claim(session.id, await rig.queued())
    await rig.claim(session.id, await rig.queued())

    await ending.cancel(rig.store, rig.tenant.workspace_id, run.id)

    await until(lambda: bool(canceled))
    assert {run.id} == set(canceled)


async def test_a_session_that_was_reaped_starts_anew_under_another_id(
    rig: Rig, session: Session
) -> None:
    old = session.id

    await rig.run("UPDATE worker_sessions SET reaped_at = now() WHERE id = %(id)s", id=old)

    await until(lambda: session.id != old)

    async def entered() -> bool:
        return {str(old), str(session.id)} == {row["id"] for row in await _rows(rig)}

    await until(entered)
    assert session.may_start()


async def test_a_lost_connection_is_replaced(rig: Rig, session: Session) -> None:
    async def renews() -> bool:
        await rig.run(LEASE_IS_OVER, id=session.id)
        for _ in range(50):
            if (await _rows(rig))[0]["alive"]:
                return True
        return False

    await until(renews)
    await rig.rows(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE datname = current_database() AND query LIKE '%%WITH renewed%%'"
        " AND pid <> pg_backend_pid()"
    )

    await until(renews)


async def test_without_a_renewal_in_time_nothing_new_may_start(deps: Deps, rig: Rig) -> None:
    clock = StillClock()
    settings = deps.settings.model_copy(update={"renew_s": 600.0})
    session = Session(replace(deps, clock=clock, settings=settings), print)
    await session.open()

    clock.seconds += settings.self_fence_s - 0.001
    just_in_time = session.may_start()
    clock.seconds += 0.001

    assert (True, False) == (just_in_time, session.may_start())
    await session.close()


@pytest.mark.parametrize("skew_s", [3600.0, -3600.0])
async def test_a_host_whose_clock_is_off_goes_by_the_database_s(
    deps: Deps, rig: Rig, skew_s: float
) -> None:
    clock = DatabaseClock(SystemClock(skew_s))
    session = Session(replace(deps, clock=clock), print, clock.told)
    await session.open()

    (row,) = await rig.rows(
        "SELECT extract(epoch FROM lease_expires_at - now())::float8 AS left FROM worker_sessions"
    )
    assert 25 < row["left"] <= 30
    assert session.may_start()
    assert abs((clock.now() - SystemClock().now()).total_seconds()) < 60
    await session.close()


async def test_a_step_of_the_host_s_clock_does_not_show(deps: Deps, rig: Rig) -> None:
    host = StillClock()
    clock = DatabaseClock(host)
    session = Session(replace(deps, clock=clock), print, clock.told)
    await session.open()
    at = clock.now()

    host.seconds += 2

    assert 2 == (clock.now() - at).total_seconds()
    await session.close()


async def test_a_renewal_sets_the_clock_again(deps: Deps, rig: Rig) -> None:
    told: list[datetime] = []
    session = Session(deps, print, told.append)
    await session.open()

    await until(lambda: len(told) > 2)

    assert sorted(set(told)) == told
    await session.close()


async def test_who_leaves_with_empty_hands_leaves_no_trace(rig: Rig, deps: Deps) -> None:
    session = Session(deps, print)
    await session.open()

    await session.close()

    assert [] == await _rows(rig)


async def test_who_leaves_runs_behind_stays_for_the_reaper(rig: Rig, deps: Deps) -> None:
    session = Session(deps, print)
    await session.open()
    await rig.claim(session.id, await rig.queued())

    await session.close()

    assert [str(session.id)] == [row["id"] for row in await _rows(rig)]


async def test_renewals_end_with_the_session(rig: Rig, deps: Deps) -> None:
    session = Session(deps, print)
    await session.open()
    await rig.claim(session.id, await rig.queued())
    before = asyncio.all_tasks()

    await session.close()

    assert len(asyncio.all_tasks()) < len(before)
