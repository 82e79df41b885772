"""Every error code in the code is in the catalogue, and nothing else is."""

import ast
import re
from collections.abc import Iterator

from api.error_catalog import REQUEST_ERRORS
from api.run_error_catalog import RUN_ERRORS
from shared import errors
from shared.domain.signing import SecretError
from shared.domain.templates import TemplateError
from tests.architecture.source import CODE, dotted, modules

# Functions that are handed a run's error code, and at which place.
HANDED = {"GiveUpError": 0, "_refused": 0, "broken": 0, "refused": 1, "unknown": 0}
NAMED = frozenset({"code", "error_code", "attempt_error_code"})
IN_SQL = re.compile(r"error_code = '(\w+)'|THEN '([a-z]+(?:_[a-z]+)+)'")
WORD = re.compile(r"[a-z]+(?:_[a-z]+)*|[A-Z]+(?:_[A-Z]+)*")


def leaves(kind: type[errors.AppError]) -> Iterator[type[errors.AppError]]:
    yield kind
    for below in kind.__subclasses__():
        yield from leaves(below)


KINDS = {kind.__name__: kind for kind in leaves(errors.AppError)}


def calls(*packages: str) -> Iterator[tuple[str, ast.Call]]:
    """Every call with the last part of what it calls."""
    for module in modules(*packages):
        for node in ast.walk(module.tree):
            if isinstance(node, ast.Call):
                yield dotted(node.func).rpartition(".")[2], node


def text_of(node: ast.AST) -> str | None:
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else None


def request_codes() -> dict[str, int]:
    """The codes that leave in problems, with their status."""
    found = {kind.code: kind.status for kind in KINDS.values()}
    for name, call in calls(*CODE):
        for keyword in call.keywords:
            code = text_of(keyword.value)
            if keyword.arg == "code" and code and name in KINDS:
                found[code] = KINDS[name].status
    return found


def run_codes() -> set[str]:
    """The codes that runs and attempts end with."""
    found = {TemplateError.code}
    for name, call in calls("worker"):
        given = [word.value for word in call.keywords if word.arg in NAMED and name not in KINDS]
        given += call.args[HANDED[name] : HANDED[name] + 1] if name in HANDED else []
        found |= {code for one in given if (code := text_of(one)) and WORD.fullmatch(code)}
    for module in modules("worker/providers"):
        for node in ast.walk(module.tree):
            code = text_of(node)
            if code and code.startswith("provider_") and WORD.fullmatch(code):
                found.add(code)
    for module in modules("shared/store"):
        found |= {one or other for one, other in IN_SQL.findall(module.text)}
    return found - {"provider_request_id"}


def test_every_code_of_a_request_is_in_the_catalogue_with_its_status() -> None:
    assert SecretError in KINDS.values()

    assert request_codes() == {error.code: error.status for error in REQUEST_ERRORS}


def test_every_code_of_a_run_is_in_the_catalogue() -> None:
    assert run_codes() == {error.code for error in RUN_ERRORS}


def test_the_catalogue_is_in_the_order_it_is_shown_in() -> None:
    shown = [(error.status, error.code) for error in REQUEST_ERRORS]

    assert sorted(shown) == shown
    assert sorted(error.code for error in RUN_ERRORS) == [error.code for error in RUN_ERRORS]


def test_a_reserved_code_is_raised_nowhere() -> None:
    raised = {
        dotted(node.exc).rpartition(".")[2]
        for module in modules(*CODE)
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Raise) and node.exc is not None
    }

    assert {error.code for error in REQUEST_ERRORS if error.reserved} == {
        kind.code
        for name, kind in KINDS.items()
        if name not in raised and not any(below.__name__ in raised for below in leaves(kind))
    } & {"precondition_failed"}
