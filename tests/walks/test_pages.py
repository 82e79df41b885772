"""The tutorial and the how-to pages over the API, walked through against one `runlane dev`."""

import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from cli import dev_env
from tests.e2e.processes import BIN, ROOT, RUNLANE, Process, clean_env, served, spare_curl
from tests.walks.pages import Walk, alike

pytestmark = pytest.mark.xdist_group("e2e-pages")

HOW_TOS = (
    "release-a-prompt",
    "environments-and-keys",
    "retry-safely",
    "hold-a-conversation",
    "use-other-servers",
    "emit-data",
    "promote-between-environments",
    "route-models",
    "keep-data-no-longer-than-needed",
    "use-the-flows-door",
)
_SERVERS = re.compile(r"export PROVIDERS='(.+?)'", re.DOTALL)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout as far as the pages need one, with a curl where the system has none."""
    folder = tmp_path_factory.mktemp("pages")
    (folder / ".venv").symlink_to(sys.prefix)
    return spare_curl(folder)


@pytest.fixture(scope="module")
def env(folder: Path) -> Iterator[dict[str, str]]:
    """A login's environment, while `runlane dev` runs in the folder, with the servers of a page."""
    servers = _SERVERS.search((ROOT / "docs/how-to/use-other-servers.md").read_text())
    assert servers is not None
    env = clean_env(folder, API_PORT="0", PROVIDERS=servers[1])
    env["PATH"] = f"{os.defpath}:{folder}"
    with served(Process([RUNLANE, "dev"], env=env, cwd=folder)):
        yield env


def test_the_tutorial_does_what_it_says(folder: Path, env: dict[str, str]) -> None:
    walk = Walk(ROOT / "docs/tutorial/first-release.md", folder, env)

    walk.through()

    assert alike(walk.written) == alike(walk.printed)
    assert len(walk.written) > 15


@pytest.mark.parametrize("page", HOW_TOS)
def test_a_how_to_page_does_what_it_says(
    page: str, folder: Path, env: dict[str, str], tmp_path: Path
) -> None:
    known = dev_env.read(folder / ".runlane" / "dev.env")
    commands = {"PATH": f"{BIN}:{env['PATH']}"}
    walk = Walk(ROOT / f"docs/how-to/{page}.md", tmp_path, env | known | commands)

    walk.through()

    assert alike(walk.written) == alike(walk.printed)
    assert len(walk.written) > 2
