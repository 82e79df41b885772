"""The database that DATABASE_URL names, tried before anything is built on it."""

import psycopg
from psycopg.conninfo import conninfo_to_dict

CONNECT_S = 5


def read(url: str) -> None:
    """Refuse what is no URL of a PostgreSQL. Raises `psycopg.OperationalError`."""
    if url.partition("://")[0] not in {"postgresql", "postgres"}:
        raise psycopg.OperationalError("it has to start with postgresql://")
    try:
        conninfo_to_dict(url)
    except psycopg.ProgrammingError:
        # Its text, and a trace to it, would show the URL with the password.
        raise psycopg.OperationalError("PostgreSQL's own client cannot read the URL") from None


def probe(url: str) -> None:
    """Try one connection: its error says more than a pool's or SQLAlchemy's.

    Raises `psycopg.OperationalError`.
    """
    read(url)
    psycopg.connect(url, connect_timeout=CONNECT_S).close()
