"""The private PostgreSQL."""

import contextlib
import os
import secrets
import shutil
import signal
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

import psycopg
from psycopg import errors, sql

from cli.embedded import folders, processes
from cli.embedded.errors import EmbeddedError
from cli.embedded.server import EmbeddedServer, StopMode

_DATABASE = "runlane"
_USER = "runlane"

_SETTINGS = {
    "shared_buffers": "128MB",
    "max_connections": "100",
    "wal_compression": "on",
    "checkpoint_timeout": "15min",
    "io_method": "sync",  # no I/O workers: the data fits the caches
    "jit": "off",  # compiling costs more than our short statements
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_checkpoints": "off",
    "unix_socket_permissions": "0700",
}
_SETTINGS_WITHOUT_DURABILITY = {
    "fsync": "off",
    "full_page_writes": "off",
    "wal_level": "minimal",
    "max_wal_senders": "0",
}


class Postgres(EmbeddedServer):
    """PostgreSQL 18 with one database, `runlane`, and one role of the same name."""

    name = "PostgreSQL"
    programs = ("postgres", "initdb")
    folder_name = "postgres"
    socket_port = 5432

    @property
    def url(self) -> str:
        return self.url_of(_DATABASE)

    def url_of(self, database: str) -> str:
        """Return the URL of another database of this server."""
        if self.options.tcp:
            return f"postgresql://{_USER}:{self._password()}@127.0.0.1:{self.port}/{database}"
        return self._socket_url(database)

    def start(self) -> None:
        super().start()
        try:
            self.create_database(_DATABASE)
        except psycopg.Error as error:
            raise self.failed(str(error).partition("\n")[0]) from error

    def prepare(self) -> None:
        """Make the cluster aside and move it into place: an interrupted start leaves no half."""
        if self.data_dir.exists():
            folders.make_server_folder(self.data_dir, self.place.account)
            return
        draft = self.data_dir.with_name("postgres.new")
        if draft.exists():
            self.clear(draft)
            shutil.rmtree(draft)
        folders.make_server_folder(draft, self.place.account)
        self._initdb(draft)
        draft.rename(self.data_dir)

    def clear(self, folder: Path) -> None:
        super().clear(folder)
        # PostgreSQL takes any process that has the number in a pid file for a living server: a
        # stranger, or a killed one that nobody has waited for yet.
        for file in (folder / "postmaster.pid", *self.place.sockets.glob(".s.PGSQL.*.lock")):
            with contextlib.suppress(FileNotFoundError, ValueError):
                if processes.number_taken(int(file.read_text().partition("\n")[0])):
                    file.unlink()

    def command(self) -> Sequence[str]:
        settings = {
            **_SETTINGS,
            **({} if self.options.durable else _SETTINGS_WITHOUT_DURABILITY),
            "listen_addresses": "127.0.0.1" if self.options.tcp else "",
            "port": str(self.port),
            "unix_socket_directories": str(self.place.sockets),
        }
        argv = [str(self.place.binaries.postgres), "-D", self._path_for_server(self.data_dir)]
        for key, value in settings.items():
            argv += ["-c", f"{key}={value}"]
        return argv

    def ready(self, pid: int) -> bool:
        # Asking the file costs nothing; connecting too early leaves FATAL lines in the log.
        with contextlib.suppress(FileNotFoundError):
            lines = (self.data_dir / "postmaster.pid").read_text().split("\n")
            return lines[0] == str(pid) and [line.strip() for line in lines[7:8]] == ["ready"]
        return False

    def healthy(self, pid: int) -> bool:
        if not self.ready(pid):
            return False
        with contextlib.suppress(psycopg.OperationalError), self._connect("postgres"):
            return True
        return False

    def stop_signal(self, mode: StopMode) -> signal.Signals:
        return {"fast": signal.SIGINT, "immediate": signal.SIGQUIT}[mode]

    def create_database(self, database: str, template: str = "template1") -> str:
        """Make a database where there is none of that name; return its URL."""
        with self._connect("postgres") as connection:
            known = connection.execute(
                "SELECT 1 FROM pg_database WHERE datname = %s", [database]
            ).fetchone()
            if known is None:
                # A Runlane killed in the middle of this may leave its statement running.
                with contextlib.suppress(errors.DuplicateDatabase, errors.UniqueViolation):
                    names = (sql.Identifier(database), sql.Identifier(template))
                    connection.execute(sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(*names))
        return self.url_of(database)

    def drop_database(self, database: str) -> None:
        """Drop a database if it is there, whoever is connected to it."""
        with self._connect("postgres") as connection:
            connection.execute(
                sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(database))
            )

    def _connect(self, database: str) -> "psycopg.Connection[tuple[object, ...]]":
        return psycopg.connect(
            self._socket_url(database), autocommit=True, connect_timeout=int(self.health_timeout_s)
        )

    def _socket_url(self, database: str) -> str:
        host = quote(str(self.place.sockets))
        return f"postgresql://{_USER}:{self._password()}@/{database}?host={host}&port={self.port}"

    @property
    def _password_file(self) -> Path:
        return self.place.data_dir / "postgres.password"

    def _password(self) -> str:
        try:
            return self._password_file.read_text().strip()
        except FileNotFoundError as error:
            raise EmbeddedError(
                f"The password of the embedded PostgreSQL is missing ({self._password_file}): "
                "put the file back, or set DATA_DIR to a new folder."
            ) from error

    def _initdb(self, folder: Path) -> None:
        password = secrets.token_hex(32)
        descriptor = os.open(self._password_file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(password)
        # initdb opens it again as its own user, hence the owner; the file has no name.
        with tempfile.TemporaryFile(dir=self.place.data_dir) as given:
            given.write(password.encode())
            given.seek(0)
            if self.place.account is not None:
                os.fchown(given.fileno(), self.place.account.uid, self.place.account.gid)
            self.run_to_end(self._initdb_command(folder), folder, given)

    def _initdb_command(self, folder: Path) -> Sequence[str]:
        argv = [
            str(self.place.binaries.initdb),
            f"--pgdata={self._path_for_server(folder)}",
            f"--username={_USER}",
            "--auth=scram-sha-256",
            "--pwfile=/dev/stdin",
            "--encoding=UTF8",
            "--no-locale",
            "--no-instructions",
            # Stretching protects guessable passwords; ours is 256 random bits.
            "--set=scram_iterations=1",
        ]
        return argv if self.options.durable else [*argv, "--no-sync"]

    def _path_for_server(self, folder: Path) -> str:
        """Return the path under which the server, started inside the folder, reaches it.

        As root on Linux it is the working folder's own link, which needs no way in through the
        parents: they may be closed to the server's user and keep their modes.
        """
        if self.place.account is not None and sys.platform == "linux":
            return "/proc/self/cwd"
        return str(folder)
