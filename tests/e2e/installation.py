"""An installation for pages that an operator reads: a database, Redis, an API and a worker."""

import base64
from collections.abc import Mapping, Sequence
from pathlib import Path
from signal import SIGTERM

from cli.embedded import EmbeddedServers, wheels
from tests import servers as private_servers
from tests.e2e.customer import Customer
from tests.e2e.processes import BIN, clean_env, spare_curl
from tests.faults.processes import Child, Launcher
from tests.waiting import until

SHORT_TIMES = {
    "LEASE_S": "2",
    "RENEW_S": "0.4",
    "SELF_FENCE_S": "1.5",
    "REAP_S": "0.2",
    "SWEEP_S": "0.3",
    "RETRY_BACKOFF_S": "0.1",
}


class Installation:
    """Starts and stops its processes; `env` is what its operator's shell has."""

    def __init__(self, servers: EmbeddedServers, launcher: Launcher, folder: Path) -> None:
        self.name = f"installation_{folder.name}"
        self._servers = servers
        self._launcher = launcher
        self._folder = folder
        self._running: list[Child] = []
        programs = f"{BIN}:{wheels.locate().postgres_bin}"
        made = clean_env(
            folder,
            DATABASE_URL=servers.postgres.create_database(self.name),
            REDIS_URL=servers.redis_url,
            MASTER_KEY="main:" + base64.b64encode(bytes(range(32))).decode(),
            DATA_DIR=str(folder / "data"),
            API_PORT="0",
            DEV_MODE="true",
            COLUMNS="200",
            **SHORT_TIMES,
        )
        self.env = made | {"PATH": f"{programs}:{made['PATH']}:{spare_curl(folder)}"}
        self.workspace_id = ""

    def run(self, *args: str) -> str:
        """A command of `runlane` that has to succeed; what it printed."""
        code, out, err = self._launcher.run(args, self.env, self._folder)
        assert 0 == code, err
        return out.strip()

    def workspace(self) -> None:
        """A workspace with an admin key, in `env` from now on."""
        self.workspace_id = self.run("workspaces", "create", "acme", "-e", "production")
        self.env["RUNLANE_API_KEY"] = self.run("workspaces", "create-key", self.workspace_id)

    def start(self, *kinds: str) -> None:
        for kind in kinds:
            log = self._folder / f"{kind}-{len(list(self._folder.glob('*.log')))}.log"
            child = self._launcher.launch(kind, [kind], self.env, log)
            self._running.append(child)
            said = _ready(child, kind)
            if kind == "api":
                self.env["RUNLANE_URL"] = str(said["url"])

    def stop(self) -> Sequence[int]:
        """Ask all of them to end; their exit codes."""
        for child in self._running:
            child.send(SIGTERM)
        codes = [_ended(child) for child in self._running]
        self._running.clear()
        return codes

    def customer(self) -> Customer:
        return Customer(self.env["RUNLANE_URL"], self.env["RUNLANE_API_KEY"])

    def lose_everything(self) -> None:
        """The database is gone, and an empty one of its name there; Redis has forgotten."""
        self._servers.postgres.drop_database(self.name)
        self._servers.postgres.create_database(self.name)
        private_servers.empty_redis(self._servers)

    def close(self) -> None:
        self.stop()
        self._servers.postgres.drop_database(self.name)


def _ready(child: Child, kind: str) -> Mapping[str, object]:
    def look() -> list[Mapping[str, object]]:
        assert child.alive, child.last_words()
        return child.said(f"{kind}_ready")

    return until(look, otherwise=child.last_words)[0]


def _ended(child: Child) -> int:
    until(lambda: not child.alive, otherwise=child.last_words)
    return child.exit_code
