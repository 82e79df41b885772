"""What commands print: tables for eyes, tab-separated columns for pipes, JSON for programs."""

import re
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

_UNPRINTABLE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_GAP = 2  # blanks between the columns of a table
_LEAST = 8  # a column cut to less than this says nothing

Row = Sequence[object]


def is_terminal() -> bool:
    """Whether a person reads standard output."""
    return sys.stdout.isatty()


def note(text: str) -> None:
    """Tell the person at the terminal something that is no result."""
    print(text, file=sys.stderr, flush=True)


def json_document(document: Any) -> None:
    """Print one JSON document: indented for eyes, on one line for programs."""
    text = msgspec.json.encode(document)
    if is_terminal():
        text = msgspec.json.format(text, indent=2)
    print(text.decode(), flush=True)


def json_lines(documents: Sequence[Any]) -> None:
    """Print each on a line of its own."""
    for document in documents:
        print(msgspec.json.encode(document).decode())
    sys.stdout.flush()


def text(body: str) -> None:
    """Print text that somebody else wrote; what could steer a terminal does not reach one."""
    print(printable(body) if is_terminal() else body, flush=True)


def printable(body: str) -> str:
    """The text without control characters, but for tabs and ends of lines."""
    return _UNPRINTABLE.sub("�", body.replace("\r\n", "\n"))


def moment(text: str | None) -> str | None:
    """A moment to the second: `2026-11-22 12:00:00Z`."""
    return None if text is None else f"{text[:10]} {text[11:19]}Z"


def table(columns: Sequence[str], rows: Sequence[Row], *, none: str = "Nothing found.") -> None:
    """Print rows, the most important column first: a narrow terminal cuts and loses the last ones.

    Through a pipe there is no heading, and each row is one line.
    """
    cells = [[_cell(value) for value in row] for row in rows]
    if not is_terminal():
        for row in cells:
            print("\t".join(row))
        sys.stdout.flush()
    elif cells:
        _draw(columns, cells)
    else:
        note(none)


def fields(pairs: Mapping[str, object]) -> None:
    """Print names and values, one pair a line; what is None is left out."""
    known = {name: _cell(value) for name, value in pairs.items() if value is not None}
    width = max(map(len, known), default=0) + _GAP
    for name, value in known.items():
        print(f"{name:{width}}{value}" if is_terminal() else f"{name}\t{value}")
    sys.stdout.flush()


def columns(*values: object) -> None:
    """Print one row of a table that grows while somebody looks."""
    print(("  " if is_terminal() else "\t").join(map(_cell, values)), flush=True)


def blank() -> None:
    """Leave a line empty."""
    print()


def _draw(columns: Sequence[str], cells: Sequence[Sequence[str]]) -> None:
    from rich.console import Console  # noqa: PLC0415 (only where a person looks)
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    console = Console(highlight=False)
    widths = [max(len(cell) for cell in column) for column in zip(columns, *cells, strict=True)]
    drawn = Table(box=None, pad_edge=False, padding=(0, _GAP, 0, 0), header_style="bold")
    left = console.width
    for column, width in zip(columns, widths, strict=True):
        named = len(drawn.columns) > 0  # the first names the row: it is whole at any width
        if named and left < min(width, _LEAST):
            break
        drawn.add_column(
            column,
            width=min(width, left),
            no_wrap=named,
            overflow="ellipsis" if named else "fold",
        )
        left -= width + _GAP
    for row in cells:
        drawn.add_row(*(Text(cell) for cell in row[: len(drawn.columns)]))
    console.print(drawn)


def _cell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, list | tuple):
        value = ", ".join(map(str, value))
    return _UNPRINTABLE.sub("�", str(value)).replace("\t", " ").replace("\n", " ")
