"""A prompt as a folder of files: `prompt.json` for settings, and a file of its own for each text.

A text's file is the text in UTF-8 and one newline, which is not part of the text: so editors and
`git diff` are content, and every text comes back exactly.
"""

import hashlib
import json
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import Any

import msgspec

from shared.domain import documents, versions
from shared.domain.templates import Syntax
from shared.domain.versions import TemplateBody, VersionBody
from shared.errors import BadRequestError, Flaw, UnacceptableError

SETTINGS = "prompt.json"
MAX_FILE_BYTES = 1024 * 1024
_PULLING = ".pulling"
# No string holds the line feeds of this: in one they are escaped.
_FILE = re.compile(r'\{\n *"file": ("[A-Za-z0-9_.~-]+")\n *\}')
# No file can have these names on Windows, whatever its ending.
_DEVICES = frozenset(
    ("con", "prn", "aux", "nul", *(f"{port}{n}" for port in ("com", "lpt") for n in range(10)))
)


class PromptFilesError(Exception):
    """A folder holds no prompt that could be used; each sentence begins with a file's name."""

    def __init__(self, *sentences: str) -> None:
        super().__init__("\n".join(sentences))
        self.sentences = sentences


class PromptFolder(msgspec.Struct, frozen=True):
    """What a folder says. A name or description that is absent is left as the server has it.

    `body` is what to post for `version`, and `places` names the file behind a pointer into it.
    """

    name: str | None
    description: str | None
    version: VersionBody
    body: dict[str, Any]
    places: dict[str, str]

    def where(self, flaw: Flaw) -> str:
        """Say what is wrong, and in which file."""
        return _where(flaw, self.places)


def document(version: VersionBody) -> dict[str, Any]:
    """Write a version's body; in short form where that says it all. Equal versions, equal text."""
    written = versions.as_written(version).templates
    found = {name: _template(written[name]) for name in sorted(written)}
    syntax = {} if version.syntax is Syntax.BRACES else {"syntax": version.syntax.value}
    if [*found] == [versions.ENTRYPOINT] == [version.entrypoint]:
        return {**syntax, **found[versions.ENTRYPOINT]}
    return {"entrypoint": version.entrypoint, **syntax, "templates": found}


def files(name: str | None, description: str | None, version: VersionBody) -> dict[str, bytes]:
    """Write a prompt as its folder's files, by name; no two names differ in case only."""
    named = {"name": name, "description": description}
    settings = {key: text for key, text in named.items() if text is not None}
    body = document(version)
    made: dict[str, bytes] = {}
    found = body.get("templates", {versions.ENTRYPOINT: body})
    for template_name, template in found.items():
        _move_texts(template_name, template, made)
    made[SETTINGS] = _pretty({**settings, **body})
    return made


def place(name: str) -> tuple[bool, str]:
    """Sort files for reading: the settings first."""
    return name != SETTINGS, name


def digest(made: Mapping[str, bytes]) -> str:
    """Tell two sets of files apart."""
    whole = hashlib.sha256()
    for name in sorted(made):
        whole.update(f"{len(name)} {name} {len(made[name])} ".encode() + made[name])
    return whole.hexdigest()


def read(folder: Path) -> PromptFolder:
    """Read a folder. Raises `PromptFilesError` with all that is wrong with it."""
    settings = _read_settings(folder)
    texts = _Texts(folder)
    body = texts.put_into(settings, "")
    if texts.sentences:
        raise PromptFilesError(*texts.sentences)
    name, description = body.pop("name", None), body.pop("description", None)
    for key, value in (("name", name), ("description", description)):
        if not isinstance(value, str | None):
            raise PromptFilesError(f"{SETTINGS}: /{key}: Expected a text.")
    try:
        version = versions.parse(body, versions.Rules(providers=None))
    except UnacceptableError as error:
        flaws = error.flaws or (Flaw("", error.detail),)
        raise PromptFilesError(*(_where(flaw, texts.places) for flaw in flaws)) from error
    except BadRequestError as error:
        raise PromptFilesError(f"{SETTINGS}: {error.detail}") from error
    return PromptFolder(name, description, version, body, texts.places)


def write_file(path: Path, content: bytes) -> None:
    """Write a file as a whole or not at all, and never through a link."""
    beside = path.with_name(f"{path.name}{_PULLING}")
    _write_new(beside, content)
    beside.replace(path)


def write(folder: Path, made: Mapping[str, bytes]) -> None:
    """Put files into a folder, and take away the texts that its old `prompt.json` named.

    Everything is written beside its place first, so an end in the middle leaves the old prompt.
    Raises `PromptFilesError` before anything is written where a file of somebody else's is in the
    way, or where the folder is a link: what it points at is not ours.
    """
    if folder.is_symlink():
        raise PromptFilesError("The folder is a link: nothing is written through it.")
    folder.mkdir(parents=True, exist_ok=True)
    old = _owned(folder)
    _refuse_foreign(folder, old, made)
    for name, content in made.items():
        _write_new(folder / f"{name}{_PULLING}", content)
    for name in made:
        (folder / f"{name}{_PULLING}").replace(folder / name)
    kept = {name.lower() for name in made}
    for name in old:
        if name.lower() not in kept:
            (folder / name).unlink(missing_ok=True)


def _refuse_foreign(folder: Path, owned: Collection[str], made: Mapping[str, bytes]) -> None:
    """Overwrite what `prompt.json` names, and what would not change; nothing else."""
    ours = {name.lower() for name in (SETTINGS, *owned)}
    by_lower = {name.lower(): content for name, content in made.items()}
    for path in sorted(folder.iterdir()):
        content = by_lower.get(path.name.lower())
        if content is None or path.name.lower() in ours:
            continue
        if not path.is_file() or path.read_bytes() != content:
            raise PromptFilesError(
                f"{path.name}: This file is in the way and no part of the prompt: rename it."
            )


