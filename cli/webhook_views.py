"""Webhooks and deliveries as a person looks at them."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from cli import output
from cli.client import Client, CommandError, path

PING_S = 20.0
_POLL_S = 0.25


async def show_all(api: Client, *, as_json: bool) -> None:
    """Print every endpoint on a line."""
    rows: list[Any] = []
    async for page in api.pages(path("webhooks"), {}, None):
        rows += page
    if as_json:
        output.json_lines(rows)
        return
    cells = [
        (row["id"], _state(row), row["url"], row["environments"] or "all", row["events"] or "all")
        for row in rows
    ]
    output.table(("ID", "STATE", "URL", "ENVIRONMENTS", "EVENTS"), cells)


async def create(api: Client, body: Mapping[str, object], *, as_json: bool) -> None:
    """Add an endpoint and print what its owner has to note."""
    made = await api.post(path("webhooks"), body)
    if as_json:
        output.json_document(made)
    else:
        output.fields({"id": made["id"], "url": made["url"], "secret": made["secret"]})


async def show(api: Client, webhook_id: str, *, as_json: bool) -> None:
    """Print one endpoint, a field on a line."""
    found = await api.get(path("webhooks", webhook_id))
    if as_json:
        output.json_document(found)
        return
    output.fields(
        {
            "id": found["id"],
            "url": found["url"],
            "state": _state(found),
            "disabled": found["disabledReason"],
            "paused until": output.moment(found["pausedUntil"]),
            "environments": found["environments"] or "all",
            "events": found["events"] or "all",
            "format": found["format"],
            "headers": found["headers"] or None,
            "output": "inline" if found["includeOutput"] else "left out",
            "description": found["description"] or None,
            "created": output.moment(found["createdAt"]),
        }
    )


async def ping(api: Client, webhook_id: str, *, as_json: bool) -> None:
    """Send a ping and wait for its first attempt. Raises `CommandError` where it failed."""
    delivery = await api.post(path("webhooks", webhook_id, "test"), {})
    clock = asyncio.get_running_loop()
    end_s = clock.time() + PING_S
    while not delivery["attempts"] and delivery["status"] == "pending" and clock.time() < end_s:
        await asyncio.sleep(_POLL_S)
        delivery = await api.get(path("deliveries", delivery["id"]))
    if as_json:
        output.json_document(delivery)
    where = delivery["url"]
    if not delivery["attempts"]:
        raise CommandError(f"Nothing was sent to {where} yet: is a worker running?")
    said = attempt_text(delivery["attempts"][-1])
    if delivery["status"] != "succeeded":
        raise CommandError(f"{where} did not take the ping: {said}.")
    if not as_json:
        print(f"{where}: {said}", flush=True)


def show_deliveries(rows: Sequence[Any], *, as_json: bool) -> None:
    """Print deliveries, one on a line, each with its last attempt."""
    if as_json:
        output.json_lines(rows)
        return
    cells = [
        (
            row["id"],
            row["status"],
            row["type"],
            attempt_text(row["lastAttempt"]) if row["lastAttempt"] else "not sent yet",
            output.moment(row["createdAt"]),
            row["run"],
        )
        for row in rows
    ]
    output.table(("ID", "STATUS", "EVENT", "LAST ATTEMPT", "CREATED", "RUN"), cells)


def attempt_text(attempt: Any) -> str:
    """Say in a few words what came of an attempt."""
    took = f"in {attempt['durationMs']} ms"
    if attempt["status"] is not None:
        return f"{attempt['status']} {took}"
    return f"{(attempt['excerpt'] or attempt['outcome']).removesuffix('.')}, {took}"


def _state(webhook: Any) -> str:
    if webhook["disabledAt"] is not None:
        return "disabled"
    return "paused" if webhook["pausedUntil"] is not None else "on"
