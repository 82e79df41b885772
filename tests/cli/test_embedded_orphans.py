"""Embedded servers whose Runlane was killed, and data folders that are taken or unusable."""

import os
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path

import psycopg
import pytest

from cli.embedded import (
    EmbeddedError,
    EmbeddedServers,
    FolderInUseError,
    FolderLock,
    FolderUnwritableError,
    ServerFailedError,
    Valkey,
    processes,
    start,
)
from cli.embedded.processes import alive
from cli.embedded.server import Options
from tests.cli.embedded_driver import URL, Driver, driving

ORDINARY_UID = 65534


def note(url: str) -> None:
    with psycopg.connect(url) as connection:
        connection.execute("CREATE TABLE notes AS SELECT 'kept' AS text")


def noted(servers: EmbeddedServers) -> object:
    with psycopg.connect(servers.database_url) as connection:
        return connection.execute("SELECT text FROM notes").fetchall()


def folder_identity(folder: Path) -> tuple[int, int]:
    status = folder.stat()
    return (status.st_dev, status.st_ino)


def pids(servers: EmbeddedServers) -> tuple[int, int]:
    return (servers.postgres.pid, servers.valkey.pid)


def test_healthy_orphans_are_adopted_and_ended_in_order(data_dir: Path) -> None:
    killed = Driver(data_dir)
    note(killed.told.database_url)
    killed.kill()

    with FolderLock(data_dir), start(data_dir) as servers:
        assert (killed.told.postgres_pid, killed.told.valkey_pid) == pids(servers)
        assert noted(servers) == [("kept",)]

    assert not alive(killed.told.postgres_pid)
    assert not alive(killed.told.valkey_pid)


@pytest.mark.parametrize("victims", [("postgres",), ("valkey",), ("postgres", "valkey")])
def test_what_was_killed_too_is_started_again(data_dir: Path, victims: tuple[str, ...]) -> None:
    killed = Driver(data_dir)
    note(killed.told.database_url)
    before = {"postgres": killed.told.postgres_pid, "valkey": killed.told.valkey_pid}
    killed.kill()
    for victim in victims:
        os.kill(before[victim], signal.SIGKILL)

    with start(data_dir) as servers:
        after = {"postgres": servers.postgres.pid, "valkey": servers.valkey.pid}
        assert set(victims) == {name for name in before if before[name] != after[name]}
        assert noted(servers) == [("kept",)]


def test_orphans_started_otherwise_are_replaced(data_dir: Path) -> None:
    killed = Driver(data_dir, tcp=True)
    note(killed.told.database_url)
    killed.kill()

    with start(data_dir) as servers:
        assert not alive(killed.told.postgres_pid)
        assert not alive(killed.told.valkey_pid)
        assert noted(servers) == [("kept",)]


def test_an_orphan_recovering_from_a_crash_of_its_own_is_adopted(data_dir: Path) -> None:
    killed = Driver(data_dir)
    note(killed.told.database_url)
    killed.kill()
    helpers = [
        process.pid
        for process in processes.table()
        if process.program.startswith("postgres: walwriter")
        and process.folder == folder_identity(data_dir / "postgres")
    ]
    for pid in helpers:
        os.kill(pid, signal.SIGKILL)

    with start(data_dir) as servers:
        assert noted(servers) == [("kept",)]
    assert not alive(killed.told.postgres_pid)


class HastyValkey(Valkey):
    health_timeout_s = 0.05
    orphan_timeout_s = 0.2


def test_a_frozen_orphan_is_replaced(data_dir: Path) -> None:
    with start(data_dir, postgres=False) as servers:
        frozen = servers.valkey.pid
        os.kill(frozen, signal.SIGSTOP)

        other = HastyValkey(servers.valkey.place, Options(tcp=False, durable=True))
        other.start()

        assert not servers.valkey.running
        assert frozen != other.pid
        other.stop()


def test_orphans_of_a_data_folder_that_was_removed_are_ended(tmp_path: Path) -> None:
    killed = Driver(tmp_path / "data")
    killed.kill()
    shutil.rmtree(tmp_path / "data")

    with start(tmp_path / "data") as servers:
        assert servers.postgres.running
        assert not alive(killed.told.postgres_pid)
        assert not alive(killed.told.valkey_pid)


