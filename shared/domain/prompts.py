"""Names of prompts and of their versions: slugs, tags, and what else points at a version."""

import re
import unicodedata
from collections.abc import Collection
from typing import Literal

from shared.errors import Flaw
from shared.ids import parse

LATEST = "__latest__"
PINNED = "__pinned__"
MAX_NUMBER = 2**31 - 1

Selector = tuple[Literal["latest", "pin", "number", "id", "tag"], str]

_MAX_SLUG = 128
_SLUG = re.compile(r"[a-z0-9][a-z0-9_-]{0,127}")
_TAG = re.compile(r"[a-z][a-z0-9_-]{0,63}")
_NUMBER = re.compile(r"[1-9][0-9]{0,9}")
_BETWEEN_WORDS = re.compile(r"[^a-z0-9]+")
# Each would be taken for something else in a path: /prompts/{slug}/{version}/….
_RESERVED_TAGS = frozenset({"latest", "versions", "tags", "pins", "runs"})


def is_slug(text: str) -> bool:
    """Tell whether any prompt could have this slug."""
    return _SLUG.fullmatch(text) is not None


def slug_flaws(slug: str | None) -> list[Flaw]:
    """Say what is wrong with a slug; `None` was not given and is never wrong."""
    if slug is None or is_slug(slug):
        return []
    return [Flaw("/slug", f"A slug matches {_SLUG.pattern}.")]


def slug_of(name: str) -> str:
    """Make a slug from a name: `Größe & Farbe` becomes `grosse-farbe`."""
    folded = unicodedata.normalize("NFKD", name.casefold())
    plain = folded.encode("ascii", "ignore").decode()
    return _BETWEEN_WORDS.sub("-", plain).strip("-")[:_MAX_SLUG].rstrip("-") or "prompt"


def free_slug(slug: str, taken: Collection[str]) -> str:
    """Number a slug that is taken: `greeting-2`, then `greeting-3` and so on."""
    number, found = 1, slug
    while found in taken:
        number += 1
        ending = f"-{number}"
        found = slug[: _MAX_SLUG - len(ending)] + ending
    return found


def is_tag(text: str) -> bool:
    """Tell whether a tag could have this name: nothing else in a path may be taken for it."""
    return _TAG.fullmatch(text) is not None and text not in _RESERVED_TAGS and parse(text) is None


def tag_flaws(tag: str) -> list[Flaw]:
    """Say what is wrong with a tag's name."""
    if is_tag(tag):
        return []
    reserved = ", ".join(sorted(_RESERVED_TAGS))
    return [Flaw("/tag", f"A tag matches {_TAG.pattern} and is no UUID and none of {reserved}.")]


def version_flaws(named: int | str) -> list[Flaw]:
    """Say what is wrong with a version named in a body; whether it exists is another question."""
    if isinstance(named, int) or parse(named) is not None:
        return []
    return [Flaw("/version", "Expected a version's number or id.")]


def number_of(text: str) -> int | None:
    """Read a version's number from a path; `None` where no version can have it."""
    if not _NUMBER.fullmatch(text):
        return None
    number = int(text)
    return number if number <= MAX_NUMBER else None


def selector(version: str) -> Selector | None:
    """Tell how a version is named: by number, tag, id, pin or as the latest; `None` is unknown."""
    if version == LATEST:
        return ("latest", "")
    if version == PINNED:
        return ("pin", PINNED)
    if number_of(version) is not None:
        return ("number", version)
    if parse(version) is not None:
        return ("id", version.lower())
    return ("tag", version) if _TAG.fullmatch(version) else None
