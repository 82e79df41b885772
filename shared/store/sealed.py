"""Every column that holds secrets: which master key they are under, and sealing them anew."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from shared.store import database
from shared.store.database import Store, Tx

Key = tuple[Any, ...]


class Column(msgspec.Struct, frozen=True):
    """A sealed column, the primary key of its table with types, and what its seal is bound to.

    `place` holds words and, in brackets, columns: `[id]`. `among` are the rows that may hold a
    secret, in words that indexes know.
    """

    table: str
    column: str
    keys: Mapping[str, str]
    place: tuple[str, ...]
    among: tuple[str, ...] = ("true",)


_ID = {"id": "uuid"}
COLUMNS = (
    Column(
        "environment_variables",
        "sealed",
        {"environment_id": "uuid", "key": "text"},
        ("environment_variables", "[key]", "[environment_id]", "[workspace_id]"),
    ),
    Column("webhook_secrets", "sealed", _ID, ("webhook_secrets", "[id]", "[workspace_id]")),
    Column(
        "webhook_endpoints",
        "headers",
        _ID,
        ("webhook_endpoints", "headers", "[id]", "[workspace_id]"),
    ),
    Column(
        "runs",
        "env_vars",
        _ID,
        ("runs", "env_vars", "[id]", "[workspace_id]"),
        among=("status IN ('queued', 'scheduled')", "status = 'running'"),  # erased at the end
    ),
)


class Sealed(msgspec.Struct, frozen=True):
    """A secret as it lies there: its row's key, the place it is bound to, what is sealed."""

    key: Key
    place: tuple[object, ...]
    sealed: bytes


async def counts(store: Store, column: Column) -> Mapping[str, int]:
    """How many secrets are under each master key, by the key's id."""
    found: Counter[str] = Counter()
    secret = column.column
    for condition in column.among:
        rows = await store.fetch(
            f"""SELECT encode(substring({secret} FROM 1 FOR
                greatest(position('\\x3a'::bytea IN {secret}) - 1, 0)), 'escape'), count(*)
              FROM {column.table} WHERE {condition} AND {secret} IS NOT NULL GROUP BY 1""",
            {},
        )
        found.update(dict(rows))
    return found


async def under_other_keys(store: Store, column: Column, key_id: str) -> list[Key]:
    """The rows whose secret is not under this master key, by their own keys."""
    prefix = f"{key_id}:".encode()
    found: set[Key] = set()
    for condition in column.among:
        rows = await store.fetch(
            f"""SELECT {", ".join(column.keys)} FROM {column.table} WHERE {condition}
              AND position(%(prefix)s::bytea IN {column.column}) <> 1""",
            {"prefix": prefix},
        )
        found.update(map(tuple, rows))
    return sorted(found)


async def read(store: Store, column: Column, keys: Sequence[Key]) -> list[Sealed]:
    """What is sealed in these rows, as far as they are there and hold a secret."""
    columns = [*column.keys, "workspace_id", column.column]
    rows = await store.fetch(
        f"""SELECT {", ".join(f"t.{one}" for one in columns)} FROM {column.table} t
          JOIN {_given(column)} USING ({", ".join(column.keys)})
          WHERE t.{column.column} IS NOT NULL""",
        _parameters(column, keys),
    )
    return [_sealed(column, dict(zip(columns, row, strict=True))) for row in rows]


async def replace(tx: Tx, column: Column, pairs: Sequence[tuple[Sealed, bytes]]) -> int:
    """Put new seals in the place of old ones, but where something else came there meanwhile."""
    keys = ", ".join(column.keys)
    same = " AND ".join(f"t.{one} = x.{one}" for one in column.keys)
    rows = await database.fetch(
        tx,
        f"""WITH held AS MATERIALIZED (
            SELECT {", ".join(f"t.{one}" for one in column.keys)} FROM {column.table} t
            JOIN {_given(column)} USING ({keys}) ORDER BY {keys} FOR UPDATE OF t
          )
          UPDATE {column.table} t SET {column.column} = x.fresh
          FROM {_given(column, old="bytea", fresh="bytea")} JOIN held USING ({keys})
          WHERE {same} AND t.{column.column} = x.old RETURNING 1""",
        {
            **_parameters(column, [old.key for old, _ in pairs]),
            "old": [old.sealed for old, _ in pairs],
            "fresh": [fresh for _, fresh in pairs],
        },
    )
    return len(rows)


def _given(column: Column, **more: str) -> str:
    """The rows that are asked for, as a table `x`."""
    lists = {**column.keys, **more}
    arrays = ", ".join(f"%({name})s::{kind}[]" for name, kind in lists.items())
    return f"unnest({arrays}) AS x({', '.join(lists)})"


def _parameters(column: Column, keys: Sequence[Key]) -> dict[str, object]:
    return {name: [key[place] for key in keys] for place, name in enumerate(column.keys)}


def _sealed(column: Column, row: Mapping[str, Any]) -> Sealed:
    place = tuple(row[one[1:-1]] if one.startswith("[") else one for one in column.place)
    return Sealed(tuple(row[one] for one in column.keys), place, bytes(row[column.column]))
