"""Errors as they leave the house: RFC 9457 problem details, the same from every layer."""

import re
from collections.abc import Callable, Mapping
from typing import Any

import msgspec
from litestar import Request, Response
from litestar.exceptions import (
    HTTPException,
    ValidationException,
)
from litestar.types import Send
from msgspec import UNSET, UnsetType

from api.strict_json import pointer
from shared import log
from shared.domain.flow_answers import RunFailure
from shared.errors import (
    AppError,
    BadRequestError,
    Flaw,
    ForbiddenError,
    MethodNotAllowedError,
    NotFoundError,
    OutcomeUnknownError,
    RateLimitedError,
    RunError,
    TooLargeError,
    UnacceptableError,
    UnauthorizedError,
    UnavailableError,
)
from shared.store import database

MEDIA_TYPE = "application/problem+json"

_log = log.get(__name__)

# msgspec ends its messages with the place: "… - at `$.a[0].b`", "… - at `key` in `$.a`"
_PLACE = re.compile(r"^(?P<message>.*?)(?: - at (?:`key` in )?`(?P<path>\$[^`]*)`)?$", re.DOTALL)
_STEP = re.compile(r"\.(?P<name>[^.\[]+)|\[(?P<index>\d+)\]")
_FIELD = re.compile(r"^Object (?:contains unknown|missing required) field `(?P<name>.*)`$")


class _Flaw(msgspec.Struct, frozen=True):
    pointer: str
    message: str


class Problem(msgspec.Struct, frozen=True, rename="camel"):
    """The body of every error. `error` repeats `detail` for clients of the prompts door.

    `runId` and `runError` are there where the error is about a run that was accepted.
    """

    type: str
    title: str
    status: int
    detail: str
    code: str
    request_id: str
    errors: tuple[_Flaw, ...]
    error: str
    run_id: str | UnsetType = UNSET
    run_error: RunFailure | UnsetType = UNSET


def problem(error: AppError, request_id: str) -> bytes:
    """Write an error as a problem; `type` is the address of its page in the API's own docs."""
    return msgspec.json.encode(
        Problem(
            type=f"/docs/errors#{error.code}",
            title=error.title,
            status=error.status,
            detail=error.detail,
            code=error.code,
            request_id=request_id,
            errors=tuple(_Flaw(flaw.pointer, flaw.message) for flaw in error.flaws),
            error=error.detail,
            run_id=error.run_id if isinstance(error, RunError | OutcomeUnknownError) else UNSET,
            run_error=_why(error),
        )
    )


def _why(error: AppError) -> RunFailure | UnsetType:
    why = error.why if isinstance(error, RunError) else None
    return why if isinstance(why, RunFailure) else UNSET


async def send_problem(send: Send, error: AppError, request_id: str) -> None:
    """Answer with a problem straight over ASGI, for what never reaches a route."""
    body = problem(error, request_id)
    headers = [
        (b"content-type", MEDIA_TYPE.encode()),
        (b"content-length", str(len(body)).encode()),
        *((name.lower().encode(), value.encode()) for name, value in error.headers.items()),
    ]
    await send({"type": "http.response.start", "status": error.status, "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": False})


def handle(request: Request[Any, Any, Any], error: Exception) -> Response[bytes]:
    """Litestar's one exception handler: `exception_handlers={Exception: errors.handle}`."""
    known = as_app_error(error)
    if known.code == OutcomeUnknownError.code and request.method == "GET":
        known = UnavailableError("The database is away; reading changes nothing.")
    return Response(
        problem(known, request.scope["state"].get("request_id", "")),
        status_code=known.status,
        media_type=MEDIA_TYPE,
        headers=known.headers,
    )


def as_app_error(error: Exception) -> AppError:
    """Find the error of ours behind any exception; what is nobody's is logged and stays a 500."""
    match error:
        case AppError():
            return error
        case msgspec.ValidationError():
            return _unacceptable([flaw_of(error)])
        case HTTPException():
            return _of_litestar(error)
        case _ if database.refused(error):
            return UnavailableError("The database is away or busy; nothing was stored.")
        case _ if database.lost(error):
            return AppError(
                "The connection to the database was lost: it may or may not have been stored.",
                code="outcome_unknown",
            )
        case _:
            return unexpected(error)


def unexpected(error: BaseException) -> AppError:
    """Log what nobody foresaw and answer with an error that says nothing about our inside."""
    _log.error("request_failed", exc_info=error)
    return AppError("Something went wrong on our side. The log knows more under this request id.")


def flaw_of(error: msgspec.ValidationError) -> Flaw:
    """Say what msgspec found and where: `$.a[0].b` becomes `/a/0/b`.

    msgspec does not tell the keys of free objects (`[...]`): then the pointer ends above them.
    """
    found = _PLACE.match(str(error))
    message, path = (found["message"], found["path"]) if found else (str(error), None)
    known, _, unknown = (path or "$").partition("[...]")
    parts: list[str | int] = [
        int(step["index"]) if step["name"] is None else step["name"]
        for step in _STEP.finditer(known)
    ]
    field = _FIELD.match(message)
    if field and not unknown and not known.endswith("..."):
        parts.append(field["name"])
    return Flaw(pointer(parts), message)


def _unacceptable(flaws: list[Flaw]) -> UnacceptableError:
    first = flaws[0]
    place = f" at '{first.pointer}'" if first.pointer else ""
    return UnacceptableError(f"{first.message}{place}.", flaws=flaws)


def _of_litestar(error: HTTPException) -> AppError:
    if isinstance(error, ValidationException):
        return _of_validation(error)
    if error.status_code >= 500:  # noqa: PLR2004 (the server's own errors start here)
        return unexpected(error)
    return _BY_STATUS.get(error.status_code, _bad_request)(error)


def _bad_request(error: HTTPException) -> AppError:
    return BadRequestError(error.detail)


def _method_not_allowed(error: HTTPException) -> MethodNotAllowedError:
    allow = ", ".join(sorted((error.headers or {}).get("allow", "").split(", ")))
    return MethodNotAllowedError(f"Only {allow} will do here.", headers={"Allow": allow})


def _of_validation(error: ValidationException) -> AppError:
    """Litestar's signature model: a bad query is a 400, a bad path leads nowhere, a body is 422."""
    found = [entry for entry in error.extra or [] if isinstance(entry, dict)]
    sources = [entry.get("source") for entry in found]
    flaws = [
        Flaw(
            pointer(str(entry["key"]).split(".")) if entry.get("key") else "",
            str(entry["message"]),
        )
        for entry in found
    ]
    if "path" in sources:
        return NotFoundError()
    if "body" in sources:
        return _unacceptable(flaws)
    names = ", ".join(str(entry.get("key", "?")) for entry in found) or "a parameter"
    return BadRequestError(f"Not understood: {names}.", flaws=flaws)


_BY_STATUS: Mapping[int, Callable[[HTTPException], AppError]] = {
    401: lambda _: UnauthorizedError(),
    403: lambda error: ForbiddenError(error.detail),
    404: lambda _: NotFoundError(),
    405: _method_not_allowed,
    413: lambda error: TooLargeError(error.detail),
    429: lambda error: RateLimitedError(error.detail, headers=error.headers),
}
