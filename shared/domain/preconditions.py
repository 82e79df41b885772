"""Changing only what one has seen: entity tags, and which of them a caller expects (RFC 9110)."""

import hashlib

import msgspec

from shared.errors import PreconditionFailedError

ANYTHING = "*"


class Expected(msgspec.Struct, frozen=True):
    """States in which a thing may be changed, as entity tags; `*` is any, `None` is unasked."""

    tags: frozenset[str] | None = None

    def demand(self, found: msgspec.Struct | None) -> None:
        """Raise `PreconditionFailedError` unless what is shown of the thing is as expected.

        Ask while nobody else can change it: in the transaction, behind the lock.
        """
        if self.tags is None:
            return
        if found is None:
            raise PreconditionFailedError("There is nothing yet that If-Match could match.")
        if ANYTHING not in self.tags and etag(msgspec.json.encode(found)) not in self.tags:
            raise PreconditionFailedError("If-Match names another state: read it again first.")


WHATEVER = Expected()


def etag(shown: bytes) -> str:
    """Make the strong entity tag of what is shown of a thing."""
    return f'"{hashlib.blake2s(shown, digest_size=12).hexdigest()}"'
