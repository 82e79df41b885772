"""Unique indexes as the last word: what the check before an insert did not see."""

from collections.abc import Iterator
from contextlib import contextmanager

from psycopg.errors import UniqueViolation
from sqlalchemy.exc import IntegrityError

from shared.errors import ConflictError


@contextmanager
def told_as(conflict: ConflictError) -> Iterator[None]:
    """Raise `conflict` when the statements inside violate a unique index."""
    try:
        yield
    except IntegrityError as error:
        if isinstance(error.orig, UniqueViolation):
            raise conflict from error
        raise
