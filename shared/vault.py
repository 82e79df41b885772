"""Secrets at rest: AES-256-GCM, bound by associated data to the one place they belong to."""

import os
import re
from base64 import b64decode
from collections.abc import Mapping

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

_KEY_ID = re.compile(r"[A-Za-z0-9]+")
_NONCE_BYTES = 12
_KEY_BYTES = 32


class VaultError(Exception):
    """A secret cannot be stored or read: no master key, a wrong one, or a moved ciphertext."""


class Vault:
    """Encrypts with the newest master key and decrypts with any that is configured.

    A sealed value is `key id, ':', nonce, ciphertext`. The place (table, column, row, workspace)
    is authenticated, so a ciphertext copied elsewhere does not open.
    """

    def __init__(self, keys: Mapping[str, bytes]) -> None:
        self._ciphers = {key_id: AESGCM(key) for key_id, key in keys.items()}
        self.current = next(iter(keys), None)

    @property
    def key_ids(self) -> frozenset[str]:
        """The ids of the configured master keys."""
        return frozenset(self._ciphers)

    @classmethod
    def parse(cls, spec: str) -> "Vault":
        """Read `MASTER_KEY`: `id:base64` entries, newest first, separated by commas.

        Raises `VaultError` without repeating any part of a key.
        """
        keys: dict[str, bytes] = {}
        for number, entry in enumerate(filter(None, spec.split(",")), start=1):
            key_id, _, encoded = entry.strip().partition(":")
            try:
                key = b64decode(encoded, validate=True)
            except ValueError as error:
                raise VaultError(f"MASTER_KEY entry {number} is not base64.") from error
            if not _KEY_ID.fullmatch(key_id) or len(key) != _KEY_BYTES:
                raise VaultError(
                    f"MASTER_KEY entry {number} must be an id, a colon and 32 bytes in base64."
                )
            if key_id in keys:
                raise VaultError(f"MASTER_KEY entry {number} repeats an id.")
            keys[key_id] = key
        return cls(keys)

    def seal(self, plain: bytes, *place: object) -> bytes:
        """Encrypt for one place. Raises `VaultError` when no master key is configured."""
        if self.current is None:
            raise VaultError("No MASTER_KEY is set, so no secret may be stored.")
        nonce = os.urandom(_NONCE_BYTES)
        sealed = self._ciphers[self.current].encrypt(nonce, plain, _associated(place))
        return self.current.encode() + b":" + nonce + sealed

    def open(self, sealed: bytes, *place: object) -> bytes:
        """Decrypt what was sealed for this very place; raises `VaultError` otherwise."""
        key_id, _, rest = sealed.partition(b":")
        cipher = self._ciphers.get(key_id.decode("ascii", "replace"))
        if cipher is None:
            raise VaultError("The secret was sealed with a master key that is not configured.")
        try:
            return cipher.decrypt(rest[:_NONCE_BYTES], rest[_NONCE_BYTES:], _associated(place))
        except (InvalidTag, ValueError) as error:  # ValueError: cut too short to hold a nonce
            raise VaultError("The secret does not belong here or its key is wrong.") from error


def _associated(place: tuple[object, ...]) -> bytes:
    return "\x1f".join(str(part) for part in place).encode()
