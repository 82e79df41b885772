"""Every row of bad input, at the routes: the answer it gets, and that nothing changes.

Rows that take more than a request have tests of their own: the same key again and at once, and
cursors of other workspaces, in `test_bad_keys.py` and `test_strangers.py`; slow and chunked bodies
in `test_server.py`; concurrent creations in `test_prompts.py` and `test_environments.py`.
"""

from collections.abc import AsyncIterator

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
    ("status", "code", "asks"), [row[1:] for row in ROWS], ids=[row[0] for row in ROWS]
)
async def test_bad_input(stage: Stage, deps: Deps, status: int, code: str, asks: list[Ask]) -> None:
    before = await world.digests(deps)

    answers = [await stage.ask(one) for one in asks]

    wrong = [
        (str(one)[:300], answer.status_code, answer.text[:300])
        for one, answer in zip(asks, answers, strict=True)
        if answer.status_code != status
    ]
    assert [] == wrong
    if status >= 400:
        assert {code} == {code and refused(answer)[1] for answer in answers}
        assert before == await world.digests(deps)
