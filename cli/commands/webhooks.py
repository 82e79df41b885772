"""`runlane webhooks`: endpoints, their secrets, and what was delivered to them."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.commands import asking
from cli.commands.asking import Yes
from cli.commands.options import Json, Key, Url, pairs

if TYPE_CHECKING:
    from cli.client import Client

app = typer.Typer(no_args_is_help=True, help="Webhook endpoints and their deliveries.")

Webhook = Annotated[str, typer.Argument(help="The webhook's id.", metavar="ID")]


@app.command("list")
def list_webhooks(*, url: Url = None, key: Key = None, as_json: Json = False) -> None:
    """List the endpoints of the workspace."""
    from cli import client, webhook_views

    client.run(url, key, lambda api: webhook_views.show_all(api, as_json=as_json))


@app.command("create")
def create_webhook(
    address: Annotated[str, typer.Argument(help="Where to post.", metavar="URL")],
    *,
    environments: Annotated[
        list[str] | None,
        typer.Option("--environment", "-e", help="Only these. Repeat; all if left out."),
    ] = None,
    events: Annotated[
        list[str] | None,
        typer.Option("--event", help="Only these, such as run.failed. Repeat."),
    ] = None,
    layout: Annotated[
        str | None, typer.Option("--format", help="standard, or promptjuggler.")
    ] = None,
    headers: Annotated[
        list[str] | None,
        typer.Option("--header", help="Sent along: name=value, or name=@file. Repeat."),
    ] = None,
    description: Annotated[str | None, typer.Option(help="What it is for.")] = None,
    output_inline: Annotated[
        bool, typer.Option("--output/--no-output", help="Are outputs to stand in the events?")
    ] = True,
    url: Url = None,
    key: Key = None,
    as_json: Json = False,
) -> None:
    """Add an endpoint and print its signing secret."""
    from cli import client, webhook_views

    body = {
        "url": address,
        "environments": environments,
        "events": events,
        "format": layout,
        "headers": pairs(headers, files=True) or None,
        "description": description,
        "includeOutput": output_inline,
    }
    client.run(url, key, lambda api: webhook_views.create(api, body, as_json=as_json))


@app.command("show")
def show_webhook(
    webhook_id: Webhook, *, url: Url = None, key: Key = None, as_json: Json = False
) -> None:
    """Show an endpoint and how it fares; never its secret."""
    from cli import client, webhook_views

    client.run(url, key, lambda api: webhook_views.show(api, webhook_id, as_json=as_json))


@app.command("test")
def ping_webhook(
    webhook_id: Webhook, *, url: Url = None, key: Key = None, as_json: Json = False
) -> None:
    """Send a ping now and say what the endpoint answered; exits with 1 if it did not take it."""
    from cli import client, webhook_views

    client.run(url, key, lambda api: webhook_views.ping(api, webhook_id, as_json=as_json))


@app.command("rotate-secret")
def rotate_secret(
    webhook_id: Webhook,
    *,
    overlap: Annotated[
        int | None,
        typer.Option(
            metavar="SECONDS", help="How long the old secret signs too; 0 ends it at once."
        ),
    ] = None,
    url: Url = None,
    key: Key = None,
    as_json: Json = False,
) -> None:
    """Make a new signing secret and print it."""
    from cli import client, output

    async def work(api: "Client") -> None:
        where = client.path("webhooks", webhook_id, "rotate-secret")
        made = await api.post(where, {"overlapSeconds": overlap})
        if as_json:
            output.json_document(made)
            return
        until = output.moment(made["previousExpiresAt"])
        output.note(f"The old secret signs until {until}." if until else "The old one has ended.")
        print(made["secret"])

    client.run(url, key, work)


@app.command("enable")
def enable_webhook(webhook_id: Webhook, *, url: Url = None, key: Key = None) -> None:
    """Let an endpoint that was disabled or paused take deliveries again."""
    from cli import client, output

    async def work(api: "Client") -> None:
        where = client.path("webhooks", webhook_id, "enable")
        found = await api.post(where, {}, repeatable=True)
        output.note(f"{found['url']} takes deliveries again.")

    client.run(url, key, work)


@app.command("delete")
def delete_webhook(
    webhook_id: Webhook, *, yes: Yes = False, url: Url = None, key: Key = None
) -> None:
    """Remove an endpoint; what was still to be delivered to it is canceled."""
    from cli import client, output

    asking.sure(f"Delete the webhook {webhook_id}?", yes=yes)

    async def work(api: "Client") -> None:
        await api.call("DELETE", client.path("webhooks", webhook_id))
        output.note(f"The webhook {webhook_id} is gone.")

    client.run(url, key, work)


@app.command("deliveries")
def list_deliveries(
    webhook_id: Webhook,
    *,
    statuses: Annotated[
        list[str] | None, typer.Option("--status", help="Such as pending, exhausted. Repeat.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="How many, the newest first.")] = 20,
    url: Url = None,
    key: Key = None,
    as_json: Json = False,
) -> None:
    """List what an endpoint was sent or is to be sent, newest first."""
    from cli import client, webhook_views

    async def work(api: "Client") -> None:
        query = {"status": statuses}
        where = client.path("webhooks", webhook_id, "deliveries")
        rows: list[Any] = []
        async for page in api.pages(where, query, limit):
            rows += page
        webhook_views.show_deliveries(rows, as_json=as_json)

    client.run(url, key, work)


@app.command("resend")
def resend_delivery(
    delivery_id: Annotated[str, typer.Argument(help="The delivery's id.", metavar="DELIVERY")],
    *,
    url: Url = None,
    key: Key = None,
    as_json: Json = False,
) -> None:
    """Send a delivery again, under the same webhook-id."""
    from cli import client, output

    async def work(api: "Client") -> None:
        sent = await api.post(client.path("deliveries", delivery_id, "resend"), {})
        if as_json:
            output.json_document(sent)
        else:
            output.note(f"{sent['type']} is sent to {sent['url']} again.")

    client.run(url, key, work)
