"""Waits: spread out, bounded, and never earlier than told."""

from datetime import UTC, datetime, timedelta
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.domain import backoff

NOW = datetime(2026, 11, 22, 12, 0, 0, tzinfo=UTC)
SCHEDULE = (0, 5, 300, 1800, 7200, 18_000, 36_000, 50_400, 72_000, 86_400)
SEEDS = st.integers(min_value=0, max_value=2**32).map(Random)


class Extreme(Random):
    """Chance at its end: `uniform` answers the larger or the smaller bound."""

    def __init__(self, *, high: bool) -> None:
        super().__init__()
        self._high = high

    def uniform(self, a: float, b: float) -> float:
        return b if self._high else a


@pytest.mark.parametrize(
    ("attempt", "longest"), [(1, 2), (2, 4), (3, 8), (4, 16), (5, 32), (6, 60), (7, 60), (9**9, 60)]
)
def test_a_retry_waits_at_most_twice_as_long_each_time(attempt: int, longest: float) -> None:
    assert longest == backoff.retry_wait_s(attempt, Extreme(high=True))
    assert backoff.retry_wait_s(attempt, Extreme(high=False)) == 0


@given(st.integers(), SEEDS)
def test_a_retry_never_waits_longer_than_the_cap(attempt: int, rng: Random) -> None:
    assert 0 <= backoff.retry_wait_s(attempt, rng, base_s=2, cap_s=60) <= 60


def test_the_same_chance_gives_the_same_wait() -> None:
    first, second = (backoff.retry_wait_s(3, Random(7)) for _ in range(2))

    assert first == second


@pytest.mark.parametrize(
    ("told", "expected"), [(None, 1.5), (0, 0), (2, 2), (3600, 3600), (1e9, 3600), (-3, 0)]
)
def test_what_a_provider_tells_wins_up_to_an_hour(told: float | None, expected: float) -> None:
    assert expected == backoff.told_wait_s(told, 1.5)


def test_a_delivery_follows_its_schedule_until_it_is_exhausted() -> None:
    waits = [backoff.webhook_wait_s(tries, SCHEDULE, 0, Random(1)) for tries in range(12)]

    assert [*SCHEDULE, None, None] == waits


@given(st.integers(min_value=0, max_value=9), SEEDS)
def test_a_delivery_keeps_within_the_jitter(tries: int, rng: Random) -> None:
    wait_s = backoff.webhook_wait_s(tries, SCHEDULE, 0.2, rng)

    assert wait_s is not None
    assert SCHEDULE[tries] * 0.8 <= wait_s <= SCHEDULE[tries] * 1.2


@pytest.mark.parametrize(
    ("tries", "told", "expected"),
    [(1, 60, 60), (1, 2, 5), (1, 9999, 3600), (4, 60, 7200), (4, 9999, 7200), (10, 60, None)],
)
def test_a_receiver_lengthens_a_wait_up_to_an_hour_and_never_shortens_it(
    tries: int, told: float, expected: float | None
) -> None:
    rng = Random(1)

    assert expected == backoff.webhook_wait_s(tries, SCHEDULE, 0, rng, told)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("2", 2),
        (" 120 ", 120),
        ("0.5", 0.5),
        ("3600", 3600),
        ("Sun, 22 Nov 2026 12:01:00 GMT", 60),
        ("Sunday, 22-Nov-26 12:01:00 GMT", 60),
        ("Sun Nov 22 12:01:00 2026", 60),
        ("Sun, 22 Nov 2026 11:00:00 GMT", 0),
        ("9" * 400, float("inf")),
        (None, None),
        ("", None),
        ("-1", None),
        ("1e3", None),
        ("inf", None),
        ("nan", None),
        ("²", None),
        ("soon", None),
        ("Sun, 31 Feb 2026 12:00:00 GMT", None),
    ],
)
def test_retry_after_is_seconds_or_a_date_and_garbage_counts_as_absent(
    value: str | None, expected: float | None
) -> None:
    assert expected == backoff.parse_retry_after(value, NOW)


@given(st.text())
def test_no_retry_after_header_raises(value: str) -> None:
    found = backoff.parse_retry_after(value, NOW)

    assert found is None or found >= 0


@given(st.datetimes(min_value=datetime(2000, 1, 1), max_value=datetime(2068, 1, 1)))  # noqa: DTZ001 (hypothesis wants naive bounds)
def test_a_date_is_read_as_it_was_written(naive: datetime) -> None:
    moment = naive.replace(microsecond=0, tzinfo=UTC)
    written = moment.strftime("%a, %d %b %Y %H:%M:%S GMT")

    found = backoff.parse_retry_after(written, NOW)

    assert found is not None
    assert max(moment, NOW) == NOW + timedelta(seconds=found)
