"""Keyset pages over rows with time-ordered ids."""

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import msgspec
from msgspec import Raw
from sqlalchemy import Select

from shared.domain.paging import Page, Slice
from shared.store.database import Store, Tx

Row = TypeVar("Row")


async def fetch(tx: Tx, query: Select[Row], key: Any, page: Page) -> Slice[Row]:
    """Run a query for one page, newest first; `key` is the id column that orders it."""
    if page.before is not None:
        query = query.where(key > page.before).order_by(key.asc())
    else:
        if page.after is not None:
            query = query.where(key < page.after)
        query = query.order_by(key.desc())
    return cut(list((await tx.scalars(query.limit(page.limit + 1))).all()), page)


class JsonList(msgspec.Struct, frozen=True):
    """A list PostgreSQL writes as JSON: `shown` and `joins` call the `table` by its `alias`."""

    table: str
    alias: str
    shown: str
    joins: str


class Listed(msgspec.Struct, frozen=True):
    """A row's id and its JSON as the list shows it."""

    id: str
    json: Raw


async def fetch_json(
    store: Store,
    of: JsonList,
    conditions: Sequence[str],
    values: Mapping[str, object],
    page: Page,
) -> Slice[Listed]:
    """One page of the rows that meet every condition, newest first; joins see that page only."""
    x, conditions = of.alias, list(conditions)
    if page.after is not None:
        conditions.append(f"{x}.id < %(after)s")
    if page.before is not None:
        conditions.append(f"{x}.id > %(before)s")
    order = "ASC" if page.before is not None else "DESC"
    rows = await store.fetch(
        f"""SELECT {x}.id::text, {of.shown}::text FROM (
          SELECT * FROM {of.table} {x} WHERE {" AND ".join(conditions)}
          ORDER BY {x}.id {order} LIMIT %(limit)s) AS {x} {of.joins} ORDER BY {x}.id {order}""",
        {**values, "after": page.after, "before": page.before, "limit": page.limit + 1},
    )
    return cut([Listed(row_id, Raw(text.encode())) for row_id, text in rows], page)


def cut(rows: list[Row], page: Page) -> Slice[Row]:
    """Leave the rows beyond the page out, and turn what was read backwards."""
    more = len(rows) > page.limit
    rows = rows[: page.limit]
    if page.before is not None:
        rows.reverse()
    return Slice(rows=tuple(rows), more=more)
