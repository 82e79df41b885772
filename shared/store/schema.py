"""Which schema this code needs, and which one a database has."""

import psycopg

from shared.store.database import Store

EXPECTED = "0010"
"""The newest migration; `tests/architecture` holds it against the folder of migrations."""


async def revision(store: Store) -> str:
    """The database's schema version; `none` where no migration has run."""
    try:
        rows = await store.fetch("SELECT version_num FROM alembic_version", {})
    except psycopg.errors.UndefinedTable:
        return "none"
    return str(rows[0][0]) if rows else "none"
