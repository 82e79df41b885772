"""How tests and files behave: nothing patched, slept through, skipped, or tied to one machine."""

import ast
import re

from tests.architecture.source import dotted, files, modules

# What a person could only know from a machine of ours, or would fetch from one place only.
FOREIGN = re.compile(
    r"/home/\w|/root/|/Users/\w|/work/|[A-Z]:\\Users|/tmp/\w"
    r"|\bfiles\.pythonhosted\.|\bpypi\.(?:org|python)|--(?:extra-)?index-url|\bregistry\.npmjs"
)
HERE = "tests/architecture/test_conduct.py"
SKIPS = frozenset({"skip", "skipif", "importorskip", "skipIf", "xfail"})
# Jobs of tests that take a moment, and why that is no waiting.
JOBS = {"tests/worker/test_lane_worker_arq.py": "so that both workers get some of the jobs"}


def test_no_test_patches() -> None:
    imported = [
        module.path
        for module in modules("tests")
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        and any("mock" in name for name in _imported(node))
    ]

    assert [] == imported


def test_no_test_sleeps() -> None:
    """Fakes may play slow servers, rigs may poll with a deadline; `sleep(0)` only yields."""
    slept = [
        f"{module.path}:{node.lineno}"
        for module in modules("tests")
        if module.path.rpartition("/")[2].startswith("test_") and module.path not in JOBS
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Call)
        and dotted(node.func).rpartition(".")[2] == "sleep"
        and ast.unparse(node.args[0]) != "0"
    ]

    assert [] == slept


def test_no_test_is_skipped() -> None:
    skipped = [
        f"{module.path}:{node.lineno}"
        for module in modules("tests")
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Attribute) and node.attr in SKIPS
    ]

    assert [] == skipped


def test_no_file_names_a_machine_or_a_package_index() -> None:
    found = [
        f"{path}:{number}: {match[0]}"
        for path, text in files()
        if path != HERE
        for number, line in enumerate(text.splitlines(), start=1)
        for match in FOREIGN.finditer(line)
    ]

    assert [] == found


def test_every_type_ignore_says_which_and_why() -> None:
    bare = [
        f"{path}:{number}"
        for path, text in files()
        if path.endswith(".py") and path != HERE
        for number, line in enumerate(text.splitlines(), start=1)
        if "# type: ignore" in line
        and not re.search(r"# type: ignore\[[\w-]+(, ?[\w-]+)*\]\s+# \w", line)
    ]

    assert [] == bare


def _imported(node: ast.Import | ast.ImportFrom) -> list[str]:
    names = [alias.name for alias in node.names]
    return [*names, node.module or ""] if isinstance(node, ast.ImportFrom) else names
