"""`runlane env`: environments and their write-only variables."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.commands import asking
from cli.commands.asking import Yes
from cli.commands.options import Json, Key, Url

if TYPE_CHECKING:
    from cli.client import Client

app = typer.Typer(no_args_is_help=True, help="Environments and their variables.")

Name = Annotated[str, typer.Argument(help="The environment.")]
Variable = Annotated[str, typer.Argument(help="The variable, such as OPENAI_API_KEY.")]


@app.command("list")
def list_environments(*, url: Url = None, key: Key = None, as_json: Json = False) -> None:
    """List the environments that the key may use."""
    from cli import client, listing

    columns = {"NAME": "name", "DEFAULT": "isDefault", "CREATED": "createdAt", "ID": "id"}
    shown = listing.Shown(columns, as_json=as_json)
    client.run(url, key, lambda api: listing.show(api, client.path("environments"), shown))


@app.command("create")
def create_environment(
    name: Name,
    *,
    default: Annotated[
        bool, typer.Option("--default", help="Runs that name no environment go there.")
    ] = False,
    url: Url = None,
    key: Key = None,
    as_json: Json = False,
) -> None:
    """Add an environment."""
    from cli import client, output

    async def work(api: "Client") -> None:
        body = {"name": name, "isDefault": True if default else None}
        made = await api.post(client.path("environments"), body)
        if as_json:
            output.json_document(made)
        else:
            output.fields({"name": made["name"], "id": made["id"]})

    client.run(url, key, work)


@app.command("show")
def show_environment(
    name: Name, *, url: Url = None, key: Key = None, as_json: Json = False
) -> None:
    """Show an environment and its variables, of whose values nobody sees more than the end."""
    from cli import client, listing, output

    async def work(api: "Client") -> None:
        found = await api.get(client.path("environments", name))
        variables: list[Any] = []
        async for page in api.pages(client.path("environments", name, "variables"), {}, None):
            variables += page
        if as_json:
            output.json_document({**found, "variables": variables})
            return
        output.fields(
            {
                "name": found["name"],
                "id": found["id"],
                "default": listing.cell(found["isDefault"]),
                "created": output.moment(found["createdAt"]),
            }
        )
        rows = [
            (one["key"], f"…{one['last4']}", output.moment(one["updatedAt"])) for one in variables
        ]
        output.table(("VARIABLE", "VALUE", "SET"), rows, none="It has no variables.")

    client.run(url, key, work)


@app.command("set")
def set_variable(name: Name, variable: Variable, *, url: Url = None, key: Key = None) -> None:
    """Set a variable; its value is typed unseen, or comes through standard input."""
    import msgspec

    from cli import client, output

    value = asking.secret(f"{variable} for {name}")

    async def work(api: "Client") -> None:
        where = client.path("environments", name, "variables", variable)
        await api.call("PUT", where, body=msgspec.json.encode({"value": value}))
        output.note(f"{variable} is set for {name}.")

    client.run(url, key, work)


@app.command("unset")
def unset_variable(name: Name, variable: Variable, *, url: Url = None, key: Key = None) -> None:
    """Destroy a variable's value."""
    from cli import client, output

    async def work(api: "Client") -> None:
        await api.call("DELETE", client.path("environments", name, "variables", variable))
        output.note(f"{variable} is gone from {name}.")

    client.run(url, key, work)


@app.command("delete")
def delete_environment(name: Name, *, yes: Yes = False, url: Url = None, key: Key = None) -> None:
    """Delete an environment with its variables; refused while runs of it wait or run."""
    from cli import client, output

    asking.sure(f"Delete the environment {name} and its variables?", yes=yes)

    async def work(api: "Client") -> None:
        await api.call("DELETE", client.path("environments", name))
        output.note(f"The environment {name} is gone.")

    client.run(url, key, work)
