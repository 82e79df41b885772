"""The code as it was before the newest migration, taken out of the history and run."""

import io
import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from shared.settings import environment
from shared.store import schema
from tests.faults.processes import Child

_ROOT = Path(__file__).parents[2]
_GIT = shutil.which("git") or ""
_LOOK_BACK = 20
_APPEND = os.O_WRONLY | os.O_CREAT | os.O_APPEND
_MAIN = "from cli.main import main; main()"
_ALL = "import cli.main, cli.operator, cli.serve_api, cli.serve_worker"


def before_newest_migration() -> Sequence[str]:
    """Commits, newest first; none where there is no history, or a shallow one that begins later."""
    if not _GIT:
        return []
    (migration,) = (_ROOT / "migrations/versions").glob(f"{schema.EXPECTED}_*.py")
    made = _git("log", "--diff-filter=A", "--format=%H", "--", str(migration)).split()
    if not made:
        return []
    return _git("rev-list", "--first-parent", f"--max-count={_LOOK_BACK}", f"{made[-1]}^").split()


class Checkout:
    """One commit in a folder of its own, run with the libraries of today."""

    def __init__(self, commit: str, folder: Path) -> None:
        self._folder = folder
        packed = subprocess.run(
            [_GIT, "archive", commit], cwd=_ROOT, capture_output=True, check=True
        )
        with tarfile.open(fileobj=io.BytesIO(packed.stdout)) as archive:
            archive.extractall(folder, filter="data")

    def imports(self) -> bool:
        """Whether its modules are whole: a commit amid a series may not be."""
        env = {**environment(), "PYTHONPATH": str(self._folder)}
        tried = subprocess.run([sys.executable, "-P", "-c", _ALL], env=env, check=False)
        return tried.returncode == 0

    def launch(self, name: str, args: Sequence[str], env: Mapping[str, str], log: Path) -> Child:
        """Start `runlane` with arguments, as `Launcher.launch` does, and never wait for it."""
        pid = os.posix_spawn(
            sys.executable,
            [sys.executable, "-P", "-c", _MAIN, *args],
            {**env, "PYTHONPATH": str(self._folder)},
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                (os.POSIX_SPAWN_OPEN, 1, str(log), _APPEND, 0o600),
                (os.POSIX_SPAWN_DUP2, 1, 2),
            ],
            setsid=True,
        )
        return Child(name, pid, log)


def _git(*args: str) -> str:
    done = subprocess.run([_GIT, *args], cwd=_ROOT, capture_output=True, text=True, check=False)
    return done.stdout
