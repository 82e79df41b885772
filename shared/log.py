"""Structured logs on standard error: a constant event with fields, and no secrets among them."""

import logging
import re
import sys
import time
from collections.abc import Mapping
from typing import Any

import structlog

_SECRET_NAME = re.compile(
    r"authorization|password|passwd|secret|token$|api_?key|master_?key|cookie|signature",
    re.IGNORECASE,
)
_SECRET_TEXT = re.compile(
    r"rl_[0-9A-Za-z]{8}_[0-9A-Za-z]{8,}"  # our API keys
    r"|whsec_[0-9A-Za-z+/=]{8,}"  # webhook secrets
    r"|sk-[0-9A-Za-z_-]{8,}"  # vendors' keys
    r"|(?<=://)[^/@\s:]*:[^/\s]+(?=@)"  # user and password in a URL
    r"|(?i:bearer )[0-9A-Za-z._~+/=-]+"
    r"|(?<=\nDETAIL: ) .*|(?<=\nCONTEXT: ) .*"  # PostgreSQL quotes what it refuses, prompts and all
)
_HIDDEN = "[hidden]"
# They complain of each connection, and of each attempt to send spans.
_TALKATIVE = (
    "psycopg.pool",
    "opentelemetry.exporter.otlp.proto.http.trace_exporter",
    "opentelemetry.sdk._shared_internal",
)


def get(name: str) -> Any:
    """Return the logger of one module."""
    return structlog.get_logger(module=name)


class Spell:
    """Something that is away for a while: one line when that begins and one when it is over."""

    def __init__(self, logger: Any, begins: str, ends: str) -> None:
        self._logger = logger
        self._begins = begins
        self._ends = ends
        self._began_at: float | None = None
        self._failures = 0

    def failed(self, error: BaseException) -> None:
        self._failures += 1
        if self._began_at is None:
            self._began_at = time.monotonic()
            self._logger.warning(self._begins, error=type(error).__name__)

    def went_well(self) -> None:
        if self._began_at is not None:
            lasted_s = round(time.monotonic() - self._began_at, 1)
            self._logger.warning(self._ends, lasted_s=lasted_s, failures=self._failures)
            self._began_at, self._failures = None, 0


def request_id() -> str | None:
    """The id of the request that is being answered, if one is."""
    found: str | None = structlog.contextvars.get_contextvars().get("request_id")
    return found


def configure(level: str = "INFO", *, as_json: bool | None = None) -> None:
    """Set up logging for the process: JSON lines, or columns when a person is watching."""
    if as_json is None:
        as_json = not sys.stderr.isatty()
    renderer: structlog.types.Processor = (
        structlog.processors.JSONRenderer()
        if as_json
        else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    )
    shared: list[structlog.types.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
        scrub,
    ]
    structlog.configure(
        processors=[*shared, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelName(level)),
        logger_factory=structlog.WriteLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[_foreign_name, *shared],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    for name in _TALKATIVE:
        logging.getLogger(name).addFilter(_Rarely())
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)


class _Rarely(logging.Filter):
    """Lets a library say something once in a while."""

    def __init__(self, every_s: float = 30.0) -> None:
        super().__init__()
        self._every_s = every_s
        self._said_at = float("-inf")

    def filter(self, _record: logging.LogRecord) -> bool:
        if time.monotonic() - self._said_at < self._every_s:
            return False
        self._said_at = time.monotonic()
        return True


def scrub(_logger: object, _method: str, event: Any) -> Any:
    """Hide values under secret names, and whatever looks like a secret anywhere else."""
    return {name: _clean(name, value) for name, value in event.items()}


def _foreign_name(_logger: object, _method: str, event: Any) -> Any:
    event["logger"] = event["_record"].name  # the logger itself is not handed on
    return event


def _clean(name: str, value: object) -> object:
    if _SECRET_NAME.search(name):
        return _HIDDEN
    match value:
        case str():
            return _SECRET_TEXT.sub(_HIDDEN, value)
        case Mapping():
            return {str(key): _clean(str(key), inner) for key, inner in value.items()}
        case list() | tuple():
            return [_clean(name, inner) for inner in value]
        case None | bool() | int() | float():
            return value
        case _:
            return _SECRET_TEXT.sub(_HIDDEN, str(value))
