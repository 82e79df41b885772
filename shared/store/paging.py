"""Keyset pages over rows with time-ordered ids."""

from typing import Any, TypeVar

from sqlalchemy import Select

from shared.domain.paging import Page, Slice
from shared.store.database import Tx

Row = TypeVar("Row")


async def fetch(tx: Tx, query: Select[Row], key: Any, page: Page) -> Slice[Row]:
    """Run a query for one page, newest first; `key` is the id column that orders it."""
    if page.before is not None:
        query = query.where(key > page.before).order_by(key.asc())
    else:
        if page.after is not None:
            query = query.where(key < page.after)
        query = query.order_by(key.desc())
    rows = list((await tx.scalars(query.limit(page.limit + 1))).all())
    more = len(rows) > page.limit
    rows = rows[: page.limit]
    if page.before is not None:
        rows.reverse()
    return Slice(rows=tuple(rows), more=more)
