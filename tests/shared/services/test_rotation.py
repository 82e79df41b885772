"""Rotating the master key: nothing is lost, nothing overwritten, nothing left behind unsaid."""

import asyncio
from base64 import b64encode

import httpx
import pytest
from pydantic import SecretStr
from sqlalchemy import LargeBinary

from shared import deps as shared_deps
from shared.deps import Deps
from shared.queue.lanes import Lanes
from shared.services import diagnosis, rotation
from shared.services.findings import Verdict
from shared.services.rotation import Rotated
from shared.store import sealed
from shared.store.tables import METADATA
from shared.vault import VaultError
from tests.api.clients import client_with
from tests.factories import Tenant, a_prompt

OLD = "test:" + b64encode(bytes(range(32))).decode()
NEW = "new1:" + b64encode(bytes(range(32, 64))).decode()
# Bytes that are no secrets: digests that are compared.
DIGESTS = {
    ("api_keys", "digest"),
    ("idempotency_keys", "fingerprint"),
    ("runs", "messages_sha256"),
}


def _with_keys(deps: Deps, *keys: str) -> Deps:
    """The same process after a restart with another MASTER_KEY."""
    settings = deps.settings.model_copy(update={"master_key": SecretStr(",".join(keys))})
    return shared_deps.build(settings, deps.clock, deps.random, deps.store, deps.lanes)


async def _rotate(deps: Deps) -> Rotated:
    return await rotation.rotate(deps, lambda *_: None)


async def _secrets(deps: Deps) -> dict[str, bytes]:
    """Everything that is sealed, opened, by its place."""
    found: dict[str, bytes] = {}
    for column in sealed.COLUMNS:
        keys = await sealed.under_other_keys(deps.store, column, "-")
        for one in await sealed.read(deps.store, column, keys):
            found[str(one.place)] = deps.vault.open(one.sealed, *one.place)
    return found


@pytest.fixture(autouse=True)
async def _of_every_kind(client: httpx.AsyncClient, deps: Deps, tenant: Tenant) -> None:
    """A secret in each sealed column, more than a batch of one kind."""
    await a_prompt(deps, tenant)
    for number in range(rotation.BATCH + 5):
        await client.put(
            f"/environments/production/variables/KEY_{number}", json={"value": f"secret {number}"}
        )
    hook = {"url": "http://127.0.0.1:9/hook", "headers": {"X-Token": "secret header"}}
    await client.post("/webhooks", json=hook)
    later: tuple[dict[str, str], ...] = ({}, {"runAt": "2027-01-01T00:00:00Z"})
    for body in later:
        given = {"inputs": {"name": "Ada"}, "envVars": {"A": "secret of the run"}, **body}
        answer = await client.post("/prompts/greeting/1/runs", json=given)
        assert 200 == answer.status_code, answer.text


def test_every_column_of_bytes_is_rotated_or_no_secret() -> None:
    columns = {
        (table.name, column.name)
        for table in METADATA.tables.values()
        for column in table.columns
        if isinstance(column.type, LargeBinary)
    }

    assert columns == DIGESTS | {(one.table, one.column) for one in sealed.COLUMNS}


async def test_after_a_rotation_the_newest_key_alone_opens_everything(deps: Deps) -> None:
    before = await _secrets(deps)
    told: list[tuple[str, int, int]] = []

    done = await rotation.rotate(_with_keys(deps, NEW, OLD), lambda *at: told.append(at))
    after = await _secrets(_with_keys(deps, NEW))

    assert before == after
    assert {b"secret 7", b'{"X-Token":"secret header"}', b'{"A":"secret of the run"}'} <= {
        *after.values()
    }
    assert Rotated(rotation.BATCH + 5 + 4, (), 0) == done
    assert ("environment_variables", 100, 105) == told[0]
    with pytest.raises(VaultError):
        await _secrets(deps)


async def test_a_rotation_is_repeated_without_effect(deps: Deps) -> None:
    rotated = _with_keys(deps, NEW, OLD)
    await _rotate(rotated)
    audited = "SELECT target_name, actor FROM audit_log WHERE action = 'secrets.rotated'"

    again = await _rotate(rotated)

    assert Rotated(0, (), 0) == again
    assert [("new1", "operator")] == await deps.store.fetch(audited, {})


