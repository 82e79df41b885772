"""Real PostgreSQL and Valkey for the suite: private to one test process, gone at its end."""

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

import redis

from cli.embedded import EmbeddedServers, FolderLock, start
from shared.store.database import Store
from shared.store.tables import METADATA

_EMPTY = f"""DO $$ BEGIN
  PERFORM set_config('session_replication_role', 'replica', true);
  {"; ".join(f"DELETE FROM {table.name}" for table in METADATA.sorted_tables)};
END $$"""


@contextlib.contextmanager
def running(*, durable: bool = False) -> Iterator[EmbeddedServers]:
    """Run both servers on 127.0.0.1 over a folder of their own, which goes with them."""
    with (
        tempfile.TemporaryDirectory(prefix="runlane-test-") as folder,
        FolderLock(Path(folder)),
        start(Path(folder), tcp=True, durable=durable) as servers,
    ):
        yield servers
        servers.stop("immediate")


def empty_redis(servers: EmbeddedServers) -> None:
    """Forget every key, script and statistic."""
    with contextlib.closing(redis.Redis.from_url(servers.redis_url)) as client:
        client.flushall()
        client.script_flush()
        client.config_resetstat()


async def empty_database(store: Store) -> None:
    """Empty every table row by row: that takes 1 ms, TRUNCATE takes 110."""
    await store.execute(_EMPTY, {})
