"""The commands and probes of the image, typed against real servers."""

import asyncio
import os
import subprocess
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from signal import SIGCONT, SIGSTOP, SIGTERM
from uuid import uuid4

import httpx
import pytest

from cli.embedded import EmbeddedServers, wheels
from shared.queue.connection import connect
from shared.services import self_check
from shared.services.findings import Finding, Verdict
from tests.deploy import files
from tests.e2e.processes import BIN, ROOT, clean_env
from tests.faults.processes import Child, Launcher
from tests.waiting import until

pytestmark = pytest.mark.xdist_group("image")

STALE_S = 60
CHECKS = [
    ["/bin/sh", "-c", files.last("HEALTHCHECK").partition(" CMD ")[2]],
    *(
        files.container("Deployment", "runlane-worker")[probe]["exec"]["command"]
        for probe in ("startupProbe", "livenessProbe")
    ),
]
MASTER_KEY = "image:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="


def test_the_wheel_of_the_image_holds_all_of_the_packages(tmp_path: Path) -> None:
    """The image has this wheel and no checkout: a file that it lacks is missing there."""
    _, command = next((name, text) for name, text in files.instructions() if "hatchling" in text)
    build = command.partition(" && ")[0].split()[1:]
    folders = [text.split() for name, text in files.instructions() if name == "COPY"]
    copied = {
        source
        for source, target in (words for words in folders if len(words) == 2)
        if source == target
    }

    subprocess.run(
        [BIN / "python", *build[:-1], tmp_path], cwd=ROOT, check=True, capture_output=True
    )
    (wheel,) = tmp_path.glob("*.whl")
    held = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}

    packages = {name.partition("/")[0] for name in held}
    kept = {
        path.relative_to(ROOT).as_posix()
        for package in packages
        for path in (ROOT / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert {"api", "cli", "migrations", "shared", "worker"} == packages == copied
    assert kept == held
    assert ["runlane"] == files.entry_point()


class Image:
    """Starts the image's entry point with its environment, but for folders and the port."""

    def __init__(self, launcher: Launcher, folder: Path, servers: Mapping[str, str]) -> None:
        self._launcher = launcher
        self._folder = folder
        fixed = files.image_environment()
        self._env = clean_env(folder) | {
            name: value for name, value in fixed.items() if name in files.SETTINGS
        }
        self._env |= {"DATA_DIR": str(folder / "data"), "API_PORT": "0", "API_LINGER_S": "0"}
        self._env |= {"METRICS_HOST": "127.0.0.1", "METRICS_PORT": "0"}
        self._env |= {"MASTER_KEY": MASTER_KEY, **servers}

    def started(self, *args: str) -> Child:
        name = "-".join(args)
        env = self._env | {"ALIVE_FILE": self.alive_file(name)}
        return self._launcher.launch(name, args, env, self._folder / f"{name}.log")

    def alive_file(self, name: str) -> str:
        return str(self._folder / f"alive-{name}")

    def healthy(self, argv: list[str], name: str) -> bool:
        """Run a health check as the engine does, inside what would be the container."""
        env = {"PATH": os.defpath, "ALIVE_FILE": self.alive_file(name)}
        return 0 == subprocess.run(argv, env=env, check=False).returncode

    def grow_old(self, name: str) -> None:
        """Let the file that shows life be from a minute ago."""
        place = self.alive_file(name)
        touched_at = Path(place).stat().st_mtime - STALE_S
        os.utime(place, (touched_at, touched_at))


@pytest.fixture
def image(
    launcher: Launcher, servers: EmbeddedServers, empty_redis_url: str, tmp_path: Path
) -> Iterator[Image]:
    name = f"image_{uuid4().hex}"
    urls = {"DATABASE_URL": servers.postgres.create_database(name), "REDIS_URL": empty_redis_url}
    yield Image(launcher, tmp_path, urls)
    servers.postgres.drop_database(name)


def test_the_image_migrates_serves_and_works_and_its_probes_see_that(image: Image) -> None:
    migrate = image.started(*files.container("Job", "runlane-migrate")["args"])
    until(lambda: not migrate.alive, otherwise=migrate.last_words)
    api = image.started(*files.compose()["services"]["api-1"]["command"])
    worker = image.started(*files.container("Deployment", "runlane-worker")["args"])
    url = str(_said(api, "api_ready")["url"])
    _said(worker, "worker_ready")

    answers = [httpx.get(url + path).status_code for path in _asked_of_an_api()]
    healthy = [image.healthy(check, name) for check in CHECKS for name in ("api", "worker")]
    with _frozen(worker):
        image.grow_old("worker")
        frozen = [image.healthy(check, "worker") for check in CHECKS]
    until(lambda: all(image.healthy(check, "worker") for check in CHECKS))

    assert 0 == migrate.exit_code
    assert [200, 200, 200] == answers
    assert [True] * 2 * len(CHECKS) == healthy
    assert [False] * len(CHECKS) == frozen
    assert [0, 0] == [_ended(child) for child in (api, worker)]


def test_valkey_as_compose_starts_it_is_one_that_the_self_check_likes(
    tmp_path: Path,
) -> None:
    _, *flags = files.compose()["services"]["valkey"]["command"]
    socket = tmp_path / "s"
    here = ["--port", "0", "--unixsocket", str(socket), "--dir", str(tmp_path)]
    with subprocess.Popen(
        [wheels.locate().valkey_server, *flags, *here], stdout=subprocess.DEVNULL
    ) as valkey:
        try:
            until(socket.exists)
            found = asyncio.run(_looked_at(f"unix://{socket}"))
        finally:
            valkey.terminate()

    assert [Verdict.GOOD] == [finding.verdict for finding in found]


async def _looked_at(url: str) -> list[Finding]:
    lanes = connect(url)
    try:
        return await self_check.redis(lanes, 5)
    finally:
        await lanes.aclose()


def _asked_of_an_api() -> list[str]:
    """The paths that Kubernetes asks for, all at the port the image listens on."""
    probes = ("startupProbe", "livenessProbe", "readinessProbe")
    asked = [files.container("Deployment", "runlane-api")[name]["httpGet"] for name in probes]
    assert {"http"} == {one["port"] for one in asked}
    return [one["path"] for one in asked]


def _said(child: Child, event: str) -> Mapping[str, object]:
    return until(lambda: child.said(event), otherwise=child.last_words)[0]


@contextmanager
def _frozen(child: Child) -> Iterator[None]:
    child.send(SIGSTOP)
    until(lambda: child.state == "T")
    try:
        yield
    finally:
        child.send(SIGCONT)


def _ended(child: Child) -> int:
    child.send(SIGTERM)
    until(lambda: not child.alive, otherwise=child.last_words)
    return child.exit_code
