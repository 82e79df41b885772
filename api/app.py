"""The web application, put together: routes under `/api/v1`, the deadline, the guard in front."""

import importlib
import pkgutil
from typing import Any

from litestar import Litestar, Router
from litestar.config.app import AppConfig
from litestar.di import Provide
from litestar.types import ASGIApp

from api import auth, errors, requests, routes
from api.deadline import Deadline
from api.guard import Guard, body_rules
from api.requests import StrictRequest
from api.waiters import Waiters
from shared.deps import Deps

BASE_PATH = "/api/v1"
_AT_ROOT = frozenset({"docs", "health"})


def create_app(deps: Deps, waiters: Waiters | None = None) -> ASGIApp:
    """Build the ASGI application over a process's state; whoever gives `waiters` closes them."""
    litestar = create_litestar(deps, waiters)
    inner = Deadline(litestar, deps.settings.request_deadline_s)
    return Guard(inner, body_rules(deps.settings))


def create_litestar(deps: Deps, waiters: Waiters | None = None) -> Litestar:
    """Build the routes alone, as the OpenAPI document sees them."""

    async def provide_deps() -> Deps:
        return deps

    waiting = waiters or Waiters(deps)

    async def provide_waiters() -> Waiters:
        return waiting

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
                    dependencies={"principal": Provide(auth.provide_principal)},
                ),
                *at_root,
            ],
            dependencies={"deps": Provide(provide_deps), "waiters": Provide(provide_waiters)},
            exception_handlers={Exception: errors.handle},
            guards=[requests.known_query],
            request_class=StrictRequest,
            openapi_config=None,  # api/openapi.py writes the document, api/routes/docs.py serves it
            logging_config=None,
            request_max_body_size=None,  # the guard has read it within its limit
        )
    )
