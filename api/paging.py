"""Lists over HTTP: `limit`, `after`, `before`, and cursors that fit one list only."""

import base64
import hashlib
import re
from collections.abc import Callable, Sequence
from typing import Annotated, Generic, Protocol, TypeVar
from uuid import UUID

import msgspec
from litestar.di import NamedDependency, Provide
from litestar.params import QueryParameter

from shared.domain.paging import Page, Slice
from shared.errors import BadRequestError, Flaw, InvalidCursorError
from shared.services.keys import Principal

DEFAULT_LIMIT = 20
MAX_LIMIT = 100

_LIMIT = re.compile(r"[1-9][0-9]{0,2}")
_TAG_BYTES = 12
_UUID_BYTES = 16
_MAX_CURSOR = 512


class HasId(Protocol):
    """Something shown in a list that is ordered by its id."""

    @property
    def id(self) -> str:
        """A UUID in its canonical form."""
        ...


View = TypeVar("View")
IdView = TypeVar("IdView", bound=HasId)


class Listing(msgspec.Struct, Generic[View], frozen=True, rename="camel"):
    """One page. `nextCursor` goes on in the same direction: as `after`, or `before` if given."""

    data: Sequence[View]
    has_more: bool
    next_cursor: str | None


class Cursors:
    """What a cursor is bound to: one list of one workspace, with its filters.

    A cursor is no secret and protects nothing: the tag only keeps it from being used elsewhere,
    where its position would mean something else.
    """

    def __init__(self, workspace_id: UUID, name: str, *filters: object) -> None:
        self._bound = msgspec.json.encode([str(workspace_id), name, *map(str, filters)])

    def cursor(self, position: bytes) -> str:
        """Write a position as a cursor of this list."""
        return base64.urlsafe_b64encode(self._tag(position) + position).decode().rstrip("=")

    def position(self, cursor: str) -> bytes:
        """Read a cursor; raises `InvalidCursorError` unless it was made for this very list."""
        position = _decoded(cursor)[_TAG_BYTES:]
        if not position or self.cursor(position) != cursor:
            raise not_ours()
        return position

    def _tag(self, position: bytes) -> bytes:
        return hashlib.sha256(self._bound + position).digest()[:_TAG_BYTES]


class Asked(msgspec.Struct, frozen=True):
    """Which page a request asks for, its cursors still unread."""

    limit: int = DEFAULT_LIMIT
    after: str | None = None
    before: str | None = None

    def page(self, cursors: Cursors) -> Page:
        """Read the cursors of a list that is ordered by ids."""
        return Page(self.limit, _id_at(cursors, self.after), _id_at(cursors, self.before))

    def listing(self, cursors: Cursors, found: Slice[IdView]) -> Listing[IdView]:
        """Show a page that the store cut."""
        cursor = None
        if found.more:
            edge = found.rows[-1] if self.before is None else found.rows[0]
            cursor = cursors.cursor(UUID(edge.id).bytes)
        return Listing(found.rows, found.more, cursor)

    def cut(
        self, cursors: Cursors, views: Sequence[View], name_of: Callable[[View], str]
    ) -> Listing[View]:
        """Show a page of a short list that is there as a whole, ordered by unique names."""
        names = [name_of(view) for view in views]
        first, end = 0, len(views)
        if self.after is not None:
            after = _name_at(cursors, self.after)
            first = sum(name <= after for name in names)
        if self.before is not None:
            before = _name_at(cursors, self.before)
            end = sum(name < before for name in names)
            first = max(end - self.limit, 0)
            more, edge = first > 0, first
        else:
            end = min(first + self.limit, end)
            more, edge = end < len(views), end - 1
        cursor = cursors.cursor(names[edge].encode()) if more else None
        return Listing(views[first:end], more, cursor)


LimitQuery = Annotated[
    str | None,
    QueryParameter(
        description="How many to show.",
        schema_extra={
            "one_of": None,  # of a text or null: what Litestar reads from the annotation
            "type": "integer",
            "minimum": 1,
            "maximum": MAX_LIMIT,
            "default": DEFAULT_LIMIT,
        },
    ),
]


async def provide_asked(
    principal: NamedDependency[Principal],  # noqa: ARG001 (a link of the chain of dependencies)
    limit: LimitQuery = None,
    after: Annotated[str | None, QueryParameter(description="A cursor: go on behind it.")] = None,
    before: Annotated[str | None, QueryParameter(description="A cursor: go back from it.")] = None,
) -> Asked:
    """Litestar dependency: read a list's query. Raises `BadRequestError`."""
    if after is not None and before is not None:
        raise BadRequestError("Give after or before, not both.")
    if limit is None:
        return Asked(after=after, before=before)
    if not _LIMIT.fullmatch(limit) or int(limit) > MAX_LIMIT:
        message = f"limit is a number from 1 to {MAX_LIMIT}."
        raise BadRequestError(message, flaws=[Flaw("", message)])
    return Asked(int(limit), after, before)


async def provide_forward(
    principal: NamedDependency[Principal],
    limit: LimitQuery = None,
    after: Annotated[
        str | None,
        QueryParameter(description="A cursor: go on behind it. `now`: behind all that is there."),
    ] = None,
) -> Asked:
    """Litestar dependency: read the query of a feed, which goes one way."""
    return await provide_asked(principal, limit, after)


DEPENDENCIES = {"asked": Provide(provide_asked)}
"""For handlers of lists: `dependencies=paging.DEPENDENCIES`, then `asked` as a parameter."""

FORWARD = {"asked": Provide(provide_forward)}
"""The same for feeds."""


def _id_at(cursors: Cursors, cursor: str | None) -> UUID | None:
    if cursor is None:
        return None
    position = cursors.position(cursor)
    if len(position) != _UUID_BYTES:
        raise not_ours()
    return UUID(bytes=position)


def _name_at(cursors: Cursors, cursor: str) -> str:
    try:
        return cursors.position(cursor).decode()
    except UnicodeDecodeError as error:
        raise not_ours() from error


def _decoded(cursor: str) -> bytes:
    if len(cursor) > _MAX_CURSOR:
        raise not_ours()
    try:
        return base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))
    except ValueError as error:
        raise not_ours() from error


def not_ours() -> InvalidCursorError:
    """The error for a cursor that does not fit its list."""
    return InvalidCursorError("This cursor does not belong to this list.")
