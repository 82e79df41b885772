"""The chaos run in small: a few faults of each room in a few seconds, so that it cannot rot."""

from pathlib import Path

import pytest

from tests.faults import chaos
from tests.faults.chaos_plan import MINIMA, PERIOD_S, RATES, Fault, Plan, What, draw
from tests.faults.rig import Rig

CHARGED = "SELECT count(*) AS calls FROM ledger WHERE run_id IN (SELECT id FROM runs)"
KINDS = (
    What.KILL_WORKER,
    What.STOP_WORKER,
    What.DRAIN_API,
    What.CRASH_POSTGRES,
    What.END_BACKENDS,
    What.FLUSH,
    What.EMPTY_VALKEY,
    What.NETWORK,
)


@pytest.mark.asyncio(loop_scope="session")
@pytest.mark.xdist_group("faults")
async def test_a_short_chaos_run_breaks_nothing(session_rig: Rig, tmp_path: Path) -> None:
    await session_rig.clear()
    faults = [Fault(number * 0.4, what, what.name) for number, what in enumerate(KINDS)]
    try:
        result = await chaos.run(session_rig, Plan(1, 4.0, faults, orders=30), tmp_path)
        (paid,) = await session_rig.rows(CHARGED)
    finally:
        await session_rig.kill_all()

    assert [] == [line for line in result.lines() if line.startswith(("BROKEN", "WRONG"))]
    assert set(KINDS) <= set(result.tally.done)
    assert sum(result.runs.values()) >= 20
    # Or the books agree because nothing is in them.
    assert paid["calls"] >= 10
    assert int(str(result.figures["calls added up"])) >= 5


@pytest.mark.parametrize("seed", range(20))
def test_every_plan_holds_what_ten_minutes_have_to_contain(seed: int) -> None:
    plan = draw(seed, PERIOD_S / 60)

    for name, (least, kinds) in MINIMA.items():
        assert sum(fault.what in kinds for fault in plan.faults) >= least, name
    assert all(0 <= fault.at_s <= PERIOD_S for fault in plan.faults)


def test_a_seed_draws_the_same_plan_again() -> None:
    assert draw(7, 2) == draw(7, 2)
    assert draw(7, 2) != draw(8, 2)


def test_every_fault_that_can_be_planned_is() -> None:
    assert set(What) - {What.KILL_AT_POINT, What.STOP_AT_POINT} == set(RATES)
