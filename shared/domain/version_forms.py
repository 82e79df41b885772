"""The two forms in which a version's body is written, brought into the long one."""

from collections.abc import Mapping
from typing import Any

import msgspec

from shared.domain import documents
from shared.domain.templates import Syntax
from shared.errors import BadRequestError, Flaw, UnacceptableError

ENTRYPOINT = "main"
MAX_TEMPLATES = 200


class Outer(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The long form, its templates still unread."""

    templates: dict[str, Any]
    entrypoint: str = ENTRYPOINT
    syntax: Syntax | None = None


def document(body: object) -> object:
    """Decode a body without its nulls. Raises `BadRequestError` for bytes that are no JSON."""
    try:
        decoded = msgspec.json.decode(body) if isinstance(body, bytes) else body
        return documents.without_nulls(decoded)
    except (msgspec.DecodeError, RecursionError) as error:
        raise BadRequestError("The body is not JSON, or nested too deeply.") from error


def outer(written: object) -> tuple[Outer, Mapping[str, str]]:
    """Bring either form into the long one; say at which pointer each template was.

    Raises `UnacceptableError`.
    """
    short = False
    if isinstance(written, dict) and not written.keys() & {"templates", "entrypoint"}:
        short = True
        template = {key: value for key, value in written.items() if key != "syntax"}
        outside = {key: value for key, value in written.items() if key == "syntax"}
        written = {"templates": {ENTRYPOINT: template}, **outside}
    flaws: list[Flaw] = []
    found = documents.convert(written, Outer, "", flaws)
    if found is not None and len(found.templates) > MAX_TEMPLATES:
        flaws.append(Flaw("/templates", f"A version may hold {MAX_TEMPLATES} templates."))
    if found is None or flaws:
        raise refused(flaws)
    if short:
        return found, {ENTRYPOINT: ""}
    return found, {name: f"/templates{documents.step(name)}" for name in found.templates}


def refused(flaws: list[Flaw]) -> UnacceptableError:
    """The error for a body with these flaws."""
    return UnacceptableError(f"The version cannot be used: {flaws[0].message}", flaws=flaws)
