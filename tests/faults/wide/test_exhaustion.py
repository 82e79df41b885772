"""Processes that run out of file descriptors."""

import asyncio
import resource
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path

import httpx
import pytest

from tests.faults.processes import Child
from tests.faults.rig import Rig
from tests.faults.vendors import model_of
from tests.faults.waiting import pause, until

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.xdist_group("faults")]

ANSWER = model_of("answer")
PROMPT_S = 3.0


@contextmanager
def no_descriptors(child: Child, left: int) -> Iterator[None]:
    """Let a process open only so many files and sockets more than it has."""
    before = resource.prlimit(child.pid, resource.RLIMIT_NOFILE)
    has = sum(1 for _ in Path(f"/proc/{child.pid}/fd").iterdir())
    resource.prlimit(child.pid, resource.RLIMIT_NOFILE, (has + left, before[1]))
    try:
        yield
    finally:
        resource.prlimit(child.pid, resource.RLIMIT_NOFILE, before)


@asynccontextmanager
async def loiterers(url: str, count: int) -> AsyncIterator[None]:
    """Connections that say nothing."""
    async with AsyncExitStack() as stack:
        for _ in range(count):
            _, writer = await asyncio.open_connection("127.0.0.1", int(url.rpartition(":")[2]))
            stack.callback(writer.close)
        yield


async def test_an_api_out_of_file_descriptors_serves_whom_it_has_and_recovers(rig: Rig) -> None:
    api = await rig.api()
    await rig.worker()
    await rig.ended(await rig.customer.accepted("f67 before", ANSWER))

    with no_descriptors(api, 8):
        async with loiterers(rig.customer.url, 40):
            await pause(0.5)
            during = [await rig.customer.submit(f"f67 {n}", ANSWER) for n in range(3)]
        served = await until(lambda: _health(rig.customer.url), "newcomers are served again")
    later = await rig.customer.accepted("f67 later", ANSWER)
    await rig.ended(later)

    assert {200, 503} >= {reply.status for reply in during}
    assert max(reply.took_s for reply in during) < PROMPT_S
    assert 200 == served
    assert api.alive
    assert [] == await rig.verdict()


async def test_a_worker_out_of_file_descriptors_calls_when_it_has_some_again(rig: Rig) -> None:
    await rig.api()
    worker = await rig.worker()
    await rig.ended(await rig.customer.accepted("f67 before", ANSWER))

    with no_descriptors(worker, 0):
        slow = model_of("slow-300")  # so that not all of them share the one open connection
        runs = [await rig.customer.accepted(f"f67 {n}", slow) for n in range(3)]
        await until(lambda: _tried(rig, runs), "each run was tried")
    rows = [await rig.ended(run_id) for run_id in runs]

    assert ["succeeded"] * 3 == [row["status"] for row in rows]
    assert {"not_sent", "succeeded"} == {one["outcome"] for row in rows for one in row["tried"]}
    assert [1] * 3 == [len(rig.vendors.calls_of(run_id)) for run_id in runs]
    assert worker.alive
    assert [] == await rig.verdict()


async def _health(url: str) -> int | None:
    try:
        async with httpx.AsyncClient(timeout=1, trust_env=False) as client:
            return (await client.get(url + "/livez")).status_code
    except httpx.TransportError:
        return None


async def _tried(rig: Rig, runs: list[str]) -> bool:
    rows = [await rig.run(run_id) for run_id in runs]
    return all(any(one["outcome"] for one in row["tried"]) for row in rows)
