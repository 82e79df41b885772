"""An upgrade: the code of before and that of after, on the schema of after, under load."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from signal import SIGTERM

import pytest

import migrations
from shared.store import schema
from tests.faults.checkouts import Checkout, before_newest_migration
from tests.faults.processes import Child
from tests.faults.rig import Rig
from tests.faults.rolling import steadily
from tests.faults.vendors import model_of
from tests.faults.waiting import until

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.xdist_group("faults")]

CALLS = model_of("slow-100")
PER_S = 30
TOGETHER = 60
OLDER = f"{int(schema.EXPECTED) - 1:04}"
COMMITS = [commits for commits in [before_newest_migration()] if commits]


@pytest.fixture
def older_schema(rig: Rig) -> Iterator[None]:
    migrations.downgrade(rig.servers.database_url, OLDER)
    yield
    migrations.upgrade(rig.servers.database_url)


@pytest.mark.usefixtures("older_schema")
@pytest.mark.parametrize("commits", COMMITS, ids=["before"] * len(COMMITS))
async def test_an_upgrade_under_load_loses_nothing_while_both_versions_run(
    rig: Rig, commits: Sequence[str], tmp_path: Path
) -> None:
    checkout, old_api = await _newest_that_serves(rig, commits, tmp_path)
    old = [old_api, await rig.older(checkout, "worker")]
    urls, orders, ends = [await _url(old[0])], rig.customer.orders, []

    async def submit(number: int) -> None:
        rig.customer.url = urls[number % len(urls)]
        await rig.customer.submit(f"upgrade {number}", CALLS)

    async with steadily(submit, per_s=PER_S, at_most=3_000):
        code, said = await rig.command("migrate")
        new_api, _ = rig.launch_api(), await rig.worker()
        urls.append(await _url(new_api))
        enough = len(orders) + TOGETHER
        await until(lambda: _have(rig, enough), "both versions have served for a while")
        urls.pop(0)
        for child in reversed(old):
            child.send(SIGTERM)
            ends.append(await child.ended())
    violations = await rig.verdict(within_s=30)

    rows = await rig.rows("SELECT id::text AS id, status FROM runs")
    accepted = {run_id for order in orders.values() for run_id in order.run_ids}
    assert (0, [0, 0]) == (code, ends), said
    assert {200} == {reply.status for order in orders.values() for reply in order.replies}
    assert accepted == {row["id"] for row in rows}
    assert {"succeeded"} == {row["status"] for row in rows}
    assert {1} == {len(rig.vendors.calls_of(run_id)) for run_id in accepted}
    assert [] == violations


async def _newest_that_serves(
    rig: Rig, commits: Sequence[str], folder: Path
) -> tuple[Checkout, Child]:
    """The newest version that takes a run, and its API: not every commit amid a series does."""
    for commit in commits:
        checkout = Checkout(commit, folder / commit)
        if not checkout.imports():
            continue
        api = await rig.older(checkout, "api")
        rig.customer.url = await _url(api)
        if (await rig.customer.submit("first", CALLS)).accepted:
            return checkout, api
        await api.kill()
        rig.children.remove(api)
        rig.customer.orders.clear()
    raise AssertionError(f"none of {len(commits)} commits before the migration takes a run")


async def _url(api: Child) -> str:
    return str((await api.says("api_ready", within_s=30))["url"])


async def _have(rig: Rig, orders: int) -> bool:
    return len(rig.customer.orders) >= orders
