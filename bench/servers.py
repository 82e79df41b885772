"""A durable PostgreSQL and a Valkey of the bench's own, on the core of the system under test."""

import contextlib
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import redis

from bench import cpu
from cli.embedded import EmbeddedServers, FolderLock, start

_HERE = Path(__file__).parent


@dataclass(frozen=True)
class Servers:
    """Both servers, and a folder for logs that goes with them."""

    embedded: EmbeddedServers
    folder: Path

    @property
    def groups(self) -> dict[str, list[int]]:
        return {"postgres": [self.embedded.postgres.pid], "redis": [self.embedded.valkey.pid]}

    def redis_url(self, database: int) -> str:
        return self.embedded.redis_url.rpartition("/")[0] + f"/{database}"

    def flush_redis(self) -> None:
        """Forget every key in every database of Valkey."""
        with contextlib.closing(redis.Redis.from_url(self.embedded.redis_url)) as client:
            client.flushall()

    @contextlib.contextmanager
    def on_every_core(self) -> Iterator[None]:
        """Let both use the whole machine, where a part measures time instead of CPU."""
        self._move()
        try:
            yield
        finally:
            self._move(cpu.SYSTEM_CORE)

    @contextlib.contextmanager
    def database(self, name: str, template: str) -> Iterator[str]:
        """A copy of the template for one measurement; its URL."""
        self.embedded.postgres.drop_database(name)
        try:
            yield self.embedded.postgres.create_database(name, template)
        finally:
            self.embedded.postgres.drop_database(name)

    def _move(self, *cores: int) -> None:
        for pids in self.groups.values():
            for pid in pids:
                cpu.move_tree(pid, *cores)


@contextlib.contextmanager
def running() -> Iterator[Servers]:
    """Run both with fsync on; in the repository's file system, as temporary ones may be memory."""
    data = _HERE / ".data"
    data.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=data) as name:
        folder = Path(name)
        with contextlib.ExitStack() as stack:
            stack.enter_context(FolderLock(folder / "servers"))
            with cpu.on_cores(cpu.SYSTEM_CORE):
                embedded = stack.enter_context(start(folder / "servers", tcp=True, durable=True))
            yield Servers(embedded, folder)
