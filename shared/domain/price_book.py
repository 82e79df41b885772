"""What models cost: the vendors' as the package `genai-prices` lists them.

The package comes with the first book: importing it takes up to half a second of CPU and tens of
megabytes. `Deps.prices` does that beside the loop, for processes that need prices now and then.
"""

import re
from datetime import datetime
from decimal import ROUND_HALF_UP, Decimal
from typing import TYPE_CHECKING

from shared.domain import simulated
from shared.domain.pricing import KnownModel, Prices, Rate

if TYPE_CHECKING:
    from genai_prices.types import ModelInfo, ModelPrice, Provider

MAX_REMEMBERED = 1024
_NANO = 1_000_000_000
# The package lists what vendors sell; these take or give no text, or are beginnings of names.
_NO_TEXT = re.compile(
    r"^ft:|ft-$|audio|embedding|image|live|moderation|realtime|transcribe|translate|tts|whisper"
)


class PriceBook:
    """Finds prices and remembers them for the day: prices have dates."""

    def __init__(self) -> None:
        import genai_prices  # noqa: PLC0415 (slow)
        from genai_prices import data_snapshot  # noqa: PLC0415

        self.version = f"genai-prices {genai_prices.__version__}"
        self._catalogue = data_snapshot.get_snapshot()
        self._found: dict[tuple[str, str, str | None], Prices | None] = {}
        self._listed: dict[str, tuple[KnownModel, ...]] = {}
        self._names: dict[tuple[str, str], str | None] = {}
        self._day = 0

    def prices_of(
        self, provider: str, model: str, service_tier: str | None, at: datetime
    ) -> Prices | None:
        """The prices of a bare model name at that moment; None when nobody knows them."""
        if provider == simulated.PROVIDER:
            return simulated.prices_of(model)
        self._forget_before(at)
        key = (provider, model, service_tier)
        if key not in self._found:
            self._found[key] = self._look_up(provider, model, service_tier, at)
        return self._found[key]

    def name_of(self, provider: str, model: str) -> str | None:
        """What the book calls a model: of `gpt-5-2025-08-07` it knows `gpt-5`."""
        if provider == simulated.PROVIDER:
            return model if model in simulated.MODELS else None
        key = (provider, model)
        if key not in self._names:
            if len(self._names) >= MAX_REMEMBERED:
                self._names.clear()
            known = self._known(provider, model)
            self._names[key] = None if known is None else known.id
        return self._names[key]

    def models(self, provider: str, at: datetime) -> tuple[KnownModel, ...]:
        """A vendor's models of text, by bare name, with the prices of that moment."""
        self._forget_before(at)
        vendor = self._vendor(provider)
        if provider not in self._listed and vendor is not None:
            texts = (model for model in vendor.models if not _NO_TEXT.search(model.id))
            self._listed[provider] = tuple(
                KnownModel(
                    model.id,
                    model.name,
                    model.context_window,
                    self.prices_of(provider, model.id, None, at),
                )
                for model in sorted(texts, key=lambda model: model.id)
            )
        return self._listed.get(provider, ())

    def _forget_before(self, at: datetime) -> None:
        day = at.toordinal()
        if day != self._day or len(self._found) >= MAX_REMEMBERED:
            self._day = day
            self._found.clear()
            self._listed.clear()

    def _vendor(self, provider: str) -> "Provider | None":
        """Whom the package knows by this name, or by a usual one such as `gemini`."""
        try:
            return self._catalogue.find_provider(None, provider, None)
        except LookupError:
            return None

    def _known(self, provider: str, model: str) -> "ModelInfo | None":
        vendor = self._vendor(provider)
        if vendor is None:
            return None
        return vendor.find_model(model, all_providers=self._catalogue.providers)

    def _look_up(
        self, provider: str, model: str, service_tier: str | None, at: datetime
    ) -> Prices | None:
        known = self._known(provider, model)
        if known is None:
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


def _rate(listed: "ModelPrice", key: str) -> Rate | None:
    from genai_prices.types import TieredPrices  # noqa: PLC0415 (it is there by now)

    price = getattr(listed, key)
    if price is None:
        return None
    if isinstance(price, TieredPrices):
        tiers = tuple((tier.start, _nano(tier.price)) for tier in price.tiers)
        return Rate(_nano(price.base), tiers)
    return Rate(_nano(price))


def _nano(dollars: Decimal) -> int:
    return int((dollars * _NANO).to_integral_value(ROUND_HALF_UP))
