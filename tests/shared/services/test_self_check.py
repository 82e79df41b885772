"""What a process refuses to start with, and what it only warns of."""

import base64
from dataclasses import replace

import pytest

from shared.deps import Deps
from shared.queue.lanes import Lanes
from shared.services import readiness, self_check, webhooks
from shared.services.findings import Verdict
from shared.settings import Settings
from shared.store import schema
from shared.vault import Vault
from tests.factories import Tenant

OTHER_KEY = "other:" + base64.b64encode(bytes(32)).decode()
HOOK = webhooks.NewWebhook(url="http://127.0.0.1:9/hook")


@pytest.mark.parametrize(
    ("given", "verdict"),
    [
        (Settings(), []),
        (Settings(dev_mode=True), []),
        (Settings(self_fence_s=30), [Verdict.BAD]),
        (Settings(renew_s=24), [Verdict.BAD]),
        (Settings(webhook_timeout_s=45), [Verdict.WARNING]),
        (Settings(dev_mode=True, api_host="0.0.0.0"), [Verdict.WARNING]),  # noqa: S104 (nothing listens)
        (Settings(dev_mode=True, api_host="localhost"), []),
    ],
)
def test_settings_that_break_a_promise_are_found(given: Settings, verdict: list[Verdict]) -> None:
    assert verdict == [finding.verdict for finding in self_check.settings(given)]


@pytest.mark.parametrize("key", ["", OTHER_KEY], ids=["none", "another"])
async def test_a_master_key_that_opens_nothing_that_is_there_is_bad(
    deps: Deps, tenant: Tenant, key: str
) -> None:
    await webhooks.create(deps, tenant.principal, HOOK)

    right = await self_check.master_key(deps)
    wrong = await self_check.master_key(replace(deps, vault=Vault.parse(key)))

    assert (Verdict.GOOD, Verdict.BAD) == (right.verdict, wrong.verdict)


async def test_no_master_key_is_a_warning_as_long_as_nothing_is_sealed(deps: Deps) -> None:
    found = await self_check.master_key(replace(deps, vault=Vault.parse("")))

    assert Verdict.WARNING == found.verdict


async def test_what_redis_lacks_is_said(lanes: Lanes) -> None:
    found = await self_check.redis(lanes, 5)

    lacks = "appendonly should be yes: after a restart every run is rung again."
    assert [(Verdict.WARNING, lacks)] == [(one.verdict, one.detail) for one in found]


async def test_code_of_before_is_ready_on_the_schema_of_after_and_not_the_reverse(
    deps: Deps,
) -> None:
    seen = {}
    for number in (int(schema.EXPECTED) + 1, int(schema.EXPECTED) - 1, int(schema.EXPECTED)):
        name = f"{number:04}"
        await deps.store.execute(
            "UPDATE alembic_version SET version_num = %(name)s", {"name": name}
        )
        seen[number - int(schema.EXPECTED)] = (await readiness.check(deps)).status

    assert {1: "ready", -1: "unready", 0: "ready"} == seen


async def test_a_process_that_was_asked_to_end_is_not_ready(deps: Deps) -> None:
    deps.leaving.set()

    assert "draining" == (await readiness.check(deps)).status
