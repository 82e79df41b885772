"""Breakers: they open on many failures, stay open for their time, and let one call probe."""

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.settings import Settings
from tests.clocks import StillClock
from worker.breaker import Breakers

KEY = ("openai", "digest", "a-model")
OPEN_S, WINDOW_S, FAILURES = 30, 60, 5


@pytest.fixture
def clock() -> StillClock:
    return StillClock()


@pytest.fixture
def breakers(clock: StillClock) -> Breakers:
    return Breakers(Settings(), clock)


def _fail(breakers: Breakers, times: int = FAILURES) -> Iterator[bool]:
    return iter([breakers.record(KEY, failed=True) for _ in range(times)])


def test_the_fifth_failure_opens_and_says_so(breakers: Breakers) -> None:
    assert [False, False, False, False, True] == list(_fail(breakers))
    assert OPEN_S == breakers.wait_s(KEY)


def test_failures_among_more_successes_do_not_open(breakers: Breakers) -> None:
    for _ in range(6):
        breakers.record(KEY, failed=False)

    assert [False] * 5 == list(_fail(breakers))
    assert [True] == list(_fail(breakers, 1))


def test_failures_spread_over_more_than_the_window_do_not_open(
    breakers: Breakers, clock: StillClock
) -> None:
    for _ in range(20):
        assert not breakers.record(KEY, failed=True)
        clock.seconds += WINDOW_S / 4 + 1

    assert 0 == breakers.wait_s(KEY)


def test_a_bad_credential_opens_at_once(breakers: Breakers) -> None:
    assert breakers.record(KEY, failed=True, at_once=True)
    assert breakers.wait_s(KEY) > 0


@pytest.mark.parametrize("place", [0, 1, 2])
def test_other_vendors_credentials_and_models_are_not_affected(
    breakers: Breakers, place: int
) -> None:
    list(_fail(breakers))
    other = tuple("other" if at == place else part for at, part in enumerate(KEY))

    assert 0 == breakers.wait_s((other[0], other[1], other[2]))


def test_the_simulated_vendor_has_no_circuit(breakers: Breakers) -> None:
    key = ("sim", "", "500")

    assert not any(breakers.record(key, failed=True, at_once=True) for _ in range(50))
    assert 0 == breakers.wait_s(key)


def test_after_its_time_one_call_probes_and_the_others_wait_a_little(
    breakers: Breakers, clock: StillClock
) -> None:
    list(_fail(breakers))
    clock.seconds += OPEN_S

    waits = [breakers.wait_s(KEY) for _ in range(3)]

    assert [0, OPEN_S / 10, OPEN_S / 10] == waits


def test_a_probe_that_succeeds_closes_for_all(breakers: Breakers, clock: StillClock) -> None:
    list(_fail(breakers))
    clock.seconds += OPEN_S
    breakers.wait_s(KEY)

    breakers.record(KEY, failed=False)

    assert [0, 0] == [breakers.wait_s(KEY) for _ in range(2)]
    assert [False] == list(_fail(breakers, 1))


def test_a_probe_that_fails_opens_again(breakers: Breakers, clock: StillClock) -> None:
    list(_fail(breakers))
    clock.seconds += 1000
    breakers.wait_s(KEY)

    assert breakers.record(KEY, failed=True)
    assert OPEN_S == breakers.wait_s(KEY)


def test_a_probe_that_is_not_made_leaves_the_probing_to_the_next(
    breakers: Breakers, clock: StillClock
) -> None:
    list(_fail(breakers))
    clock.seconds += OPEN_S
    breakers.wait_s(KEY)

    breakers.release(KEY)

    assert [0, OPEN_S / 10] == [breakers.wait_s(KEY) for _ in range(2)]


def test_releasing_what_is_closed_or_unknown_changes_nothing(breakers: Breakers) -> None:
    breakers.release(KEY)
    breakers.record(KEY, failed=True)
    breakers.release(KEY)

    assert 0 == breakers.wait_s(KEY)


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("record"), st.booleans()),
            st.tuples(st.just("pass"), st.integers(0, 40)),
            st.tuples(st.just("call"), st.just(0)),
        ),
        max_size=80,
    )
)
def test_in_any_history_it_opens_by_the_rule_and_never_lets_two_probe(
    history: list[tuple[str, int]],
) -> None:
    clock = StillClock()
    breakers = Breakers(Settings(), clock)
    calls: list[tuple[float, bool]] = []
    open_until: float | None = None
    probing = False
    for step, value in history:
        now = clock.seconds
        if step == "pass":
            clock.seconds += value
        elif step == "call":
            waits = breakers.wait_s(KEY)
            may = open_until is None or (now >= open_until and not probing)
            assert may == (waits == 0)
            probing = probing or (may and open_until is not None)
        elif probing and not value:
            assert not breakers.record(KEY, failed=False)
            calls, open_until, probing = [], None, False
        else:
            calls = [call for call in calls if call[0] >= now - WINDOW_S]
            calls.append((now, bool(value)))
            failures = sum(failed for _, failed in calls)
            opens = bool(value) and (
                probing or (failures >= FAILURES and 2 * failures >= len(calls))
            )
            assert opens == breakers.record(KEY, failed=bool(value))
            probing = False
            if opens:
                open_until = now + OPEN_S
