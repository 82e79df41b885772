"""Webhook signatures: Standard Webhooks, and the form PromptJuggler's receivers expect."""

import base64
import hashlib
import hmac
import secrets
from collections.abc import Sequence

from shared.errors import Flaw, UnacceptableError

PREFIX = "whsec_"
NEW_SECRET_BYTES = 32
MIN_SECRET_BYTES = 24
MAX_SECRET_BYTES = 64


class SecretError(UnacceptableError):
    """A webhook secret that nobody should sign with."""

    code = "invalid_secret"

    def __init__(self, message: str) -> None:
        super().__init__(message, flaws=[Flaw("/secret", message)])


def new_secret() -> str:
    """Make a secret of 256 random bits, as `whsec_<base64>`."""
    return PREFIX + base64.b64encode(secrets.token_bytes(NEW_SECRET_BYTES)).decode()


def parse_secret(text: str) -> bytes:
    """Read the key out of a secret's text; raises `SecretError`, which never repeats it."""
    if not text.startswith(PREFIX):
        raise SecretError(f"A secret starts with '{PREFIX}'.")
    encoded = text.removeprefix(PREFIX)
    try:
        key = base64.b64decode(encoded, validate=True)
    except ValueError as error:
        raise SecretError(f"After '{PREFIX}' a secret is base64.") from error
    if base64.b64encode(key).decode() != encoded:
        raise SecretError("The secret's base64 has stray bits at its end.")
    if not MIN_SECRET_BYTES <= len(key) <= MAX_SECRET_BYTES:
        raise SecretError(f"A secret holds {MIN_SECRET_BYTES} to {MAX_SECRET_BYTES} bytes.")
    if not any(key):
        raise SecretError("A secret of nothing but zeros protects nothing.")
    return key


def sign_standard(
    secret_texts: Sequence[str], *, event_id: str, timestamp_s: int, body: bytes
) -> dict[str, str]:
    """Sign with every live secret, newest first. Source: standardwebhooks.com, version 1.

    `timestamp_s` is the moment of this try, `event_id` the same on every try and free of dots.
    """
    signed = b"%b.%d.%b" % (event_id.encode(), timestamp_s, body)
    signatures = (
        base64.b64encode(hmac.digest(parse_secret(text), signed, hashlib.sha256)).decode()
        for text in secret_texts
    )
    return {
        "webhook-id": event_id,
        "webhook-timestamp": str(timestamp_s),
        "webhook-signature": " ".join(f"v1,{signature}" for signature in signatures),
    }


def sign_promptjuggler(secret_text: str, *, timestamp_s: int, body: bytes) -> dict[str, str]:
    """Sign as PromptJuggler does: the key is the secret's text itself, prefix included."""
    signed = b"%d.%b" % (timestamp_s, body)
    signature = hmac.digest(secret_text.encode(), signed, hashlib.sha256).hex()
    return {"PromptJuggler-Signature": f"t={timestamp_s},v1={signature}"}
