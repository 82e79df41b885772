"""Threads: read a conversation, forget it."""

from typing import Annotated
from uuid import UUID

from litestar import Response, delete, get
from litestar.di import NamedDependency
from litestar.params import FromPath, QueryParameter

from api import answers
from api.auth import SCOPE
from api.paging import DEPENDENCIES, Asked, Cursors
from shared import ids
from shared.deps import Deps
from shared.domain.submissions import DEFAULT_CHANNEL
from shared.errors import NotFoundError
from shared.services import threads
from shared.services.keys import Principal
from shared.services.threads import ThreadView

_READ = {SCOPE: "runs:read"}


@get("/threads/{thread_id:str}", opt=_READ, summary="Read a thread")
async def read_thread(
    thread_id: FromPath[str], principal: NamedDependency[Principal], deps: NamedDependency[Deps]
) -> ThreadView:
    """A thread that a run named or remembers in, with its channels and what is live in them."""
    return await threads.read(deps, principal, _thread_id(thread_id))


@get(
    "/threads/{thread_id:str}/messages",
    opt=_READ,
    dependencies=DEPENDENCIES,
    summary="List a thread's messages",
)
async def list_messages(
    thread_id: FromPath[str],
    asked: NamedDependency[Asked],
    principal: NamedDependency[Principal],
    deps: NamedDependency[Deps],
    channel: Annotated[
        str | None, QueryParameter(description="A channel's name; `default` when left out.")
    ] = None,
) -> Response[bytes]:
    """What one channel of a thread remembers, newest first.

    A page ends early where its messages are longer than 1 MiB together.
    """
    found, wanted = _thread_id(thread_id), channel or DEFAULT_CHANNEL
    cursors = Cursors(principal.workspace_id, "messages", found, wanted)
    page = asked.page(cursors)
    messages = await threads.messages(deps, principal, found, wanted, page)
    listing = asked.listing(cursors, messages)
    body = {
        "data": [message.json for message in listing.data],
        "hasMore": listing.has_more,
        "nextCursor": listing.next_cursor,
    }
    return answers.document(body)


@delete("/threads/{thread_id:str}", opt={SCOPE: "runs:write"}, summary="Delete a thread")
async def delete_thread(
    thread_id: FromPath[str], principal: NamedDependency[Principal], deps: NamedDependency[Deps]
) -> None:
    """Erase every message of a thread; a run that names it again begins it anew.

    Its runs stay readable: their own messages and their output, without the history before them.
    While runs that touch its memory wait or run, it is refused.
    """
    await threads.delete(deps, principal, _thread_id(thread_id))


def _thread_id(text: str) -> UUID:
    found = ids.parse(text)
    if found is None:
        raise NotFoundError
    return found


HANDLERS = [read_thread, list_messages, delete_thread]
