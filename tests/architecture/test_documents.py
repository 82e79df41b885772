"""The documents hold together: the README says what is printed, and every link leads somewhere."""

import re
from pathlib import Path

import pytest

from cli.first_start import greeting
from tests.architecture.source import ROOT
from worker.providers import sim

WRITTEN = sorted(path.relative_to(ROOT).as_posix() for path in ROOT.glob("*.md")) + sorted(
    path.relative_to(ROOT).as_posix() for path in (ROOT / "docs").rglob("*.md")
)
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)


def anchor(heading: str) -> str:
    """A heading's anchor, as the usual viewers of Markdown make it."""
    plain = re.sub(r"[^\w\- ]", "", heading.lower())
    return plain.replace(" ", "-")


def test_the_readme_shows_what_a_first_start_prints() -> None:
    printed = greeting("http://127.0.0.1:8000", Path(".runlane/dev.env"), new=True)

    assert f"```text\n{printed.strip()}\n```" in (ROOT / "README.md").read_text()


def test_the_readme_names_the_test_command_that_ci_runs() -> None:
    assert "```sh\nmake test\n```" in (ROOT / "README.md").read_text()
    assert "make test" in (ROOT / ".ci" / "run").read_text()


@pytest.mark.parametrize("document", WRITTEN)
def test_every_link_leads_somewhere(document: str) -> None:
    path = ROOT / document
    targets = [one for one in LINK.findall(path.read_text()) if "://" not in one]

    for target in targets:
        name, _, part = target.partition("#")
        found = (path.parent / name) if name else path
        assert found.exists(), target
        if part:
            assert part in {anchor(one) for one in HEADING.findall(found.read_text())}, target


def test_the_index_lists_every_page() -> None:
    folder = ROOT / "docs"
    listed = set(LINK.findall((folder / "README.md").read_text()))
    pages = {path.relative_to(folder).as_posix() for path in folder.rglob("*.md")}

    assert set() == pages - listed - {"README.md"}


def test_the_page_of_failures_names_every_simulated_model() -> None:
    page = (ROOT / "docs/how-to/try-failures.md").read_text()

    assert set(sim.MODELS) == set(re.findall(r"^\| `sim/([\w-]+)` \|", page, re.MULTILINE))


def test_decisions_are_numbered_without_gaps() -> None:
    numbers = sorted(path.name[:4] for path in (ROOT / "docs" / "decisions").glob("*.md"))

    assert [f"{number:04}" for number in range(1, len(numbers) + 1)] == numbers


def test_every_test_that_a_promise_names_exists() -> None:
    page = (ROOT / "docs/explanation/guarantees.md").read_text()
    written = "\n".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))

    named = set(re.findall(r"`(test_\w+)`", page))
    files = set(re.findall(r"`([a-z]+(?:/\w+)*/test_\w+\.py)`", page))

    assert [] == sorted(name for name in named if f"def {name}(" not in written)
    assert [] == sorted(name for name in files if not (ROOT / "tests" / name).is_file())
    assert len(named) > 10
