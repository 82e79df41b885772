"""`runlane keys`: API keys of the workspace that the key in use belongs to."""

from typing import TYPE_CHECKING, Annotated

import typer

from cli.commands import asking
from cli.commands.asking import Yes
from cli.commands.options import Json, Key, Url

if TYPE_CHECKING:
    from cli.client import Client

app = typer.Typer(
    no_args_is_help=True,
    help="API keys of your workspace. (The first one: `runlane workspaces create-key`.)",
)


@app.command("list")
def list_keys(*, url: Url = None, key: Key = None, as_json: Json = False) -> None:
    """List the keys of the workspace, never their texts."""
    from cli import client, listing

    columns = {
        "ID": "id",
        "NAME": "name",
        "SCOPES": "scopes",
        "ENVIRONMENTS": "environments",
        "LAST USED": "lastUsedAt",
        "EXPIRES": "expiresAt",
        "PREFIX": "prefix",
    }
    shown = listing.Shown(columns, as_json=as_json)
    client.run(url, key, lambda api: listing.show(api, client.path("keys"), shown))


@app.command("create")
def create_key(
    name: Annotated[str, typer.Argument(help="What the key is for.")],
    *,
    scopes: Annotated[
        list[str],
        typer.Option("--scope", "-s", help="What it may do, such as runs:write. Repeat."),
    ],
    environments: Annotated[
        list[str] | None,
        typer.Option("--environment", "-e", help="Only there. Repeat; all if left out."),
    ] = None,
    expires: Annotated[
        str | None, typer.Option(help="When it ends: 90d, 12h, or 2027-01-31T00:00:00Z.")
    ] = None,
    url: Url = None,
    key: Key = None,
    as_json: Json = False,
) -> None:
    """Make a key that may do no more than yours, and print it; it is never shown again."""
    from cli import client, moments, output

    _refuse_id(name)
    body = {
        "name": name,
        "scopes": scopes,
        "environments": environments,
        "expiresAt": None if expires is None else moments.ahead(expires),
    }

    async def work(api: "Client") -> None:
        made = await api.post(client.path("keys"), body)
        if as_json:
            output.json_document(made)
            return
        output.note(f"Key {made['id']} for {name}. Keep it: it is not shown again.")
        print(made["key"])

    client.run(url, key, work)


@app.command("revoke")
def revoke_key(
    key_id: Annotated[str, typer.Argument(help="The key's id, as `list` shows it.")],
    *,
    yes: Yes = False,
    url: Url = None,
    key: Key = None,
) -> None:
    """End a key, everywhere within five seconds."""
    from cli import client, output

    asking.sure(f"Revoke the key {key_id}?", yes=yes)

    async def work(api: "Client") -> None:
        await api.call("DELETE", client.path("keys", key_id))
        output.note(f"The key {key_id} ends, everywhere within five seconds.")

    client.run(url, key, work)


def _refuse_id(name: str) -> None:
    """Tell an operator, who has the database and names a workspace, where that command is."""
    from shared.ids import parse

    if parse(name) is not None:
        raise typer.BadParameter(
            "A key is named for what it is for. The operator, who has the database, makes a"
            f" workspace's key with: runlane workspaces create-key {name}"
        )
