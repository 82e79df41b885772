"""The batcher: at once when idle, together when busy, in order, and every failure its own."""

import asyncio
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.batching import MAX_BYTES, MAX_IN_FLIGHT, Batcher


class ConnectionLostError(Exception):
    """Stands for a connection that went away during a flush."""


class Flusher:
    """Flushes that wait for a gate where there is one; answers each item with its negative."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.gate: asyncio.Event | None = None
        self.under_way = 0
        self.most_under_way = 0
        self.failures: dict[int, Exception] = {}

    async def __call__(self, items: Sequence[int]) -> list[int]:
        self.batches.append(list(items))
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        try:
            if self.gate is not None:
                await self.gate.wait()
            else:
                await asyncio.sleep(0)
            for item in items:
                if item in self.failures:
                    raise self.failures[item]
        finally:
            self.under_way -= 1
        return [-item for item in items]


@pytest.fixture
def flusher() -> Flusher:
    return Flusher()


@pytest.fixture
def batcher(flusher: Flusher) -> Batcher[int, int]:
    return Batcher(flusher, is_shared=lambda error: isinstance(error, ConnectionLostError))


async def _turns(count: int = 5) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def test_an_idle_batcher_flushes_the_first_item_at_once(
    batcher: Batcher[int, int], flusher: Flusher
) -> None:
    assert -1 == await batcher.submit(1)
    assert [[1]] == flusher.batches


async def test_what_comes_in_one_turn_of_the_loop_goes_out_together(
    batcher: Batcher[int, int], flusher: Flusher
) -> None:
    answers = await asyncio.gather(*(batcher.submit(item) for item in range(1, 6)))

    assert [-1, -2, -3, -4, -5] == answers
    assert [[1, 2, 3, 4, 5]] == flusher.batches


async def test_what_comes_during_two_flushes_goes_out_together_after_one(
    batcher: Batcher[int, int], flusher: Flusher
) -> None:
    flusher.gate = asyncio.Event()
    outcomes = []
    for item in range(1, 8):
        outcomes.append(batcher.enqueue(item))
        await _turns()

    flusher.gate.set()
    await batcher.drain()

    assert [[1], [2], [3, 4, 5, 6, 7]] == flusher.batches
    assert [-item for item in range(1, 8)] == [outcome.result() for outcome in outcomes]


async def test_batches_hold_no_more_items_than_allowed(flusher: Flusher) -> None:
    batcher: Batcher[int, int] = Batcher(flusher, max_items=3)

    await asyncio.gather(*(batcher.submit(item) for item in range(8)))

    assert [3, 3, 2] == [len(batch) for batch in flusher.batches]


async def test_batches_hold_no_more_bytes_than_allowed_but_one_item_always(
    flusher: Flusher,
) -> None:
    batcher: Batcher[int, int] = Batcher(flusher, size_of=lambda item: item)
    half = MAX_BYTES // 2

    await asyncio.gather(*(batcher.submit(item) for item in (half, half, 1, 3 * half, 2)))

    assert [[half, half], [1], [3 * half], [2]] == flusher.batches


async def test_a_bad_item_fails_alone(batcher: Batcher[int, int], flusher: Flusher) -> None:
    flusher.failures[2] = ValueError("bad row")

    answers = await asyncio.gather(
        *(batcher.submit(item) for item in (1, 2, 3)), return_exceptions=True
    )

    assert [-1, flusher.failures[2], -3] == answers
    assert [[1, 2, 3], [1], [2], [3]] == flusher.batches


async def test_a_lost_connection_fails_the_whole_batch_and_nothing_is_repeated(
    batcher: Batcher[int, int], flusher: Flusher
) -> None:
    flusher.failures[2] = ConnectionLostError()

    answers = await asyncio.gather(
        *(batcher.submit(item) for item in (1, 2, 3)), return_exceptions=True
    )

    assert [flusher.failures[2]] * 3 == answers
    assert [[1, 2, 3]] == flusher.batches


async def test_a_shared_failure_in_the_repetition_fails_the_rest_of_the_batch(
    batcher: Batcher[int, int], flusher: Flusher
) -> None:
    flusher.failures = {3: ConnectionLostError(), 2: ValueError("bad row")}

    answers = await asyncio.gather(
        *(batcher.submit(item) for item in (1, 2, 3, 4, 5)), return_exceptions=True
    )

    assert [-1, flusher.failures[2], *[flusher.failures[3]] * 3] == answers
    assert [[1, 2, 3, 4, 5], [1], [2], [3]] == flusher.batches


async def test_after_a_failure_the_next_item_is_flushed(
    batcher: Batcher[int, int], flusher: Flusher
) -> None:
    flusher.failures[1] = ConnectionLostError()
    with pytest.raises(ConnectionLostError):
        await batcher.submit(1)

    assert -2 == await batcher.submit(2)


@pytest.mark.parametrize("error", [ConnectionLostError(), ValueError("bad row")])
async def test_an_outcome_that_nobody_wants_any_more_leaves_the_others_alone(
    batcher: Batcher[int, int], flusher: Flusher, error: Exception
) -> None:
    flusher.gate = asyncio.Event()
    flusher.failures[1] = error
    outcomes = [batcher.enqueue(item) for item in (1, 2)]
    await _turns()
    outcomes[0].cancel()

    flusher.gate.set()
    await batcher.drain()

    assert outcomes[1].done()
    assert -3 == await batcher.submit(3)


async def test_an_answer_of_the_wrong_length_is_a_failure_of_each(flusher: Flusher) -> None:
    async def flush(items: Sequence[int]) -> list[int]:
        await flusher(items)
        return []

    batcher: Batcher[int, int] = Batcher(flush)

    answers = await asyncio.gather(*(batcher.submit(i) for i in (1, 2)), return_exceptions=True)

    assert [RuntimeError, ValueError] == [RuntimeError, type(answers[1])]
    assert all(isinstance(answer, Exception) for answer in answers)


async def test_an_item_outlives_the_caller_that_submitted_it(
    batcher: Batcher[int, int], flusher: Flusher
) -> None:
    flusher.gate = asyncio.Event()
    caller = asyncio.create_task(batcher.submit(1))
    later = asyncio.create_task(batcher.submit(2))
    await _turns()
    caller.cancel()

    flusher.gate.set()

    assert -2 == await later
    assert caller.cancelled()
    assert [[1, 2]] == flusher.batches


async def test_a_waiting_item_can_be_withdrawn_and_is_never_flushed(
    batcher: Batcher[int, int], flusher: Flusher
) -> None:
    flusher.gate = asyncio.Event()
    first, second = batcher.enqueue(1), None
    await _turns()
    second = batcher.enqueue(2)
    await _turns()
    third, fourth = batcher.enqueue(3), batcher.enqueue(4)

    answers = [batcher.withdraw(outcome) for outcome in (first, second, third, third)]

    flusher.gate.set()
    await batcher.drain()
    assert [False, False, True, False] == answers
    assert third.cancelled()
    assert [[1], [2], [4]] == flusher.batches
    assert -4 == fourth.result()


async def test_withdrawing_the_only_item_before_its_flush_flushes_nothing(
    batcher: Batcher[int, int], flusher: Flusher
) -> None:
    outcome = batcher.enqueue(1)

    assert batcher.withdraw(outcome)
    await batcher.drain()

    assert [] == flusher.batches
    assert -2 == await batcher.submit(2)


async def test_what_comes_while_the_batcher_rests_goes_out_together(flusher: Flusher) -> None:
    batcher = Batcher(flusher, rest_s=0.2)

    first = await batcher.submit(1)
    others = [batcher.enqueue(item) for item in range(2, 5)]
    await _turns()
    batches_at_once = list(flusher.batches)
    await batcher.drain()

    assert (-1, [[1]]) == (first, batches_at_once)
    assert [[1], [2, 3, 4]] == flusher.batches
    assert [-2, -3, -4] == [other.result() for other in others]


async def test_draining_waits_for_everything(batcher: Batcher[int, int], flusher: Flusher) -> None:
    outcomes = [batcher.enqueue(item) for item in range(1200)]

    await batcher.drain()

    assert all(outcome.done() for outcome in outcomes)
    assert [500, 500, 200] == [len(batch) for batch in flusher.batches]


@settings(max_examples=150, deadline=None)
@given(
    arrivals=st.lists(st.tuples(st.integers(0, 3), st.integers(1, MAX_BYTES)), max_size=40),
    bad=st.sets(st.integers(0, 39)),
    lost=st.sets(st.integers(0, 39), max_size=2),
    withdrawn=st.sets(st.integers(0, 39)),
    max_items=st.integers(1, 7),
)
async def test_in_any_rhythm_every_item_is_flushed_once_in_order_and_answered(
    arrivals: list[tuple[int, int]],
    bad: set[int],
    lost: set[int],
    withdrawn: set[int],
    max_items: int,
) -> None:
    flusher = Flusher()
    flusher.failures = {item: ValueError(str(item)) for item in bad}
    flusher.failures |= {item: ConnectionLostError(str(item)) for item in lost}
    sizes = [size for _, size in arrivals]
    batcher: Batcher[int, int] = Batcher(
        flusher,
        size_of=lambda item: sizes[item],
        is_shared=lambda error: isinstance(error, ConnectionLostError),
        max_items=max_items,
    )
    outcomes, gone = [], set()
    for item, (pause, _) in enumerate(arrivals):
        outcomes.append(batcher.enqueue(item))
        await _turns(pause)
        if item in withdrawn and batcher.withdraw(outcomes[item]):
            gone.add(item)
    await batcher.drain()

    first_seen = list(dict.fromkeys(item for batch in flusher.batches for item in batch))
    assert [item for item in range(len(arrivals)) if item not in gone] == first_seen
    assert MAX_IN_FLIGHT >= flusher.most_under_way
    for batch in flusher.batches:
        assert 1 <= len(batch) <= max_items
        assert len(batch) == 1 or sum(sizes[item] for item in batch) <= MAX_BYTES
    for item, outcome in enumerate(outcomes):
        if item in gone:
            assert outcome.cancelled()
        elif outcome.exception() is None:
            assert -item == outcome.result()
            assert item not in flusher.failures
        else:
            assert item in flusher.failures or isinstance(outcome.exception(), ConnectionLostError)
