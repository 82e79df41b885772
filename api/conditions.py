"""`ETag`, `If-Match`, `If-None-Match`: what is done only to, or unless, what the caller saw."""

import re
from typing import Any, TypeVar

import msgspec
from litestar import Request, Response
from litestar.di import NamedDependency

from shared.domain.preconditions import ANYTHING, WHATEVER, Expected, etag
from shared.errors import BadRequestError
from shared.services.keys import Principal

EXPECTED = "expected"
"""The parameter by which a handler takes what `If-Match` says."""

View = TypeVar("View", bound=msgspec.Struct)

# RFC 9110 §8.8.3
_TAG = r'(?:W/)?"[!#-~\x80-\xff]*"'
_TAGS = re.compile(rf"{_TAG}(?:[ \t]*,[ \t]*{_TAG})*")


async def provide_expected(
    request: Request[Any, Any, Any],
    principal: NamedDependency[Principal],  # noqa: ARG001 (a link of the chain of dependencies)
) -> Expected:
    """Read `If-Match`; raises `BadRequestError` where it is neither `*` nor a list of tags.

    A weak tag is well spelled, though it never matches (§13.1.1).
    """
    tags = _tags(request, "If-Match")
    return WHATEVER if tags is None else Expected(tags)


def known(request: Request[Any, Any, Any], tag: str) -> bool:
    """Whether `If-None-Match` names this state, weakly or not (§13.1.2); `*` names any."""
    tags = _tags(request, "If-None-Match") or frozenset()
    return ANYTHING in tags or tag in {one.removeprefix("W/") for one in tags}


def tagged(view: View) -> Response[View]:
    """Answer with a thing and the entity tag that `If-Match` can name."""
    return Response(view, headers={"ETag": etag(msgspec.json.encode(view))})


def _tags(request: Request[Any, Any, Any], name: str) -> frozenset[str] | None:
    value = request.headers.get(name)  # the guard lets no second one in
    if value is None:
        return None
    if value == ANYTHING:
        return frozenset({ANYTHING})
    if not _TAGS.fullmatch(value):
        raise BadRequestError(f'{name} is * or a list of entity tags such as "5f3c9a1e".')
    return frozenset(re.findall(_TAG, value))
