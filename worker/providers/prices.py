"""What the vendors' models cost, looked up in the package `genai-prices`."""

from datetime import datetime
from decimal import ROUND_HALF_UP, Decimal

import genai_prices
from genai_prices import data_snapshot
from genai_prices.types import ModelPrice, TieredPrices

from shared.domain.pricing import Prices, Rate
from worker.providers.sim import MODELS as SIM_MODELS

MAX_REMEMBERED = 1024
_NANO = 1_000_000_000
_SIM = Prices(
    version="sim",
    input=Rate(1 * _NANO),
    cached_input=Rate(_NANO // 10),
    cache_write=Rate(1 * _NANO),
    output=Rate(4 * _NANO),
)
_VENDORS = ("openai", "anthropic")


class PriceBook:
    """Finds prices and remembers them for the day: prices have dates.

    Making one takes about 0.6 s of CPU (the package's data): do it at start, not during a run.
    """

    def __init__(self) -> None:
        self.version = f"genai-prices {genai_prices.__version__}"
        self._catalogue = data_snapshot.get_snapshot()
        self._vendors = {
            vendor: self._catalogue.find_provider(None, vendor, None) for vendor in _VENDORS
        }
        self._found: dict[tuple[str, str, str | None], Prices | None] = {}
        self._day = 0

    def prices_of(
        self, provider: str, model: str, service_tier: str | None, at: datetime
    ) -> Prices | None:
        """The prices of a bare model name at that moment; None when nobody knows them."""
        if provider == "sim":
            return _SIM if model in SIM_MODELS else None
        day = at.toordinal()
        if day != self._day or len(self._found) >= MAX_REMEMBERED:
            self._day = day
            self._found.clear()
        key = (provider, model, service_tier)
        if key not in self._found:
            self._found[key] = self._look_up(provider, model, service_tier, at)
        return self._found[key]

    def _look_up(
        self, provider: str, model: str, service_tier: str | None, at: datetime
    ) -> Prices | None:
        vendor = self._vendors.get(provider)
        known = vendor and vendor.find_model(model, all_providers=self._catalogue.providers)
        if not known:
            return None
        context = {"service_tier": service_tier} if service_tier is not None else None
        listed = known.get_prices(at, context)
        fresh, output = _rate(listed, "input_mtok"), _rate(listed, "output_mtok")
        if fresh is None or output is None:
            return None
        return Prices(
            version=self.version,
            input=fresh,
            cached_input=_rate(listed, "cache_read_mtok") or fresh,
            cache_write=_rate(listed, "cache_write_mtok") or fresh,
            output=output,
        )


def _rate(listed: ModelPrice, key: str) -> Rate | None:
    price = getattr(listed, key)
    if price is None:
        return None
    if isinstance(price, TieredPrices):
        tiers = tuple((tier.start, _nano(tier.price)) for tier in price.tiers)
        return Rate(_nano(price.base), tiers)
    return Rate(_nano(price))


def _nano(dollars: Decimal) -> int:
    return int((dollars * _NANO).to_integral_value(ROUND_HALF_UP))
