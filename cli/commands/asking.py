"""Questions to the person at the terminal: whether they are sure, and for what nobody may see."""

import sys
from typing import Annotated

import typer

Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]


def sure(question: str, *, yes: bool) -> None:
    """Ask before something is gone; a script has to say `--yes`."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise typer.BadParameter("Nobody is here to be asked: add --yes.")
    typer.confirm(question, abort=True)


def secret(what: str) -> str:
    """Read a value that belongs into no list of processes and no shell history.

    Typed unseen at a terminal; else all of standard input, without one newline at its end.
    """
    if sys.stdin.isatty():
        return str(typer.prompt(what, hide_input=True))
    try:
        text = sys.stdin.buffer.read().decode()
    except UnicodeDecodeError as error:
        raise typer.BadParameter("Standard input is no text in UTF-8.") from error
    value = text.removesuffix("\n").removesuffix("\r")
    if not value:
        raise typer.BadParameter("Standard input is empty: nothing is changed.")
    return value
