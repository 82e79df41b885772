"""What is shown only where a person looks: tables that fit, and bars that leave nothing behind."""

import re
import sys
from pathlib import Path

import pytest

from tests.e2e.processes import clean_env
from tests.terminal import Terminal

ID = "01a2054b-e6c4-72c8-a580-9167996928d8"
TABLE = f"""
from cli import output
output.table(("ID", "STATUS", "PROMPT", "COST $"), [("{ID}", "succeeded", "greeting v1", "0.1")])
"""
BAR = """
from cli import progress
with progress.bar("Submitting", 30, 0) as says:
    for count in range(31):
        says(count, "")
print("All 30 are submitted.")
"""
SPINNER = """
from cli import progress
with progress.spinner("Run 1 is queued") as says:
    says("Run 1 is running")
print("The answer.")
"""
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_MOVE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|[\r\n]")


def shown(folder: Path, program: str, columns: int, kind: str) -> str:
    """What a program prints on a terminal."""
    script = folder / "program.py"
    script.write_text(program)
    with Terminal(folder, clean_env(folder), columns=columns, kind=kind) as terminal:
        code, said = terminal.type(f"{sys.executable} {script}")
    assert 0 == code, said
    return _COLOUR.sub("", said)


@pytest.mark.parametrize(
    ("columns", "seen"),
    [
        (80, [f"{ID}  succeeded  greeting v1  0.1"]),
        (58, [f"{ID}  succeeded  greeting…"]),
        (50, [f"{ID}  succeeded"]),
        (30, [ID[:30], ID[30:]]),
    ],
)
def test_a_narrow_table_names_its_rows_in_full_and_cuts_what_comes_last(
    columns: int, seen: list[str], tmp_path: Path
) -> None:
    said = shown(tmp_path, TABLE, columns, "xterm")

    assert seen == [line.rstrip() for line in said.splitlines()][1:]


def test_a_bar_is_gone_at_its_end_and_leaves_room_for_ctrl_c(tmp_path: Path) -> None:
    said = shown(tmp_path, BAR, 60, "xterm")

    lines = [line for line in _MOVE.split(said) if "Submitting" in line]
    assert {57} == {len(line) for line in lines}
    assert said.rindex("Submitting") < said.rindex("\x1b[2K") < said.index("All 30 are submitted.")


@pytest.mark.parametrize(
    ("program", "left"), [(BAR, "All 30 are submitted.\n"), (SPINNER, "The answer.\n")]
)
def test_on_a_terminal_that_cannot_move_nothing_does(
    program: str, left: str, tmp_path: Path
) -> None:
    assert left == shown(tmp_path, program, 60, "dumb")
