"""Clients with other keys than the tenant's admin key."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

import httpx

from api.app import create_app
from shared.deps import Deps


@asynccontextmanager
async def client_with(deps: Deps, key: str) -> AsyncIterator[httpx.AsyncClient]:
    """The API as the holder of a key sees it."""
    app = cast("Any", create_app(deps))  # two libraries' names for the same protocol
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app),
        base_url="http://runlane.test/api/v1",
        headers={"Authorization": f"Bearer {key}"},
    ) as client:
        yield client


def problem(response: httpx.Response) -> tuple[int, str, list[str]]:
    """What a client acts on: status, code and pointers."""
    body = response.json()
    return response.status_code, body["code"], [flaw["pointer"] for flaw in body["errors"]]


def without_request_id(response: httpx.Response) -> dict[str, object]:
    """A problem's body as it is for everybody who asks the same."""
    return {name: value for name, value in response.json().items() if name != "requestId"}
