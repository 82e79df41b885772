"""`runlane dev` under test: one process and its two servers, each of which may be killed."""

import asyncio
import os
import re
import signal
from collections.abc import Sequence
from pathlib import Path
from random import Random
from types import TracebackType
from typing import Self
from urllib.parse import quote

import psycopg
from psycopg import sql

from cli import dev_env
from cli.embedded import processes
from tests.e2e import customer as e2e
from tests.e2e.processes import (
    RUNLANE,
    Process,
    as_ordinary_user,
    clean_env,
    hand_over,
    url_of,
)
from tests.faults import facts
from tests.faults.client import Customer
from tests.faults.judging import judged
from tests.faults.receiver import Receiver
from tests.faults.referee import Violation
from tests.faults.rig import EMPTY, FIGURES, HOOK, SETTINGS, SLUG
from tests.faults.vendors import ScriptedVendors, model_of
from tests.faults.waiting import pause, until

SERVERS = ("postgres", "valkey")
_MODELS = (
    model_of("answer"),
    model_of("slow-200"),
    model_of("slow-600"),
    model_of("500", "slow-100"),
    "sim/echo",
)
_SOCKETS = re.compile(r"unix_socket_directories=(\S+)")


class Dev:
    """An async context manager: a Runlane of an ordinary user, with its three ledgers."""

    def __init__(self, folder: Path) -> None:
        hand_over(folder)
        self.data_dir = folder / ".runlane"
        self.vendors = ScriptedVendors()
        self.receiver = Receiver()
        self.last_words = ""
        self._folder = folder
        self._process: Process | None = None

    async def __aenter__(self) -> Self:
        await self.vendors.__aenter__()
        await self.receiver.__aenter__()
        await self.start()
        self.customer = await Customer(self._env()["RUNLANE_API_KEY"], SLUG).__aenter__()
        await asyncio.to_thread(self._prepare)
        await self.end()  # commit times are kept from the server's next start
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._process is not None:
            await self.end()
        await self.customer.__aexit__(kind, error, trace)
        await self.receiver.__aexit__(kind, error, trace)
        await self.vendors.__aexit__(kind, error, trace)

    @property
    def process(self) -> Process:
        assert self._process is not None, "not started"
        return self._process

    async def start(self) -> None:
        self._process = self.launch()
        url = await asyncio.to_thread(url_of, self._process)
        if hasattr(self, "customer"):
            self.customer.url = url

    def launch(self) -> Process:
        """Start it without waiting for anything."""
        settings = {name: value for name, value in SETTINGS.items() if name != "master_key"}
        env = clean_env(
            self._folder,
            **{name.upper(): str(value) for name, value in settings.items()},
            OPENAI_BASE_URL=self.vendors.openai_url,
        )
        return Process(as_ordinary_user([RUNLANE, "dev"]), env=env, cwd=self._folder)

    async def end(self) -> int:
        """Ask it to end in order; its exit code. What it said is in `last_words`."""
        code = await asyncio.to_thread(self.process.end)
        self.last_words = self.process.said()
        self._forget()
        return code

    async def kill(self, *victims: str) -> None:
        """SIGKILL `dev`, `postgres`, `valkey`: those of them that are named, all at once."""
        pids = {**self.server_pids(), "dev": self.process.pid}
        for victim in victims:
            os.kill(pids[victim], signal.SIGKILL)
        if "dev" in victims:
            await asyncio.to_thread(self.process.kill)
            self._forget()

    def server_pids(self) -> dict[str, int]:
        return {name: process.pid for name, process in self._servers().items()}

    @property
    def database_url(self) -> str:
        sockets = _SOCKETS.search(self._servers()["postgres"].command)
        assert sockets is not None
        password = (self.data_dir / "postgres.password").read_text().strip()
        return f"postgresql://runlane:{password}@/runlane?host={quote(sockets[1])}"

    async def busy(self, name: str, count: int, seed: int) -> None:
        """Submit so many runs with keys, one after another; no answer is an answer, too."""
        chance = Random(seed)
        for number in range(count):
            case = f"f66 {name} {number}"
            policy = chance.choice(("retry", "fail"))
            model = chance.choice(_MODELS)
            await self.customer.submit(case, model, key=case, onUnknownOutcome=policy)
            await pause(chance.uniform(0, 0.02))

    async def verdict(self) -> Sequence[Violation]:
        """Wait for quiescence and let the referee judge."""
        await until(self._quiet, "everything has come to its end", within_s=20)
        parties = (self.customer, self.vendors, self.receiver)
        return await judged(self.database_url, parties, FIGURES)

    async def clear(self) -> None:
        """Forget every run."""
        async with await psycopg.AsyncConnection.connect(
            self.database_url, autocommit=True
        ) as connection:
            await connection.execute(sql.SQL(EMPTY))
            await connection.execute(sql.SQL(facts.FORGET))
        self.customer.orders.clear()
        self.vendors.ledger.clear()
        self.receiver.ledger.clear()

    async def _quiet(self) -> bool:
        async with await psycopg.AsyncConnection.connect(self.database_url) as connection:
            cursor = await connection.execute(
                "SELECT (SELECT count(*) FROM runs WHERE finished_at IS NULL)"
                " + (SELECT count(*) FROM deliveries WHERE finished_at IS NULL)"
            )
            return await cursor.fetchone() == (0,)

    def _servers(self) -> dict[str, processes.Process]:
        folders = {}
        for name in SERVERS:
            status = (self.data_dir / name).stat()
            folders[status.st_dev, status.st_ino] = name
        return {
            folders[process.folder]: process
            for process in processes.table()
            if process.folder in folders and ":" not in process.program
        }

    def _prepare(self) -> None:
        env = self._env()
        with e2e.Customer(env["RUNLANE_URL"], env["RUNLANE_API_KEY"]) as owner:
            owner.prompt(SLUG, model_of("answer"), "Do {{ case }}.")
            url = f"http://127.0.0.1:{self.receiver.port}/hooks/{HOOK}"
            self.receiver.secrets[HOOK] = owner.webhook(url)
        with psycopg.connect(self.database_url, autocommit=True) as connection:
            connection.execute(sql.SQL(facts.WITNESS))
            connection.execute("ALTER SYSTEM SET track_commit_timestamp = on")

    def _env(self) -> dict[str, str]:
        return dict(dev_env.read(self.data_dir / "dev.env"))

    def _forget(self) -> None:
        self.process.forget()
        self._process = None
