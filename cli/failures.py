"""What a person is told when a command fails: one sentence for what can be acted on."""

import psycopg
from pydantic import ValidationError
from redis import RedisError

import migrations
from cli.embedded import EmbeddedError
from cli.serve import StartError
from shared.errors import AppError
from shared.vault import VaultError


def sentence_of(error: Exception) -> str | None:
    """Say what happened and what to do; `None` for what nobody foresaw (show its traceback)."""
    match error:
        case ValidationError():
            return "; ".join(f"{_setting(e['loc'])}: {e['msg']}" for e in error.errors())
        case EmbeddedError() | StartError() | VaultError() | migrations.BlockedError():
            return str(error)
        case AppError():
            return error.detail
        case RedisError():
            return f"The Redis of REDIS_URL cannot be used ({error})."
        case psycopg.OperationalError():
            lines = str(error).strip().splitlines() or [type(error).__name__]
            return f"The database of DATABASE_URL cannot be used ({lines[0]})."
        case _:
            return None


def _setting(place: tuple[int | str, ...]) -> str:
    return str(place[0]).upper() if place else "settings"
