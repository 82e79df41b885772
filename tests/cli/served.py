"""The API and a worker in the test's own process, and commands that are typed against them."""

import asyncio
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from api.app import create_app
from api.server import WebServer
from shared.deps import Deps
from tests.e2e.processes import RUNLANE, clean_env
from tests.faults.processes import Child, Launcher


@dataclass
class Api:
    """The API behind a port that stays the same when it restarts.

    `asked` counts requests by method and the noun at the end of their address.
    """

    deps: Deps
    port: int = 0
    asked: Counter[tuple[str, str]] = field(default_factory=Counter)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def start(self) -> None:
        self._server = WebServer(
            self._counting(create_app(self.deps)),
            host="127.0.0.1",
            port=self.port,
            receive_timeout_s=10,
        )
        await self._server.start()
        self.port = self._server.port

    async def stop(self) -> None:
        await self._server.stop(grace_s=0.1)

    def _counting(self, app: Any) -> Any:
        async def counted(scope: Any, receive: Any, send: Any) -> None:
            if scope["type"] == "http":
                *_, above, noun = scope["path"].split("/")
                self.asked[scope["method"], "run" if above == "runs" and "-" in noun else noun] += 1
            await app(scope, receive, send)

        return counted


@dataclass
class Typed:
    """What a command came to."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> object:
        return msgspec.json.decode(self.out)


@dataclass
class Shell:
    """Types commands as the holder of a key."""

    launcher: Launcher
    folder: Path
    url: str
    key: str

    async def type(self, *args: str, **variables: str) -> Typed:
        """Run a command to its end."""
        env = self._env(variables)
        return Typed(*await asyncio.to_thread(self.launcher.run, args, env, self.folder))

    async def pipe(self, given: bytes, *args: str) -> Typed:
        """Run a command with something on its standard input."""
        child = await asyncio.create_subprocess_exec(
            *(RUNLANE, *args),
            cwd=self.folder,
            env=self._env({}),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, err = await child.communicate(given)
        return Typed(child.returncode or 0, out.decode(), err.decode())

    def start(self, *args: str, **variables: str) -> Child:
        """Start a command; its output and errors go to one log."""
        log = self.folder / f"{args[0]}.log"
        log.write_text("")
        return self.launcher.launch(" ".join(args), args, self._env(variables), log)

    def _env(self, variables: dict[str, str]) -> dict[str, str]:
        known = {"RUNLANE_URL": self.url, "RUNLANE_API_KEY": self.key}
        return clean_env(self.folder, **(known | variables))
