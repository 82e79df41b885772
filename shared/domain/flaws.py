"""Flaws of a document: collected first, refused together."""

import re

from shared.errors import Flaw, UnacceptableError

MAX_NAME = 200
MAX_TEXT = 2_000

_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f]")


def refuse(*flaws: Flaw) -> None:
    """Raise `UnacceptableError` with all flaws, if there are any."""
    if flaws:
        raise UnacceptableError(flaws[0].message, flaws=flaws)


def of_name(name: str | None, pointer: str = "/name") -> list[Flaw]:
    """Say what is wrong with what people call a thing; `None` was not given and is fine."""
    if name is None or (name.strip() and len(name) <= MAX_NAME and not _CONTROL.search(name)):
        return []
    return [Flaw(pointer, f"A name is 1 to {MAX_NAME} printable characters, not all blank.")]


def of_text(text: str | None, pointer: str = "/description") -> list[Flaw]:
    """Say what is wrong with a longer text, which may be empty and hold line breaks."""
    if text is None or len(text) <= MAX_TEXT:
        return []
    return [Flaw(pointer, f"At most {MAX_TEXT:,} characters are accepted.")]
