"""Parts of lists, from rows to what is shown of them."""

from collections.abc import Callable
from typing import TypeVar

from shared.domain.paging import Slice

Row = TypeVar("Row")
View = TypeVar("View")


def shown(found: Slice[Row], view: Callable[[Row], View]) -> Slice[View]:
    """Show every row of a part of a list."""
    return Slice(rows=tuple(map(view, found.rows)), more=found.more, last=found.last)
