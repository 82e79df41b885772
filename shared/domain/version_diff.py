"""What differs between two versions, for people who review the change."""

from collections.abc import Iterator
from typing import Any

import msgspec

from shared.domain import documents, text_diff, versions
from shared.domain.versions import VersionBody

_TEXTS = ("/text", "/systemInstruction", "/content", "/schema")
_ABSENT: Any = None  # `null` equals absent, so no body holds one


class Change(msgspec.Struct, frozen=True):
    """One place of the body in its long form; null is what is not there."""

    pointer: str
    before: Any
    after: Any
    diff: str | None = None


def changes(
    before: VersionBody, after: VersionBody, names: tuple[str, str] = ("before", "after")
) -> list[Change]:
    """List the places that differ, texts with a unified diff between files of these names."""
    return list(_changes(_document(before), _document(after), "", names))


def _document(version: VersionBody) -> Any:
    return msgspec.json.decode(msgspec.json.encode(versions.as_written(version)))


def _changes(before: Any, after: Any, pointer: str, names: tuple[str, str]) -> Iterator[Change]:
    if before == after:
        return
    parts, others = _parts(before), _parts(after)
    if parts is None or others is None:
        yield Change(pointer, before, after, _diff(before, after, pointer, names))
        return
    for key in dict.fromkeys((*parts, *others)):
        step = pointer + documents.step(key)
        yield from _changes(parts.get(key, _ABSENT), others.get(key, _ABSENT), step, names)


def _parts(value: Any) -> dict[Any, Any] | None:
    """Take apart objects and lists of them; all else changes as a whole."""
    if isinstance(value, dict):
        return value
    if isinstance(value, list) and all(isinstance(item, dict) for item in value):
        return dict(enumerate(value))
    return None


def _diff(before: Any, after: Any, pointer: str, names: tuple[str, str]) -> str | None:
    if not (isinstance(before, str) and isinstance(after, str) and pointer.endswith(_TEXTS)):
        return None
    return text_diff.unified(before, after, names[0] + pointer, names[1] + pointer)