def _write_new(path: Path, content: bytes) -> None:
    path.unlink(missing_ok=True)  # never through a link that somebody left there
    with path.open("xb") as file:
        file.write(content)


class _Texts:
    """Puts the texts of files where `{"file": "…"}` stands, and keeps what is wrong."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.places: dict[str, str] = {}
        self.sentences: list[str] = []

    def put_into(self, value: Any, pointer: str) -> Any:
        name = _file_named(value)
        if name is not None:
            self.places[pointer] = name
            return self._text(name, pointer)
        if isinstance(value, dict):
            return {
                key: self.put_into(item, pointer + documents.step(key))
                for key, item in value.items()
            }
        if isinstance(value, list):
            return [self.put_into(item, f"{pointer}/{n}") for n, item in enumerate(value)]
        return value

    def _text(self, name: str, pointer: str) -> str:
        try:
            return _read_text(self._folder, name)
        except PromptFilesError as error:
            self.sentences += (f"{SETTINGS}: {pointer}: {one}" for one in error.sentences)
        return ""


def _read_text(folder: Path, name: str) -> str:
    return _read_inside(folder, name).removesuffix("\n")


def _read_inside(folder: Path, name: str) -> str:
    """Read a file of the folder, and never one outside it, whatever links there are."""
    try:
        path = (folder / name).resolve()
        if not path.is_relative_to(folder.resolve()):
            raise PromptFilesError(f"'{name}' is outside the prompt's folder.")
        if not path.is_file():
            raise PromptFilesError(f"There is no file '{name}' in the prompt's folder.")
        if path.stat().st_size > MAX_FILE_BYTES:
            raise PromptFilesError(f"'{name}' is over {MAX_FILE_BYTES:,} bytes.")
        return path.read_bytes().decode()
    except UnicodeDecodeError as error:
        raise PromptFilesError(f"'{name}' is not UTF-8.") from error
    except (OSError, ValueError) as error:  # ValueError: a name with U+0000
        raise PromptFilesError(f"{name!r} cannot be read: {error}.") from error


def _read_settings(folder: Path) -> dict[str, Any]:
    try:
        text = _read_inside(folder, SETTINGS)
        settings = json.loads(text, object_pairs_hook=_once, parse_constant=_refused)
    except (ValueError, RecursionError) as error:
        raise PromptFilesError(f"{SETTINGS}: This is not JSON: {error}.") from error
    if not isinstance(settings, dict):
        raise PromptFilesError(f"{SETTINGS}: Expected an object.")
    return settings


def _once(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"'{twice}' stands twice in one object")
    return found


def _refused(constant: str) -> None:
    raise ValueError(f"{constant} is no number")


def _owned(folder: Path) -> set[str]:
    """Name the texts that the folder's `prompt.json` names, as far as it can be read."""
    try:
        settings = _read_settings(folder)
    except PromptFilesError:
        return set()
    root = folder.resolve()
    return {
        name
        for name in _names(settings)
        if "\0" not in name
        and (path := (folder / name).resolve()).is_relative_to(root)
        and path.is_file()
    }


def _names(value: Any) -> Iterator[str]:
    name = _file_named(value)
    if name is not None:
        yield name
    elif isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _names(item)


def _file_named(value: Any) -> str | None:
    if isinstance(value, dict) and [*value] == ["file"] and isinstance(value["file"], str):
        return value["file"]
    return None


def _where(flaw: Flaw, places: Mapping[str, str]) -> str:
    pointer = flaw.pointer
    if pointer in places:
        return f"{places[pointer]}: {flaw.message}"
    return f"{SETTINGS}: {pointer}: {flaw.message}" if pointer else f"{SETTINGS}: {flaw.message}"


def _template(template: TemplateBody) -> dict[str, Any]:
    """Write what differs from the defaults, whichever of two equal defaults it is."""
    plain = TemplateBody()
    return {
        field.encode_name: msgspec.json.decode(msgspec.json.encode(getattr(template, field.name)))
        for field in msgspec.structs.fields(template)
        if getattr(template, field.name) != getattr(plain, field.name)
    }


def _move_texts(name: str, template: dict[str, Any], made: dict[str, bytes]) -> None:
    """Move a template's texts into files, and leave the files' names in their places."""

    def moved(ending: str, text: str) -> dict[str, str]:
        file_name = _free_name(name, ending, made)
        made[file_name] = f"{text}\n".encode()
        return {"file": file_name}

    if "text" in template:
        template["text"] = moved(".md", template["text"])
    if "systemInstruction" in template:
        template["systemInstruction"] = moved(".system.md", template["systemInstruction"])
    for number, message in enumerate(template.get("messages", ()), start=1):
        message["content"] = moved(f".{number}.{message['role']}.md", message["content"])
    if "schema" in template.get("responseFormat", {}):
        response_format = template["responseFormat"]
        response_format["schema"] = moved(".schema.json", response_format["schema"])


def _free_name(name: str, ending: str, made: Mapping[str, bytes]) -> str:
    """Make a name that no file has in any case: `Main` stands beside `main` as `Main~2`."""
    taken = {one.lower() for one in made}
    stem = f"~{name}" if name.lower().partition(".")[0] in _DEVICES else name
    candidates = (f"{stem}{'' if n == 1 else f'~{n}'}{ending}" for n in count(1))
    return next(one for one in candidates if one.lower() not in taken)


def _pretty(value: object) -> bytes:
    """Write settings to be read: what names a file stands on one line."""
    text = json.dumps(value, indent=2, ensure_ascii=False)
    return _FILE.sub(r'{"file": \1}', text).encode() + b"\n"