def test_a_stale_pid_file_that_names_a_living_stranger_is_no_obstacle(data_dir: Path) -> None:
    with start(data_dir, durable=False) as servers:
        servers.postgres.stop()
        pid_file = servers.postgres.data_dir / "postmaster.pid"
        pid_file.write_text(f"{servers.valkey.pid}\n/elsewhere\n1\n5432\n\n\n\nready\n")

        servers.postgres.start()

        assert servers.postgres.running


def test_a_second_runlane_names_the_first_and_gives_up(data_dir: Path) -> None:
    with driving(data_dir) as first:
        second = Driver(data_dir)

        assert second.stop() == 1
        assert f"process {first.pid} at {URL}" in second.told.error
        with pytest.raises(FolderInUseError) as raised:
            FolderLock(data_dir)
        assert (first.pid, URL) == (raised.value.pid, raised.value.url)


def test_the_lock_goes_with_the_process_whatever_the_file_says(tmp_path: Path) -> None:
    (tmp_path / "lock").write_text("1\nhttp://127.0.0.1:1\n")

    with FolderLock(tmp_path) as lock:
        lock.write("http://127.0.0.1:9")
        with pytest.raises(FolderInUseError) as raised:
            FolderLock(tmp_path)

    assert raised.value.url == "http://127.0.0.1:9"
    FolderLock(tmp_path).release()


def test_a_folder_that_cannot_be_written_is_one_sentence() -> None:
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o555)

        driver = Driver(Path(folder), uid=ORDINARY_UID if os.geteuid() == 0 else os.geteuid())

        assert driver.stop() == 1
        assert (
            f"The data folder {folder} cannot be written (Permission denied): set DATA_DIR to a "
            "folder that can." == driver.told.error
        )


def test_a_used_folder_that_became_read_only_is_one_sentence_and_keeps_what_it_holds(
    used_data_dir: Path,
) -> None:
    uid = ORDINARY_UID if os.geteuid() == 0 else os.geteuid()
    with tempfile.TemporaryDirectory() as outer:
        Path(outer).chmod(0o755)
        folder = Path(outer) / "data"
        subprocess.run(["/bin/cp", "-a", used_data_dir, folder], check=True)
        if os.geteuid() == 0:
            subprocess.run(["/bin/chown", "-R", str(uid), folder], check=True)
        with driving(folder, uid=uid) as first:
            note(first.told.database_url)
        subprocess.run(["/bin/chmod", "-R", "a-w", folder], check=True)

        refused = Driver(folder, uid=uid)
        code = refused.stop()
        subprocess.run(["/bin/chmod", "-R", "u+w", folder], check=True)
        with (
            driving(folder, uid=uid) as again,
            psycopg.connect(again.told.database_url) as connection,
        ):
            kept = connection.execute("SELECT text FROM notes").fetchall()

    assert 1 == code
    assert refused.told.error.startswith(f"The data folder {folder} cannot be written (")
    assert "\n" not in refused.told.error
    assert [("kept",)] == kept


@pytest.mark.parametrize("below", ["file", "file/deeper"])
def test_a_file_in_place_of_the_data_folder_is_one_sentence(tmp_path: Path, below: str) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(FolderUnwritableError):
        start(tmp_path / below)
    with pytest.raises(FolderUnwritableError):
        FolderLock(tmp_path / below)


def test_a_lost_password_is_one_sentence(data_dir: Path) -> None:
    with start(data_dir, durable=False, valkey=False) as servers:
        (data_dir / "postgres.password").unlink()
        with pytest.raises(EmbeddedError, match="password of the embedded PostgreSQL is missing"):
            _ = servers.database_url


def test_a_wrong_password_is_one_sentence(data_dir: Path) -> None:
    (data_dir / "postgres.password").write_text("guess")

    with pytest.raises(ServerFailedError, match="password authentication failed") as raised:
        start(data_dir, durable=False, valkey=False)

    assert "\n" not in str(raised.value)
