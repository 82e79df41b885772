"""`runlane pins`: which versions environments run."""

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.commands.options import Json, Key, Url

if TYPE_CHECKING:
    from cli.client import Client

app = typer.Typer(no_args_is_help=True, help="Which versions of prompts environments run.")

Environment = Annotated[str, typer.Argument(help="The environment.")]
Slug = Annotated[str, typer.Argument(help="The prompt.")]
Comment = Annotated[str | None, typer.Option("--comment", "-m", help="Kept in the history.")]


@app.command("list")
def list_pins(
    environment: Environment, *, url: Url = None, key: Key = None, as_json: Json = False
) -> None:
    """List what an environment runs."""
    from cli import client, listing

    columns = {"PROMPT": "prompt", "VERSION": "version", "PINNED": "pinnedAt", "COMMENT": "comment"}
    shown = listing.Shown(columns, as_json=as_json)
    where = client.path("environments", environment, "pins")
    client.run(url, key, lambda api: listing.show(api, where, shown))


@app.command("set")
def set_pin(
    environment: Environment,
    slug: Slug,
    version: Annotated[int, typer.Argument(help="Its number; a draft is published by this.")],
    *,
    comment: Comment = None,
    url: Url = None,
    key: Key = None,
) -> None:
    """Let an environment run a version of a prompt."""
    from cli import client, output

    async def work(api: "Client") -> None:
        body = json.dumps({"version": version, "comment": comment}).encode()
        await api.call("PUT", client.path("environments", environment, "pins", slug), body=body)
        output.note(f"{environment} runs version {version} of {slug}.")

    client.run(url, key, work)


@app.command("unset")
def unset_pin(environment: Environment, slug: Slug, *, url: Url = None, key: Key = None) -> None:
    """Take a pin away: the environment follows the default one."""
    from cli import client, output

    async def work(api: "Client") -> None:
        await api.call("DELETE", client.path("environments", environment, "pins", slug))
        output.note(f"{environment} has no version of {slug} of its own.")

    client.run(url, key, work)


@app.command("promote")
def promote_pins(
    source: Annotated[str, typer.Argument(help="The environment to promote from.")],
    target: Annotated[str, typer.Argument(help="The environment to promote to.")],
    *,
    prompts: Annotated[
        list[str] | None, typer.Option("--prompt", "-p", help="Repeat; all that differ if left out")
    ] = None,
    comment: Comment = None,
    url: Url = None,
    key: Key = None,
    as_json: Json = False,
) -> None:
    """Pin in one environment what another one runs, all of it in one step."""
    from cli import client, output

    body = {
        "sourceEnvironment": source,
        "targetEnvironment": target,
        "flowIds": prompts or None,
        "comment": comment,
    }

    async def work(api: "Client") -> None:
        done: dict[str, Any] = await api.post(client.path("environments", "promote"), body)
        if as_json:
            output.json_document(done)
            return
        rows = [(one["slug"], one["from"], one["to"]) for one in done["promoted"]]
        output.table(("PROMPT", "FROM", "TO"), rows, none="Nothing differed.")
        output.note(f"{len(done['promoted'])} moved, {done['unchanged']} were there already.")

    client.run(url, key, work)
