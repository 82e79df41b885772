"""Who may import whom: the contracts in pyproject.toml."""

import subprocess
import sys
import tomllib

import pytest
from importlinter import cli

from tests.architecture.source import CODE, ROOT

CONTRACTS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]


def test_every_import_contract_is_kept(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ROOT)

    status = cli.lint_imports(no_cache=True, no_logo=True)

    assert 0 == status, capsys.readouterr().out


def test_the_contracts_cover_every_package() -> None:
    covered = {*CONTRACTS["root_packages"], "migrations"}  # these import Alembic and SQLAlchemy

    assert set(CODE) == covered


def test_a_new_part_of_shared_needs_a_place_in_the_contract() -> None:
    (inside_shared,) = (one for one in CONTRACTS["contracts"] if one.get("containers"))

    assert ["shared"] == inside_shared["containers"]
    assert inside_shared["exhaustive"] is True


def test_nothing_of_tracing_is_imported_until_traces_are_on() -> None:
    program = (
        "import sys, cli.serve_api, cli.serve_worker, cli.watched;"
        " print([name for name in sys.modules if name.startswith('opentelemetry.sdk')])"
    )

    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, check=True, capture_output=True, text=True
    )

    assert "[]\n" == done.stdout


def test_the_api_starts_without_the_price_book() -> None:
    """It takes long to import, and memory; `Deps.prices` does it where somebody asks."""
    program = "import sys, cli.serve_api; print('genai_prices' in sys.modules)"

    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, check=True, capture_output=True, text=True
    )

    assert "False\n" == done.stdout
