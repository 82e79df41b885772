"""Calls that are paid for: what they may cost is held, what they did cost is charged once."""

import asyncio
from collections.abc import Awaitable
from typing import Any

import pytest

from shared.deps import Deps
from shared.domain.completions import FailureClass, ProviderError, Usage
from shared.domain.paging import Page
from shared.domain.states import Billed
from shared.domain.usage import GroupBy
from shared.services import billing, spending, usage
from shared.services.spending import NewBudget
from shared.settings import Settings
from shared.store import charging, pruning, sessions
from shared.store.claiming import ClaimedRun
from shared.store.pruning import Kept
from tests.shared.store.rig import Rig, Row, a_rig, intent, outcome
from tests.worker.execute_rig import (
    INTENT,
    SETTLE,
    CutStore,
    Hands,
    ScriptedProvider,
    completion,
    store_that_can_be_cut,  # noqa: F401 (a fixture)
)
from tests.worker.lane_rig import until

# `sim/echo` takes 1 credit for a token of input and 4 for one of output: a call of the prompt below
# is held at 4 * 10 for its answer and at 10 for its input, and costs 3 + 4 * 2.
HELD, COST = 50_000, 11_000
PROMPT: dict[str, Any] = {
    "model": "sim/echo",
    "messages": [{"role": "user", "content": "Hello {{ name }}"}],
    "modelParams": {"maxCompletionTokens": 10},
}
HELD_BACK = "SELECT * FROM runs WHERE status_reason = 'budget_hold' AND status = 'queued'"


@pytest.fixture(name="settings")
def settings_with_short_waits(settings: Settings) -> Settings:
    return settings.model_copy(update={"renew_s": 60.0, "self_fence_s": 60.0})


@pytest.fixture
async def rig(deps: Deps) -> Rig:
    """A metered workspace without credits."""
    rig = await a_rig(deps, PROMPT)
    await billing.meter(deps, rig.tenant.workspace_id, metered=True)
    return await _seen_anew(rig)


def _billed(usage: Usage) -> ProviderError:
    """A failure that has to be paid for."""
    kind, billed = FailureClass.SERVER_ERROR, Billed.YES
    return ProviderError(kind, code="provider_x", message="No.", billed=billed, usage=usage)


async def _seen_anew(rig: Rig) -> Rig:
    """The rig with a target of now: metering changes what submissions go by."""
    ((version,),) = await rig.store.fetch("SELECT catalog_version FROM workspaces", {})
    target = rig.target
    return Rig(
        rig.deps,
        rig.tenant,
        type(target)(
            version,
            target.prompt_id,
            target.version_id,
            target.tag,
            target.environment_id,
            target.compiled,
            target.aliases,
        ),
    )


