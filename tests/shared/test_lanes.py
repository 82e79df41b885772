"""The lanes' port over a real Valkey and over fakeredis: the same sentences for both."""

import asyncio
import pickle
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import fakeredis
import pytest
from arq.jobs import deserialize_job_raw
from redis.exceptions import WatchError

from shared.domain.states import Lane
from shared.ids import RunId, new_id
from shared.queue.connection import connect
from shared.queue.lanes import Claim, Lanes, deserialize
from shared.queue.port import Dispatcher, Ring
from shared.queue.slots import Room
from tests.worker.lane_rig import until

PLENTY = Room(floors=(100, 100, 100), shared=5000, weights=(8, 3, 1))


@pytest.fixture(params=["valkey", "fakeredis"])
async def lanes(request: pytest.FixtureRequest) -> AsyncIterator[Lanes]:
    if request.param == "valkey":
        lanes = connect(request.getfixturevalue("redis_url"))
    else:
        lanes = Lanes(fakeredis.FakeAsyncRedis().connection_pool)
    await lanes.flushall()
    yield lanes
    await lanes.aclose(close_connection_pool=True)


WHOSE = b"01a203f4-b832-712d-bea3-ff6aeb08df74"  # the same at every collection


def a_ring(lane: Lane = Lane.NORMAL, due_ms: int | None = None) -> Ring:
    return Ring(RunId(new_id()), lane, due_ms)


async def claimed(lanes: Lanes, room: Room = PLENTY, limit: int = 1000) -> list[RunId]:
    claim = await lanes.claim(room, limit)
    return [run_id for run_id, _ in claim.runs]


async def now_ms(lanes: Lanes) -> int:
    seconds, microseconds = await lanes.time()
    return int(seconds) * 1000 + int(microseconds) // 1000


async def tokens(lanes: Lanes, lane: Lane) -> int:
    async with lanes.pipeline() as pipe:
        pipe.llen(f"rl:bell:{lane}")
        (count,) = await pipe.execute()
    return int(count)


async def subscribed(lanes: Lanes) -> bool:
    ((_, count),) = await lanes.pubsub_numsub("rl:cancel")
    return bool(count)


async def test_lanes_are_a_dispatcher(lanes: Lanes) -> None:
    dispatcher: Dispatcher = lanes

    await dispatcher.ring(a_ring(Lane.ONSITE))

    assert await dispatcher.waiting() == {Lane.ONSITE: 1, Lane.NORMAL: 0, Lane.LOW: 0}


async def test_a_ring_is_a_job_in_arqs_own_format(lanes: Lanes) -> None:
    ring = a_ring()

    await lanes.ring(ring)

    (job,) = await lanes.queued_jobs(queue_name="rl:normal")
    assert job.function == "run"
    assert [str(ring.run_id)] == list(job.args)
    assert job.kwargs == {}
    assert str(ring.run_id) == job.job_id
    assert abs(job.enqueue_time - datetime.now(UTC)) < timedelta(seconds=10)  # noqa: TID251 (the server's clock is meant)


async def test_a_jobs_blob_outlives_its_due_time_by_a_day(lanes: Lanes) -> None:
    ring = a_ring(due_ms=await now_ms(lanes) + 3_600_000)

    await lanes.ring(ring)

    life_ms = await lanes.pttl(f"arq:job:{ring.run_id}")
    assert 89_990_000 < life_ms <= 90_000_000


async def test_a_claim_takes_ids_and_blobs_away(lanes: Lanes) -> None:
    ring = a_ring(Lane.LOW)
    await lanes.ring(ring)

    claim = await lanes.claim(PLENTY, 10)

    assert [(ring.run_id, Lane.LOW)] == claim.runs
    assert await lanes.keys("*") == []


async def test_an_id_is_claimed_once(lanes: Lanes) -> None:
    ring = a_ring()
    await lanes.ring_many([ring] * 50)

    assert [ring.run_id] == await claimed(lanes)
    assert await claimed(lanes) == []


async def test_ids_leave_a_lane_in_the_order_of_their_due_times(lanes: Lanes) -> None:
    now = await now_ms(lanes)
    rings = [a_ring(due_ms=now - age) for age in (10, 500, 20, 40_000)]
    await lanes.ring_many(rings)

    assert [rings[place].run_id for place in (3, 1, 2, 0)] == await claimed(lanes)


async def test_more_rings_than_fit_one_call_all_arrive(lanes: Lanes) -> None:
    rings = [a_ring(Lane.LOW) for _ in range(1201)]

    await lanes.ring_many(rings)

    assert (await lanes.waiting())[Lane.LOW] == 1201
    assert {ring.run_id for ring in rings} == set(await claimed(lanes, limit=5000))


