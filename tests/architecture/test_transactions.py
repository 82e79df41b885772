"""Only services open transactions, and nothing slow is awaited inside one."""

import ast
from collections.abc import Iterator

from tests.architecture.source import CODE, Module, dotted, modules

# Waiting for Redis, a provider or HTTP while rows are locked would lock them for that long.
SLOW = frozenset(
    {"client", "http", "lanes", "provider", "providers", "rings", "sleep", "submissions"}
)


def transactions(module: Module) -> Iterator[ast.AsyncWith]:
    for node in ast.walk(module.tree):
        if isinstance(node, ast.AsyncWith) and any(
            dotted(item.context_expr).endswith("store.transaction") for item in node.items
        ):
            yield node


def test_only_services_open_transactions() -> None:
    opened = {
        module.path
        for module in modules(*CODE)
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Call) and dotted(node.func).endswith("store.transaction")
    }

    assert opened
    assert set() == {path for path in opened if not path.startswith("shared/services/")}


def test_nothing_slow_is_awaited_inside_a_transaction() -> None:
    slow = [
        f"{module.path}:{node.lineno} awaits {dotted(node.value)}"
        for module in modules("shared")
        for block in transactions(module)
        for inner in block.body
        for node in ast.walk(inner)
        if isinstance(node, ast.Await) and SLOW.intersection(dotted(node.value).split("."))
    ]

    assert [] == slow


def test_a_transaction_is_not_opened_inside_another() -> None:
    nested = [
        f"{module.path}:{inner.lineno}"
        for module in modules("shared")
        for block in transactions(module)
        for inner in transactions(Module(module.path, "", ast.Module(block.body, [])))
    ]

    assert [] == nested
