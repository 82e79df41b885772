"""Which version a run gets that names none: its environment's pin, else the default one's."""

import asyncio
from random import Random

import pytest

from shared import deps as shared_deps
from shared.clock import SystemClock
from shared.deps import Deps
from shared.domain.prompts import PINNED
from shared.domain.submissions import Submission
from shared.errors import ConflictError, NotFoundError, UnacceptableError
from shared.ids import new_id
from shared.services import environments, pins, prompts, replays, submissions, targets
from shared.services.environments import EnvironmentChange, NewEnvironment
from shared.services.pins import NewPin
from shared.services.replays import Replay
from shared.services.submissions import Accepted, Request
from tests.factories import Tenant, a_prompt

BODY = {"model": "sim/echo", "messages": [{"role": "user", "content": "Hi {{ name }}"}]}
FAR_S = 30.0


@pytest.fixture(autouse=True)
async def greeting(deps: Deps, tenant: Tenant) -> None:
    """`greeting` with three versions, and `staging` beside the default `production`."""
    await a_prompt(deps, tenant)
    for publish in (True, False):
        await prompts.add_version(deps, tenant.principal, "greeting", BODY | {"publish": publish})
    await environments.create(deps, tenant.principal, NewEnvironment(name="staging"))


async def _pin(deps: Deps, tenant: Tenant, environment: str, version: int) -> None:
    await pins.put(deps, tenant.principal, (environment, "greeting"), NewPin(version=version))


async def _submit(deps: Deps, tenant: Tenant, environment: str | None = None) -> Accepted:
    return await submissions.submit(deps, tenant.principal, _request(environment))


def _request(environment: str | None = None) -> Request:
    body = Submission(inputs={"name": "Ada"}, environment=environment)
    return Request("greeting", PINNED, body, asyncio.get_running_loop().time() + FAR_S)


async def _numbers(deps: Deps) -> list[int]:
    rows = await deps.store.fetch(
        "SELECT v.number FROM runs r JOIN prompt_versions v ON v.id = r.version_id ORDER BY r.id",
        {},
    )
    return [row[0] for row in rows]


async def test_an_environment_runs_its_own_pin_and_else_the_default_one_s(
    deps: Deps, tenant: Tenant
) -> None:
    await _pin(deps, tenant, "production", 1)
    for environment in (None, "production", "staging"):
        await _submit(deps, tenant, environment)
    await _pin(deps, tenant, "staging", 2)
    for environment in (None, "production", "STAGING"):
        await _submit(deps, tenant, environment)

    assert [1, 1, 1, 1, 1, 2] == await _numbers(deps)


async def test_without_a_pin_nothing_runs_and_the_error_says_what_to_do(
    deps: Deps, tenant: Tenant
) -> None:
    await _pin(deps, tenant, "staging", 1)

    with pytest.raises(ConflictError, match="production") as refused:
        await _submit(deps, tenant)
    with pytest.raises(UnacceptableError, match="no environment of this name"):
        await _submit(deps, tenant, "nowhere")

    assert "not_pinned" == refused.value.code
    assert [] == await _numbers(deps)


async def test_a_moved_pin_counts_for_the_next_submission_of_every_process(
    deps: Deps, tenant: Tenant
) -> None:
    warm = shared_deps.build(deps.settings, SystemClock(), Random(8), deps.store, deps.lanes)
    await _pin(deps, tenant, "production", 1)
    for process in (deps, warm):
        await _submit(process, tenant)

    await _pin(deps, tenant, "production", 2)
    for process in (warm, deps):
        await _submit(process, tenant)
    await pins.remove(deps, tenant.principal, "production", "greeting")
    for process in (warm, deps):
        with pytest.raises(ConflictError, match="pinned"):
            await _submit(process, tenant)

    assert [1, 1, 2, 2] == await _numbers(deps)


async def test_another_default_environment_brings_its_pins(deps: Deps, tenant: Tenant) -> None:
    await _pin(deps, tenant, "production", 1)
    await _pin(deps, tenant, "staging", 2)
    await _submit(deps, tenant)

    change = EnvironmentChange(is_default=True)
    await environments.change(deps, tenant.principal, "staging", change)
    await _submit(deps, tenant)

    assert [1, 2] == await _numbers(deps)


async def test_a_replay_of_what_was_pinned_follows_the_pin(deps: Deps, tenant: Tenant) -> None:
    await _pin(deps, tenant, "production", 1)
    old = await _submit(deps, tenant)
    await prompts.publish(deps, tenant.principal, "greeting", "3")
    await _pin(deps, tenant, "production", 2)

    for version in ("current", "same"):
        wanted = Replay(version="current" if version == "current" else "same")
        await replays.replay(deps, tenant.principal, old.id, wanted, _request())

    assert [1, 2, 1] == await _numbers(deps)


async def test_a_pinned_draft_is_published_and_its_version_cannot_be_deleted_or_changed(
    deps: Deps, tenant: Tenant
) -> None:
    await _pin(deps, tenant, "production", 3)

    found = await targets.locate(deps, tenant.workspace_id, "greeting", PINNED, None)

    assert (3, True) == (found.number, found.published)


async def test_a_prompt_is_found_by_its_id_like_by_its_slug(deps: Deps, tenant: Tenant) -> None:
    made = await prompts.get(deps, tenant.principal, "greeting")
    by_slug = await targets.locate(deps, tenant.workspace_id, "greeting", "1", None)

    by_id = await targets.locate(deps, tenant.workspace_id, made.id, "1", None)

    assert by_slug == by_id
    with pytest.raises(NotFoundError):
        await targets.locate(deps, tenant.workspace_id, str(new_id()), "1", None)
