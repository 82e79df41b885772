"""Properties of the claim: floors, weights, no idle shared slot, each id once, earliest first."""

from collections import Counter
from collections.abc import Sequence
from itertools import pairwise

import fakeredis
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.domain.states import Lane
from shared.ids import RunId, new_id
from shared.queue.connection import connect
from shared.queue.lanes import Lanes
from shared.queue.port import Ring
from shared.queue.slots import LANES, Room, Slots, deal

SERVERS = ["valkey", "fakeredis"]

small = st.integers(0, 30)
three = st.tuples(small, small, small)
weights = st.tuples(st.integers(1, 9), st.integers(1, 9), st.integers(1, 9))
rooms = st.builds(Room, floors=three, shared=small, weights=weights, used=three)
limits = st.integers(1, 100)


@given(rooms, three, limits)
def test_a_deal_stays_within_what_is_due_the_room_and_the_limit(
    room: Room, due: Sequence[int], limit: int
) -> None:
    taken = deal(room, due, limit)

    beyond_floors = sum(max(0, n - own) for n, own in zip(taken, room.floors, strict=True))
    assert all(0 <= n <= waiting for n, waiting in zip(taken, due, strict=True))
    assert beyond_floors <= room.shared
    assert sum(taken) <= limit


@given(rooms, three)
def test_no_shared_slot_stays_free_while_anything_due_waits(room: Room, due: Sequence[int]) -> None:
    taken = deal(room, due, limit=1000)

    beyond_floors = sum(max(0, n - own) for n, own in zip(taken, room.floors, strict=True))
    assert sum(taken) == sum(due) or beyond_floors == room.shared


@given(rooms, three)
def test_floors_are_honoured_whatever_the_other_lanes_hold(room: Room, due: Sequence[int]) -> None:
    taken = deal(room, due, limit=1000)

    for n, own, waiting in zip(taken, room.floors, due, strict=True):
        assert n >= min(own, waiting)


@given(st.integers(1, 500), weights)
def test_weights_are_respected_within_rounding(shared: int, weights: tuple[int, ...]) -> None:
    taken = deal(Room((0, 0, 0), shared, weights), (1000, 1000, 1000), limit=1000)

    for n, weight in zip(taken, weights, strict=True):
        assert abs(n - shared * weight / sum(weights)) < len(weights)


@given(st.integers(1, 500), weights)
def test_weights_hold_between_two_lanes_when_the_third_is_empty(
    shared: int, weights: tuple[int, ...]
) -> None:
    _, normal, low = deal(Room((0, 0, 0), shared, weights), (0, 1000, 1000), limit=1000)

    assert normal + low == shared
    assert abs(normal - shared * weights[1] / (weights[1] + weights[2])) < len(weights)


@given(st.integers(8, 300))
def test_weights_come_to_hold_where_slots_come_free_one_at_a_time(size: int) -> None:
    slots = Slots(size, (0.15, 0.05, 0.05), (8, 3, 1))
    for _ in range(size):
        if slots.admits(Lane.LOW):
            slots.take(Lane.LOW)  # the flood was here first

    for _ in range(slots.running[Lane.LOW]):
        slots.release(Lane.LOW)
        for lane, count in zip(LANES, deal(slots.room(), (999, 999, 999), 999), strict=True):
            for _ in range(count):
                slots.take(lane)

    fresh = Slots(size, (0.15, 0.05, 0.05), (8, 3, 1)).room()
    expected = deal(fresh, (999, 999, 999), 999)
    assert expected == tuple(slots.running.values())


def test_what_is_equal_goes_by_priority() -> None:
    room = Room(floors=(0, 0, 0), shared=2, weights=(8, 3, 1))

    assert deal(room, (9, 9, 9), 9) == (2, 0, 0)
    assert deal(room, (1, 9, 9), 9) == (1, 1, 0)
    assert deal(room, (0, 0, 9), 9) == (0, 0, 2)


