"""Webhook endpoints and their secrets."""

from litestar import Response, delete, get, patch, post
from litestar.di import NamedDependency
from litestar.params import FromPath, JSONBody
from litestar.status_codes import HTTP_200_OK

from api.auth import SCOPE
from api.conditions import tagged
from api.paging import DEPENDENCIES, Asked, Cursors, Listing
from api.requests import NoFields
from shared.deps import Deps
from shared.domain.preconditions import Expected
from shared.services import webhooks
from shared.services.keys import Principal
from shared.services.webhooks import (
    CreatedWebhook,
    NewWebhook,
    RotatedSecret,
    Rotation,
    SecretView,
    WebhookChange,
    WebhookView,
)

_READ = {SCOPE: "webhooks:read"}
_WRITE = {SCOPE: "webhooks:write"}


@post("/webhooks", opt=_WRITE, summary="Create a webhook")
async def create_webhook(
    data: JSONBody[NewWebhook], principal: NamedDependency[Principal], deps: NamedDependency[Deps]
) -> CreatedWebhook:
    """Add an endpoint; this answer shows its signing secret, later ones do not."""
    return await webhooks.create(deps, principal, data)


@get("/webhooks", opt=_READ, dependencies=DEPENDENCIES, summary="List webhooks")
async def list_webhooks(
    asked: NamedDependency[Asked],
    principal: NamedDependency[Principal],
    deps: NamedDependency[Deps],
) -> Listing[WebhookView]:
    """The workspace's endpoints, newest first."""
    cursors = Cursors(principal.workspace_id, "webhooks")
    return asked.listing(cursors, await webhooks.listed(deps, principal, asked.page(cursors)))


@get("/webhooks/{webhook_id:str}", opt=_READ, summary="Read a webhook")
async def read_webhook(
    webhook_id: FromPath[str], principal: NamedDependency[Principal], deps: NamedDependency[Deps]
) -> Response[WebhookView]:
    """An endpoint without its secret; of its headers, the names."""
    return tagged(await webhooks.get(deps, principal, webhook_id))


@get("/webhooks/{webhook_id:str}/secret", opt=_WRITE, summary="Read a webhook's secret")
async def read_secret(
    webhook_id: FromPath[str], principal: NamedDependency[Principal], deps: NamedDependency[Deps]
) -> SecretView:
    """The newest signing secret; who asks is logged."""
    return await webhooks.secret(deps, principal, webhook_id)


@patch("/webhooks/{webhook_id:str}", opt=_WRITE, summary="Change a webhook")
async def change_webhook(
    webhook_id: FromPath[str],
    data: JSONBody[WebhookChange],
    expected: NamedDependency[Expected],
    principal: NamedDependency[Principal],
    deps: NamedDependency[Deps],
) -> Response[WebhookView]:
    """Change what is given; lists and headers are replaced as a whole."""
    return tagged(await webhooks.change(deps, principal, webhook_id, data, expected))


@delete("/webhooks/{webhook_id:str}", opt=_WRITE, summary="Delete a webhook")
async def delete_webhook(
    webhook_id: FromPath[str], principal: NamedDependency[Principal], deps: NamedDependency[Deps]
) -> None:
    """Remove an endpoint; what was still to be delivered to it is canceled."""
    await webhooks.delete(deps, principal, webhook_id)


@post(
    "/webhooks/{webhook_id:str}/rotate-secret",
    status_code=HTTP_200_OK,
    opt=_WRITE,
    summary="Rotate a webhook's secret",
)
async def rotate_secret(
    webhook_id: FromPath[str],
    data: JSONBody[Rotation],
    principal: NamedDependency[Principal],
    deps: NamedDependency[Deps],
) -> RotatedSecret:
    """Make a new signing secret; until the overlap ends, deliveries carry both signatures.

    Endpoints with `format: promptjuggler` are signed with the old one until then.
    """
    return await webhooks.rotate(deps, principal, webhook_id, data)


@post(
    "/webhooks/{webhook_id:str}/enable",
    status_code=HTTP_200_OK,
    opt=_WRITE,
    summary="Enable a webhook",
)
async def enable_webhook(
    webhook_id: FromPath[str],
    data: JSONBody[NoFields],  # noqa: ARG001 (decoded to be refused)
    principal: NamedDependency[Principal],
    deps: NamedDependency[Deps],
) -> WebhookView:
    """Let a disabled endpoint take deliveries again; `recover` sends what it missed."""
    return await webhooks.enable(deps, principal, webhook_id)


HANDLERS = [
    create_webhook,
    list_webhooks,
    read_webhook,
    read_secret,
    change_webhook,
    delete_webhook,
    rotate_secret,
    enable_webhook,
]
