"""Credits and what they are spent on: a credit is a millionth of a dollar."""

from enum import StrEnum

from shared.domain.completions import Usage
from shared.domain.pricing import Prices, cost_of

NANOUSD_PER_CREDIT = 1_000
MAX_CREDITS = 10**15  # a billion dollars; in nano-dollars it still fits a column with room to add
_MARGIN = (4, 3)  # vendors' tokenizers differ by a third from the estimate


class LedgerKind(StrEnum):
    """What a line of the ledger is: given by the operator, the cost of a call, or put right."""

    GRANT = "grant"
    CHARGE = "charge"
    CORRECTION = "correction"


class Period(StrEnum):
    """How long a budget lasts, in UTC."""

    DAY = "day"
    MONTH = "month"


def credits_of(nanousd: int) -> int:
    """Nano-dollars as whole credits, what is left over cut off."""
    whole = abs(nanousd) // NANOUSD_PER_CREDIT
    return whole if nanousd >= 0 else -whole


def nanousd_of(amount: int) -> int:
    """Credits as nano-dollars."""
    return amount * NANOUSD_PER_CREDIT


def worst_case_nanousd(input_tokens: int, output_tokens: int, prices: Prices | None) -> int:
    """What a call may cost at most: its estimated input and a margin, its answer as long as it may.

    0 where nobody knows a price: such a call will cost nothing here.
    """
    if prices is None:
        return 0
    times, parts = _MARGIN
    usage = Usage(input=-(-input_tokens * times // parts), output=output_tokens)
    return cost_of(usage, prices).total
