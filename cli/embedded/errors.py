"""What can go wrong with the embedded servers. Every message is one sentence for a person."""

from pathlib import Path


class EmbeddedError(Exception):
    """The embedded servers cannot do what was asked; print the message, not a traceback."""


class EmbeddedUnavailableError(EmbeddedError):
    """This installation has no PostgreSQL or Valkey of its own."""

    def __init__(self) -> None:
        super().__init__(
            "This installation has no embedded PostgreSQL and Valkey (the optional extra "
            "`embedded`, for Linux with glibc and macOS): set DATABASE_URL and REDIS_URL to "
            "servers of your own."
        )


class FolderInUseError(EmbeddedError):
    """Another Runlane lives in the data folder; `pid` and `url` are None while unknown."""

    def __init__(self, data_dir: Path, pid: int | None, url: str | None) -> None:
        self.pid = pid
        self.url = url
        who = f"process {pid}" if pid else "another process"
        where = f" at {url}" if url else ""
        super().__init__(
            f"Runlane already runs in {data_dir} ({who}{where}): use that one, stop it, or set "
            "DATA_DIR to another folder."
        )


class FolderUnwritableError(EmbeddedError):
    """The data folder cannot be made or written."""

    def __init__(self, data_dir: Path, reason: str) -> None:
        super().__init__(
            f"The data folder {data_dir} cannot be written ({reason}): set DATA_DIR to a folder "
            "that can."
        )


class ServerFailedError(EmbeddedError):
    """A server did not start or stop; `reason` is what it said last."""

    def __init__(self, name: str, reason: str, log: Path) -> None:
        self.reason = reason
        super().__init__(f"The embedded {name} failed ({reason}); its log is {log}.")
