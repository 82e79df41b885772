"""Files of prompts on a screen: as they are, and what changes in them, line by line."""

import difflib
import re
from collections.abc import Iterator, Mapping

from rich.console import Console
from rich.text import Text

from cli import prompt_files

_UNSEEN = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\ufeff]")
_STYLES = (("+++", "bold"), ("---", "bold"), ("@@", "cyan"), ("+", "green"), ("-", "red"))


def show(prefix: str, before: Mapping[str, bytes], after: Mapping[str, bytes]) -> None:
    """Print a unified diff; in colour where a terminal shows it and `NO_COLOR` is not set."""
    for line in lines(prefix, before, after):
        style = next((style for start, style in _STYLES if line.startswith(start)), "")
        _print(line, style)


def lines(prefix: str, before: Mapping[str, bytes], after: Mapping[str, bytes]) -> Iterator[str]:
    """The diff's lines. What no screen shows, such as a carriage return, is an escape there."""
    for name in sorted({*before, *after}, key=prompt_files.place):
        old, new = (_lines(files.get(name)) for files in (before, after))
        if old == new:
            continue
        was, is_now = (prefix + name if name in files else "/dev/null" for files in (before, after))
        yield from difflib.unified_diff(old, new, was, is_now, lineterm="")


def show_file(name: str, content: bytes) -> None:
    """Print a file under its name."""
    _print("", "")
    _print(f"── {name}", "bold")
    for line in _lines(content):
        _print(line, "")


def _lines(content: bytes | None) -> list[str]:
    """A file's lines; only a line feed ends one."""
    if content is None:
        return []
    text = content.decode().removesuffix("\n")
    return [_UNSEEN.sub(_escaped, line) for line in text.split("\n")]


def _escaped(match: re.Match[str]) -> str:
    return match[0].encode("unicode_escape").decode()


def _print(line: str, style: str) -> None:
    console = Console(highlight=False, markup=False)
    if console.is_terminal:
        console.print(Text(line, style=style), soft_wrap=True)
    else:
        print(line)
