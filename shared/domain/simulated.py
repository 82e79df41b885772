"""What all of Runlane knows of the simulated vendor; how it behaves is the worker's matter."""

from shared.domain.pricing import KnownModel, Prices, Rate

PROVIDER = "sim"
MODELS = (
    "echo",
    "slow",
    "flaky",
    "429",
    "500",
    "hang",
    "truncated",
    "nul",
    "schema-broken",
    "disconnect",
    "emit",
)
_NANO = 1_000_000_000
_PRICES = Prices(
    version=PROVIDER,
    input=Rate(1 * _NANO),
    cached_input=Rate(_NANO // 10),
    cache_write=Rate(1 * _NANO),
    output=Rate(4 * _NANO),
)


def prices_of(model: str) -> Prices | None:
    """The made-up prices of a bare model name, so that cost can be seen and tested."""
    return _PRICES if model in MODELS else None


def known_models() -> tuple[KnownModel, ...]:
    """All models, by name."""
    return tuple(KnownModel(name, prices=prices_of(name)) for name in sorted(MODELS))
