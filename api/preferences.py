"""`Prefer` (RFC 7240): what a client would like, where it costs nothing to ignore it."""

import re
from collections.abc import Iterable

_WORD = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_ASSIGNED = rf'[ \t]*=[ \t]*(?:{_WORD}|"(?:[^"\\]|\\.)*")?'
# One element of the list: a name and its value, then parameters, which are about it alone.
_PREFERENCE = re.compile(
    rf"[ \t,]*(?P<name>{_WORD})(?P<value>{_ASSIGNED})?"
    rf"(?:[ \t]*;[ \t]*(?:{_WORD}(?:{_ASSIGNED})?)?)*[ \t]*(?=,|$)"
)
_SECONDS = re.compile(r"[0-9]{1,9}")


def wait_s(fields: Iterable[str]) -> int | None:
    """The seconds of `wait=N` in the fields of a request; the first `wait` is the one that counts.

    What makes no sense is ignored, and whatever follows what is not even spelled right.
    """
    text, place = ",".join(fields), 0
    while found := _PREFERENCE.match(text, place):
        if found["name"].lower() == "wait":
            value = (found["value"] or "").strip(" \t=").strip('"')
            return int(value) if _SECONDS.fullmatch(value) else None
        place = found.end()
    return None
