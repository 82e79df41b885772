"""Answers that are to be JSON: which schemas are accepted, and whether an answer keeps to one.

Checking holds the interpreter, so what it can cost is bounded: a schema is measured when it is
saved, an answer before it is checked. Nothing is ever fetched.
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any

import jsonschema_rs
import msgspec
from jsonschema_rs import RegexOptions, ValidationError, Validator

MAX_BYTES = 64 * 1024
MAX_DEPTH = 32
MAX_PARTS = 5_000
MAX_LOOPS = 50
MAX_WORK = 20_000_000
"""Parts of the schema times values of the answer; 10 million took 80 ms."""
PATTERN_CHARACTER_WORK = 50  # a character under a bad pattern takes as long as some hundred parts
MAX_NESTING = 64

_PATTERNS = RegexOptions(size_limit=64 * 1024, dfa_size_limit=64 * 1024)
"""An engine without backtracking: linear in the text, whatever the pattern."""
_HERE_LISTS = ("allOf", "anyOf", "oneOf")
_HERE_ONES = ("not", "if", "then", "else")
_HERE_MAPS = ("dependentSchemas", "dependencies")
_STEPS = {
    "additionalProperties": "field",
    "unevaluatedProperties": "field",
    "propertyNames": "name",
    "items": "item",
    "additionalItems": "item",
    "unevaluatedItems": "item",
    "contains": "item",
}
_MOVING = ("$dynamicRef", "$recursiveRef")

Step = tuple[str, str]
Path = tuple[Step, ...]


class SchemaError(Exception):
    """The schema cannot be used; `args[0]` says why."""


class Checker:
    """Says what is wrong with an answer. Make one for a version and keep it."""

    def __init__(self, schema: str | None) -> None:
        """`None` asks for any JSON object. Raises `SchemaError`."""
        self._parts, self._patterns, self._validator = 1, 0, None
        if schema is not None:
            document = _document(schema)
            measure = _Measure(document)
            self._parts, self._patterns = measure.parts, measure.patterns
            self._validator = _compiled(document)

    def miss(self, answer: str) -> str | None:
        """What is wrong with an answer, in one sentence; `None` when nothing is."""
        values = answer.count(",") + answer.count("[") + answer.count("{") + 1
        work = values * self._parts + len(answer) * self._patterns * PATTERN_CHARACTER_WORK
        if work > MAX_WORK:
            return "The answer is too large to be checked against its schema."
        try:
            value = msgspec.json.decode(answer.encode("utf-8", "surrogatepass"))
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            return f"The answer is not JSON: {error}."
        if self._validator is None:
            return None if isinstance(value, dict) else "The answer is not a JSON object."
        try:
            self._validator.validate(value)
        except ValidationError as error:
            place = "".join(f"/{step}" for step in error.instance_path)
            return f"{place or 'The answer'}: {error.message}"
        except (ValueError, RecursionError) as error:
            return f"The answer cannot be checked: {error}."
        return None


def flaw(schema: str) -> str | None:
    """Why a schema is refused; `None` when it is accepted."""
    try:
        Checker(schema)
    except SchemaError as error:
        return str(error)
    return None


def _document(schema: str) -> dict[str, Any]:
    if len(schema.encode("utf-8", "surrogatepass")) > MAX_BYTES:
        raise SchemaError(f"A schema may hold {MAX_BYTES:,} bytes.")
    try:
        document = json.loads(schema)
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict):
        raise SchemaError("Must be a string that holds a JSON object.")
    return document


def _compiled(document: dict[str, Any]) -> Validator:
    try:
        return jsonschema_rs.validator_for(document, pattern_options=_PATTERNS, offline=True)
    except (ValidationError, ValueError) as error:
        text = error.message if isinstance(error, ValidationError) else str(error)
        if '"regex"' in text:
            text += " (patterns are matched without look-around and back-references)"
        raise SchemaError(f"Not a JSON Schema: {text[:500]}") from error


class _Measure:
    """Walks through a schema as a check may, references followed, and counts.

    What is applied to the same value twice at each turn of a recursion doubles with each level of
    an answer: such a schema is refused, and so is one that refers to itself without a step down.
    """

    def __init__(self, document: dict[str, Any]) -> None:
        self.parts = self.patterns = 0
        self._document = document
        self._open: dict[str, int] = {"#": 0}
        self._loops: list[Path] = []
        self._walk(document, (), 0)
        self._check_loops("#", 0, 0)

    def _walk(self, schema: object, path: Path, nesting: int) -> None:
        self.parts += 1
        if not isinstance(schema, dict):
            return
        values = schema.get("enum")
        self.parts += len(values) if isinstance(values, list) else 0
        self.patterns += ("pattern" in schema) + len(list(_mapped(schema.get("patternProperties"))))
        if self.parts > MAX_PARTS:
            raise SchemaError(f"A schema may have {MAX_PARTS:,} parts, references followed.")
        if nesting > MAX_NESTING or len(path) > MAX_DEPTH:
            raise SchemaError(f"A schema may be {MAX_DEPTH} levels deep.")
        if any(word in schema for word in _MOVING) or ("$id" in schema and nesting):
            raise SchemaError("A schema may refer to parts of itself only, as '#/$defs/…'.")
        if "$ref" in schema:
            self._follow(schema["$ref"], path, nesting)
        for below, step in _below(schema):
            self._walk(below, path if step is None else (*path, step), nesting + 1)

    def _follow(self, target: object, path: Path, nesting: int) -> None:
        if not isinstance(target, str) or not (target == "#" or target.startswith("#/")):
            raise SchemaError("A schema may refer to parts of itself only, as '#/$defs/…'.")
        if target in self._open:
            if len(path) == self._open[target]:
                raise SchemaError(f"{target} refers to itself without a step down.")
            self._loops.append(path)
            if len(self._loops) > MAX_LOOPS:
                raise SchemaError(f"A schema may refer back to itself {MAX_LOOPS} times.")
            return
        self._open[target], before = len(path), len(self._loops)
        self._walk(_found(self._document, target), path, nesting + 1)
        del self._open[target]
        self._check_loops(target, len(path), before)

    def _check_loops(self, target: str, depth: int, before: int) -> None:
        loops = [path[depth:] for path in self._loops[before:]]
        for number, one in enumerate(loops):
            for other in loops[:number]:
                if all(_meet(a, b) for a, b in zip(one, other, strict=False)):
                    raise SchemaError(
                        f"{target} is applied to the same value twice when it repeats: "
                        "checking would take twice as long with every level of an answer."
                    )


def _below(schema: Mapping[str, Any]) -> Iterator[tuple[object, Step | None]]:
    """The schemas inside a schema, each with the step into the value; `None` is the same value."""
    for word in _HERE_LISTS:
        yield from ((below, None) for _, below in _listed(schema.get(word)))
    for word in _HERE_MAPS:
        yield from ((below, None) for _, below in _mapped(schema.get(word)))
    yield from ((schema[word], None) for word in _HERE_ONES if word in schema)
    for name, below in _mapped(schema.get("properties")):
        yield below, ("field", name)
    for _, below in _mapped(schema.get("patternProperties")):
        yield below, ("field", "")
    for word in ("items", "prefixItems"):
        yield from ((below, ("item", name)) for name, below in _listed(schema.get(word)))
    for word, step in _STEPS.items():
        if isinstance(schema.get(word), dict):
            yield schema[word], (step, "")


def _listed(value: object) -> Iterator[tuple[str, object]]:
    if isinstance(value, list):
        yield from ((str(number), below) for number, below in enumerate(value))


def _mapped(value: object) -> Iterator[tuple[str, object]]:
    if isinstance(value, dict):
        yield from value.items()


def _meet(one: Step, other: Step) -> bool:
    """Whether two steps can lead to the same value; an empty name is any."""
    return one[0] == other[0] and (one[1] == other[1] or "" in {one[1], other[1]})


def _found(document: object, target: str) -> object:
    place = document
    for step in target.split("/")[1:]:
        name = step.replace("~1", "/").replace("~0", "~")
        if isinstance(place, dict) and name in place:
            place = place[name]
        elif isinstance(place, list) and name.isdigit() and int(name) < len(place):
            place = place[int(name)]
        else:
            raise SchemaError(f"{target} leads nowhere.")
    return place
