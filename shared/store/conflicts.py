"""Constraints as the last word: what the check before a statement did not see."""

from collections.abc import Iterator
from contextlib import contextmanager

from psycopg import IntegrityError as IntegrityViolation
from psycopg.errors import UniqueViolation
from sqlalchemy.exc import IntegrityError

from shared.errors import ConflictError


@contextmanager
def told_as(
    conflict: ConflictError, violation: type[IntegrityViolation] = UniqueViolation
) -> Iterator[None]:
    """Raise `conflict` when the statements inside violate a unique index, or what is named."""
    try:
        yield
    except IntegrityError as error:
        if isinstance(error.orig, violation):
            raise conflict from error
        raise
