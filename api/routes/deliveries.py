"""Deliveries to webhooks: what was sent, again by hand, and what was missed."""

from typing import Annotated

from litestar import Response, get, post
from litestar.di import NamedDependency
from litestar.params import FromPath, JSONBody, QueryParameter
from litestar.status_codes import HTTP_200_OK, HTTP_202_ACCEPTED

from api import answers
from api.auth import SCOPE
from api.paging import DEPENDENCIES, Asked, Cursors
from api.requests import NoFields
from shared.deps import Deps
from shared.domain.recovery import Window
from shared.domain.states import DeliveryStatus
from shared.errors import BadRequestError, Flaw
from shared.services import deliveries
from shared.services.deliveries import Recovered
from shared.services.keys import Principal

_READ = {SCOPE: "webhooks:read"}
_WRITE = {SCOPE: "webhooks:write"}


@get(
    "/webhooks/{webhook_id:str}/deliveries",
    opt=_READ,
    dependencies=DEPENDENCIES,
    summary="List a webhook's deliveries",
)
async def list_webhook_deliveries(
    webhook_id: FromPath[str],
    asked: NamedDependency[Asked],
    principal: NamedDependency[Principal],
    deps: NamedDependency[Deps],
    status: Annotated[
        list[str] | None,
        QueryParameter(description=f"May repeat: {', '.join(DeliveryStatus)}."),
    ] = None,
) -> Response[bytes]:
    """What this endpoint was sent or is to be sent, newest first, each with its last attempt."""
    wanted = sorted(set(status or ()))
    if not {*DeliveryStatus}.issuperset(wanted):
        message = f"A delivery's status is one of {', '.join(DeliveryStatus)}."
        raise BadRequestError(message, flaws=[Flaw("", message)])
    cursors = Cursors(principal.workspace_id, "deliveries", webhook_id, *wanted)
    page = asked.page(cursors)
    found = await deliveries.of_endpoint(deps, principal, webhook_id, wanted, page)
    listing = asked.listing(cursors, found)
    body = {
        "data": [delivery.json for delivery in listing.data],
        "hasMore": listing.has_more,
        "nextCursor": listing.next_cursor,
    }
    return answers.document(body)


@get("/deliveries/{delivery_id:str}", opt=_READ, summary="Read a delivery")
async def read_delivery(
    delivery_id: FromPath[str], principal: NamedDependency[Principal], deps: NamedDependency[Deps]
) -> Response[bytes]:
    """One event's way to one endpoint, with every attempt."""
    return answers.document(await deliveries.get(deps, principal, delivery_id))


@post(
    "/deliveries/{delivery_id:str}/resend",
    status_code=HTTP_202_ACCEPTED,
    opt=_WRITE,
    summary="Send a delivery again",
)
async def resend_delivery(
    delivery_id: FromPath[str],
    data: JSONBody[NoFields],  # noqa: ARG001 (decoded to be refused)
    principal: NamedDependency[Principal],
    deps: NamedDependency[Deps],
) -> Response[bytes]:
    """Send it now, and with the whole schedule, under the same `webhook-id`."""
    sent = await deliveries.resend(deps, principal, delivery_id)
    return answers.document(sent, HTTP_202_ACCEPTED)


@post(
    "/webhooks/{webhook_id:str}/test",
    status_code=HTTP_202_ACCEPTED,
    opt=_WRITE,
    summary="Test a webhook",
)
async def test_webhook(
    webhook_id: FromPath[str],
    data: JSONBody[NoFields],  # noqa: ARG001 (decoded to be refused)
    principal: NamedDependency[Principal],
    deps: NamedDependency[Deps],
) -> Response[bytes]:
    """Send it a `ping`, whatever events it wants, at most five a minute; answers the delivery."""
    return answers.document(await deliveries.ping(deps, principal, webhook_id), HTTP_202_ACCEPTED)


@post(
    "/webhooks/{webhook_id:str}/recover",
    status_code=HTTP_200_OK,
    opt=_WRITE,
    summary="Send again what was missed",
)
async def recover_webhook(
    webhook_id: FromPath[str],
    data: JSONBody[Window],
    principal: NamedDependency[Principal],
    deps: NamedDependency[Deps],
) -> Recovered:
    """Send what ended `exhausted` or `canceled`, and what came while the endpoint was disabled.

    At most 14 days back and 10,000 events a request, oldest first, under unchanged `webhook-id`s.
    With `continueFrom` in the answer there may be more: ask again, `since` that moment. A request
    that was cut off can simply be repeated.
    """
    return await deliveries.recover(deps, principal, webhook_id, data)


HANDLERS = [
    list_webhook_deliveries,
    read_delivery,
    resend_delivery,
    test_webhook,
    recover_webhook,
]
