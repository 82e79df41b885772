"""A long past made in seconds: one finished run and all that belongs to it, copied by SQL."""

from collections.abc import Iterator

import psycopg

_CHUNK = 50_000
_PAST = "interval '14 days'"
_FIELDS = {  # which ids of a copy differ, and which of them are the same thing
    "runs": {"id": "a00", "thread_id": "d00"},
    "attempts": {"run_id": "a00"},
    "events": {"id": "b00", "run_id": "a00"},
    "deliveries": {"id": "c00", "event_id": "b00"},
    "delivery_tries": {"delivery_id": "c00"},
}
_MS = f"(1000 * (extract(epoch FROM date_trunc('day', now()) - {_PAST})::bigint + n))"


def lengthen(database_url: str, runs: int) -> Iterator[int]:
    """Copy the one finished run of this database so often; yields how many there are so far."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        # Copies of what is right are right: checking keys would take most of the time.
        connection.execute("SET session_replication_role = replica")
        source = connection.execute("SELECT id FROM runs WHERE status = 'succeeded'").fetchone()
        statements = [_copy(connection, table) for table in _FIELDS]
        for first in range(1, runs + 1, _CHUNK):
            last = min(first + _CHUNK - 1, runs)
            for statement in statements:
                connection.execute(
                    statement, {"source": source and source[0], "a": first, "b": last}
                )
            yield last
        connection.execute("VACUUM ANALYZE")
        connection.execute("CHECKPOINT")


def some_ids(database_url: str, count: int) -> list[str]:
    """Ids of runs, spread over the whole past."""
    with psycopg.connect(database_url) as connection:
        rows = connection.execute(
            "SELECT id::text FROM runs ORDER BY md5(id::text) LIMIT %s", [count]
        ).fetchall()
    return [row[0] for row in rows]


def _copy(connection: psycopg.Connection[tuple[object, ...]], table: str) -> str:
    columns = connection.execute(
        "SELECT column_name::text, data_type::text FROM information_schema.columns"
        " WHERE table_schema = 'public' AND table_name = %s AND is_generated = 'NEVER'"
        " AND is_identity = 'NO' ORDER BY ordinal_position",
        [table],
    ).fetchall()
    values = [_value(table, str(name), str(kind)) for name, kind in columns]
    names = ", ".join(f'"{name}"' for name, _ in columns)
    return (
        f"INSERT INTO {table} ({names}) SELECT {', '.join(values)} FROM {table} s, "
        f"generate_series(%(a)s::bigint, %(b)s::bigint) n WHERE {_is_source(table)}"
    )


def _value(table: str, column: str, kind: str) -> str:
    salt = _FIELDS[table].get(column)
    if salt is not None:
        return f"(lpad(to_hex({_MS}), 12, '0') || '7{salt}8000' || lpad(to_hex(n), 12, '0'))::uuid"
    if kind == "timestamp with time zone":
        return f'CASE WHEN s."{column}" IS NOT NULL THEN to_timestamp({_MS} / 1000.0) END'
    return f's."{column}"'


def _is_source(table: str) -> str:
    event = "(SELECT e.id FROM events e WHERE e.run_id = %(source)s)"
    delivery = f"(SELECT d.id FROM deliveries d WHERE d.event_id = {event})"
    return {
        "runs": "s.id = %(source)s",
        "attempts": "s.run_id = %(source)s",
        "events": f"s.id = {event}",
        "deliveries": f"s.event_id = {event}",
        "delivery_tries": f"s.delivery_id = {delivery}",
    }[table]
