"""What goes over the wire for a delivery: the stored body byte for byte, and signed headers."""

from base64 import b64decode

import msgspec
from msgspec import Raw

from shared.domain import signing
from shared.domain.states import WebhookFormat
from shared.store.ending import DueDelivery
from shared.vault import Vault

_COMPLETED = frozenset({"run.succeeded", "run.incomplete"})

_headers = msgspec.json.Decoder(dict[str, str])
_object = msgspec.json.Decoder(dict[str, Raw])


def build(vault: Vault, due: DueDelivery, timestamp_s: int) -> tuple[dict[str, str], bytes]:
    """Headers and body of a try at this moment.

    Raises `VaultError` where no key opens a secret, `SecretError` where there is none.
    """
    secrets = [
        vault.open(b64decode(sealed), "webhook_secrets", secret_id, due.workspace_id).decode()
        for secret_id, sealed in due.secrets
    ]
    if not secrets:
        raise signing.SecretError("The endpoint has no secret to sign with.")
    body = _body(due)
    if due.format == WebhookFormat.PROMPTJUGGLER:
        # Signed with the oldest live secret: this format's receivers know only one.
        signed = signing.sign_promptjuggler(secrets[-1], timestamp_s=timestamp_s, body=body)
    else:
        signed = signing.sign_standard(
            secrets, event_id=str(due.event_id), timestamp_s=timestamp_s, body=body
        )
    headers = {**_own_headers(vault, due), "content-type": "application/json", **signed}
    if due.traceparent is not None:
        headers["traceparent"] = due.traceparent
    return headers, body


def _own_headers(vault: Vault, due: DueDelivery) -> dict[str, str]:
    """The headers that the endpoint's owner wants along, judged when they were set."""
    if due.headers is None:
        return {}
    place = ("webhook_endpoints", "headers", due.endpoint_id, due.workspace_id)
    return _headers.decode(vault.open(b64decode(due.headers), *place))


def _body(due: DueDelivery) -> bytes:
    if due.run_id is None:  # a ping, of which the other product knows nothing
        return due.body.encode()
    if due.format == WebhookFormat.PROMPTJUGGLER:
        status = "completed" if due.event_type in _COMPLETED else "failed"
        return msgspec.json.encode({"id": due.run_id, "status": status})
    return due.body.encode() if due.include_output else _without_output(due.body)


def _without_output(body: str) -> bytes:
    """Take the output out and leave every other value as it is written."""
    event = _object.decode(body)
    data = _object.decode(event["data"])
    run = _object.decode(data["run"])
    run.pop("output", None)
    run.pop("outputTruncated", None)
    data["run"] = Raw(msgspec.json.encode(run))
    event["data"] = Raw(msgspec.json.encode(data))
    return msgspec.json.encode(event)
