"""Prompts in files and prompts on a server: what differs, and how to make them the same."""

import asyncio
import json
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import suppress
from http import HTTPStatus
from pathlib import Path
from typing import Any, Literal

import msgspec

from cli import prompt_files
from cli.client import Client, CommandError, RefusedError, UnreachableError, UsageError, path
from cli.prompt_files import SETTINGS, PromptFilesError, PromptFolder
from shared.domain import prompts as rules
from shared.domain import versions
from shared.domain.versions import VersionBody
from shared.errors import AppError, Flaw

RECORD = ".pulled.json"
AT_ONCE = 8
# How far back a version is looked for that says what the files say.
MAX_SEARCHED = 100
_LATEST = "__latest__"
_UNPUBLISHED = "has no published version: nothing to write"
_EDITED = "These files were changed and not pushed: nothing is written. --force overwrites them."

Change = Literal["created", "published", "changed", "pulled", "unchanged", "skipped", "failed"]


class ServerPrompt(msgspec.Struct, frozen=True):
    """A prompt as the server has it, with its most recently published version, if there is one."""

    slug: str
    name: str
    description: str
    tags: dict[str, int]
    number: int | None = None
    version: VersionBody | None = None


class Outcome(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What was done with a prompt, or would be done; `said` is for a person, line by line.

    `before` and `after` are its files, where they differ.
    """

    slug: str
    change: Change
    version: int | None = None
    said: tuple[str, ...] = ()
    before: dict[str, bytes] = {}
    after: dict[str, bytes] = {}


async def fetch(client: Client, slug: str) -> ServerPrompt | None:
    """Read a prompt by its slug, or one it once had; `None` where there is none."""
    prompt = await _get(client, path("prompts", slug))
    if prompt is None:
        return None
    if not rules.is_slug(str(prompt["slug"])):
        raise CommandError(f"{client.url} calls a prompt {prompt['slug']!r}, which is no slug.")
    tags = {
        str(tag["tag"]): int(tag["version"])
        async for page in client.pages(path("prompts", slug, "tags"), {}, None)
        for tag in page
    }
    known = ServerPrompt(prompt["slug"], prompt["name"], prompt["description"], tags)
    latest = await _get(client, path("prompts", slug, _LATEST))
    if latest is None:
        return known
    version = await _version(client, slug, latest["number"])
    return msgspec.structs.replace(known, number=latest["number"], version=version)


async def pull(
    client: Client, root: Path, slugs: Sequence[str], *, force: bool
) -> AsyncIterator[Outcome]:
    """Write the latest version of each prompt into a folder named by its slug."""
    wanted = slugs or [
        str(prompt["slug"])
        async for page in client.pages(path("prompts"), {}, None)
        for prompt in page
    ]
    known = set[str]()
    async for slug, found in _fetched(client, sorted(set(wanted))):
        if isinstance(found, ServerPrompt):
            known.add(found.slug)
            yield await _pulled(client, root / found.slug, found, force=force)
        else:
            yield _failed(slug, found)
    if not slugs:
        for slug in sorted({*folders(root)} - known):
            yield await _only_here(client, slug)


async def push(
    client: Client, root: Path, slugs: Sequence[str], *, tag: str | None, dry_run: bool
) -> AsyncIterator[Outcome]:
    """Publish what differs from the server's latest versions; then move the tag."""
    if tag is not None and not rules.is_tag(tag):
        raise UsageError(f"{tag!r} can be no tag: a letter, then letters, digits, - and _.")
    wanted = sorted(set(slugs)) or folders(root)
    if not wanted:
        raise UsageError(
            f"No folder in {root} holds a {SETTINGS}. Begin with: runlane prompts pull {root}"
        )
    local = dict[str, PromptFolder]()
    for slug in wanted:
        try:
            local[slug] = _read(root, slug)
        except PromptFilesError as error:
            yield Outcome(slug=slug, change="failed", said=error.sentences)
    async for slug, there in _fetched(client, [*local]):
        pushing = _Push(client, root / slug, slug, local[slug], dry_run=dry_run)
        try:
            yield await pushing.run(there, tag)
        except UnreachableError:
            raise
        except CommandError as error:
            flaws = error.flaws if isinstance(error, RefusedError) else ()
            said = [local[slug].where(Flaw(*flaw)) for flaw in flaws]
            yield Outcome(slug=slug, change="failed", said=(*said, str(error).split("\n", 1)[0]))


def folders(root: Path) -> list[str]:
    """The names of the folders that hold prompts."""
    if not root.is_dir():
        return []
    return sorted(one.name for one in root.iterdir() if (one / SETTINGS).exists())


class _Push:
    """One prompt's way to the server. Each step is done only where it changes something."""

    def __init__(
        self, client: Client, folder: Path, slug: str, local: PromptFolder, *, dry_run: bool
    ) -> None:
        self._client = client
        self._folder = folder
        self._slug = slug
        self._local = local
        self._dry_run = dry_run
        self._said: list[str] = []

    async def run(self, there: ServerPrompt | CommandError | None, tag: str | None) -> Outcome:
        if isinstance(there, CommandError):
            raise there
        if there is not None and there.slug != self._slug:
            said = f"This prompt is called '{there.slug}' now: rename the folder."
            return Outcome(slug=self._slug, change="failed", said=(said,))
        change = await self._bring_settings(there)
        number = there.number if there is not None else None
        if there is None or there.version != self._local.version:
            number = await self._publish(number)
            change = change if change == "created" else "published"
        tags = dict(there.tags) if there is not None else {}
        if tag is not None and (number is None or tags.get(tag) != number):
            await self._move(tag, tags.get(tag), number)
            tags |= {tag: number or 0}
            change = "changed" if change == "unchanged" else change
        local = self._local
        after = prompt_files.files(local.name, local.description, local.version)
        if not self._dry_run and number is not None:
            with suppress(OSError):  # a checkout that nobody may write to is pushed too
                _record(self._folder, number, tags, after)
        return Outcome(
            slug=self._slug,
            change=change,
            version=number,
            said=tuple(self._said),
            before=_files_beside(there, local),
            after=after,
        )

    async def _bring_settings(self, there: ServerPrompt | None) -> Change:
        """Create the prompt, or name and describe it as `prompt.json` does."""
        wanted = {"name": self._local.name, "description": self._local.description}
        given = {key: value for key, value in wanted.items() if value is not None}
        if there is None:
            self._say("created the prompt", "would create the prompt")
            if not self._dry_run:
                new = {"name": self._slug, **given, "slug": self._slug}
                await self._client.post(path("prompts"), new)
            return "created"
        changed = {key: value for key, value in given.items() if value != getattr(there, key)}
        if not changed:
            return "unchanged"
        fields = " and ".join(changed)
        self._say(f"changed its {fields}", f"would change its {fields}")
        if not self._dry_run:
            body = msgspec.json.encode(changed)
            await self._client.call("PATCH", path("prompts", self._slug), body=body)
        return "changed"

    async def _publish(self, latest: int | None) -> int | None:
        after = "" if latest is None else f" after {latest}"
        if self._dry_run:
            self._said.append(f"would publish a version{after}")
            return None
        where = path("prompts", self._slug, "versions")
        made = await self._client.post(where, self._local.body)
        self._said.append(f"published version {made['number']}{after}")
        self._said += (f"warning: {warning}" for warning in made["warnings"])
        return int(made["number"])

    async def _move(self, tag: str, before: int | None, number: int | None) -> None:
        whence = "" if before is None else f" from {before}"
        to = "that version" if number is None else str(number)
        self._say(f"moved {tag}{whence} to {to}", f"would move {tag}{whence} to {to}")
        if not self._dry_run:
            body = msgspec.json.encode({"version": number})
            await self._client.call("PUT", path("prompts", self._slug, "tags", tag), body=body)

    def _say(self, done: str, planned: str) -> None:
        self._said.append(planned if self._dry_run else done)


async def _pulled(client: Client, folder: Path, there: ServerPrompt, *, force: bool) -> Outcome:
    if there.version is None or there.number is None:
        return Outcome(slug=there.slug, change="skipped", said=(_UNPUBLISHED,))
    made = prompt_files.files(there.name, there.description, there.version)
    try:
        local = _local(folder)
        if local is not None and _same(local, there):
            _record(folder, there.number, there.tags, made)
            return Outcome(slug=there.slug, change="unchanged", version=there.number)
        if local is not None and not force and not await _is_pushed(client, folder, local, there):
            return Outcome(slug=there.slug, change="failed", said=(_EDITED,))
        prompt_files.write(folder, made)
        _record(folder, there.number, there.tags, made)
    except PromptFilesError as error:
        return Outcome(slug=there.slug, change="failed", said=error.sentences)
    except OSError as error:
        return Outcome(slug=there.slug, change="failed", said=(f"cannot be written: {error}",))
    said = (f"wrote version {there.number}",)
    return Outcome(slug=there.slug, change="pulled", version=there.number, said=said)


def _local(folder: Path) -> PromptFolder | str | None:
    """What is in the folder: a prompt, nothing, or something that is none (as a sentence)."""
    if not (folder / SETTINGS).exists():
        return None
    try:
        return prompt_files.read(folder)
    except PromptFilesError as error:
        return error.sentences[0]


def _same(local: PromptFolder | str, there: ServerPrompt) -> bool:
    return (
        isinstance(local, PromptFolder)
        and local.version == there.version
        and local.name in (None, there.name)
        and local.description in (None, there.description)
    )


async def _is_pushed(
    client: Client, folder: Path, local: PromptFolder | str, there: ServerPrompt
) -> bool:
    """Tell whether the server knows what the files say: they may be written over."""
    if not isinstance(local, PromptFolder):
        return False
    made = prompt_files.files(local.name, local.description, local.version)
    if _recorded_digest(folder) == prompt_files.digest(made):
        return True
    if local.name not in (None, there.name) or local.description not in (None, there.description):
        return False
    where = path("prompts", there.slug, "versions")
    async for page in client.pages(where, {}, MAX_SEARCHED):
        for view in page:
            if view["published"] and local.version == await _version(
                client, there.slug, view["number"]
            ):
                return True
    return False


def _read(root: Path, slug: str) -> PromptFolder:
    if not rules.is_slug(slug):
        raise PromptFilesError("The folder's name can be no slug: lower case, digits, - and _.")
    return prompt_files.read(root / slug)


async def _only_here(client: Client, slug: str) -> Outcome:
    there = await fetch(client, slug) if rules.is_slug(slug) else None
    said = "is only here; `runlane prompts push` publishes it"
    if there is not None:
        said = f"is called '{there.slug}' now: this folder is no longer needed"
    return Outcome(slug=slug, change="skipped", said=(said,))


async def _fetched(
    client: Client, slugs: Collection[str]
) -> AsyncIterator[tuple[str, ServerPrompt | CommandError | None]]:
    """Read prompts, a few at once, in the order given; what fails is one prompt's matter only."""
    room = asyncio.Semaphore(AT_ONCE)

    async def one(slug: str) -> ServerPrompt | CommandError | None:
        async with room:
            try:
                return await fetch(client, slug)
            except UnreachableError:
                raise
            except CommandError as error:
                return error

    tasks = [asyncio.create_task(one(slug)) for slug in slugs]
    try:
        for slug, task in zip(slugs, tasks, strict=True):
            yield slug, await task
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _version(client: Client, slug: str, number: int) -> VersionBody:
    view = await client.get(path("prompts", slug, "versions", str(number)))
    try:
        return versions.parse(view["body"], versions.Rules(providers=None))
    except AppError as error:
        raise CommandError(
            f"Version {number} of '{slug}' holds what this runlane does not know: is the server"
            f" newer? ({error.detail})"
        ) from error


async def _get(client: Client, where: str) -> Any:
    try:
        return await client.get(where)
    except RefusedError as error:
        if error.status == HTTPStatus.NOT_FOUND:
            return None
        raise


def _files_beside(there: ServerPrompt | None, local: PromptFolder) -> dict[str, bytes]:
    """The server's files, with only those settings that the local ones have an opinion about."""
    if there is None or there.version is None:
        return {}
    name = None if local.name is None else there.name
    description = None if local.description is None else there.description
    return prompt_files.files(name, description, there.version)


def _record(folder: Path, number: int, tags: dict[str, int], made: dict[str, bytes]) -> None:
    """Note what the folder has in common with the server, for people and for the next pull."""
    noted = {
        "version": number,
        "tags": dict(sorted(tags.items())),
        "sha256": prompt_files.digest(made),
    }
    prompt_files.write_file(folder / RECORD, json.dumps(noted, indent=2).encode() + b"\n")


def _recorded_digest(folder: Path) -> str | None:
    try:
        noted = json.loads((folder / RECORD).read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    return noted.get("sha256") if isinstance(noted, dict) else None


def _failed(slug: str, refusal: CommandError | None) -> Outcome:
    said = "There is no such prompt." if refusal is None else str(refusal)
    return Outcome(slug=slug, change="failed", said=(said,))
