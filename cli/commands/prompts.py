"""`runlane prompts`: prompts on the server, and prompts as files in version control."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.commands.options import Json, Key, Url

if TYPE_CHECKING:
    from cli.client import Client
    from cli.prompt_sync import Outcome

app = typer.Typer(no_args_is_help=True, help="Prompts: on the server, and as files in git.")

Folder = Annotated[Path, typer.Argument(help="Holds a folder for each prompt.", metavar="DIR")]
Slugs = Annotated[list[str] | None, typer.Argument(help="Only these prompts.", metavar="[SLUG]...")]


@app.command("list")
def list_prompts(*, url: Url = None, key: Key = None, as_json: Json = False) -> None:
    """List the prompts of the workspace."""
    from cli import client, listing

    columns = {"SLUG": "slug", "NAME": "name", "CREATED": "createdAt", "ID": "id"}
    shown = listing.Shown(columns, as_json=as_json)
    client.run(url, key, lambda api: listing.show(api, client.path("prompts"), shown))


@app.command("show")
def show_prompt(
    slug: str,
    version: Annotated[str | None, typer.Argument(help="A number; the latest if left out.")] = None,
    *,
    url: Url = None,
    key: Key = None,
    as_json: Json = False,
) -> None:
    """Show a prompt, its tags, and a version with its texts."""
    from cli import client

    client.run(url, key, lambda api: _show(api, slug, version, as_json=as_json))


@app.command("pull")
def pull_prompts(
    folder: Folder,
    slugs: Slugs = None,
    *,
    force: Annotated[
        bool, typer.Option("--force", help="Overwrite changes that were not pushed.")
    ] = False,
    url: Url = None,
    key: Key = None,
    as_json: Json = False,
) -> None:
    """Write the latest published version of each prompt into files."""
    from cli import client, prompt_sync

    async def work(api: "Client") -> list["Outcome"]:
        found = prompt_sync.pull(api, folder, slugs or [], force=force)
        return [_told(one, as_json=as_json) async for one in found]

    if any(one.change == "failed" for one in client.run(url, key, work)):
        sys.exit(1)


@app.command("push")
def push_prompts(
    folder: Folder,
    slugs: Slugs = None,
    *,
    tag: Annotated[
        str | None, typer.Option(help="Point this tag at the versions of the files.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would change, and change nothing.")
    ] = False,
    check: Annotated[
        bool, typer.Option("--check", help="As --dry-run; exit with 1 if anything would change.")
    ] = False,
    url: Url = None,
    key: Key = None,
    as_json: Json = False,
) -> None:
    """Publish what differs from the server, and nothing where nothing does."""
    from cli import client, prompt_sync

    dry = dry_run or check

    async def work(api: "Client") -> list["Outcome"]:
        found = prompt_sync.push(api, folder, slugs or [], tag=tag, dry_run=dry)
        return [_told(one, as_json=as_json, with_diff=dry) async for one in found]

    bad = {"failed"} if not check else {"failed", "created", "published", "changed"}
    if any(one.change in bad for one in client.run(url, key, work)):
        sys.exit(1)


def _told(outcome: "Outcome", *, as_json: bool, with_diff: bool = False) -> "Outcome":
    """Print an outcome at once: what comes after it may take long, or fail."""
    from cli import output, prompt_diff

    slug, said = outcome.slug, outcome.said
    if as_json:
        shown = {"slug": slug, "change": outcome.change, "version": outcome.version}
        output.json_lines([{**shown, "said": said}])
        return outcome
    known = "" if outcome.version is None else f" (version {outcome.version})"
    for line in said or (f"{outcome.change}{known}",):
        text = output.printable(f"{slug}: {line}")
        print(text, file=sys.stderr if outcome.change == "failed" else sys.stdout, flush=True)
    if with_diff:
        prompt_diff.show(f"{slug}/", outcome.before, outcome.after)
    return outcome


async def _show(api: "Client", slug: str, version: str | None, *, as_json: bool) -> None:
    from cli import output, prompt_diff, prompt_files
    from cli.client import path
    from shared.domain import versions

    prompt = await api.get(path("prompts", slug))
    tags: list[Any] = []
    async for page in api.pages(path("prompts", slug, "tags"), {}, None):
        tags += page
    if version is None:
        version = str((await api.get(path("prompts", slug, "__latest__")))["number"])
    found = await api.get(path("prompts", slug, "versions", version))
    if as_json:
        output.json_document({**prompt, "tags": tags, "version": found})
        return
    output.fields(
        {
            "slug": prompt["slug"],
            "name": prompt["name"],
            "description": prompt["description"] or None,
            "tags": [f"{tag['tag']} → {tag['version']}" for tag in tags] or None,
            "version": found["number"],
            "published": output.moment(found["publishedAt"]) or "no, a draft",
            "warnings": found["warnings"] or None,
        }
    )
    body = versions.parse(found["body"], versions.Rules(providers=None))
    made = prompt_files.files(None, None, body)
    for name in sorted(made, key=prompt_files.place):
        prompt_diff.show_file(name, made[name])