async def test_what_is_due_later_stays_and_the_claim_says_when(lanes: Lanes) -> None:
    ring = a_ring(due_ms=await now_ms(lanes) + 60_000)
    await lanes.ring(ring)

    claim = await lanes.claim(PLENTY, 10)

    assert claim.runs == []
    assert not claim.left[Lane.NORMAL]
    assert 50 < claim.next_due_s[Lane.NORMAL] <= 60


async def test_ringing_again_never_postpones(lanes: Lanes) -> None:
    ring = a_ring()
    await lanes.ring(ring)

    await lanes.ring(Ring(ring.run_id, ring.lane, due_ms=await now_ms(lanes) + 60_000))

    assert [ring.run_id] == await claimed(lanes)


async def test_ringing_again_may_bring_forward(lanes: Lanes) -> None:
    ring = a_ring(due_ms=await now_ms(lanes) + 60_000)
    await lanes.ring(ring)

    await lanes.ring(Ring(ring.run_id, ring.lane))

    assert [ring.run_id] == await claimed(lanes)


async def test_ids_a_stock_worker_has_in_progress_are_passed_over(lanes: Lanes) -> None:
    rings = [a_ring(due_ms=1_000 + place) for place in range(30)]
    await lanes.ring_many(rings)
    for ring in rings[:25]:
        await lanes.set(f"arq:in-progress:{ring.run_id}", b"1")

    claim = await lanes.claim(PLENTY, 3)

    assert [ring.run_id for ring in rings[25:28]] == [run_id for run_id, _ in claim.runs]
    assert claim.left[Lane.NORMAL]
    assert [ring.run_id for ring in rings[28:]] == await claimed(lanes)
    assert (await lanes.waiting())[Lane.NORMAL] == 25


async def test_a_claim_undoes_the_start_a_stock_worker_is_about_to_make(lanes: Lanes) -> None:
    ring = a_ring()
    await lanes.ring(ring)
    in_progress = f"arq:in-progress:{ring.run_id}"

    async with lanes.pipeline(transaction=True) as stock:
        await stock.watch(in_progress)
        assert [ring.run_id] == await claimed(lanes)
        stock.multi()  # type: ignore[no-untyped-call] # as shipped
        stock.psetex(in_progress, 1000, b"1")
        with pytest.raises(WatchError):
            await stock.execute()


async def test_a_lane_with_only_ids_in_progress_elsewhere_has_nothing_left(lanes: Lanes) -> None:
    ring = a_ring()
    await lanes.ring(ring)
    await lanes.set(f"arq:in-progress:{ring.run_id}", b"1")

    claim = await lanes.claim(PLENTY, 10)

    assert Claim([], [], [], dict.fromkeys(Lane, False), {}) == claim


async def test_a_claim_without_room_tells_what_is_left(lanes: Lanes) -> None:
    await lanes.ring_many([a_ring(Lane.LOW), a_ring(Lane.ONSITE)])

    claim = await lanes.claim(Room(floors=(1, 0, 0), shared=0, weights=(8, 3, 1)), 10)

    assert [lane for _, lane in claim.runs] == [Lane.ONSITE]
    assert claim.left == {Lane.ONSITE: False, Lane.NORMAL: False, Lane.LOW: True}


async def test_an_id_whose_blob_is_gone_still_names_its_run(lanes: Lanes) -> None:
    ring = a_ring()
    await lanes.ring(ring)
    await lanes.delete(f"arq:job:{ring.run_id}")

    assert [ring.run_id] == await claimed(lanes)


@pytest.mark.parametrize(
    ("job_id", "blob"),
    [
        (b"not-a-uuid", None),
        (b"\xff\xfe\x00", None),
        (WHOSE, b"\xc1 not msgpack"),
        (WHOSE, pickle.dumps({"f": "run", "a": (), "k": {}, "t": 1, "et": 1})),
        (WHOSE, b"\x81\xa1f\x01"),
        (WHOSE, b"\x82\xa1f\xa3run\xa1a\x90"),
        (WHOSE, b"\x82\xa1f\xa3run\xa1a\x91\xa4nope"),
        (b"x" * 100_000, b""),
    ],
)
async def test_garbage_leaves_the_lane_and_is_reported(
    lanes: Lanes, job_id: bytes, blob: bytes | None
) -> None:
    await lanes.zadd("rl:normal", {job_id: 1})
    if blob is not None:
        await lanes.set(b"arq:job:" + job_id, blob)

    claim = await lanes.claim(PLENTY, 10)

    assert ([], [], [job_id]) == (claim.runs, claim.foreign, claim.garbage)
    assert await lanes.keys("*") == []


