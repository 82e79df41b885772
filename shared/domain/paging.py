"""Pages of a list: newest first, walked by the id of the last row seen."""

from typing import Generic, TypeVar
from uuid import UUID

import msgspec

Row = TypeVar("Row")


class Page(msgspec.Struct, frozen=True):
    """What part of a list is asked for: behind `after`, or before `before`, or the newest."""

    limit: int = 20
    after: UUID | None = None
    before: UUID | None = None


class Slice(msgspec.Struct, Generic[Row], frozen=True):
    """A part of a list, newest first; `more` in the direction that was asked for."""

    rows: tuple[Row, ...]
    more: bool