async def _grant(rig: Rig, nanousd: int) -> None:
    await billing.grant(rig.deps, rig.tenant.workspace_id, nanousd // 1000, "for the test")


async def _doubtful(rig: Rig) -> tuple[ClaimedRun, str]:
    """A failed run that may have cost half of a grant: its worker died; and who pays for it."""
    await _grant(rig, 2 * HELD)
    run = await rig.claimed(on_unknown_outcome="fail")
    account = str(rig.tenant.workspace_id)
    await charging.intend(rig.store, [intent(run, account=account, hold_nanousd=HELD)])
    await rig.die(run.session_id)
    await sessions.reap(rig.store, poison_deaths=3)
    return run, account


async def _account(rig: Rig) -> tuple[int, int]:
    (row,) = await rig.rows("SELECT * FROM accounts")
    return row["balance_nanousd"], row["held_nanousd"]


async def _ledger(rig: Rig) -> list[Row]:
    return await rig.rows("SELECT * FROM ledger WHERE kind <> 'grant' ORDER BY id")


async def _charged(rig: Rig) -> list[tuple[str, int]]:
    return [(line["kind"], line["amount_nanousd"]) for line in await _ledger(rig)]


async def test_a_call_holds_what_it_may_cost_and_pays_what_it_did(
    rig: Rig, worker: Hands, provider: ScriptedProvider
) -> None:
    await _grant(rig, 1_000_000)
    provider.gate = asyncio.Event()
    run_id = await rig.queued()

    task = await worker.start(run_id)
    await provider.called.wait()
    during = await _account(rig)
    provider.gate.set()
    await task

    assert (1_000_000, HELD) == during
    assert (1_000_000 - COST, 0) == await _account(rig)
    (line,) = await _ledger(rig)
    assert ("charge", -COST, str(run_id), 1) == (
        line["kind"],
        line["amount_nanousd"],
        line["run_id"],
        line["attempt"],
    )
    assert [] == await rig.rows("SELECT * FROM holds")


async def test_parallel_runs_spend_no_more_than_the_balance_and_the_rest_wait(
    rig: Rig, worker: Hands, provider: ScriptedProvider
) -> None:
    await _grant(rig, 10 * HELD)
    provider.gate = asyncio.Event()
    ids = [await rig.queued() for _ in range(50)]

    tasks = [await worker.start(run_id) for run_id in ids]
    await until(lambda: _is(40, _held_back(rig)))
    at_once = len(provider.requests)
    balance, held = await _account(rig)
    provider.gate.set()
    await asyncio.gather(*tasks)

    assert (10, 10 * HELD, 10 * HELD) == (at_once, balance, held)
    assert (10 * HELD - 10 * COST, 0) == await _account(rig)


async def test_what_a_settled_call_leaves_wakes_those_that_wait(
    rig: Rig, worker: Hands, provider: ScriptedProvider
) -> None:
    await _grant(rig, HELD)
    provider.gate = asyncio.Event()
    first, second = await rig.queued(), await rig.queued()
    task = await worker.start(first)
    await provider.called.wait()
    await worker.carry(second)
    waiting = await rig.row(second)

    await _grant(rig, HELD)
    woken = await rig.row(second)
    provider.gate.set()
    await task
    await worker.carry(second)

    assert ("queued", "budget_hold") == (waiting["status"], waiting["status_reason"])
    assert woken["available_at"] < waiting["available_at"]
    assert "succeeded" == await rig.status(second)
    assert [("charge", -COST)] * 2 == await _charged(rig)


async def test_an_end_wakes_a_run_that_waits_for_its_room(
    rig: Rig, worker: Hands, provider: ScriptedProvider
) -> None:
    await _grant(rig, HELD + COST)
    provider.gate = asyncio.Event()
    first, second = await rig.queued(), await rig.queued()
    task = await worker.start(first)
    await provider.called.wait()
    await worker.carry(second)

    provider.gate.set()
    await task

    await until(lambda: _is(0, _asleep(rig)))
    await worker.carry(second)
    assert (HELD - COST, 0) == await _account(rig)


@pytest.mark.parametrize("kind", [FailureClass.NOT_SENT, FailureClass.REFUSED])
async def test_a_call_that_was_not_billed_gives_back_what_it_held(
    kind: FailureClass, rig: Rig, worker: Hands, provider: ScriptedProvider
) -> None:
    await _grant(rig, HELD)
    provider.script.append(ProviderError(kind, code="provider_x", message="No."))

    await worker.carry(await rig.queued())

    assert (HELD, 0) == await _account(rig)
    assert [] == await _charged(rig)


async def test_a_failed_call_that_cost_something_is_charged(
    rig: Rig, worker: Hands, provider: ScriptedProvider
) -> None:
    await _grant(rig, 2 * HELD)
    provider.script.append(_billed(Usage(input=1)))
    run_id = await rig.queued()

    await worker.carry(run_id)
    await rig.change(run_id, "available_at = now()")
    await worker.carry(run_id)

    assert [("charge", -1_000), ("charge", -COST)] == await _charged(rig)
    assert 1_000 + COST == (await rig.row(run_id))["cost_nanousd"]


async def test_what_nobody_knows_the_cost_of_stays_held(
    rig: Rig, worker: Hands, provider: ScriptedProvider
) -> None:
    await _grant(rig, HELD)
    provider.script.append(
        ProviderError(FailureClass.UNKNOWN, code="provider_x", message="?", billed=Billed.UNKNOWN)
    )

    await worker.carry(await rig.queued(on_unknown_outcome="fail"))

    assert (HELD, HELD) == await _account(rig)
    assert [] == await _charged(rig)


async def test_an_answer_that_came_after_its_worker_was_given_up_is_charged_once(
    rig: Rig,
) -> None:
    await _grant(rig, 2 * HELD)
    run = await rig.claimed(on_unknown_outcome="fail")
    account = str(rig.tenant.workspace_id)
    (number,) = await charging.intend(rig.store, [intent(run, account=account, hold_nanousd=HELD)])
    await rig.die(run.session_id)
    await sessions.reap(rig.store, poison_deaths=3)
    lost = await _account(rig)

    late = outcome(run, account=account, attempt_cost_nanousd=COST, cost_nanousd=COST)
    for _ in range(2):
        await charging.settle(rig.store, [late], lease_s=45)

    assert (1, (2 * HELD, HELD)) == (number, lost)
    assert (2 * HELD - COST, 0) == await _account(rig)
    assert [("charge", -COST)] == await _charged(rig)


@pytest.mark.parametrize("word", [INTENT, SETTLE])
@pytest.mark.parametrize("carried_out", [True, False])
async def test_a_commit_whose_answer_was_lost_moves_the_money_once(
    word: str, *, carried_out: bool, rig: Rig, worker: Hands, store: CutStore
) -> None:
    await _grant(rig, 2 * HELD)
    store.cut_at(word, carried_out=carried_out)

    await worker.carry(await rig.queued())

    assert (2 * HELD - COST, 0) == await _account(rig)
    assert [("charge", -COST)] == await _charged(rig)


async def test_a_run_ends_before_the_call_that_might_cost_more_than_it_may(
    rig: Rig, worker: Hands, provider: ScriptedProvider
) -> None:
    await _grant(rig, 10 * HELD)
    provider.script.append(_billed(Usage(input=1)))
    run_id = await rig.queued(max_nanousd=HELD)

    await worker.carry(run_id)
    await rig.change(run_id, "available_at = now()")
    await worker.carry(run_id)

    row = await rig.row(run_id)
    assert ("failed", "COST_LIMIT_EXCEEDED", "policy", 1_000) == (
        row["status"],
        row["error_code"],
        row["error_origin"],
        row["cost_nanousd"],
    )
    assert 1 == len(provider.requests)


async def test_the_cap_of_a_workspace_holds_for_runs_that_nobody_pays_for(
    rig: Rig, worker: Hands, provider: ScriptedProvider
) -> None:
    workspace_id = rig.tenant.workspace_id
    await billing.meter(rig.deps, workspace_id, metered=False)
    await billing.cap_requests(rig.deps, workspace_id, HELD // 1000 - 1)
    rig = await _seen_anew(rig)

    await worker.carry(refused := await rig.queued())
    await billing.cap_requests(rig.deps, workspace_id, HELD // 1000)
    await worker.carry(called := await rig.queued())

    assert ["failed", "succeeded"] == [await rig.status(refused), await rig.status(called)]
    assert ([], 1) == (await _charged(rig), len(provider.requests))


async def test_an_account_that_somebody_holds_delays_nobody_else(
    rig: Rig, worker: Hands, provider: ScriptedProvider, deps: Deps
) -> None:
    await _grant(rig, 10 * HELD)
    other = await a_rig(deps, PROMPT)
    mine, theirs = await rig.queued(), await other.queued()

    async with rig.store.transaction() as tx:
        await billing._lock(tx, rig.tenant.workspace_id)  # noqa: SLF001 (as an operator would)
        task = await worker.start(mine)
        await rig.blocked()
        await worker.carry(theirs)
        ended = [await rig.status(theirs), await rig.status(mine)]
    await task

    assert ["succeeded", "running"] == ended
    assert "succeeded" == await rig.status(mine)


async def test_an_environment_s_budget_holds_back_what_the_balance_would_pay(
    rig: Rig, worker: Hands, provider: ScriptedProvider
) -> None:
    await billing.meter(rig.deps, rig.tenant.workspace_id, metered=False)
    put = spending.put_for_environment
    budget = NewBudget(day=2 * HELD // 1000)
    await put(rig.deps, rig.tenant.principal, "production", budget)
    rig = await _seen_anew(rig)
    provider.gate = asyncio.Event()
    ids = [await rig.queued() for _ in range(5)]

    tasks = [await worker.start(run_id) for run_id in ids]
    await until(lambda: _is(3, _held_back(rig)))
    provider.gate.set()
    await asyncio.gather(*tasks)
    (shown,) = (await spending.listed(rig.deps, rig.tenant.principal, Page())).rows

    assert (2, 2 * COST // 1000, 0) == (
        len(provider.requests),
        shown.spent_credits,
        shown.held_credits,
    )
    assert [] == await _charged(rig)


async def test_a_budget_s_next_day_begins_with_nothing_spent(
    rig: Rig, worker: Hands, provider: ScriptedProvider
) -> None:
    await _grant(rig, 10 * HELD)
    budget = NewBudget(day=HELD // 1000)
    await spending.put_for_environment(rig.deps, rig.tenant.principal, "production", budget)
    rig = await _seen_anew(rig)
    await worker.carry(await rig.queued())

    await worker.carry(held_back := await rig.queued())
    await rig.run("UPDATE budgets SET period_from = period_from - interval '1 day'")
    await billing.look_after(rig.deps)
    woken = await rig.row(held_back)
    await worker.carry(held_back)

    assert "budget_hold" == woken["status_reason"]
    assert "succeeded" == await rig.status(held_back)
    assert [COST] == [row["spent_nanousd"] for row in await rig.rows("SELECT * FROM budgets")]


@pytest.mark.parametrize(("charge", "left"), [(True, 2 * HELD - HELD), (False, 2 * HELD)])
async def test_what_nobody_knows_is_settled_by_the_operator_and_put_right_by_a_late_answer(
    rig: Rig, *, charge: bool, left: int
) -> None:
    run, account = await _doubtful(rig)

    count = await billing.settle(rig.deps, rig.tenant.workspace_id, charge=charge)
    again = await billing.settle(rig.deps, rig.tenant.workspace_id, charge=charge)
    settled = await _account(rig)
    late = outcome(run, account=account, attempt_cost_nanousd=COST, cost_nanousd=COST)
    await charging.settle(rig.store, [late], lease_s=45)

    assert (1, 0, (left, 0)) == (count, again, settled)
    assert (2 * HELD - COST, 0) == await _account(rig)


async def test_time_settles_what_nobody_does(rig: Rig) -> None:
    await _doubtful(rig)

    await billing.look_after(rig.deps)
    early = await _account(rig)
    await rig.run("UPDATE attempts SET finished_at = finished_at - interval '8 days'")
    await billing.look_after(rig.deps)

    assert ((2 * HELD, HELD), (2 * HELD, 0)) == (early, await _account(rig))


async def test_a_run_stays_until_it_is_known_what_its_call_cost(rig: Rig) -> None:
    run, _ = await _doubtful(rig)
    await rig.change(run.id, "finished_at = now() - interval '2 days'")
    await rig.run("INSERT INTO usage_marks SELECT id, 'infinity' FROM workspaces")
    kept = Kept(0, 1)

    early = await pruning.delete(rig.store, kept, 10)
    erased = await pruning.erase(rig.store, kept, 10)
    erased_early = await pruning.delete(rig.store, kept, 10)
    await billing.settle(rig.deps, rig.tenant.workspace_id, charge=False)
    later = await pruning.delete(rig.store, kept, 10)

    assert (0, 1, 0, 1) == (early, erased, erased_early, later)
    assert (2 * HELD, 0) == await _account(rig)
    assert [] == await rig.rows("SELECT * FROM holds")


@pytest.mark.parametrize("by", list(GroupBy))
async def test_usage_adds_up_to_the_ledger(
    by: GroupBy, rig: Rig, worker: Hands, provider: ScriptedProvider
) -> None:
    await _grant(rig, 100 * HELD)
    billed = _billed(Usage(input=7, output=1))
    provider.script += [billed, completion(usage=Usage(input=1, cache_read=3)), completion()]
    for tags in ((), ("a", "b"), ("b",)):
        run_id = await rig.queued(tags=tags)
        await worker.carry(run_id)
        if "queued" == await rig.status(run_id):
            await rig.change(run_id, "available_at = now()")
            await worker.carry(run_id)

    view = await usage.read(rig.deps, rig.tenant.principal, by, None, None)

    charged = -sum(amount for _, amount in await _charged(rig))
    runs = await rig.rows("SELECT * FROM runs")
    groups = {group.name: group.cost_nanousd for group in view.groups}
    assert charged == view.total.cost_nanousd == sum(run["cost_nanousd"] for run in runs)
    assert (4, 3) == (view.total.calls, view.total.runs)
    if by is GroupBy.TAG:
        assert {None, "a", "b"} == groups.keys()
        assert charged < sum(groups.values())
    else:
        assert [charged] == list(groups.values())


async def _held_back(rig: Rig) -> int:
    return len(await rig.rows(HELD_BACK))


async def _asleep(rig: Rig) -> int:
    return len(await rig.rows(f"{HELD_BACK} AND available_at > now()"))


async def _is(expected: int, actual: Awaitable[int]) -> bool:
    return expected == await actual
