"""The rule of rates, held against what it promises whoever spends in whatever way."""

from hypothesis import example, given
from hypothesis import strategies as st

from shared.domain import rates
from shared.domain.rates import WINDOW_S, Quota

SPENDINGS = st.lists(
    st.tuples(st.floats(0, 20), st.integers(1, 50)),
    min_size=1,
    max_size=200,
)
QUOTAS = st.builds(Quota, st.just("anything"), st.integers(1, 100))


@given(QUOTAS, SPENDINGS)
def test_in_no_stretch_of_time_more_is_let_through_than_the_quota_and_what_came_back(
    quota: Quota, spendings: list[tuple[float, int]]
) -> None:
    now_s, ahead_s = 0.0, 0.0
    admitted: list[tuple[float, int]] = []
    for wait_s, cost in spendings:
        now_s += wait_s
        verdict = rates.spend(quota, max(ahead_s - wait_s, 0.0), cost)
        ahead_s = verdict.ahead_s
        if verdict.admitted:
            admitted.append((now_s, min(cost, quota.amount)))

    for first in range(len(admitted)):
        spent = 0
        for at_s, cost in admitted[first:]:
            spent += cost
            came_back = (at_s - admitted[first][0]) / WINDOW_S * quota.amount
            assert spent <= quota.amount + came_back + 0.001


@given(QUOTAS, SPENDINGS)
def test_who_waits_as_long_as_told_is_let_through(
    quota: Quota, spendings: list[tuple[float, int]]
) -> None:
    ahead_s = 0.0
    for _, cost in spendings:
        verdict = rates.spend(quota, ahead_s, cost)
        if not verdict.admitted:
            later = rates.spend(quota, verdict.ahead_s - verdict.retry_s, cost)
            assert later.admitted
        ahead_s = verdict.ahead_s


@given(QUOTAS, st.floats(0, WINDOW_S))
@example(Quota("anything", 79), 1e-06)
def test_what_is_said_to_remain_can_be_spent_and_no_more(quota: Quota, ahead_s: float) -> None:
    remaining = rates.spend(quota, ahead_s, 0).remaining

    assert 0 <= remaining <= quota.amount
    assert remaining == 0 or rates.spend(quota, ahead_s, remaining).admitted
    assert remaining == quota.amount or not rates.spend(quota, ahead_s, remaining + 1).admitted


def test_a_batch_beyond_the_quota_is_let_through_when_nothing_else_was_spent() -> None:
    quota = Quota("submissions", 600)

    fresh, busy = (rates.spend(quota, ahead_s, 1000) for ahead_s in (0, 1))

    assert [(True, 0), (False, 590)] == [(one.admitted, one.remaining) for one in (fresh, busy)]
