"""The first look at DATABASE_URL: what is refused, and that no password is shown."""

import psycopg
import pytest

from cli import database


@pytest.mark.parametrize(
    "url",
    [
        "",
        "nonsense",
        "sqlite:///x",
        "mysql://me:hush-hush@127.0.0.1/x",
        "postgresql+psycopg://me:hush-hush@127.0.0.1/x",
        "host=127.0.0.1 password=hush-hush",
        "postgresql://me:hush-hush@[::1/x",
        "postgresql://me:hush-hush@127.0.0.1/x?nonsense=1",
    ],
)
def test_what_is_no_url_of_a_postgresql_is_refused(url: str) -> None:
    with pytest.raises(psycopg.OperationalError) as refused:
        database.read(url)

    assert "hush-hush" not in str(refused.value)
    assert refused.value.__cause__ is None


@pytest.mark.parametrize("url", ["postgresql://127.0.0.1:abc/x", "postgresql://127.0.0.1:1/x"])
def test_database_that_does_not_answer_is_refused(url: str) -> None:
    with pytest.raises(psycopg.OperationalError):
        database.probe(url)


def test_database_that_answers_is_taken(database_url: str) -> None:
    database.probe(database_url)
