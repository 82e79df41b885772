"""The schema's history: one line, both ways, and what the code declares at its end."""

import ast
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection, create_engine
from sqlalchemy.dialects.postgresql.base import ischema_names
from sqlalchemy.pool import NullPool

import migrations
from shared.store import schema
from shared.store.tables import METADATA
from shared.store.tables.base import Xid8
from tests.architecture.source import Module, modules

ischema_names["xid8"] = Xid8  # so that SQLAlchemy knows it when it reads a schema back

ALLOWED = frozenset({"alembic", "collections", "migrations", "sqlalchemy", "typing"})


def connected(url: str) -> Connection:
    engine = create_engine(
        url.replace("postgresql://", "postgresql+psycopg://", 1), poolclass=NullPool
    )
    return engine.connect()


def difference(url: str) -> list[Any]:
    """What Alembic would write into the next migration."""
    with connected(url) as connection:
        context = MigrationContext.configure(
            connection, opts={"compare_type": True, "include_name": not_alembics}
        )
        return list(compare_metadata(context, METADATA))


def not_alembics(name: str | None, kind: str, _: Any) -> bool:
    return not (kind == "table" and name == "alembic_version")


def tables_of(url: str) -> set[str]:
    with connected(url) as connection:
        found = connection.exec_driver_sql(
            "SELECT tablename FROM pg_tables WHERE schemaname = 'public'"
        )
        return {row[0] for row in found}


def test_the_history_has_one_end_and_the_code_expects_it() -> None:
    assert (schema.EXPECTED,) == migrations.heads()


def test_migrations_go_up_and_down_and_up_again(empty_database_url: str) -> None:
    migrations.upgrade(empty_database_url)
    migrations.downgrade(empty_database_url, "base")
    left = tables_of(empty_database_url)
    migrations.upgrade(empty_database_url)

    assert {"alembic_version"} == left
    assert schema.EXPECTED == migrations.current(empty_database_url)


def test_migrations_build_what_the_code_declares(empty_database_url: str) -> None:
    migrations.upgrade(empty_database_url)

    assert [] == difference(empty_database_url)


def test_migrations_write_every_check_of_the_code(empty_database_url: str) -> None:
    migrations.upgrade(empty_database_url)

    with connected(empty_database_url) as connection:
        found = connection.exec_driver_sql(
            "SELECT conname FROM pg_constraint WHERE contype = 'c'"
            " AND connamespace = 'public'::regnamespace"
        )
        written = {row[0] for row in found}

    declared = {
        str(constraint.name)
        for table in METADATA.tables.values()
        for constraint in table.constraints
        if type(constraint).__name__ == "CheckConstraint"
    }
    assert declared == written


@pytest.mark.parametrize(
    "module", modules("migrations/versions"), ids=lambda module: str(module.path)
)
def test_a_migration_imports_nothing_that_will_change(module: Module) -> None:
    imported = {name.partition(".")[0] for name in imports(module)}

    assert set() == imported - ALLOWED


def imports(module: Module) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(module.tree):
        match node:
            case ast.Import():
                found |= {alias.name for alias in node.names}
            case ast.ImportFrom():
                found.add(node.module or "")
            case _:
                pass
    return found
