"""The text of an API key: made once, shown once, kept only as a digest.

`rl_<8 id characters>_<43 base62 digits: 256 random bits><6 base62 digits: CRC-32 of the rest>`.
The checksum lets a mistyped or made-up key be refused without asking the database, and lets secret
scanners recognise a leaked one.
"""

import re
import secrets
from hashlib import sha256
from typing import NamedTuple
from zlib import crc32

_DIGITS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_ID_LENGTH = 8
_SECRET_BITS = 256
_SECRET_LENGTH = 43  # 62**43 is just above 2**256
_CHECKSUM_LENGTH = 6  # 62**6 is above 2**32
_SHAPE = re.compile(
    rf"rl_([0-9A-Za-z]{{{_ID_LENGTH}}})_[0-9A-Za-z]{{{_SECRET_LENGTH + _CHECKSUM_LENGTH}}}"
)


class NewKey(NamedTuple):
    """A key just made: `text` goes to its owner, the other two to the database."""

    text: str
    lookup_id: str
    digest: bytes


class ParsedKey(NamedTuple):
    """A well-formed key: what to look up, and what the row's digest must equal.

    Compare digests with `hmac.compare_digest`, as bytes: on non-ASCII text it raises.
    """

    lookup_id: str
    digest: bytes


def make() -> NewKey:
    """Make a key from 256 random bits; so much chance needs no slow hash at rest."""
    lookup_id = "".join(secrets.choice(_DIGITS) for _ in range(_ID_LENGTH))
    secret = _base62(secrets.randbits(_SECRET_BITS), _SECRET_LENGTH)
    payload = f"rl_{lookup_id}_{secret}"
    text = payload + _checksum(payload)
    return NewKey(text, lookup_id, _digest(text))


def parse(text: str) -> ParsedKey | None:
    """Read what a client sent; `None` for anything that `make` cannot have made."""
    shape = _SHAPE.fullmatch(text)
    if shape is None or _checksum(text[:-_CHECKSUM_LENGTH]) != text[-_CHECKSUM_LENGTH:]:
        return None
    return ParsedKey(shape[1], _digest(text))


def _digest(text: str) -> bytes:
    return sha256(text.encode("ascii")).digest()


def _checksum(payload: str) -> str:
    return _base62(crc32(payload.encode("ascii")), _CHECKSUM_LENGTH)


def _base62(number: int, length: int) -> str:
    digits: list[str] = []
    for _ in range(length):
        number, digit = divmod(number, len(_DIGITS))
        digits.append(_DIGITS[digit])
    return "".join(reversed(digits))
