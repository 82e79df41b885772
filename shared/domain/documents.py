"""Decoded JSON into structs, with a pointer (RFC 6901) to whatever does not fit."""

import re
from typing import TypeVar

import msgspec

from shared.errors import Flaw

Shape = TypeVar("Shape")

_WHERE = re.compile(r" - at `\$(.*)`$", re.DOTALL)
_FIELD = re.compile(r"(?:unknown|required) field `(.*)`$", re.DOTALL)
_STEP = re.compile(r"\.([^.\[]+)|\[([0-9]+)\]")


def convert(value: object, shape: type[Shape], base: str, flaws: list[Flaw]) -> Shape | None:
    """Read a value as a struct; what is wrong with it goes to `flaws`, and `None` is returned.

    msgspec names one flaw at a time and no keys of free objects: convert those one by one.
    """
    try:
        return msgspec.convert(value, shape)
    except msgspec.ValidationError as error:
        flaws.append(_flaw(str(error), base))
        return None


def without_nulls(value: object) -> object:
    """Leave out fields that are `null`, at every depth: `null` equals absent."""
    if isinstance(value, dict):
        return {key: without_nulls(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [without_nulls(item) for item in value]
    return value


def step(name: object) -> str:
    """Write one step of a pointer."""
    return "/" + str(name).replace("~", "~0").replace("/", "~1")


def _flaw(text: str, base: str) -> Flaw:
    where = _WHERE.search(text)
    message = text[: where.start()] if where else text
    field = _FIELD.search(message)
    steps = [name or index for name, index in _STEP.findall(where[1])] if where else []
    if field:
        steps.append(field[1])
    return Flaw(base + "".join(map(step, steps)), message + ".")
