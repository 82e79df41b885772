"""The schema's history. `upgrade` is the one explicit step of a deployment."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from psycopg import errors
from sqlalchemy import Connection, create_engine, text
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.pool import NullPool

OTHERS_S = 60
"""How long a migration waits for another one; for a table in use it waits much less."""
TRIES = 3
PAUSE_S = 1.0
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


class BlockedError(Exception):
    """A migration met a lock, or took too long, and was rolled back; the message says more."""


def _run(database_url: str, action: Any) -> None:
    try:
        connection = _engine(database_url).connect()
    except OperationalError as error:
        raise psycopg.OperationalError(str(error.orig)) from error
    with connection, _in_words():
        connection.execute(text(f"SET lock_timeout = '{OTHERS_S}s'"))
        connection.execute(text("SELECT pg_advisory_lock(:key)"), {"key": _LOCK})
        connection.commit()
        try:
            _patiently(connection, action)
        finally:
            connection.execute(text("SELECT pg_advisory_unlock(:key)"), {"key": _LOCK})
            connection.commit()


def _patiently(connection: Connection, action: Any) -> None:
    """Try again after a lock that somebody held; what was done until then is rolled back."""
    for left in reversed(range(TRIES)):
        try:
            action(config_for(connection))
            connection.commit()
        except DBAPIError as error:
            connection.rollback()
            if not left or not isinstance(error.orig, errors.LockNotAvailable):
                raise
            time.sleep(PAUSE_S)
        else:
            return


@contextmanager
def _in_words() -> Iterator[None]:
    try:
        yield
    except DBAPIError as error:
        match error.orig:
            case errors.LockNotAvailable():
                raise BlockedError(
                    "Something holds a lock that the migration needs, so it was given up: end what "
                    "pg_stat_activity shows as old, or try again at a quieter time."
                ) from error
            case errors.QueryCanceled():
                raise BlockedError(
                    "A statement of the migration took longer than it may, so it was given up."
                ) from error
            case _:
                raise


def _engine(database_url: str) -> Any:
    """Connect as libpq reads the URL; SQLAlchemy would not understand several hosts."""
    return create_engine(
        "postgresql+psycopg://", creator=lambda: psycopg.connect(database_url), poolclass=NullPool
    )
