"""Deaths of reapers, of everything at once, again and again, and for want of memory."""

import asyncio
from collections import Counter

import pytest

from tests.faults.processes import Child
from tests.faults.rig import Rig
from tests.faults.vendors import model_of
from tests.faults.waiting import pause, until

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.xdist_group("faults")]

ANSWER = model_of("answer")
SLOW = model_of("slow-200")
HANG = model_of("hang")
HANGS_ONCE = model_of("hang", "answer")
HUGE_ONCE = model_of("huge", "answer")
LOOP_S = 60
SPARE_BYTES = 48 * 1024 * 1024
_GIVEN_UP = {"worker_crashed_repeatedly", "attempts_exhausted", "outcome_unknown"}


async def _left_by_a_dead_worker(rig: Rig) -> dict[str, list[str]]:
    """Runs under way in a worker that is dead now, by their policy."""
    first = await rig.worker()
    runs: dict[str, list[str]] = {"retry": [], "fail": []}
    for number in range(8):
        for policy, ids in runs.items():
            case = f"f59 {policy} {number}"
            ids.append(await rig.customer.accepted(case, HANGS_ONCE, onUnknownOutcome=policy))
    for run_id in (*runs["retry"], *runs["fail"]):
        await rig.called(run_id)
    await first.kill()
    return runs


async def _assert_taken_over(rig: Rig, runs: dict[str, list[str]]) -> None:
    again = [await rig.ended(run_id) for run_id in runs["retry"]]
    once = [await rig.ended(run_id) for run_id in runs["fail"]]
    assert {("succeeded", 2, 1)} == {(r["status"], r["claim_no"], r["deaths"]) for r in again}
    assert {("outcome_unknown", 1)} == {(r["error_code"], r["claim_no"]) for r in once}
    assert [2] * 8 == [len(rig.vendors.calls_of(run_id)) for run_id in runs["retry"]]
    assert [1] * 8 == [len(rig.vendors.calls_of(run_id)) for run_id in runs["fail"]]


async def test_what_a_reaper_that_died_left_half_done_is_carried_on(rig: Rig) -> None:
    await rig.api()
    runs = await _left_by_a_dead_worker(rig)

    reaper = rig.launch_worker(crash_point="reaper_mid_batch:kill")
    await reaper.ended()
    await rig.worker()

    await _assert_taken_over(rig, runs)
    assert [] == await rig.verdict()


async def test_two_reapers_at_work_do_no_harm(rig: Rig) -> None:
    await rig.api()
    runs = await _left_by_a_dead_worker(rig)

    first = await rig.worker(crash_point="reaper_mid_batch:stop")
    await first.frozen()
    second = await rig.worker()
    await second.says("workers_lost")
    first.thaw()
    await first.says("session_was_reaped")

    await _assert_taken_over(rig, runs)
    assert [] == await rig.verdict()


async def test_while_no_worker_lives_the_doctor_says_so(rig: Rig) -> None:
    await rig.api()
    runs = await _left_by_a_dead_worker(rig)

    async def told() -> str | None:
        code, words = await rig.doctor()
        return words if code and "belong to no live worker" in words else None

    words = await until(told, "the doctor finds the runs of the dead")
    await rig.worker()
    await _assert_taken_over(rig, runs)
    code, afterwards = await rig.doctor()

    assert "no worker holds a lease" in words
    assert 0 == code, afterwards
    assert [] == await rig.verdict()


async def test_everything_killed_at_once_goes_on_when_it_is_started_again(rig: Rig) -> None:
    api = await rig.api()
    workers = [await rig.worker(), await rig.worker()]
    rig.receiver.script("main", [500] * 20)
    for number in range(40):
        await rig.customer.accepted(f"f64 {number}", SLOW if number % 2 else HANGS_ONCE)
    asking = [
        asyncio.create_task(rig.customer.submit(f"f64 asked {n}", SLOW, key=f"f64 {n}"))
        for n in range(20)
    ]
    await asyncio.wait(asking, return_when=asyncio.FIRST_COMPLETED)

    for child in (api, *workers):
        await child.kill()
    rig.servers.postgres.kill()
    rig.servers.valkey.kill()
    first = await asyncio.gather(*asking)
    await asyncio.to_thread(rig.servers.start)
    await rig.api()
    await rig.worker()
    await rig.worker()
    again = [await rig.customer.submit(f"f64 asked {n}", SLOW, key=f"f64 {n}") for n in range(20)]

    assert [200] * 20 == [reply.status for reply in again]
    known = {(a.run_id, b.run_id) for a, b in zip(first, again, strict=True) if a.accepted}
    assert all(one == other for one, other in known)
    assert [] == await rig.verdict(within_s=40)
    assert {"succeeded"} == {row["status"] for row in await rig.rows("SELECT status FROM runs")}


