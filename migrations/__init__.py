"""The schema's history. `upgrade` is the one explicit step of a deployment."""

from pathlib import Path
from typing import Any

import psycopg
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, create_engine, text
from sqlalchemy.exc import OperationalError
from sqlalchemy.pool import NullPool

_LOCK = 0x72756E6C616E65  # "runlane": two migrations at once wait for each other


def upgrade(database_url: str, revision: str = "head") -> None:
    """Bring a database to a revision. Raises `psycopg.OperationalError` if it is unreachable."""
    _run(database_url, lambda config: command.upgrade(config, revision))


def downgrade(database_url: str, revision: str) -> None:
    """Take a database back to a revision; `base` removes everything."""
    _run(database_url, lambda config: command.downgrade(config, revision))


def current(database_url: str) -> str | None:
    """Tell which revision a database has; `None` for an empty one."""
    with _engine(database_url).connect() as connection:
        return MigrationContext.configure(connection).get_current_revision()


def heads() -> tuple[str, ...]:
    """Tell the newest revisions in the folder; a healthy history has exactly one."""
    return tuple(ScriptDirectory.from_config(config_for(None)).get_heads())


def config_for(connection: Connection | None) -> Config:
    """Configure Alembic without a file of its own."""
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent))
    config.set_main_option("file_template", "%%(rev)s_%%(slug)s")
    config.attributes["connection"] = connection
    return config


def _run(database_url: str, action: Any) -> None:
    try:
        connection = _engine(database_url).connect()
    except OperationalError as error:
        raise psycopg.OperationalError(str(error.orig)) from error
    with connection:
        connection.execute(text("SELECT pg_advisory_lock(:key)"), {"key": _LOCK})
        connection.commit()
        try:
            action(config_for(connection))
            connection.commit()
        finally:
            connection.execute(text("SELECT pg_advisory_unlock(:key)"), {"key": _LOCK})
            connection.commit()


def _engine(database_url: str) -> Any:
    """Connect as libpq reads the URL; SQLAlchemy would not understand several hosts."""
    return create_engine(
        "postgresql+psycopg://", creator=lambda: psycopg.connect(database_url), poolclass=NullPool
    )
