"""What a call cost: token buckets times prices, in whole nano-dollars."""

from collections.abc import Iterable

import msgspec

from shared.domain.completions import Usage

_MILLION = 1_000_000


class Rate(msgspec.Struct, frozen=True):
    """A price in nano-dollars for a million tokens.

    `tiers` are `(threshold, price)`, thresholds growing: a call whose whole input is longer than a
    threshold pays that price for every token, as the vendors do it.
    """

    base: int
    tiers: tuple[tuple[int, int], ...] = ()

    def at(self, input_tokens: int) -> int:
        """The price a call with so long an input pays."""
        price = self.base
        for threshold, tier_price in self.tiers:
            if input_tokens > threshold:
                price = tier_price
        return price


class Prices(msgspec.Struct, frozen=True):
    """The prices of one model. `version` says where they come from and is kept with the attempt."""

    version: str
    input: Rate
    cached_input: Rate
    cache_write: Rate
    output: Rate


class KnownModel(msgspec.Struct, frozen=True):
    """A model there is something to tell of: its bare name, what it is called, what it takes."""

    name: str
    title: str | None = None
    context_window_tokens: int | None = None
    prices: Prices | None = None


class Cost(msgspec.Struct, frozen=True, rename="camel"):
    """Nano-dollars by part; `total` is exactly their sum."""

    input: int = 0
    cached_input: int = 0
    cache_write: int = 0
    output: int = 0
    web_search: int = 0
    total: int = 0


def cost_of(usage: Usage, prices: Prices) -> Cost:
    """Price a call. Each part is rounded to the nearest nano-dollar, halves up."""
    whole_input = usage.input + usage.cache_read + usage.cache_write
    parts = (
        _nano(usage.input, prices.input.at(whole_input)),
        _nano(usage.cache_read, prices.cached_input.at(whole_input)),
        _nano(usage.cache_write, prices.cache_write.at(whole_input)),
        _nano(usage.output, prices.output.at(whole_input)),
    )
    return Cost(*parts, web_search=0, total=sum(parts))


def sum_of(costs: Iterable[Cost]) -> Cost:
    """Add up the costs of several attempts, part by part."""
    columns = zip(*(msgspec.structs.astuple(cost) for cost in costs), strict=True)
    return Cost(*(sum(column) for column in columns))


def _nano(tokens: int, nanousd_per_million: int) -> int:
    return (tokens * nanousd_per_million + _MILLION // 2) // _MILLION
