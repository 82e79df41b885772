"""What Litestar is told about requests: bodies are decoded strictly, queries hold known names."""

from collections.abc import Collection
from functools import lru_cache
from typing import Any
from urllib.parse import parse_qsl

import msgspec
from litestar import Request
from litestar.connection import ASGIConnection
from litestar.handlers import BaseRouteHandler

from shared.errors import BadRequestError, Flaw

QUERY_FAMILIES = "query_families"


class NoFields(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of a request that says all in its address: `{}`, or none at all."""


class StrictRequest(Request[Any, Any, Any]):
    """Decodes a body straight into the type its handler declares: `data: JSONBody[Submission]`.

    Litestar's own way converts leniently, so that `"1"` would pass for an integer; an instance of
    the declared type passes its conversion untouched. Raises `msgspec.ValidationError`.
    """

    async def body(self) -> bytes:
        """Read what a handler needs; raises `BadRequestError` when nothing was sent."""
        body = await super().body()
        if not body:
            raise BadRequestError("The body is empty; send a JSON object.", code="empty_body")
        return body

    async def json(self) -> Any:
        field = self.route_handler.parsed_data_field
        declared = Any if field is None else field.annotation
        return _decoder(declared).decode(await self.body())


async def known_query(
    connection: ASGIConnection[Any, Any, Any, Any], handler: BaseRouteHandler
) -> None:
    """Litestar guard: refuse query parameters the handler does not declare, and repeated ones.

    Parameters declared as lists may repeat. `opt={QUERY_FAMILIES: ("metadata",)}` allows
    `metadata[…]=value` with any key, each key once. Asynchronous, or it would cost a thread.
    """
    query = connection.scope["query_string"]
    if query:
        allowed, repeatable = _declared(handler, tuple(connection.scope["path_params"]))
        check_query(query, allowed, repeatable, handler.opt.get(QUERY_FAMILIES, ()))


def check_query(
    query: bytes,
    allowed: Collection[str],
    repeatable: Collection[str] = (),
    families: Collection[str] = (),
) -> None:
    """Raise `BadRequestError` naming the first parameter that is unknown or wrongly repeated."""
    seen: set[str] = set()
    for name, _ in parse_qsl(query.decode(), keep_blank_values=True):
        if name not in allowed and not _in_family(name, families):
            raise _bad_parameter(name, "is unknown here")
        if name in seen and name not in repeatable:
            raise _bad_parameter(name, "may be given once only")
        seen.add(name)


@lru_cache(maxsize=1024)
def _decoder(declared: Any) -> msgspec.json.Decoder[Any]:
    return msgspec.json.Decoder(declared)


@lru_cache(maxsize=1024)
def _declared(
    handler: BaseRouteHandler, path_names: tuple[str, ...]
) -> tuple[frozenset[str], frozenset[str]]:
    model = handler.create_kwargs_model(path_parameters=dict.fromkeys(path_names))  # type: ignore[arg-type]  # only the names are read
    return (
        frozenset(parameter.field_alias for parameter in model.expected_query_params),
        frozenset(model.sequence_query_parameter_names),
    )


def _in_family(name: str, families: Collection[str]) -> bool:
    family, bracket, key = name.partition("[")
    return bool(bracket) and family in families and key.endswith("]")


def _bad_parameter(name: str, message: str) -> BadRequestError:
    return BadRequestError(
        f"The query parameter '{name[:100]}' {message}.",
        flaws=[Flaw("", f"'{name[:100]}' {message}")],
    )
