"""Which schema this code needs, and which one a database has."""

import psycopg

from shared.store.database import Store

EXPECTED = "0011"
"""The newest migration; `tests/architecture` holds it against the folder of migrations."""


def serves(found: str) -> bool:
    """Whether this code can work with a schema: its own, or a newer one.

    A deployment migrates first, then replaces what runs: until then the code of before works with
    the schema of after, and has to come up again when it is restarted.
    """
    return found == EXPECTED or (found.isdigit() and int(found) > int(EXPECTED))


async def revision(store: Store) -> str:
    """The database's schema version; `none` where no migration has run."""
    try:
        rows = await store.fetch("SELECT version_num FROM alembic_version", {})
    except psycopg.errors.UndefinedTable:
        return "none"
    return str(rows[0][0]) if rows else "none"
