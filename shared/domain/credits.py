"""Credits and what they are spent on: a credit is a millionth of a dollar."""

from datetime import datetime, timedelta
from enum import StrEnum
from typing import overload

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


def began_at(period: Period, now: datetime) -> datetime:
    """When the day or month began that a moment in UTC is in."""
    midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
    return midnight if period is Period.DAY else midnight.replace(day=1)


def ends_at(period: Period, now: datetime) -> datetime:
    """When that day or month ends."""
    began = began_at(period, now)
    if period is Period.DAY:
        return began + timedelta(days=1)
    return (began + timedelta(days=32)).replace(day=1)


@overload
def credits_of(nanousd: int) -> int: ...
@overload
def credits_of(nanousd: int | None) -> int | None: ...
def credits_of(nanousd: int | None) -> int | None:
    """Nano-dollars as whole credits, what is left over cut off."""
    if nanousd is None:
        return None
    whole = abs(nanousd) // NANOUSD_PER_CREDIT
    return whole if nanousd >= 0 else -whole


@overload
def nanousd_of(amount: int) -> int: ...
@overload
def nanousd_of(amount: int | None) -> int | None: ...
def nanousd_of(amount: int | None) -> int | None:
    """Credits as nano-dollars; what is not said stays unsaid."""
    return None if amount is None else amount * NANOUSD_PER_CREDIT


def worst_case_nanousd(input_tokens: int, output_tokens: int, prices: Prices | None) -> int:
    """What a call may cost at most: its estimated input and a margin, its answer as long as it may.

    0 where nobody knows a price: such a call will cost nothing here.
    """
    if prices is None:
        return 0
    times, parts = _MARGIN
    usage = Usage(input=-(-input_tokens * times // parts), output=output_tokens)
    return cost_of(usage, prices).total
