"""`ETag` and `If-Match`: changes that are refused when a thing is not what the caller saw."""

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

# RFC 9110 §8.8.3; a weak tag is well spelled, though it never matches here (§13.1.1).
_TAG = r'(?:W/)?"[!#-~\x80-\xff]*"'
_TAGS = re.compile(rf"{_TAG}(?:[ \t]*,[ \t]*{_TAG})*")


async def provide_expected(
    request: Request[Any, Any, Any],
    principal: NamedDependency[Principal],  # noqa: ARG001 (who may not ask is told so first)
) -> Expected:
    """Read `If-Match`; raises `BadRequestError` where it is neither `*` nor a list of tags."""
    value = request.headers.get("if-match")  # the guard lets no second one in
    if value is None:
        return WHATEVER
    if value == ANYTHING:
        return Expected(frozenset({ANYTHING}))
    if not _TAGS.fullmatch(value):
        raise BadRequestError('If-Match is * or a list of entity tags such as "5f3c9a1e".')
    return Expected(frozenset(re.findall(_TAG, value)))


def tagged(view: View) -> Response[View]:
    """Answer with a thing and the entity tag that `If-Match` can name."""
    return Response(view, headers={"ETag": etag(msgspec.json.encode(view))})
