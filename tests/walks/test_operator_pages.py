"""The how-to pages for operators that need no container engine: typed, and rehearsed."""

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from cli.embedded import EmbeddedServers
from tests.e2e.installation import Installation
from tests.e2e.processes import ROOT, Process
from tests.faults.processes import Launcher
from tests.walks.pages import Walk, alike

pytestmark = pytest.mark.xdist_group("operator-pages")

HOW_TO = ROOT / "docs/how-to"
INPUTS = {"name": "Ada"}


@pytest.fixture
def installation(
    servers: EmbeddedServers, empty_redis_url: str, launcher: Launcher, tmp_path: Path
) -> Iterator[Installation]:
    installation = Installation(servers, launcher, tmp_path)
    installation.run("migrate")
    installation.workspace()
    installation.start("api")
    with installation.customer() as customer:
        customer.prompt("greeting", "sim/echo")
    yield installation
    installation.close()


def typed(page: str) -> list[str]:
    """The commands of a page, block by block."""
    text = (HOW_TO / page).read_text()
    return re.findall(r"^```sh\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def run(commands: str, installation: Installation, folder: Path) -> str:
    done = subprocess.run(
        ["/bin/bash", "-euo", "pipefail", "-c", commands],
        cwd=folder,
        env=installation.env,
        capture_output=True,
        text=True,
        check=False,
    )
    assert 0 == done.returncode, f"{commands}{done.stdout}{done.stderr}"
    return done.stdout


def test_the_page_about_stuck_runs_does_what_it_says(
    installation: Installation, tmp_path: Path
) -> None:
    installation.start("worker")
    walk = Walk(HOW_TO / "debug-a-stuck-run.md", tmp_path, installation.env)

    walk.through()

    assert alike(walk.written) == alike(walk.printed)
    assert len(walk.written) > 5


def test_the_page_about_upgrades_types_what_works(
    installation: Installation, tmp_path: Path
) -> None:
    installation.start("worker")

    said = [run(one, installation, tmp_path) for one in typed("upgrade.md")]

    assert 3 == len(said)
    assert re.fullmatch(r"The database has schema \w+\.\n", said[1])
    assert "(0 rows)" in said[2]


def test_the_page_about_spending_limits_it(installation: Installation, tmp_path: Path) -> None:
    with installation.customer() as customer:
        customer.http.post("/environments", json={"name": "staging"}).raise_for_status()
    commands = [
        one.replace("WORKSPACE", installation.workspace_id)
        for one in typed("budgets-and-credits.md")
    ]

    said = [run(one, installation, tmp_path) for one in commands]

    assert 3 == len(said)
    assert "5000000" in said[0]
    with installation.customer() as customer:
        assert 5_000_000 == customer.http.get("/credits").json()["creditsLeft"]
        budgets = customer.http.get("/budgets").json()["data"]
    assert {("day", 1_000_000), ("month", 10_000_000)} == {
        (budget["period"], budget["limitCredits"]) for budget in budgets
    }


def test_the_page_about_watching_shows_where_figures_are(
    installation: Installation, tmp_path: Path
) -> None:
    api, worker, look = typed("watch-it.md")[0].splitlines()
    env = installation.env

    with (
        Process(["/bin/bash", "-c", f"exec env {api}"], env=env, cwd=tmp_path) as first,
        Process(["/bin/bash", "-c", f"exec env {worker}"], env=env, cwd=tmp_path) as second,
    ):
        first.says("api_ready")
        second.says("worker_ready")
        shown = run(look, installation, tmp_path)

    assert "# TYPE runlane_http_requests_total counter" in shown


def test_after_both_servers_lost_everything_a_dump_goes_on(
    installation: Installation, tmp_path: Path
) -> None:
    dump, restore, look = typed("back-up-and-restore.md")
    with installation.customer() as customer:
        installation.start("worker")
        customer.variable("production", "TOKEN", "kept")
        done = customer.finished(customer.submit("greeting", INPUTS))
        installation.stop()
    installation.start("api")
    with installation.customer() as customer:
        waiting = [customer.submit("greeting", INPUTS) for _ in range(3)]
        run(dump, installation, tmp_path)
        late = customer.submit("greeting", INPUTS)
    installation.stop()

    installation.lose_everything()
    run(restore, installation, tmp_path)
    installation.start("api", "worker")
    told = run(look, installation, tmp_path)

    with installation.customer() as customer:
        finished = customer.all_finished(waiting)
        assert done == customer.prompt_run(done["id"])
        assert {"completed"} == {run["status"] for run in finished}
        assert 404 == customer.http.get(f"/runs/{late}").status_code
    assert "all 1 are under the newest master key" in told
