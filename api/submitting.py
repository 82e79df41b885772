"""What the HTTP request of a submission says about it, whichever door it came through."""

import re
from typing import Any

from litestar import Request

from api.deadline import LIMIT
from shared.domain.submissions import Submission
from shared.errors import BadRequestError
from shared.services import submissions

# Version 00 of W3C Trace Context; a malformed one is ignored, as the recommendation asks.
_TRACEPARENT = re.compile(r"00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")
_KEY = re.compile(r"[\x20-\x7e]{1,255}")


def request(
    request: Request[Any, Any, Any], body: Submission, slug: str, version: str
) -> submissions.Request:
    """Put a submission together. Raises `BadRequestError` for a malformed key."""
    state, path = request.scope["state"], request.scope["path"]
    key = _idempotency_key(request)
    return submissions.Request(
        slug=slug,
        version=version,
        body=body,
        ends_at=state[LIMIT].ends_at,
        idempotency_key=key,
        fingerprint=None
        if key is None
        else submissions.fingerprint("POST", path, state["document"]),
        traceparent=traceparent(request),
        stores=state[LIMIT].stores,
    )


def traceparent(request: Request[Any, Any, Any]) -> str | None:
    """The caller's trace, if it is spelled right."""
    given = request.headers.get("traceparent", "")
    return given if _TRACEPARENT.fullmatch(given) else None


def _idempotency_key(request: Request[Any, Any, Any]) -> str | None:
    key = request.headers.get("idempotency-key")
    if key is not None and not _KEY.fullmatch(key):
        raise BadRequestError("An Idempotency-Key is 1 to 255 printable ASCII characters.")
    return key
