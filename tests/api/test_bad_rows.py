"""Every row of bad input, at the routes: the answer it gets, and that nothing changes.

Rows that take more than a request have tests of their own: the same key again and at once, and
cursors of other workspaces, in `test_bad_keys.py` and `test_strangers.py`; slow and chunked bodies
in `test_server.py`; concurrent creations in `test_prompts.py` and `test_environments.py`.
"""

from collections.abc import AsyncIterator

import httpx
import pytest

from shared.deps import Deps
from tests.api import world
from tests.api.bad_rows import ROWS
from tests.api.clients import client_with
from tests.api.refusals import refused
from tests.api.stage import Ask, Stage, a_stage, outside_development
from tests.factories import Tenant


@pytest.fixture
async def stage(deps: Deps, tenant: Tenant) -> AsyncIterator[Stage]:
    async with client_with(outside_development(deps), tenant.key) as client:
        yield await a_stage(deps, client, tenant)


@pytest.mark.parametrize(
    ("status", "asks"),
    [(status, asks) for _, status, _, asks in ROWS if status < 400],
    ids=[name for name, status, _, _ in ROWS if status < 400],
)
async def test_what_looks_bad_and_is_not_is_taken(
    stage: Stage, status: int, asks: list[Ask]
) -> None:
    answers = [await stage.ask(one) for one in asks]

    assert [] == _wrong(status, asks, answers)


async def test_bad_input_is_refused_as_documented_and_changes_nothing(
    stage: Stage, deps: Deps
) -> None:
    before, wrong = await world.digests(deps), []

    for name, status, code, asks in ROWS:
        if status < 400:
            continue
        answers = [await stage.ask(one) for one in asks]
        wrong += [(name, *one) for one in _wrong(status, asks, answers)]
        wrong += [(name, one) for one in answers if code != (code and refused(one)[1])]
        if before != await world.digests(deps):
            wrong.append((name, "changed something"))

    assert [] == wrong


def _wrong(status: int, asks: list[Ask], answers: list[httpx.Response]) -> list[tuple[object, ...]]:
    return [
        (str(one)[:300], answer.status_code, answer.text[:300])
        for one, answer in zip(asks, answers, strict=True)
        if answer.status_code != status
    ]
