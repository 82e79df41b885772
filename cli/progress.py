"""What moves on a terminal while somebody waits, on standard error; elsewhere nothing does."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from cli import output

if TYPE_CHECKING:
    from rich.console import Console

_ROOM = 3  # at a line's end, for the ^C that a terminal writes there


@contextmanager
def spinner(text: str) -> Iterator[Callable[[str], None]]:
    """Show that something goes on, and for how long; answers a function that changes the text."""
    console = _moving()
    if console is None:
        yield lambda _: None
        return
    from rich.progress import (  # noqa: PLC0415
        Progress,
        SpinnerColumn,
        TextColumn,
        TimeElapsedColumn,
    )

    both = output.is_terminal()  # then what is printed goes above the spinner
    with Progress(
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        TimeElapsedColumn(),
        console=console,
        transient=True,
        redirect_stdout=both,
        redirect_stderr=True,
    ) as shown:
        task = shown.add_task(text, total=None)
        yield lambda new: shown.update(task, description=new)


@contextmanager
def bar(text: str, total: int, done: int) -> Iterator[Callable[[int, str], None]]:
    """Show how far something is; answers a function that takes the count and a remark."""
    console = _moving()
    if console is None:
        yield lambda _, __: None
        return
    from rich.progress import (  # noqa: PLC0415
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    with Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=None),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}", markup=False),
        TimeRemainingColumn(),
        console=console,
        transient=True,  # what came of it is said in words
        redirect_stdout=False,
        expand=True,
    ) as shown:
        task = shown.add_task(text, total=total, completed=done, rate="")

        def update(count: int, remark: str) -> None:
            speed = shown.tasks[0].speed
            rate = "" if speed is None else f"{speed:,.0f}/s"
            shown.update(task, completed=count, description=remark or text, rate=rate)

        yield update


def _moving() -> "Console | None":
    """A terminal on which something can move; a dumb one would print each move."""
    if not sys.stderr.isatty():
        return None
    from rich.console import Console  # noqa: PLC0415 (only where a person looks)

    console = Console(stderr=True)
    if console.is_dumb_terminal:
        return None
    console.width = max(1, console.width - _ROOM)
    return console
