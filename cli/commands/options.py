"""Options that several commands have, and the pairs people type."""

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import typer

Url = Annotated[
    str | None,
    typer.Option(
        "--url", envvar="RUNLANE_URL", help="The server; else that of a `runlane dev` here."
    ),
]
Key = Annotated[
    str | None,
    typer.Option(
        "--key",
        envvar="RUNLANE_API_KEY",
        show_envvar=True,
        help="The API key. The variable keeps it out of the list of processes.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON and nothing else.")]


def pairs(texts: Iterable[str] | None, *, files: bool = False) -> dict[str, str]:
    """Read `name=value`; with `files`, `name=@path` takes a file's text and `@@` is an `@`.

    Raises `typer.BadParameter`.
    """
    found: dict[str, str] = {}
    for text in texts or ():
        name, given, value = text.partition("=")
        if not given or not name:
            raise typer.BadParameter(f"{text!r} is no name=value.")
        if name in found:
            raise typer.BadParameter(f"{name!r} is given twice.")
        found[name] = _value(value) if files else value
    return found


def _value(text: str) -> str:
    if text.startswith("@@"):
        return text[1:]
    if not text.startswith("@"):
        return text
    path = Path(text[1:])
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise typer.BadParameter(f"{path} cannot be read ({error.strerror}).") from error
    except UnicodeDecodeError as error:
        raise typer.BadParameter(f"{path} is no text in UTF-8.") from error