@given(st.integers(8, 200), st.lists(st.integers(0, 1000), min_size=30, max_size=60))
def test_nobody_starves_while_onsite_floods(size: int, endings: list[int]) -> None:
    slots = Slots(size, (0.15, 0.05, 0.05), (8, 3, 1))
    started: Counter[Lane] = Counter()

    for ending in [0, *endings]:
        taken = deal(slots.room(), (1000, 10, 10), 1000)
        for lane, count in zip(LANES, taken, strict=True):
            started[lane] += count
            for _ in range(count):
                slots.take(lane)
        assert slots.free == 0
        busy = [lane for lane in LANES for _ in range(slots.running[lane])]
        slots.release(busy[ending % len(busy)])

    assert min(started[lane] for lane in LANES) >= 1


@given(st.integers(1, 300), st.lists(st.sampled_from(LANES), max_size=300))
def test_slots_admit_a_lane_exactly_when_the_room_has_a_place_for_it(
    size: int, starts: list[Lane]
) -> None:
    slots = Slots(size, (0.15, 0.05, 0.05), (8, 3, 1))

    for lane in starts:
        room = slots.room()
        assert slots.admits(lane) == (room.floors[LANES.index(lane)] + room.shared > 0)
        assert room.total == slots.free
        if slots.admits(lane):
            slots.take(lane)

    assert slots.free >= 0


@pytest.mark.parametrize("shares", [(0.5, 0.4, 0.2), (-0.1, 0.1, 0.1)])
def test_floors_that_are_no_shares_are_refused(shares: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="no shares"):
        Slots(100, shares, (8, 3, 1))


def test_weights_below_one_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        Slots(100, (0.1, 0.1, 0.1), (8, 3, 0))


async def empty_lanes(server: str, redis_url: str) -> Lanes:
    if server == "fakeredis":
        return Lanes(fakeredis.FakeAsyncRedis().connection_pool)
    lanes = connect(redis_url)
    await lanes.flushall()
    return lanes


@pytest.mark.parametrize("server", SERVERS)
@settings(max_examples=60, deadline=None)
@given(room=rooms, due=three, later=three, limit=limits)
async def test_the_script_deals_as_the_rule_says_and_takes_the_earliest(
    server: str,
    redis_url: str,
    room: Room,
    due: tuple[int, ...],
    later: tuple[int, ...],
    limit: int,
) -> None:
    lanes = await empty_lanes(server, redis_url)
    rings = {
        lane: [Ring(RunId(new_id()), lane, due_ms=1000 + place) for place in range(count)]
        for lane, count in zip(LANES, due, strict=True)
    }
    waiting = [
        Ring(RunId(new_id()), lane, due_ms=4_000_000_000_000)
        for lane, count in zip(LANES, later, strict=True)
        for _ in range(count)
    ]
    await lanes.ring_many([*(ring for some in rings.values() for ring in some), *waiting])

    claim = await lanes.claim(room, limit)

    expected = deal(room, due, limit)
    for lane, count, all_due in zip(LANES, expected, due, strict=True):
        taken = [run_id for run_id, of in claim.runs if of is lane]
        assert [ring.run_id for ring in rings[lane][:count]] == taken
        assert claim.left[lane] == (count < all_due)
    await lanes.aclose(close_connection_pool=True)


@pytest.mark.parametrize("server", SERVERS)
@settings(max_examples=30, deadline=None)
@given(claims=st.lists(st.tuples(rooms, limits), min_size=1, max_size=8), due=three)
async def test_every_id_is_claimed_once_in_due_order(
    server: str, redis_url: str, claims: list[tuple[Room, int]], due: tuple[int, ...]
) -> None:
    lanes = await empty_lanes(server, redis_url)
    rings = [
        Ring(RunId(new_id()), lane, due_ms=place)
        for lane, count in zip(LANES, due, strict=True)
        for place in range(count)
    ]
    await lanes.ring_many(rings)
    order = {ring.run_id: (ring.lane, ring.due_ms) for ring in rings}

    claimed: list[RunId] = []
    for room, limit in [*claims, (Room((90, 90, 90), 0, (1, 1, 1)), 1000)]:
        claim = await lanes.claim(room, limit)
        claimed += [run_id for run_id, _ in claim.runs]

    assert sorted(order) == sorted(claimed)
    for lane in LANES:
        moments = [due_ms or 0 for of, due_ms in map(order.__getitem__, claimed) if of is lane]
        assert all(before < after for before, after in pairwise(moments))
    await lanes.aclose(close_connection_pool=True)
