"""What schemathesis is told about Runlane beside the OpenAPI document; runs in its process."""

import atexit
import json
import re
import zlib
from collections import defaultdict
from pathlib import Path
from typing import Any

import schemathesis
from schemathesis import Case, CheckContext, HookContext, Response

from shared.settings import environment

_GIVEN = environment()
_KEY, _KEY_ID = _GIVEN["FUZZ_KEY"], _GIVEN["FUZZ_KEY_ID"]
_THINGS: dict[str, str] = json.loads(_GIVEN["FUZZ_THINGS"])
_TELLTALE = re.compile(
    r"Traceback|File \"/|psycopg|sqlalchemy|litestar\.|msgspec\.|uvicorn"
    r"|\bSELECT\b.{1,200}\bFROM\b|\bINSERT INTO\b|postgresql://|redis://|127\.0\.0\.1:\d+",
    re.DOTALL,
)
_seen: dict[str, set[int]] = defaultdict(set)


@schemathesis.hook
def map_path_parameters(
    context: HookContext, path_parameters: dict[str, Any] | None
) -> dict[str, Any] | None:
    """Ask every other time about what is there; made-up names alone would only ever get a 404."""
    operation = context.operation
    if not path_parameters or operation is None or operation.method.upper() == "DELETE":
        return path_parameters
    if zlib.crc32(repr(sorted(path_parameters.items())).encode()) % 2:
        return path_parameters
    return {name: _THINGS.get(name, value) for name, value in path_parameters.items()}


@schemathesis.hook
def filter_case(context: HookContext, case: Case[Any]) -> bool:
    """Leave the key alone that all requests are made with."""
    return (case.path_parameters or {}).get("key_id") != _KEY_ID


@schemathesis.check
def gives_nothing_away(ctx: CheckContext, response: Response, case: Case[Any]) -> None:
    """No problem shows code, statements or addresses of servers; nothing shows the caller's key."""
    _seen[case.operation.label].add(response.status_code)
    found = _TELLTALE.search(response.text) if response.status_code >= 400 else None
    assert found is None, f"The answer says {found[0]!r}"
    assert _KEY not in response.text, "The answer says the key"


@atexit.register
def _tell() -> None:
    told = {label: sorted(statuses) for label, statuses in _seen.items()}
    Path(_GIVEN["FUZZ_SEEN"]).write_text(json.dumps(told))
