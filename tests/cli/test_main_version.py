"""What somebody who reports a problem is asked for first."""

from importlib.metadata import version
from pathlib import Path

from tests.e2e.processes import RUNLANE, clean_env, run


def test_the_version_is_told_in_one_line(tmp_path: Path) -> None:
    said = run(RUNLANE, "--version", env=clean_env(tmp_path))

    assert (0, f"runlane {version('runlane')}\n", "") == said
