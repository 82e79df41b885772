"""Finding the prices of models."""

from datetime import UTC, datetime

import pytest

from shared.domain import simulated
from shared.domain.completions import Usage
from shared.domain.price_book import MAX_REMEMBERED, PriceBook
from shared.domain.pricing import Rate, cost_of

NOW = datetime(2026, 11, 22, tzinfo=UTC)


@pytest.fixture(scope="module")
def book() -> PriceBook:
    return PriceBook()


def test_a_model_is_found_by_its_name_and_by_its_dated_name(book: PriceBook) -> None:
    prices = book.prices_of("openai", "gpt-5-mini", None, NOW)

    assert prices is not None
    assert prices.version.startswith("genai-prices 0.")
    assert prices.input == Rate(250_000_000)
    assert prices.cached_input == Rate(25_000_000)
    assert prices.output == Rate(2_000_000_000)
    assert prices == book.prices_of("openai", "gpt-5-mini-2025-08-07", None, NOW)


def test_a_model_with_tiers_keeps_them(book: PriceBook) -> None:
    prices = book.prices_of("anthropic", "claude-sonnet-4-5", None, NOW)

    assert prices is not None
    assert prices.input == Rate(3_000_000_000, ((200_000, 6_000_000_000),))
    assert prices.cache_write.base == 3_750_000_000


def test_a_service_tier_has_its_own_prices(book: PriceBook) -> None:
    flex = book.prices_of("openai", "gpt-5-mini", "flex", NOW)

    assert flex is not None
    assert flex.input == Rate(125_000_000)


def test_a_changed_price_counts_from_its_day(book: PriceBook) -> None:
    before = book.prices_of("openai", "o3", None, datetime(2025, 6, 1, tzinfo=UTC))
    after = book.prices_of("openai", "o3", None, NOW)

    assert before is not None
    assert after is not None
    assert (before.input.base, after.input.base) == (10_000_000_000, 2_000_000_000)


def test_tokens_without_a_price_of_their_own_cost_what_input_costs(book: PriceBook) -> None:
    prices = book.prices_of("openai", "gpt-4", None, NOW)

    assert prices is not None
    assert prices.cached_input == prices.cache_write == prices.input


@pytest.mark.parametrize(
    ("provider", "model"),
    [("openai", "no-such-model"), ("openai", ""), ("elsewhere", "gpt-5-mini"), ("sim", "nothing")],
)
def test_an_unknown_model_has_no_price(book: PriceBook, provider: str, model: str) -> None:
    assert book.prices_of(provider, model, None, NOW) is None


@pytest.mark.parametrize("model", simulated.MODELS)
def test_simulated_models_have_a_made_up_price(book: PriceBook, model: str) -> None:
    prices = book.prices_of("sim", model, None, NOW)

    assert prices is not None
    assert prices.version == "sim"
    assert cost_of(Usage(input=1, output=1), prices).total == 5_000


def test_a_vendors_models_are_listed_with_the_prices_of_the_day(book: PriceBook) -> None:
    before = {one.name: one for one in book.models("openai", datetime(2025, 6, 1, tzinfo=UTC))}
    after = {one.name: one for one in book.models("openai", NOW)}

    assert sorted(after) == list(after)
    assert all(
        one.prices == book.prices_of("openai", name, None, NOW) for name, one in after.items()
    )
    assert before["o3"].prices != after["o3"].prices
    assert 400_000 == after["gpt-5-mini"].context_window_tokens


def test_nobodys_models_are_none(book: PriceBook) -> None:
    assert () == book.models("elsewhere", NOW)


def test_made_up_names_do_not_fill_the_memory(book: PriceBook) -> None:
    for number in range(3 * MAX_REMEMBERED):
        book.prices_of("openai", f"guess-{number}", None, NOW)

    assert len(book._found) <= MAX_REMEMBERED  # noqa: SLF001 (memory has no other window)
