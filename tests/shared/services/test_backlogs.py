"""How many runs may wait in an environment, and that hardly anybody counts for it."""

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from shared import deps as shared_deps
from shared.deps import Deps
from shared.domain.submissions import Submission
from shared.errors import QuotaExceededError
from shared.ids import new_id
from shared.services import backlogs, batches, submissions
from shared.services.submissions import Accepted, Request
from shared.settings import Settings
from shared.store import submitting
from tests.shared.store.rig import Rig, a_rig


@pytest.fixture
async def rig(deps: Deps) -> Rig:
    return await a_rig(deps)


def _process(rig: Rig, most: int = 1_000_000) -> Deps:
    """Another API process over the same servers."""
    settings = rig.deps.settings.model_copy(update={"queued_runs_max": most})
    deps = rig.deps
    return shared_deps.build(settings, deps.clock, deps.random, deps.store, deps.lanes)


def _request(**changes: Any) -> Request:
    columns: dict[str, Any] = {
        "slug": "greeting",
        "version": "1",
        "body": Submission(inputs={"name": "Ada"}),
        "ends_at": asyncio.get_running_loop().time() + 20,
    }
    return Request(**(columns | changes))


async def _submitted(rig: Rig, *processes: Deps, each: int) -> list[Accepted]:
    """Submit all at once; those that were taken."""
    answers = await asyncio.gather(
        *(
            submissions.submit(deps, rig.tenant.principal, _request())
            for deps in processes
            for _ in range(each)
        ),
        return_exceptions=True,
    )
    assert {QuotaExceededError} >= {type(one) for one in answers if isinstance(one, Exception)}
    return [one for one in answers if isinstance(one, Accepted)]


async def _waiting(rig: Rig) -> int:
    return len(await rig.rows("SELECT 1 FROM runs WHERE status = 'queued'"))


@pytest.mark.parametrize(
    ("servers", "own", "most"),
    [(1000, None, 1000), (1000, 10, 10), (1000, 2000, 1000), (0, 10, 10), (0, None, 0)],
)
def test_an_environment_may_allow_fewer_than_the_server(
    servers: int, own: int | None, most: int
) -> None:
    assert most == backlogs.cap(Settings(queued_runs_max=servers), own)


async def test_one_process_fills_an_environment_to_the_last_place_and_no_further(rig: Rig) -> None:
    taken = await _submitted(rig, _process(rig, 40), each=100)

    assert (40, 40) == (len(taken), await _waiting(rig))


async def test_processes_exceed_the_limit_by_their_shares_at_most(rig: Rig) -> None:
    processes = [_process(rig, 60) for _ in range(3)]

    for _ in range(30):
        for deps in processes:
            await _submitted(rig, deps, each=1)

    assert 60 <= await _waiting(rig) <= 60 + len(processes) * (60 // backlogs.SHARE)


async def test_there_is_room_again_when_runs_have_started(rig: Rig) -> None:
    deps = _process(rig, 5)
    taken = await _submitted(rig, deps, each=8)
    session = await rig.session()
    await rig.claim(session, taken[0].id)
    deps.backlogs.discard(rig.target.environment_id)  # as after a tenth of a second

    again = await _submitted(rig, deps, each=3)

    assert (5, 1) == (len(taken), len(again))


async def test_a_batch_is_taken_whole_or_not_at_all_and_leaves_room_for_less(rig: Rig) -> None:
    deps, principal = _process(rig, 10), rig.tenant.principal

    async def batch(size: int) -> Sequence[Accepted]:
        return await batches.submit(deps, principal, [_request() for _ in range(size)])

    first = await batch(7)
    with pytest.raises(QuotaExceededError):
        await batch(4)
    second = await batch(3)

    assert (7, 3, 10) == (len(first), len(second), await _waiting(rig))


async def test_a_key_that_made_a_run_is_answered_with_it_also_when_there_is_no_room(
    rig: Rig,
) -> None:
    deps = _process(rig, 1)
    keyed = _request(idempotency_key="order-18", fingerprint=b"0" * 32)
    first = await submissions.submit(deps, rig.tenant.principal, keyed)

    again = await submissions.submit(deps, rig.tenant.principal, keyed)
    others = await _submitted(rig, deps, each=1)

    assert (first.id, True, []) == (again.id, again.replayed, others)


async def test_where_there_is_plenty_of_room_one_count_serves_thousands(rig: Rig) -> None:
    deps = _process(rig)
    new = rig.new(max_queued_runs=1_000_000)
    await backlogs.enter(deps, [new])
    counted = deps.backlogs.get(rig.target.environment_id)
    assert counted is not None
    first = counted.counting

    for _ in range(5_000):
        await backlogs.enter(deps, [new])
        backlogs.entered(deps, [new])

    assert first is counted.counting
    assert counted.room == 1_000_000 // backlogs.SHARE - 5_001


async def test_an_environment_s_own_limit_comes_with_its_prompt(rig: Rig) -> None:
    await rig.run("UPDATE environments SET max_queued_runs = 2")
    found = await submitting.resolve(
        rig.store, rig.tenant.workspace_id, "greeting", ("number", "1"), None
    )

    taken = await _submitted(rig, _process(rig), each=4)

    assert (2, 2) == (found.max_queued_runs, len(taken))


async def test_a_scheduled_run_waits_too(rig: Rig) -> None:
    await rig.queued(run_at="2100-01-01T00:00:00Z", thread_id=str(new_id()))

    assert 0 == len(await _submitted(rig, _process(rig, 1), each=1))
