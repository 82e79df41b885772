"""The feed of events."""

import struct
from typing import Annotated
from uuid import UUID

from litestar import Response, get
from litestar.di import NamedDependency
from litestar.params import QueryParameter

from api import answers
from api.auth import SCOPE
from api.paging import FORWARD, Asked, Cursors, not_ours
from shared.deps import Deps
from shared.services import events
from shared.services.keys import Principal
from shared.store.events import Position

NOW = "now"
_PLACE = struct.Struct(">Q16s")


@get(
    "/events",
    opt={SCOPE: "runs:read"},
    dependencies=FORWARD,
    summary="Follow the events",
)
async def list_events(
    asked: NamedDependency[Asked],
    principal: NamedDependency[Principal],
    deps: NamedDependency[Deps],
    environment: Annotated[
        str | None, QueryParameter(description="Only events of this environment.")
    ] = None,
) -> Response[bytes]:
    """Every event in an order that never changes, oldest first, with the ids webhooks have.

    Ask again with `after` set to `nextCursor`, which is always there: nothing is skipped and
    nothing comes twice. `after=now` begins behind all that is there.
    """
    seen = await events.visible(deps, principal, environment)
    cursors = Cursors(principal.workspace_id, "events", *seen)
    if asked.after == NOW:
        page = await events.end(deps)
    else:
        after = None if asked.after is None else _read(cursors.position(asked.after))
        page = await events.page(deps, principal, seen, after, asked.limit)
    body = {
        "data": page.bodies,
        "hasMore": page.more,
        "nextCursor": cursors.cursor(_write(page.end)),
    }
    return answers.document(body)


def _write(position: Position) -> bytes:
    return _PLACE.pack(position.tx, position.id.bytes) + position.epoch.encode()


def _read(place: bytes) -> Position:
    try:
        tx, event_id = _PLACE.unpack_from(place)
        return Position(place[_PLACE.size :].decode(), tx, UUID(bytes=event_id))
    except (struct.error, UnicodeDecodeError) as error:
        raise not_ours() from error


HANDLERS = [list_events]
