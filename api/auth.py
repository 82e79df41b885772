"""Who is calling: the key of the request, checked against the scope its route asks for."""

from typing import Any

from litestar import Request
from litestar.connection import ASGIConnection
from litestar.di import NamedDependency
from litestar.handlers import BaseRouteHandler

from api.addresses import client_address
from api.guard import ADDED
from api.rates import COUNTS, Counts, Limiter
from shared.deps import Deps
from shared.errors import UnauthorizedError
from shared.services import keys
from shared.services.keys import Principal

SCOPE = "scope"
_OPTIONS = "options_handler"
_PRINCIPAL = "principal"


async def demand_scope(
    connection: ASGIConnection[Any, Any, Any, Any], handler: BaseRouteHandler
) -> None:
    """Litestar guard: let nobody in without the scope that the route names in its `opt`.

    A guard and not a dependency: those come after query and body have been judged, and who may not
    call a route is not to be told what it takes.
    """
    if handler.handler_name == _OPTIONS:
        return  # Litestar's own: it names the methods, as a 405 does
    state = connection.scope["state"]
    deps: Deps = state["deps"]
    limiter: Limiter = state["limiter"]
    principal = await _let_in(connection, deps, limiter)
    counts = handler.opt.get(COUNTS, Counts.REQUEST)
    state[ADDED] = await limiter.spend(str(principal.key_id), counts, state.get("document"))
    principal.demand(handler.opt[SCOPE])
    state[_PRINCIPAL] = principal


async def provide_principal(
    request: Request[Any, Any, Any],
    deps: NamedDependency[Deps],  # noqa: ARG001 (one after another: see `create_litestar`)
) -> Principal:
    """Litestar dependency: who was let in."""
    principal: Principal = request.scope["state"][_PRINCIPAL]
    return principal


async def _let_in(
    connection: ASGIConnection[Any, Any, Any, Any], deps: Deps, limiter: Limiter
) -> Principal:
    """Tell who is calling; from an address with too many bad keys only keys known to be good."""
    address = client_address(connection.scope, deps.settings.trusted_proxies)
    refusal = limiter.refusal(address)
    try:
        token = _bearer(connection)
        if refusal is not None and not keys.was_good(deps, token):
            raise refusal
        return await keys.authenticate(deps, token)
    except UnauthorizedError:
        if refusal is not None:
            raise refusal from None
        await limiter.failed(address)
        raise


def _bearer(connection: ASGIConnection[Any, Any, Any, Any]) -> str:
    values = connection.headers.getall("authorization", [])
    if len(values) != 1:
        raise UnauthorizedError
    scheme, _, token = values[0].partition(" ")
    if scheme.lower() != "bearer" or not token:
        raise UnauthorizedError
    return token
