"""What calls cost."""

from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from shared.domain.completions import Usage
from shared.domain.pricing import Cost, Prices, Rate, cost_of, sum_of

DOLLAR = 1_000_000_000

MODEL = Prices(
    version="test 1",
    input=Rate(3 * DOLLAR, ((200_000, 6 * DOLLAR),)),
    cached_input=Rate(300_000_000),
    cache_write=Rate(3_750_000_000),
    output=Rate(15 * DOLLAR, ((200_000, 22_500_000_000),)),
)

tokens = st.integers(min_value=0, max_value=1_000_000_000)
rates = st.builds(
    Rate,
    st.integers(min_value=0, max_value=1_000 * DOLLAR),
    st.lists(st.tuples(tokens, st.integers(min_value=0, max_value=1_000 * DOLLAR)), max_size=3).map(
        lambda tiers: tuple(sorted(tiers))
    ),
)
prices = st.builds(Prices, st.just("any"), rates, rates, rates, rates)
usages = st.builds(Usage, tokens, tokens, tokens, tokens, tokens)
costs = st.builds(cost_of, usages, prices)


def test_each_bucket_is_priced_once() -> None:
    usage = Usage(input=1000, cache_write=100, cache_read=10_000, output=500, reasoning=400)

    cost = cost_of(usage, MODEL)

    assert cost == Cost(
        input=3_000_000,
        cached_input=3_000_000,
        cache_write=375_000,
        output=7_500_000,
        web_search=0,
        total=13_875_000,
    )


def test_nothing_used_costs_nothing() -> None:
    assert Cost() == cost_of(Usage(), MODEL)


def test_a_long_input_puts_every_token_into_its_tier() -> None:
    at_threshold = cost_of(Usage(input=100_000, cache_read=100_000, output=10), MODEL)
    beyond = cost_of(Usage(input=100_001, cache_read=100_000, output=10), MODEL)

    assert (at_threshold.input, at_threshold.output) == (100_000 * 3_000, 10 * 15_000)
    assert (beyond.input, beyond.output) == (100_001 * 6_000, 10 * 22_500)


def test_parts_are_rounded_to_the_nearest_nano_dollar() -> None:
    cheap = Prices("test", Rate(1_499_999), Rate(500_000), Rate(499_999), Rate(1_500_000))

    cost = cost_of(Usage(input=1, cache_read=1, cache_write=1, output=1), cheap)

    assert cost == Cost(input=1, cached_input=1, cache_write=0, output=2, total=4)


@given(usages, prices)
def test_the_total_is_exactly_the_sum_of_its_parts(usage: Usage, priced: Prices) -> None:
    cost = cost_of(usage, priced)

    assert cost.total == (
        cost.input + cost.cached_input + cost.cache_write + cost.output + cost.web_search
    )


@given(usages, prices)
def test_rounding_moves_no_part_by_more_than_half_a_nano_dollar(
    usage: Usage, priced: Prices
) -> None:
    cost = cost_of(usage, priced)

    whole_input = usage.input + usage.cache_read + usage.cache_write
    exact = Fraction(usage.input * priced.input.at(whole_input), 1_000_000)
    assert abs(cost.input - exact) <= Fraction(1, 2)
    assert cost.input >= 0


@given(usages, prices)
def test_one_more_output_token_never_costs_less(usage: Usage, priced: Prices) -> None:
    more = Usage(usage.input, usage.cache_write, usage.cache_read, usage.output + 1)

    assert cost_of(more, priced).total >= cost_of(usage, priced).total


@given(st.lists(costs, max_size=5))
def test_costs_add_up_part_by_part(several: list[Cost]) -> None:
    together = sum_of(several)

    assert together.output == sum(cost.output for cost in several)
    assert together.total == sum(cost.total for cost in several)
