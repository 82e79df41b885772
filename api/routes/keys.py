"""API keys of the workspace."""

from litestar import delete, get, post
from litestar.di import NamedDependency
from litestar.params import FromPath, JSONBody

from api.auth import SCOPE
from api.paging import DEPENDENCIES, Asked, Cursors, Listing
from shared.deps import Deps
from shared.services import key_management
from shared.services.key_management import CreatedKey, KeyView, NewKey
from shared.services.keys import Principal

_READ = {SCOPE: "keys:read"}
_WRITE = {SCOPE: "keys:write"}


@post("/keys", opt=_WRITE, summary="Create an API key")
async def create_key(
    data: JSONBody[NewKey], principal: NamedDependency[Principal], deps: NamedDependency[Deps]
) -> CreatedKey:
    """Make a key that may do no more than this one, nor for longer; its text is shown here only.

    A key that expires has to name an `expiresAt`, one limited to environments some of its own.
    """
    return await key_management.create(deps, principal, data)


@get("/keys", opt=_READ, dependencies=DEPENDENCIES, summary="List API keys")
async def list_keys(
    asked: NamedDependency[Asked],
    principal: NamedDependency[Principal],
    deps: NamedDependency[Deps],
) -> Listing[KeyView]:
    """The workspace's keys without their texts, newest first."""
    cursors = Cursors(principal.workspace_id, "keys")
    return asked.listing(cursors, await key_management.listed(deps, principal, asked.page(cursors)))


@delete("/keys/{key_id:str}", opt=_WRITE, summary="Revoke an API key")
async def revoke_key(
    key_id: FromPath[str], principal: NamedDependency[Principal], deps: NamedDependency[Deps]
) -> None:
    """End a key, everywhere within five seconds."""
    await key_management.revoke(deps, principal, key_id)


HANDLERS = [create_key, list_keys, revoke_key]
