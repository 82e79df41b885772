"""The code base as data: its files, and its modules as syntax trees."""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
CODE = ("api", "cli", "migrations", "shared", "worker")
_FOLDERS = (*CODE, ".ci", ".github", "bench", "deploy", "docs", "tests")
_MADE = frozenset({"__pycache__", "results"})
_BINARY = frozenset({".gz", ".ico", ".jpg", ".png", ".pyc", ".woff2"})


@dataclass(frozen=True)
class Module:
    """One file of Python; `path` is relative to the root, with slashes."""

    path: str
    text: str
    tree: ast.Module

    @property
    def lines(self) -> int:
        return len(self.text.splitlines())

    @property
    def functions(self) -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
        """Every function and method, named with what it stands in."""
        yield from _functions(self.tree, "")


@cache
def modules(*packages: str) -> tuple[Module, ...]:
    """The modules of some packages, by path."""
    found = sorted(path for package in packages for path in (ROOT / package).rglob("*.py"))
    return tuple(
        Module(path.relative_to(ROOT).as_posix(), text := path.read_text(), ast.parse(text))
        for path in found
    )


@cache
def files() -> tuple[tuple[str, str], ...]:
    """Every text file of the project: path and content."""
    at_root = (path for path in ROOT.iterdir() if path.is_file() and not path.name.startswith("."))
    inside = (path for name in _FOLDERS for path in (ROOT / name).rglob("*") if path.is_file())
    return tuple(
        (path.relative_to(ROOT).as_posix(), path.read_text(errors="replace"))
        for path in sorted((*at_root, *inside))
        if path.suffix not in _BINARY and not _is_made(path.relative_to(ROOT))
    )


def _is_made(path: Path) -> bool:
    """Whether a program left it there: caches, results, hidden folders within ours."""
    return any(part in _MADE or part.startswith(".") for part in path.parts[1:-1])


def dotted(node: ast.AST) -> str:
    """`a.b.c` for an attribute of a name, as far as it is one."""
    match node:
        case ast.Name():
            return node.id
        case ast.Attribute():
            return f"{dotted(node.value)}.{node.attr}"
        case ast.Call():
            return dotted(node.func)
        case _:
            return ""


def _functions(
    node: ast.AST, within: str
) -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
    for child in ast.iter_child_nodes(node):
        match child:
            case ast.FunctionDef() | ast.AsyncFunctionDef():
                yield f"{within}{child.name}", child
                yield from _functions(child, f"{within}{child.name}.")
            case ast.ClassDef():
                yield from _functions(child, f"{within}{child.name}.")
            case _:
                yield from _functions(child, within)
