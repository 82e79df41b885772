"""The private Valkey."""

import contextlib
import signal
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

import redis

from cli.embedded import folders
from cli.embedded.server import EmbeddedServer, StopMode


class Valkey(EmbeddedServer):
    """Valkey, append-only file flushed every second where it is to be durable."""

    name = "Valkey"
    programs = ("valkey-server",)
    folder_name = "valkey"
    socket_port = 0

    @property
    def url(self) -> str:
        if self.options.tcp:
            return f"redis://127.0.0.1:{self.port}/0"
        return self._socket_url()

    def prepare(self) -> None:
        folders.make_server_folder(self.data_dir, self.place.account)

    def command(self) -> Sequence[str]:
        settings = {
            "port": str(self.port),
            "bind": "127.0.0.1",
            "unixsocket": str(self._socket),
            "unixsocketperm": "700",
            "appendonly": "yes" if self.options.durable else "no",
            "appendfsync": "everysec",
            "save": "",
            "maxmemory-policy": "noeviction",
            "set-proc-title": "no",  # an orphan is known by its command line
            "always-show-logo": "no",
        }
        argv = [str(self.place.binaries.valkey_server)]
        for key, value in settings.items():
            argv += [f"--{key}", value]
        return argv

    def ready(self, pid: int) -> bool:
        return self.healthy(pid)

    def healthy(self, pid: int) -> bool:
        # Asking for the number tells the server from a fork of it that rewrites the file.
        with contextlib.suppress(redis.RedisError):
            client = redis.Redis.from_url(
                self._socket_url(), socket_timeout=self.health_timeout_s, protocol=3
            )
            with contextlib.closing(client):
                told = client.info("server")
                return isinstance(told, dict) and told["process_id"] == pid
        return False

    def stop_signal(self, mode: StopMode) -> signal.Signals:
        return {"fast": signal.SIGTERM, "immediate": signal.SIGKILL}[mode]

    @property
    def _socket(self) -> Path:
        return self.place.sockets / "valkey.sock"

    def _socket_url(self) -> str:
        return f"unix://{quote(str(self._socket))}?db=0"
