"""The API's own documentation: the OpenAPI document, and the pages made from it. No key needed."""

from importlib.resources import files
from typing import Any, NamedTuple

import msgspec
from litestar import Litestar, Request, Response, get
from litestar.params import FromPath

from api import openapi, pages
from shared.errors import NotFoundError

CONTENT_SECURITY_POLICY = (
    "default-src 'none'; style-src 'self'; script-src 'self'; img-src data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HTML = "text/html"
_HEADERS = {
    "Cache-Control": "public, max-age=300",
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
_STATIC = files("api").joinpath("static")
_ASSETS = {
    "docs.css": ("text/css", _STATIC.joinpath("docs.css").read_bytes()),
    "docs.js": ("text/javascript", _STATIC.joinpath("docs.js").read_bytes()),
}


class _Written(NamedTuple):
    """What is written once for each application."""

    document: bytes
    reference: bytes


@get(["/openapi.json", "/api/v1/openapi.json"], include_in_schema=False)
async def read_openapi(request: Request[Any, Any, Any]) -> Response[bytes]:
    """This API as an OpenAPI 3.1 document."""
    return _answer(_written(request.app).document, "application/json")


@get("/docs", include_in_schema=False)
async def read_reference(request: Request[Any, Any, Any]) -> Response[bytes]:
    """Every endpoint with its parameters, bodies, examples and a line to try."""
    return _answer(_written(request.app).reference, _HTML)


@get("/docs/errors", include_in_schema=False)
async def read_errors() -> Response[bytes]:
    """Every error code, each under an anchor of its name."""
    return _answer(_ERRORS, _HTML)


@get("/docs/{asset:str}", include_in_schema=False)
async def read_asset(asset: FromPath[str]) -> Response[bytes]:
    """The pages' style sheet and script."""
    if asset not in _ASSETS:
        raise NotFoundError
    media_type, content = _ASSETS[asset]
    return _answer(content, media_type)


def _written(app: Litestar) -> _Written:
    written: _Written | None = app.state.get("written_docs")
    if written is None:
        document = openapi.document(app)
        written = _Written(msgspec.json.encode(document), pages.reference(document))
        app.state["written_docs"] = written
    return written


def _answer(content: bytes, media_type: str) -> Response[bytes]:
    return Response(content, media_type=media_type, headers=_HEADERS)


_ERRORS = pages.error_list()

HANDLERS = [read_openapi, read_reference, read_errors, read_asset]
