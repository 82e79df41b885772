"""JSON as we accept it: RFC 8259 to the letter, no duplicate keys, bounded in every direction.

One pass of the standard library's C scanner proves the grammar and finds duplicate keys and large
numbers; cheap scans of the bytes decide whether anything else can be wrong at all. Only then the
document is walked, and only when something is wrong is the place worked out.
"""

import json
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final, NoReturn

from shared.errors import BadRequestError, Flaw, UnacceptableError

_EXACT_INTEGER: Final = 2**53  # what every JSON reader can hold (RFC 8259 §6)
_SAFE_DIGITS: Final = 15
_NUMBER_LENGTH: Final = 1000  # characters; no number anybody means is longer
_ABSURD_DEPTH: Final = 500  # from here on it is an attack, not a document
_STRING = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"')
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f]")

Path = tuple[Any, str | int] | None  # linked from the leaf to the root: cheap to extend


@dataclass(frozen=True, slots=True)
class Limits:
    """How large a document may be; `string_bytes` counts UTF-8, a node is any value."""

    depth: int = 32
    nodes: int = 10_000
    string_bytes: int = 512 * 1024


DEFAULT_LIMITS: Final = Limits()


def read(body: bytes, limits: Limits = DEFAULT_LIMITS) -> dict[str, Any]:
    """Decode a body whose top level must be an object.

    Raises `BadRequestError` for what is not JSON (also lone surrogates, numbers beyond a double,
    absurd nesting) and `UnacceptableError`, with a pointer, for JSON that we do not take.
    """
    _refuse_a_flood(body, limits)
    text = _text(body)
    try:
        document = _FAST.decode(text)
    except _SuspectError:
        document = _decode_marking(text)
    except (json.JSONDecodeError, RecursionError) as error:
        raise _not_json(error) from error
    if _may_be_unacceptable(body, limits):
        _Inspection(body, limits).of(document)
    if not isinstance(document, dict):
        raise UnacceptableError(
            "The body must be a JSON object.", flaws=[Flaw("", "must be an object")]
        )
    return document


def pointer(parts: Iterable[str | int]) -> str:
    """Write a place in a document as an RFC 6901 pointer."""
    return "".join(f"/{str(part).replace('~', '~0').replace('/', '~1')}" for part in parts)


class _SuspectError(Exception):
    """The fast pass met a duplicate key or a large number: look closer."""


@dataclass(frozen=True, slots=True)
class _Marked:
    """Stands in the document where the closer pass found something wrong."""

    code: str
    message: str
    key: str | None = None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise _SuspectError
    return members


def _small(literal: str) -> int:
    if len(literal) > _SAFE_DIGITS:
        raise _SuspectError
    return int(literal)


def _finite(literal: str) -> float:
    number = float(literal)
    if len(literal) > _NUMBER_LENGTH or math.isinf(number):
        raise BadRequestError("A number in the body is out of range.", code="invalid_json")
    return number


def _no_constant(name: str) -> NoReturn:
    raise BadRequestError(f"The body is not JSON: {name} is no JSON value.", code="invalid_json")


def _unique_or_marked(pairs: list[tuple[str, Any]]) -> dict[str, Any] | _Marked:
    members: dict[str, Any] = {}
    for key, value in pairs:
        if key in members:
            return _Marked("duplicate_key", "appears more than once in its object", key)
        members[key] = value
    return members


def _exact_or_marked(literal: str) -> int | _Marked:
    if math.isinf(_finite(literal)) or abs(int(literal)) > _EXACT_INTEGER:
        return _Marked("invalid", "is an integer beyond ±2^53")
    return int(literal)


_FAST: Final = json.JSONDecoder(
    object_pairs_hook=_unique,
    parse_int=_small,
    parse_float=_finite,
    parse_constant=_no_constant,
)
_MARKING: Final = json.JSONDecoder(
    object_pairs_hook=_unique_or_marked,
    parse_int=_exact_or_marked,
    parse_float=_finite,
    parse_constant=_no_constant,
)


def _text(body: bytes) -> str:
    try:
        return body.decode()
    except UnicodeDecodeError as error:
        raise BadRequestError(
            f"The body is not UTF-8 (byte {error.start}).", code="invalid_json"
        ) from error


def _not_json(error: json.JSONDecodeError | RecursionError) -> BadRequestError:
    if isinstance(error, RecursionError):
        return BadRequestError("The body is nested absurdly deep.", code="invalid_json")
    return BadRequestError(
        f"The body is not JSON: {error.msg} (line {error.lineno}, column {error.colno}).",
        code="invalid_json",
    )


