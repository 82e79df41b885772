"""`runlane dev` and its servers are killed in every combination; the next start loses nothing."""

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from cli.embedded import processes
from shared.tasks import end
from tests.e2e.processes import Process, as_ordinary_user, clean_env
from tests.faults.embedded import Dev
from tests.faults.waiting import pause

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.xdist_group("faults")]

RUNS = 60


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def module_dev(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Dev]:
    async with Dev(tmp_path_factory.mktemp("dev")) as dev:
        yield dev


@pytest_asyncio.fixture(loop_scope="module")
async def dev(module_dev: Dev) -> Dev:
    """A running Runlane without a run."""
    await module_dev.clear()
    return module_dev


async def killed_while_busy(dev: Dev, name: str, *victims: str) -> None:
    """Kill in the middle of traffic; what got no answer is asked for again after the start."""
    busy = asyncio.create_task(dev.busy(name, RUNS, seed=66))
    await pause(0.4)
    await dev.kill(*victims)
    if "dev" in victims:
        await dev.start()
    await busy


async def ask_again(dev: Dev, name: str) -> None:
    """Repeat what was not accepted, each under its own key."""
    await dev.busy(name, RUNS, seed=66)
    accepted = [order for order in dev.customer.orders.values() if order.run_ids]
    assert RUNS == len(accepted)


@pytest.mark.parametrize("victims", [("dev",), ("dev", "postgres", "valkey")], ids=" ".join)
async def test_killed_and_started_again_nothing_is_lost(dev: Dev, victims: tuple[str, ...]) -> None:
    name = " ".join(victims)
    before = dev.server_pids()

    await killed_while_busy(dev, name, *victims)
    after = dev.server_pids()
    await ask_again(dev, name)

    assert {server: server not in victims for server in before} == {
        server: before[server] == after[server] for server in before
    }
    assert [] == await dev.verdict()


async def test_without_its_valkey_it_works_on_and_the_next_start_has_one_again(dev: Dev) -> None:
    await killed_while_busy(dev, "valkey", "valkey")
    await ask_again(dev, "valkey")
    verdict = await dev.verdict()

    code = await dev.end()
    await dev.start()

    assert [] == verdict
    assert 0 == code
    assert "Traceback" not in dev.last_words
    assert {"postgres", "valkey"} == set(dev.server_pids())
    assert [] == await dev.verdict()


async def test_without_its_postgresql_it_refuses_until_the_next_start(dev: Dev) -> None:
    busy = asyncio.create_task(dev.busy("postgres", RUNS, seed=66))
    await pause(0.4)
    await dev.kill("postgres")
    await pause(1)
    await end([busy])
    refused = await dev.customer.submit("f66 refused", "sim/echo")

    code = await dev.end()
    said = dev.last_words
    await dev.start()
    await ask_again(dev, "postgres")

    assert "Traceback" not in said
    assert (503, 0) == (refused.status, code)
    assert refused.headers["retry-after"]
    assert [] == await dev.verdict()


async def test_files_that_killed_processes_left_are_no_obstacle(dev: Dev) -> None:
    await dev.busy("stale", 10, seed=66)
    await dev.kill("dev", "postgres", "valkey")
    with Process(as_ordinary_user(["/bin/sleep", "60"]), env=clean_env(dev.data_dir)) as stranger:
        (dev.data_dir / "lock").write_text(f"{stranger.pid}\nhttp://127.0.0.1:1\n")
        pid_file = dev.data_dir / "postgres" / "postmaster.pid"
        old = pid_file.read_text().split("\n")
        pid_file.write_text("\n".join([str(stranger.pid), *old[1:]]))

        await dev.start()

    assert processes.alive(dev.server_pids()["postgres"])
    assert [] == await dev.verdict()
