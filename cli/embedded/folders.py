"""The data folder, its lock, and the private folder of the servers' sockets."""

import contextlib
import hashlib
import os
import stat
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

from cli.embedded.errors import EmbeddedError, FolderInUseError, FolderUnwritableError
from cli.embedded.processes import Account
from shared.settings import environment

if sys.platform != "win32":
    import fcntl
    import pwd

_LONGEST_SOCKET_PATH = 90  # bytes; the limit is 103 on macOS and 107 on Linux
_LONGEST_SOCKET_NAME = len(".s.PGSQL.65535")
_NOBODY = 65534


class FolderLock:
    """One Runlane per data folder, for as long as this object lives unreleased.

    The kernel drops the lock with the process, so a lock file alone never blocks a start.
    On Windows, where there are no embedded servers, it keeps nobody out.
    """

    def __init__(self, data_dir: Path) -> None:
        self._data_dir = data_dir
        with writing(data_dir):
            make_data_folder(data_dir)
            self._file = os.open(data_dir / "lock", os.O_RDWR | os.O_CREAT, 0o600)
            try:
                self._acquire()
            except BaseException:
                os.close(self._file)
                raise
        self.write("")

    def write(self, url: str) -> None:
        """Note where this Runlane answers, for the message a second one prints."""
        with writing(self._data_dir):
            os.ftruncate(self._file, 0)
            os.lseek(self._file, 0, os.SEEK_SET)
            os.write(self._file, f"{os.getpid()}\n{url}\n".encode())

    def release(self) -> None:
        """Let others in; a second call does nothing."""
        if self._file >= 0:
            os.ftruncate(self._file, 0)
            os.close(self._file)
            self._file = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self.release()

    def _acquire(self) -> None:
        if sys.platform == "win32":
            return
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            pid, _, rest = os.read(self._file, 4096).decode(errors="replace").partition("\n")
            url = rest.strip() or None
            known = int(pid) if pid.isdigit() else None
            raise FolderInUseError(self._data_dir, known, url) from error


@contextlib.contextmanager
def writing(data_dir: Path) -> Iterator[None]:
    """Turn the operating system's refusals inside the data folder into one sentence."""
    try:
        yield
    except OSError as error:
        raise FolderUnwritableError(data_dir, error.strerror or type(error).__name__) from error


def make_data_folder(data_dir: Path) -> None:
    """Make the folder, closed to others, where it is missing; an existing one keeps its mode."""
    data_dir.parent.mkdir(parents=True, exist_ok=True)
    data_dir.mkdir(mode=0o700, exist_ok=True)


def server_account(data_dir: Path) -> Account | None:
    """Return whom the servers run as when we are root, None when they run as ourselves.

    PostgreSQL refuses root. Data that exists belongs to somebody already: that one goes on,
    else it is the system's `nobody`.
    """
    if os.geteuid() != 0:
        return None
    for folder in (data_dir / "postgres", data_dir / "valkey"):
        with contextlib.suppress(FileNotFoundError):
            status = folder.lstat()
            if status.st_uid != 0:
                return Account(status.st_uid, status.st_gid)
    try:
        nobody = pwd.getpwnam("nobody")
    except KeyError:
        return Account(_NOBODY, _NOBODY)
    return Account(nobody.pw_uid, nobody.pw_gid)


def make_server_folder(folder: Path, account: Account | None) -> None:
    """Make a folder that only the servers' user (and root) may enter."""
    folder.mkdir(mode=0o700, exist_ok=True)
    status = folder.lstat()
    if account is not None and status.st_uid == 0:
        os.chown(folder, account.uid, account.gid, follow_symlinks=False)
    elif account is None and status.st_uid != os.geteuid():
        raise EmbeddedError(
            f"The folder {folder} belongs to another user (uid {status.st_uid}): start Runlane "
            "as that user, or set DATA_DIR to another folder."
        )


def make_socket_folder(data_dir: Path, account: Account | None) -> Path:
    """Make the folder for sockets: short, closed to others, and the same at every start."""
    uid = account.uid if account else os.geteuid()
    name = f"runlane-{uid}-{hashlib.sha256(os.fsencode(data_dir.resolve())).hexdigest()[:12]}"
    for base in _socket_bases(account):
        folder = base / name
        path_bytes = len(os.fsencode(folder)) + 1 + _LONGEST_SOCKET_NAME
        if path_bytes <= _LONGEST_SOCKET_PATH and _claim(folder, uid, account):
            return folder
    raise EmbeddedError(
        f"No folder for the embedded servers' sockets could be made ({name} below the temporary "
        "folder): set TMPDIR to a short path that you may write."
    )


def _socket_bases(account: Account | None) -> Iterator[Path]:
    temporary = (Path(tempfile.gettempdir()), Path("/tmp"))  # noqa: S108 (_claim guards it)
    if account is None:
        runtime = environment().get("XDG_RUNTIME_DIR") or f"/run/user/{os.geteuid()}"
        yield from (base for base in (Path(runtime), *temporary) if os.access(base, os.W_OK))
        return
    for base in (Path("/run"), *temporary):
        if base.is_dir() and all(step.stat().st_mode & 0o001 for step in (base, *base.parents)):
            yield base


def _claim(folder: Path, uid: int, account: Account | None) -> bool:
    # In a folder open to all, somebody else may have put a folder or a link of this name.
    try:
        with contextlib.suppress(FileExistsError):
            folder.mkdir(mode=0o700)
        status = folder.lstat()
        closed = stat.S_ISDIR(status.st_mode) and not status.st_mode & 0o077
        if closed and account is not None and status.st_uid == 0:
            os.chown(folder, account.uid, account.gid, follow_symlinks=False)
            status = folder.lstat()
    except OSError:
        return False
    return closed and status.st_uid == uid
