"""Names of environments and of their variables."""

import re
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from shared.errors import Flaw

MAX_VALUE_BYTES = 65_536
MIN_SHOWN_VALUE = 12

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_KEY = re.compile(r"[A-Z][A-Z0-9_]{0,127}")
_RESERVED_NAMES = frozenset({"diff", "promote"})  # they are routes beside /environments/{name}


class Retention(msgspec.Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    """For how many days after a run's end things stay; null leaves it to the server.

    With 0 days contents stay until the run's webhooks are delivered, or given up.
    """

    contents_days: Annotated[int, Meta(ge=0, le=3650)] | None = None
    runs_days: Annotated[int, Meta(ge=1, le=3650)] | None = None


class Limits(msgspec.Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    """How many runs may wait and run at once; null leaves it to the server."""

    queued_runs: Annotated[int, Meta(ge=1, le=10_000_000)] | None = None
    running_runs: Annotated[int, Meta(ge=1, le=1_000_000)] | None = None


def retention_of(asked: Retention | Literal["none"] | None) -> Retention | None:
    """What `"none"` is short for."""
    return Retention(contents_days=0) if asked == "none" else asked


def is_name(text: str) -> bool:
    """Tell whether an environment could have this name."""
    return _NAME.fullmatch(text) is not None and text.lower() not in _RESERVED_NAMES


def name_flaws(name: str | None, pointer: str = "/name") -> list[Flaw]:
    """Say what is wrong with an environment's name; `None` was not given and is never wrong."""
    if name is None or is_name(name):
        return []
    reserved = " or ".join(sorted(_RESERVED_NAMES))
    return [Flaw(pointer, f"A name matches {_NAME.pattern} and is not {reserved}.")]


def is_key(text: str) -> bool:
    """Tell whether a variable could have this name."""
    return _KEY.fullmatch(text) is not None


def variable_flaws(key: str, value: str) -> list[Flaw]:
    """Say what is wrong with a variable."""
    flaws = []
    if not is_key(key):
        flaws.append(Flaw("/key", f"A variable's name matches {_KEY.pattern}."))
    if len(value.encode()) > MAX_VALUE_BYTES:
        flaws.append(Flaw("/value", f"A value holds at most {MAX_VALUE_BYTES:,} bytes."))
    return flaws


def last4(value: str) -> str:
    """What may be shown of a value: its end, where that does not give a short one away."""
    return value[-4:] if len(value) >= MIN_SHOWN_VALUE else ""
