"""A private PostgreSQL and Valkey for `runlane dev` and the tests, kept in one data folder.

How they run:
- `<data folder>/postgres` and `/valkey` hold the data, `/logs` what they say, `/postgres.password`
  the password (0600); the sockets lie in a short folder (0700) below `/run` or the temporary one.
- As root they run as the owner of existing data, else as `nobody`. They are started *inside* their
  folders and reach them as `/proc/self/cwd`, so no parent needs to be open to that user and no
  mode of a folder we did not make changes. Programs that user cannot reach are copied once below
  `/var/cache` (or `/var/lib`, or the temporary folder).
- Whoever starts them holds the `FolderLock`. A server left by a SIGKILL is found in the process
  table by its working folder or its sockets: adopted when it is what we would start and answers,
  ended otherwise.
"""

import shutil
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

from cli.embedded import folders, wheels
from cli.embedded.errors import (
    EmbeddedError,
    EmbeddedUnavailableError,
    FolderInUseError,
    FolderUnwritableError,
    ServerFailedError,
)
from cli.embedded.folders import FolderLock
from cli.embedded.postgres import Postgres
from cli.embedded.server import EmbeddedServer, Options, Place, StopMode
from cli.embedded.valkey import Valkey
from cli.embedded.wheels import Binaries

_Server = TypeVar("_Server", bound=EmbeddedServer)

__all__ = [
    "Binaries",
    "EmbeddedError",
    "EmbeddedServers",
    "EmbeddedUnavailableError",
    "FolderInUseError",
    "FolderLock",
    "FolderUnwritableError",
    "Postgres",
    "ServerFailedError",
    "StopMode",
    "Valkey",
    "start",
]


class EmbeddedServers:
    """The running servers of one data folder; as a context manager it stops them at the end."""

    def __init__(self, place: Place, postgres: Postgres | None, valkey: Valkey | None) -> None:
        self._place = place
        self._postgres = postgres
        self._valkey = valkey

    @property
    def postgres(self) -> Postgres:
        return _asked_for(self._postgres)

    @property
    def valkey(self) -> Valkey:
        return _asked_for(self._valkey)

    @property
    def database_url(self) -> str:
        """A libpq URL of the database `runlane`."""
        return self.postgres.url

    @property
    def redis_url(self) -> str:
        return self.valkey.url

    def start(self) -> None:
        """Start what does not run."""
        for server in self._servers():
            server.start()

    def stop(self, mode: StopMode = "fast") -> None:
        """Stop both and remove their sockets; a second call does nothing."""
        try:
            for server in self._servers():
                server.stop(mode)
        finally:
            if not any(server.running for server in self._servers()):
                shutil.rmtree(self._place.sockets, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self.stop()

    def _servers(self) -> tuple[EmbeddedServer, ...]:
        return tuple(server for server in (self._valkey, self._postgres) if server is not None)


def start(
    data_dir: Path,
    *,
    tcp: bool = False,
    durable: bool = True,
    postgres: bool = True,
    valkey: bool = True,
    binaries: Binaries | None = None,
) -> EmbeddedServers:
    """Start the servers of a data folder whose `FolderLock` the caller holds.

    With `tcp` they also listen on 127.0.0.1, each on a port it keeps, and the URLs say so; Valkey
    has no password there, so that is for tests. Without `durable` a crash of the machine may lose
    data. Raises `EmbeddedError`, having stopped what it had started.
    """
    data_dir = data_dir.absolute()
    originals = binaries or wheels.locate()
    with folders.writing(data_dir):
        folders.make_data_folder(data_dir)
        account = folders.server_account(data_dir)
    place = Place(
        data_dir=data_dir,
        account=account,
        binaries=wheels.usable_by(account, originals),
        sockets=folders.make_socket_folder(data_dir, account),
    )
    options = Options(tcp=tcp, durable=durable)
    servers = EmbeddedServers(
        place,
        Postgres(place, options) if postgres else None,
        Valkey(place, options) if valkey else None,
    )
    try:
        servers.start()
    except BaseException:
        servers.stop()
        raise
    return servers


def _asked_for(server: _Server | None) -> _Server:
    if server is None:
        raise EmbeddedError("This embedded server was not asked for at the start.")
    return server
