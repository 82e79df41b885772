"""Showing what was measured, and keeping it as JSON."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
from rich.console import Console
from rich.table import Table

RESULTS = Path(__file__).parent / "results"
console = Console(highlight=False)


@dataclass
class Shown:
    """One table of a part."""

    title: str
    columns: Sequence[str]
    rows: list[Sequence[object]] = field(default_factory=list)

    def add(self, *cells: object) -> None:
        self.rows.append(cells)


@dataclass
class Result:
    """What a part found: figures under the names that others read, and tables for people."""

    figures: Mapping[str, object]
    tables: Sequence[Shown]


def say(sentence: str) -> None:
    console.print(f"[dim]{sentence}[/dim]")


def show(result: Result) -> None:
    for shown in result.tables:
        table = Table(title=shown.title, title_justify="left")
        for place, column in enumerate(shown.columns):
            table.add_column(column, justify="left" if place == 0 else "right")
        for row in shown.rows:
            table.add_row(*(_text(cell) for cell in row))
        console.print(table)


def keep(part: str, figures: Mapping[str, object], conditions: Mapping[str, object]) -> Path:
    """Write `results/<part>.json`, conditions included."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{part}.json"
    document = {**figures, "conditions": conditions}
    path.write_bytes(msgspec.json.format(msgspec.json.encode(_rounded(document)), indent=2) + b"\n")
    return path


def _rounded(value: object) -> object:
    match value:
        case float():
            return round(value, 4)
        case Mapping():
            return {str(name): _rounded(inner) for name, inner in value.items()}
        case list() | tuple():
            return [_rounded(inner) for inner in value]
        case _:
            return value


def _text(cell: object) -> str:
    if isinstance(cell, float):
        return f"{cell:,.2f}" if cell < 100 else f"{cell:,.0f}"
    return f"{cell:,}" if isinstance(cell, int) else str(cell)
