"""Lists of the API as tables, columns or JSON lines: the same for every noun."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cli import output
from cli.client import Client, Query


@dataclass(frozen=True)
class Shown:
    """How a list is shown: headings with the fields below them, the most important first."""

    columns: Mapping[str, str]
    as_json: bool


async def show(api: Client, where: str, shown: Shown, query: Query | None = None) -> None:
    """Print every row of a list."""
    rows: list[Any] = []
    async for page in api.pages(where, query or {}, None):
        if shown.as_json:
            output.json_lines(page)
        else:
            rows += page
    if not shown.as_json:
        fields = list(shown.columns.values())
        cells = [[_cell(field, row[field]) for field in fields] for row in rows]
        output.table(list(shown.columns), cells)


def cell(value: Any) -> Any:
    """A value as a person reads it."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return value


def _cell(field: str, value: Any) -> Any:
    return output.moment(value) if field.endswith("At") else cell(value)