def _decode_marking(text: str) -> Any:
    try:
        document = _MARKING.decode(text)
    except (json.JSONDecodeError, RecursionError) as error:
        raise _not_json(error) from error
    for value, path in _values(document):
        if isinstance(value, _Marked):
            _refuse(value.message, path if value.key is None else (path, value.key), value.code)
    return document


def _may_be_unacceptable(body: bytes, limits: Limits) -> bool:
    """Whether the bytes leave it open that a limit is passed or a character is not allowed."""
    return (
        b"\\" in body
        or not body.isascii()
        or b"\x7f" in body
        or len(body) > limits.string_bytes
        or body.count(b"[") + body.count(b"{") > limits.depth
        or (
            len(body) > limits.nodes
            and body.count(b",") + body.count(b":") + body.count(b"[") >= limits.nodes
        )
    )


def _refuse_a_flood(body: bytes, limits: Limits) -> None:
    """Refuse far too many values before objects are made of them: each comma brings one more."""
    if (
        len(body) > limits.nodes
        and body.count(b",") >= limits.nodes
        and _STRING.sub(b"", body).count(b",") >= limits.nodes
    ):
        _refuse(f"has more than {limits.nodes:,} values", None)


class _Inspection:
    """The walk over a decoded document; raises at the first thing that is not acceptable."""

    def __init__(self, body: bytes, limits: Limits) -> None:
        self._limits = limits
        # Only `\u` can bring U+0000 or half a surrogate pair into a string.
        self._escapes = b"\\u" in body
        self._strings = self._escapes or len(body) > limits.string_bytes

    def of(self, document: Any) -> None:
        nodes = 1
        waiting: list[tuple[Any, int, Path]] = []
        if type(document) in _CONTAINERS:
            waiting.append((document, 1, None))
        elif type(document) is str:
            self._string(document, None)
        while waiting:
            value, depth, path = waiting.pop()
            nodes += len(value)
            if nodes > self._limits.nodes:
                _refuse(f"has more than {self._limits.nodes:,} values", None)
            if depth > self._limits.depth:
                _refuse_depth(document, self._limits.depth)
            self._look_at(value, path)
            for key, item in _members(value):
                if type(item) in _CONTAINERS:
                    waiting.append((item, depth + 1, (path, key)))

    def _look_at(self, value: Any, path: Path) -> None:
        if type(value) is dict:
            self._keys(value, path)
        if self._strings:
            for key, item in _members(value):
                if type(item) is str:
                    self._string(item, (path, key))

    def _keys(self, members: dict[str, Any], path: Path) -> None:
        together = "".join(members)
        if self._strings:
            for key in members:
                self._string(key, path)
        if not together.isprintable() and _CONTROL.search(together):
            _refuse("has a key with a control character", path)

    def _string(self, text: str, path: Path) -> None:
        size, limit = len(text), self._limits.string_bytes
        if size > limit or (size * 4 > limit and len(text.encode(errors="replace")) > limit):
            _refuse(f"is or has a string longer than {limit:,} bytes", path)
        if not self._escapes:
            return
        if "\x00" in text:
            _refuse("contains U+0000", path)
        if not text.isascii() and not _encodable(text):
            raise BadRequestError(
                f"The body is not Unicode: half a surrogate pair at '{_pointer(path)}'.",
                code="invalid_json",
            )


_CONTAINERS: Final = frozenset({dict, list})


def _members(value: Any) -> Iterable[tuple[Any, Any]]:
    return value.items() if type(value) is dict else enumerate(value)


def _values(document: Any) -> Iterable[tuple[Any, Path]]:
    waiting: list[tuple[Any, Path]] = [(document, None)]
    while waiting:
        value, path = waiting.pop()
        yield value, path
        if type(value) in _CONTAINERS:
            inner = [(item, (path, key)) for key, item in _members(value)]
            waiting.extend(reversed(inner))


def _encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _refuse_depth(document: Any, limit: int) -> NoReturn:
    deepest = 0
    level = [document]
    while level and deepest < _ABSURD_DEPTH:
        deepest += 1
        level = [
            item for value in level for _, item in _members(value) if type(item) in _CONTAINERS
        ]
    if deepest >= _ABSURD_DEPTH:
        raise BadRequestError("The body is nested absurdly deep.", code="invalid_json")
    _refuse(f"is nested deeper than {limit}", None)


def _refuse(message: str, path: Path, code: str = "invalid") -> NoReturn:
    place = _pointer(path)
    shown = f"'{place}'" if place else "The body"
    raise UnacceptableError(f"{shown} {message}.", flaws=[Flaw(place, message)], code=code)


def _pointer(path: Path) -> str:
    parts: list[str | int] = []
    while path is not None:
        path, part = path
        parts.append(part)
    return pointer(reversed(parts)).encode(errors="replace").decode()
