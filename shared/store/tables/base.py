"""What every table has in common: names of constraints, column types, checks."""

from collections.abc import Iterable
from enum import StrEnum
from typing import Any

from sqlalchemy import CheckConstraint, DateTime, ForeignKeyConstraint, Text, func
from sqlalchemy.dialects.postgresql import ARRAY, UUID
from sqlalchemy.types import UserDefinedType
from sqlmodel import SQLModel

NAMES = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s",
    "pk": "pk_%(table_name)s",
}

NOW: Any = func.now()  # the database's clock, assignable to a moment
UtcDateTime = DateTime(timezone=True)
TextArray = ARRAY(Text)
UuidArray = ARRAY(UUID(as_uuid=True))


class Xid8(UserDefinedType[int]):
    """PostgreSQL's 64-bit transaction id."""

    cache_ok = True

    def get_col_spec(self, **_: Any) -> str:
        return "xid8"


class Table(SQLModel):
    """The parent of every row class."""


Table.metadata.naming_convention = NAMES


def one_of(column: str, values: Iterable[str] | type[StrEnum]) -> CheckConstraint:
    """Check that a text column holds one of the given words (or NULL, where it may)."""
    words = ", ".join(f"'{word}'" for word in values)
    return CheckConstraint(f"{column} IN ({words})", name=f"{column}_known")


def to(table: str, *columns: str, references: tuple[str, ...] = ()) -> ForeignKeyConstraint:
    """Point at a row of the same workspace: a composite key, so that no row crosses tenants."""
    targets = references or ("workspace_id", "id")
    return ForeignKeyConstraint(columns, [f"{table}.{target}" for target in targets])