async def test_workers_killed_every_second_lose_nothing_and_pay_within_the_limit(
    rig: Rig,
) -> None:
    await rig.api()
    workers = [await rig.worker(slots=50) for _ in range(3)]
    loop = asyncio.get_running_loop()
    ends_at = loop.time() + LOOP_S
    submitted = 0

    async def submit() -> None:
        nonlocal submitted
        while loop.time() < ends_at:
            policy = "fail" if submitted % 4 == 0 else "retry"
            await rig.customer.accepted(f"f26 {submitted}", SLOW, onUnknownOutcome=policy)
            submitted += 1
            await pause(0.1)

    submitting = asyncio.create_task(submit())
    kills = 0
    while loop.time() < ends_at:
        await pause(1)
        await workers[kills % 3].kill()
        workers[kills % 3] = rig.launch_worker(slots=50)
        kills += 1
    await submitting
    await rig.quiet(within_s=60)
    ends = Counter(
        (row["status"], row["error_code"])
        for row in await rig.rows("SELECT status, error_code FROM runs")
    )

    assert kills >= LOOP_S / 2
    assert {"succeeded", "failed"} >= {status for status, _ in ends}
    assert {code for _, code in ends if code} <= _GIVEN_UP
    assert ends["succeeded", None] > submitted / 2, ends
    assert [] == await rig.judged()


async def test_a_run_that_ends_three_workers_is_given_up(rig: Rig) -> None:
    await rig.api()
    poison = await rig.customer.accepted("f23 poison", HANG, maxAttempts=10)

    for deaths in range(3):
        worker = await rig.worker()
        await rig.called(poison, deaths + 1)
        await worker.kill()
    await rig.worker()
    row = await rig.ended(poison)

    assert ("failed", "worker_crashed_repeatedly") == (row["status"], row["error_code"])
    assert [("lost", "unknown")] * 3 == [(a["outcome"], a["billed"]) for a in row["tried"]]
    assert 3 == len(rig.vendors.calls_of(poison))
    assert [] == await rig.verdict()


async def test_workers_short_of_memory_lose_no_run(rig: Rig) -> None:
    rig.expected_errors.add("Fatal error on transport TCPTransport")
    await rig.api()
    short = await _short_of_memory(rig)
    runs = [
        await rig.customer.accepted(f"f23 {number}", HUGE_ONCE, maxAttempts=20)
        for number in range(20)
    ]
    once = [
        await rig.customer.accepted(f"f23 fail {number}", HUGE_ONCE, onUnknownOutcome="fail")
        for number in range(10)
    ]

    async def over() -> bool:
        nonlocal short
        if not short.alive:
            short = await _short_of_memory(rig)
        (left,) = await rig.rows("SELECT count(*) FROM runs WHERE finished_at IS NULL")
        return bool(left["count"] == 0)

    await until(over, "every run is over", within_s=60)
    retried = [await rig.run(run_id) for run_id in runs]
    given_up = [await rig.run(run_id) for run_id in once]
    codes = {attempt["error_code"] for row in (*retried, *given_up) for attempt in row["tried"]}

    assert "worker_out_of_memory" in codes
    assert {"succeeded"} == {row["status"] for row in retried}
    assert {"outcome_unknown"} == {row["error_code"] for row in given_up}
    assert [1] * 10 == [len(rig.vendors.calls_of(run_id)) for run_id in once]
    assert [] == await rig.verdict()


async def _short_of_memory(rig: Rig) -> Child:
    worker = await rig.worker(call_timeout_s=8)  # a transport without memory may just fall silent
    worker.limit_memory(SPARE_BYTES)
    return worker
