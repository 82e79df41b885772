"""How Alembic runs here: on a given connection, with short locks, comparing types too."""

from typing import Any, Literal

from alembic import context
from sqlalchemy import text

from shared.store.tables import METADATA


def render_item(kind: str, item: Any, autogen: Any) -> str | Literal[False]:
    """Write our own column types in a migration as plain SQLAlchemy."""
    if kind == "type" and type(item).__name__ == "Xid8":
        autogen.imports.add("from migrations.types import Xid8")
        return "Xid8()"
    if kind == "type" and type(item).__name__ == "AutoString":
        return "sa.Text()"
    return False


def run() -> None:
    connection = context.config.attributes["connection"]
    # What waits for a whole table makes everybody wait behind it: not for long, rather again.
    connection.execute(text("SET lock_timeout = '1s'"))
    connection.execute(text("SET statement_timeout = '300s'"))
    connection.commit()  # or no migration could build an index beside the running system
    context.configure(
        connection=connection,
        transaction_per_migration=True,
        target_metadata=METADATA,
        render_item=render_item,
        compare_type=True,
        compare_server_default=False,
    )
    with context.begin_transaction():
        context.run_migrations()
    connection.commit()


run()
