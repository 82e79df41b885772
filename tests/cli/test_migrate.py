"""`runlane migrate` beside what runs: it gives up rather than stand in everybody's way."""

from pathlib import Path

import psycopg
import pytest

import migrations
from shared.store import schema
from tests.e2e.processes import clean_env
from tests.faults.processes import Launcher

BEFORE = "0009"  # what follows changes the table of runs
LAST_WORDS = "try again at a quieter time."


@pytest.fixture
def older_url(empty_database_url: str) -> str:
    """A database as an earlier version left it."""
    migrations.upgrade(empty_database_url, BEFORE)
    return empty_database_url


def test_a_held_lock_ends_a_migration_soon_and_leaves_no_half_schema(
    launcher: Launcher, older_url: str, tmp_path: Path
) -> None:
    env = clean_env(tmp_path, DATABASE_URL=older_url)
    before = _tables(older_url)

    with psycopg.connect(older_url) as holder:
        for table in ("runs", "environments"):
            holder.execute(f"LOCK TABLE {table} IN ACCESS SHARE MODE")
        code, out, err = launcher.run(["migrate"], env, tmp_path)
        left = migrations.current(older_url), _tables(older_url)
    again, _, _ = launcher.run(["migrate"], env, tmp_path)

    assert (1, "") == (code, out)
    assert err.rstrip().endswith(LAST_WORDS)
    assert "Traceback" not in err
    assert (BEFORE, before) == left
    assert (0, schema.EXPECTED) == (again, migrations.current(older_url))


def _tables(url: str) -> list[tuple[object, ...]]:
    with psycopg.connect(url) as connection:
        return connection.execute(
            "SELECT table_name, column_name FROM information_schema.columns"
            " WHERE table_schema = 'public' ORDER BY 1, 2"
        ).fetchall()
