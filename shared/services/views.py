"""How rows become what leaves the house."""

from collections.abc import Callable
from datetime import datetime
from typing import TypeVar

from shared.clock import rfc3339
from shared.domain.paging import Slice

Row = TypeVar("Row")
View = TypeVar("View")


def page(found: Slice[Row], view: Callable[[Row], View]) -> Slice[View]:
    """Show every row of a part of a list."""
    return Slice(rows=tuple(map(view, found.rows)), more=found.more)


def moment(at: datetime | None) -> str | None:
    """Write a moment that may not have come."""
    return None if at is None else rfc3339(at)
