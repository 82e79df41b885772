"""Money and tokens as the outside sees them: US dollars as exact JSON numbers, added-up tokens."""

from collections.abc import Iterable, Mapping
from decimal import Decimal

import msgspec
from msgspec import Raw

from shared.domain.completions import Usage
from shared.domain.pricing import Cost, sum_of

_NANO = 1_000_000_000
_PARTS = ("input", "cachedInput", "cacheWrite", "output", "webSearch", "total")


def dollars(nanousd: int) -> str:
    """Write nano-dollars as a JSON number of dollars, exactly."""
    whole, rest = divmod(nanousd, _NANO)
    return f"{whole}.{rest:09d}".rstrip("0").rstrip(".")


def cost_json(cost: Cost) -> Raw:
    """The six parts of one cost."""
    parts = zip(_PARTS, msgspec.structs.astuple(cost), strict=True)
    return Raw(("{" + ",".join(f'"{name}":{dollars(nano)}' for name, nano in parts) + "}").encode())


def run_cost_json(success: Cost, retries: Cost) -> Raw:
    """A run's cost: of the attempt that answered, and of those that did not."""
    total = dollars(success.total + retries.total)
    return Raw(
        b'{"success":%b,"retries":%b,"total":%b}'
        % (bytes(cost_json(success)), bytes(cost_json(retries)), total.encode())
    )


def read_cost(parts: Mapping[str, Decimal]) -> Cost:
    """Read what `cost_json` wrote."""
    return Cost(*(int(parts[name] * _NANO) for name in _PARTS))


def sum_costs(costs: Iterable[Cost]) -> Cost:
    """Add up costs, none included."""
    return sum_of([Cost(), *costs])


def total_of(*costs: Cost | None) -> Cost | None:
    """Add up what is known entirely; with one that is not, nothing is."""
    known = [cost for cost in costs if cost is not None]
    return sum_costs(known) if len(known) == len(costs) else None


def usage_json(usage: Usage, service_tier: str | None) -> Raw:
    """Tokens as API.md §5.4 counts them: `input` with what was cached, `output` with reasoning."""
    whole_input = usage.input + usage.cache_read + usage.cache_write
    return Raw(
        msgspec.json.encode(
            {
                "input": whole_input,
                "inputCached": usage.cache_read,
                "inputCacheWrite": usage.cache_write,
                "output": usage.output,
                "reasoning": usage.reasoning,
                "total": whole_input + usage.output,
                "serviceTier": service_tier,
            }
        )
    )
