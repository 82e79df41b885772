"""API keys: one answer to all that is wrong, and a revocation that takes effect in time."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from shared.deps import Deps
from shared.domain import api_keys
from shared.errors import ForbiddenError, UnauthorizedError
from shared.ids import EnvironmentId, KeyId, WorkspaceId, new_id
from shared.services import keys
from shared.services.keys import Principal
from tests.clocks import StillClock
from tests.factories import Tenant, a_key, a_tenant


@pytest.fixture
def clock() -> StillClock:
    return StillClock()


@pytest.fixture(name="deps")
def deps_with_a_still_clock(deps: Deps, clock: StillClock) -> Deps:
    return replace(deps, clock=clock)


async def _change(deps: Deps, columns: str) -> None:
    await deps.store.execute(f"UPDATE api_keys SET {columns}", {})


async def _refused(deps: Deps, token: str) -> tuple[str, str, dict[str, str]]:
    with pytest.raises(UnauthorizedError) as refused:
        await keys.authenticate(deps, token)
    return refused.value.code, refused.value.detail, refused.value.headers


async def test_a_good_key_names_its_principal(deps: Deps, tenant: Tenant) -> None:
    environment = EnvironmentId(new_id())
    text, key_id = await a_key(deps, tenant.workspace_id, ("runs:read", "keys:write"))
    await deps.store.execute(
        "UPDATE api_keys SET environment_ids = %(ids)s WHERE id = %(id)s",
        {"ids": [environment], "id": key_id},
    )

    principal = await keys.authenticate(deps, text)

    assert (
        Principal(
            tenant.workspace_id,
            key_id,
            frozenset({"runs:read", "keys:write"}),
            frozenset({environment}),
        )
        == principal
    )


async def test_everything_wrong_gets_one_and_the_same_answer(deps: Deps, tenant: Tenant) -> None:
    unknown, impostor = api_keys.make().text, api_keys.make()
    _, key_id = await a_key(deps, tenant.workspace_id)
    await deps.store.execute(  # the right public part with a wrong secret
        "UPDATE api_keys SET lookup_id = %(lookup)s WHERE id = %(id)s",
        {"lookup": impostor.lookup_id, "id": key_id},
    )
    tokens = ["", "nonsense", tenant.key[:-1], tenant.key + "x", unknown, impostor.text]

    answers = [await _refused(deps, token) for token in tokens * 2]

    assert {str(answers[0])} == {str(answer) for answer in answers}


@pytest.mark.parametrize("column", ["expires_at = '2026-11-22T12:00:00Z'", "revoked_at = now()"])
async def test_an_expired_or_revoked_key_is_refused(
    deps: Deps, tenant: Tenant, column: str
) -> None:
    await _change(deps, column)

    assert "unauthorized" == (await _refused(deps, tenant.key))[0]


async def test_a_revocation_takes_effect_when_the_trust_runs_out(
    deps: Deps, tenant: Tenant, clock: StillClock
) -> None:
    await keys.authenticate(deps, tenant.key)
    await _change(deps, "revoked_at = now()")
    clock.seconds += deps.settings.key_cache_s
    trusted = await keys.authenticate(deps, tenant.key)

    clock.seconds += 0.001

    assert "unauthorized" == (await _refused(deps, tenant.key))[0]
    assert trusted.workspace_id == tenant.workspace_id
    assert deps.settings.key_cache_s < 5


async def test_a_key_expires_on_time_although_it_is_trusted(
    deps: Deps, tenant: Tenant, clock: StillClock
) -> None:
    await _change(deps, "expires_at = '2999-01-01T00:00:00Z'")
    await keys.authenticate(deps, tenant.key)

    clock.moment = datetime(2999, 1, 1, tzinfo=UTC) - timedelta(microseconds=1)
    await keys.authenticate(deps, tenant.key)
    clock.moment = datetime(2999, 1, 1, tzinfo=UTC)

    assert "unauthorized" == (await _refused(deps, tenant.key))[0]


async def test_a_trusted_key_needs_no_database(deps: Deps, tenant: Tenant) -> None:
    await keys.authenticate(deps, tenant.key)
    await deps.store.execute("DELETE FROM api_keys", {})

    assert tenant.workspace_id == (await keys.authenticate(deps, tenant.key)).workspace_id


async def test_uses_are_noted_once_a_minute(deps: Deps, tenant: Tenant) -> None:
    other = await a_tenant(deps)
    await keys.authenticate(deps, tenant.key)
    await keys.note_uses(deps)
    first = await _used(deps)
    await keys.authenticate(deps, tenant.key)
    await keys.note_uses(deps)
    again = await _used(deps)
    await _change(deps, "last_used_at = now() - interval '61 s' WHERE last_used_at IS NOT NULL")
    await keys.authenticate(deps, tenant.key)
    await keys.note_uses(deps)

    assert {tenant.principal.key_id} == first.keys()
    assert other.principal.key_id not in again
    assert first == again
    assert (await _used(deps)) != again


async def _used(deps: Deps) -> dict[KeyId, datetime]:
    rows = await deps.store.fetch(
        "SELECT id, last_used_at FROM api_keys WHERE last_used_at IS NOT NULL", {}
    )
    return {row[0]: row[1] for row in rows}


def _principal(*scopes: str) -> Principal:
    return Principal(
        WorkspaceId(new_id()), KeyId(new_id()), frozenset(scopes), environment_ids=frozenset()
    )


def test_what_a_key_lacks_is_named() -> None:
    with pytest.raises(ForbiddenError, match="runs:write") as refused:
        _principal("runs:read").demand("runs:write")

    assert "missing_scope" == refused.value.code


@pytest.mark.parametrize("noun", ["runs", "prompts", "environments", "webhooks", "keys"])
def test_writing_includes_reading_of_the_same_noun_only(noun: str) -> None:
    def holds(have: str, want: str) -> bool:
        try:
            _principal(have).demand(want)
        except ForbiddenError:
            return False
        return True

    assert holds(f"{noun}:write", f"{noun}:read")
    assert holds(f"{noun}:write", f"{noun}:write")
    assert holds("admin", f"{noun}:write")
    assert not holds(f"{noun}:read", f"{noun}:write")
    assert not holds("other:write", f"{noun}:read")
    assert not holds(f"{noun}:write", "admin")
