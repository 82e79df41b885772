"""Answers that a handler writes itself: a document, or JSON that a service has written already."""

from collections.abc import Mapping

import msgspec
from litestar import Response
from litestar.status_codes import HTTP_200_OK

MEDIA_TYPE = "application/json"


def document(
    body: object, status_code: int = HTTP_200_OK, headers: Mapping[str, str] | None = None
) -> Response[bytes]:
    """Answer with anything that msgspec can encode."""
    return written(msgspec.json.encode(body), status_code, headers)


def written(
    body: bytes, status_code: int = HTTP_200_OK, headers: Mapping[str, str] | None = None
) -> Response[bytes]:
    """Answer with JSON as it is."""
    return Response(body, media_type=MEDIA_TYPE, status_code=status_code, headers=headers)
