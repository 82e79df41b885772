"""The web application, put together: routes under `/api/v1`, the deadline, the guard in front."""

import importlib
import pkgutil
from functools import cache
from typing import Any

from litestar import Litestar, Request, Response, Router
from litestar.config.app import AppConfig
from litestar.di import NamedDependency, Provide
from litestar.status_codes import HTTP_204_NO_CONTENT
from litestar.types import ASGIApp, Receive, Scope, Send

from api import auth, conditions, errors, requests, routes
from api.deadline import Deadline
from api.guard import Guard, body_rules
from api.rates import Limiter
from api.requests import StrictRequest
from api.waiters import Waiters
from api.watching import Watched, carry
from shared.deps import Deps
from shared.services.keys import Principal

BASE_PATH = "/api/v1"
_AT_ROOT = frozenset({"docs", "health"})


def create_app(
    deps: Deps, waiters: Waiters | None = None, limiter: Limiter | None = None
) -> ASGIApp:
    """Build the ASGI application over a process's state; whoever gives more than that closes it."""
    litestar = create_litestar()
    state = {
        "deps": deps,
        "waiters": waiters or Waiters(deps),
        "limiter": limiter or Limiter(deps),
    }

    async def with_state(scope: Scope, receive: Receive, send: Send) -> None:
        scope.setdefault("state", {}).update(state)
        carry(scope)
        await litestar(scope, receive, send)

    inner = Deadline(with_state, deps.settings.request_deadline_s)
    return Watched(Guard(inner, body_rules(deps.settings)))


@cache
def create_litestar() -> Litestar:
    """Build the routes alone, once; each request brings the state that it is answered from.

    Dependencies form a chain. Those that do not depend on each other are resolved in a task group,
    which takes longer than all the rest of a request's way to its handler.
    """
    modules = {
        module.name: importlib.import_module(f"{routes.__name__}.{module.name}")
        for module in pkgutil.iter_modules(routes.__path__)
    }
    versioned: list[Any] = []
    at_root: list[Any] = []
    for name, module in sorted(modules.items()):
        (at_root if name in _AT_ROOT else versioned).extend(module.HANDLERS)
    return Litestar.from_config(
        AppConfig(
            route_handlers=[
                Router(
                    BASE_PATH,
                    route_handlers=versioned,
                    guards=[auth.demand_scope, requests.known_query],
                    dependencies={
                        "principal": Provide(auth.provide_principal),
                        "waiters": Provide(_provide_waiters),
                        conditions.EXPECTED: Provide(conditions.provide_expected),
                    },
                ),
                Router("/", route_handlers=at_root, guards=[requests.known_query]),
            ],
            dependencies={"deps": Provide(_provide_deps)},
            before_request=_name_methods,
            exception_handlers={Exception: errors.handle},
            request_class=StrictRequest,
            openapi_config=None,  # api/openapi.py writes the document, api/routes/docs.py serves it
            logging_config=None,
            request_max_body_size=None,  # the guard has read it within its limit
        )
    )


async def _name_methods(request: Request[Any, Any, Any]) -> Response[None] | None:
    """Answer OPTIONS; Litestar's own answer knows only the method that was declared first."""
    if request.method != "OPTIONS":
        return None
    template = request.scope["path_template"]
    methods = next(one.methods for one in request.app.routes if one.path_format == template)
    headers = {"Allow": ", ".join(sorted(methods))}
    return Response(None, status_code=HTTP_204_NO_CONTENT, headers=headers)


async def _provide_deps(scope: Scope) -> Deps:
    deps: Deps = scope["state"]["deps"]
    return deps


async def _provide_waiters(
    scope: Scope,
    principal: NamedDependency[Principal],  # noqa: ARG001 (a link of the chain)
) -> Waiters:
    waiters: Waiters = scope["state"]["waiters"]
    return waiters