async def test_what_no_key_opens_is_named_and_the_rest_is_rotated(deps: Deps) -> None:
    (row,) = await deps.store.fetch(
        "UPDATE webhook_secrets SET sealed = 'lost:xxxxxxxxxxxxxxxxxxxxxxxx'::bytea"
        " RETURNING id::text",
        {},
    )
    await deps.store.execute(
        "UPDATE environment_variables SET sealed = (SELECT sealed FROM environment_variables"
        " WHERE key = 'KEY_2') WHERE key = 'KEY_1'",
        {},
    )

    done = await _rotate(_with_keys(deps, NEW, OLD))

    assert {"environment_variables.sealed", "webhook_secrets.sealed"} == {
        one.table for one in done.unopened
    }
    assert row[0] in {one.key for one in done.unopened}
    assert "secret" not in str([one.key for one in done.unopened])
    assert (rotation.BATCH + 5 + 4 - 2, 0) == (done.count, done.left)


async def test_a_secret_that_changes_meanwhile_keeps_its_change(
    client: httpx.AsyncClient, deps: Deps
) -> None:
    rotated = _with_keys(deps, NEW, OLD)
    column = sealed.COLUMNS[0]
    keys = await sealed.under_other_keys(deps.store, column, "new1")
    read = await sealed.read(deps.store, column, keys)
    stale = [(one, rotated.vault.seal(b"stale", *one.place)) for one in read]

    await client.put("/environments/production/variables/KEY_3", json={"value": "changed"})
    await client.delete("/environments/production/variables/KEY_4")
    async with deps.store.transaction() as tx:
        replaced = await sealed.replace(tx, column, stale)
    found = await _secrets(_with_keys(deps, NEW, OLD))
    changed = [text for place, text in found.items() if "'KEY_3'" in place]

    assert len(read) - 2 == replaced
    assert [b"changed"] == changed
    assert not any("'KEY_4'" in place for place in found)


async def test_a_rotation_beside_writers_loses_none_of_their_changes(
    deps: Deps, tenant: Tenant
) -> None:
    """Half the processes know the newest key already, half seal with the old one still."""
    rotated, behind = _with_keys(deps, NEW, OLD), _with_keys(deps, OLD, NEW)

    async def write(writer: Deps, first: int) -> None:
        async with client_with(writer, tenant.key) as client:
            for number in range(first, 60, 2):
                path = f"/environments/production/variables/KEY_{number}"
                answer = await client.put(path, json={"value": f"changed {number}"})
                assert 200 == answer.status_code, answer.text

    await asyncio.gather(write(rotated, 0), write(behind, 1), _rotate(rotated))
    last = await _rotate(rotated)
    values = {*(await _secrets(_with_keys(deps, NEW))).values()}

    assert ((), 0) == (last.unopened, last.left)
    assert {f"changed {number}".encode() for number in range(60)} <= values
    assert {f"secret {number}".encode() for number in range(60, 105)} <= values


async def test_the_doctor_says_when_an_old_key_can_be_taken_away(deps: Deps, lanes: Lanes) -> None:
    async def finding(*keys: str) -> tuple[Verdict, str]:
        findings = await diagnosis.examine(_with_keys(deps, *keys), lanes, fix=False)
        (found,) = [one for one in findings if one.check == "secrets"]
        return found.verdict, found.detail

    total = rotation.BATCH + 5 + 4
    before = await finding(NEW, OLD)
    lost = await finding(NEW)
    await _rotate(_with_keys(deps, NEW, OLD))
    after = await finding(NEW)

    assert (Verdict.WARNING, True) == (before[0], f"test ({total})" in before[1])
    assert "runlane secrets rotate" in before[1]
    assert (Verdict.BAD, True) == (lost[0], "test" in lost[1])
    assert (Verdict.GOOD, f"all {total} are under the newest master key") == after


async def test_without_a_master_key_there_is_nothing_to_rotate_to(deps: Deps) -> None:
    with pytest.raises(VaultError):
        await _rotate(_with_keys(deps, ""))
