"""The servers the rest of the suite asks for."""

import psycopg
import redis

from cli.embedded import EmbeddedServers
from tests import servers as private_servers


def tables(url: str) -> int:
    with psycopg.connect(url) as connection:
        row = connection.execute(
            "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'"
        ).fetchone()
    assert row is not None
    return int(row[0])


def test_an_empty_database_is_another_one_than_the_shared(
    database_url: str, empty_database_url: str
) -> None:
    with psycopg.connect(empty_database_url) as connection:
        connection.execute("CREATE TABLE own (id int)")

    assert database_url != empty_database_url
    assert tables(empty_database_url) == 1


def test_the_empty_database_starts_without_tables(empty_database_url: str) -> None:
    assert tables(empty_database_url) == 0


def test_the_servers_listen_on_loopback_for_the_fault_proxy(
    servers: EmbeddedServers, database_url: str, redis_url: str
) -> None:
    assert f"@127.0.0.1:{servers.postgres.port}/" in database_url
    assert redis_url == f"redis://127.0.0.1:{servers.valkey.port}/0"


def test_the_empty_valkey_has_forgotten_everything(
    servers: EmbeddedServers, empty_redis_url: str
) -> None:
    with redis.Redis.from_url(empty_redis_url) as client:
        client.set("key", "value")
        private_servers.empty_redis(servers)

        assert client.dbsize() == 0
