"""`docs/reference/database.md`: every table as the code declares it."""

import inspect
from collections.abc import Iterable, Mapping
from typing import Any

from shared.store import schema, tables

_TYPES: Mapping[str, str] = {
    "AutoString": "text",
    "BigInteger": "bigint",
    "Boolean": "boolean",
    "DateTime": "timestamptz",
    "Float": "double precision",
    "Integer": "integer",
    "JSON": "json",
    "JSONB": "jsonb",
    "LargeBinary": "bytea",
    "Text": "text",
    "UUID": "uuid",
    "Uuid": "uuid",
    "Xid8": "xid8",
}


def lines() -> Iterable[str]:
    """Write the page."""
    yield "# The database"
    yield ""
    yield (
        f"PostgreSQL 14 or newer, schema version `{schema.EXPECTED}`, brought there by"
        " `runlane migrate`. Moments are UTC. What must be true is a constraint. The tables are"
        " Runlane's own business: read them, but let only Runlane write."
    )
    rows = {
        row.__tablename__: row
        for name in tables.__all__
        if hasattr(row := getattr(tables, name), "__table__")
    }
    for name in sorted(rows):
        yield from _table(rows[name])


def _table(row: Any) -> Iterable[str]:
    found = row.__table__
    yield ""
    yield f"## {found.name}"
    yield ""
    yield " ".join((inspect.getdoc(row) or "").split())
    yield ""
    yield "| Column | Type | Null | Default |"
    yield "| --- | --- | --- | --- |"
    for column in found.columns:
        null = "yes" if column.nullable else ""
        yield f"| `{column.name}` | {_type(column.type)} | {null} | {_default(column)} |"
    rules = sorted(_rules(found))
    if rules:
        yield ""
        yield from rules


def _type(kind: Any) -> str:
    if type(kind).__name__ == "ARRAY":
        return f"{_type(kind.item_type)}[]"
    return _TYPES[type(kind).__name__]


def _default(column: Any) -> str:
    given = getattr(column.server_default, "arg", None)
    return "" if given is None else f"`{given}`"


def _rules(found: Any) -> Iterable[str]:
    for constraint in found.constraints:
        columns = ", ".join(column.name for column in getattr(constraint, "columns", ()))
        match type(constraint).__name__:
            case "PrimaryKeyConstraint":
                yield f"- Primary key: `{columns}`"
            case "UniqueConstraint":
                yield f"- Unique: `{columns}`"
            case "ForeignKeyConstraint":
                targets = ", ".join(one.target_fullname for one in constraint.elements)
                yield f"- Refers: `{columns}` → `{targets}`"
            case _:
                yield f"- Check `{constraint.name}`: `{_flat(constraint.sqltext)}`"
    for index in found.indexes:
        columns = ", ".join(_flat(one).removeprefix(f"{found.name}.") for one in index.expressions)
        where = index.dialect_options["postgresql"].get("where")
        only = "" if where is None else f" where `{_flat(where)}`"
        yield f"- {'Unique index' if index.unique else 'Index'}: `{columns}`{only}"


def _flat(expression: object) -> str:
    return " ".join(str(expression).split())