async def test_a_blob_of_another_type_is_like_none(lanes: Lanes) -> None:
    ring = a_ring()
    await lanes.ring(ring)
    await lanes.delete(f"arq:job:{ring.run_id}")
    await lanes.zadd(f"arq:job:{ring.run_id}", {b"member": 1})

    assert [ring.run_id] == await claimed(lanes)


async def test_a_job_of_arqs_own_is_handed_over_whole(lanes: Lanes) -> None:
    await lanes.enqueue_job("cron:tidy", 7, _job_id="tidy:1", _queue_name="rl:low")

    (job,) = (await lanes.claim(PLENTY, 10)).foreign

    assert (job.job_id, job.function, job.lane) == ("tidy:1", "cron:tidy", Lane.LOW)
    function, args, *_ = deserialize_job_raw(job.blob, deserializer=deserialize)
    assert function == "cron:tidy"
    assert list(args) == [7]


async def test_missing_names_what_no_lane_holds(lanes: Lanes) -> None:
    rings = [a_ring(lane) for lane in Lane for _ in range(3)]
    await lanes.ring_many(rings[:4])

    assert rings[4:] == await lanes.missing(rings)
    assert await lanes.missing([]) == []


async def test_emptied_notices_that_everything_is_gone_once(lanes: Lanes) -> None:
    first = await lanes.emptied(), await lanes.emptied()
    await lanes.flushall()
    second = await lanes.emptied(), await lanes.emptied()

    assert first == (True, False)
    assert second == (True, False)


async def test_a_paused_lane_keeps_its_ids_until_it_resumes(lanes: Lanes) -> None:
    ring = a_ring(Lane.LOW)
    await lanes.pause(Lane.LOW)
    await lanes.ring(ring)

    while_paused = await lanes.claim(PLENTY, 10)
    paused = await lanes.paused()
    await lanes.resume(Lane.LOW)

    assert (while_paused.runs, while_paused.left[Lane.LOW]) == ([], False)
    assert frozenset({Lane.LOW}) == paused
    assert frozenset() == await lanes.paused()
    assert await lanes.answer_bell(Lane.LOW)
    assert [ring.run_id] == await claimed(lanes)


async def test_bells_hold_at_most_64_tokens(lanes: Lanes) -> None:
    await lanes.ring_many([a_ring(Lane.LOW) for _ in range(600)])
    await lanes.ring_many([a_ring(Lane.ONSITE) for _ in range(3)])

    assert await tokens(lanes, Lane.LOW) == 64
    assert await tokens(lanes, Lane.ONSITE) == 3
    assert await tokens(lanes, Lane.NORMAL) == 0


async def test_a_bell_falls_silent_when_nothing_due_is_left(lanes: Lanes) -> None:
    await lanes.ring_many([a_ring(Lane.LOW) for _ in range(3)])

    await claimed(lanes, limit=2)
    with_one_left = await tokens(lanes, Lane.LOW)
    await claimed(lanes, limit=2)

    assert with_one_left == 3
    assert await tokens(lanes, Lane.LOW) == 0


async def test_a_ring_for_much_later_wakes_nobody(lanes: Lanes) -> None:
    await lanes.ring(a_ring(due_ms=await now_ms(lanes) + 60_000))

    assert await tokens(lanes, Lane.NORMAL) == 0


async def test_a_ring_answers_the_bell_and_a_token_can_be_passed_on(lanes: Lanes) -> None:
    await lanes.ring(a_ring(Lane.ONSITE))

    assert await lanes.answer_bell(Lane.ONSITE)
    await lanes.pass_on(Lane.ONSITE)
    assert await lanes.answer_bell(Lane.ONSITE)


async def test_a_cancel_reaches_who_listens_and_junk_does_not(lanes: Lanes) -> None:
    run_id = RunId(new_id())
    heard = asyncio.ensure_future(anext(lanes.cancels()))
    await until(lambda: subscribed(lanes))
    await lanes.publish("rl:cancel", b"\xffjunk")
    await lanes.cancel(run_id)

    assert run_id == await asyncio.wait_for(heard, 5)


async def test_scripts_the_server_forgot_are_loaded_again(lanes: Lanes) -> None:
    await lanes.ring(a_ring())
    await claimed(lanes)
    await lanes.script_flush()
    ring = a_ring()

    await lanes.ring(ring)
    await lanes.script_flush()

    assert [ring.run_id] == await claimed(lanes)
