"""Who is calling: the key of the request, checked against the scope its route asks for."""

from typing import Any

from litestar import Request
from litestar.di import NamedDependency

from shared.deps import Deps
from shared.errors import UnauthorizedError
from shared.services import keys
from shared.services.keys import Principal

SCOPE = "scope"


async def provide_principal(
    request: Request[Any, Any, Any], deps: NamedDependency[Deps]
) -> Principal:
    """Authenticate the request; each route names its scope as `opt={SCOPE: "runs:read"}`."""
    principal = await keys.authenticate(deps, _bearer(request))
    principal.demand(request.route_handler.opt[SCOPE])
    return principal


def _bearer(request: Request[Any, Any, Any]) -> str:
    values = request.headers.getall("authorization", [])
    if len(values) != 1:
        raise UnauthorizedError
    scheme, _, token = values[0].partition(" ")
    if scheme.lower() != "bearer" or not token:
        raise UnauthorizedError
    return token
