"""Money leaves the house exactly, comes back exactly, and adds up."""

import json
from decimal import Decimal

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.domain import money
from shared.domain.completions import Usage
from shared.domain.pricing import Cost

NANO = st.integers(0, 10**15)
COSTS = st.tuples(NANO, NANO, NANO, NANO, NANO).map(lambda parts: Cost(*parts, sum(parts)))


@pytest.mark.parametrize(
    ("nanousd", "text"),
    [
        (0, "0"),
        (1, "0.000000001"),
        (10, "0.00000001"),
        (1_000_000_000, "1"),
        (10_000_000_000, "10"),
        (100_000_000_000, "100"),
        (1_500_000_000, "1.5"),
        (12_000_000_003, "12.000000003"),
    ],
)
def test_dollars_are_written_without_a_trailing_zero(nanousd: int, text: str) -> None:
    assert text == money.dollars(nanousd)


@given(st.integers(0, 2**63 - 1))
def test_dollars_are_exact_json_numbers(nanousd: int) -> None:
    text = money.dollars(nanousd)

    assert Decimal(nanousd) / 10**9 == json.loads(text, parse_float=Decimal, parse_int=Decimal)


@given(st.lists(COSTS, max_size=5))
def test_written_costs_add_up_to_what_they_were(costs: list[Cost]) -> None:
    stored = [bytes(money.cost_json(cost)) for cost in costs]
    read = [
        money.read_cost(json.loads(cost, parse_float=Decimal, parse_int=Decimal)) for cost in stored
    ]

    assert costs == read
    assert money.sum_costs(costs) == money.sum_costs(read)


def test_no_costs_are_zero() -> None:
    assert Cost() == money.sum_costs([])


@given(COSTS, COSTS)
def test_a_runs_total_is_that_of_its_answer_and_its_retries(success: Cost, retries: Cost) -> None:
    run = msgspec.json.decode(money.run_cost_json(success, retries), type=dict[str, msgspec.Raw])

    assert ["success", "retries", "total"] == list(run)
    assert money.cost_json(success) == run["success"]
    assert money.cost_json(retries) == run["retries"]
    assert money.dollars(success.total + retries.total) == bytes(run["total"]).decode()


def test_a_cost_has_all_six_parts_in_camel_case() -> None:
    cost = Cost(1, 2, 3, 4, 5, 15)

    assert {
        "input": 1e-9,
        "cachedInput": 2e-9,
        "cacheWrite": 3e-9,
        "output": 4e-9,
        "webSearch": 5e-9,
        "total": 15e-9,
    } == msgspec.json.decode(money.cost_json(cost))


def test_tokens_are_counted_as_the_outside_counts_them() -> None:
    usage = Usage(input=100, cache_write=20, cache_read=30, output=50, reasoning=40)

    assert {
        "input": 150,
        "inputCached": 30,
        "inputCacheWrite": 20,
        "output": 50,
        "reasoning": 40,
        "total": 200,
        "serviceTier": "flex",
    } == msgspec.json.decode(money.usage_json(usage, "flex"))
