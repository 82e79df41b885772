"""Every error that leaves the house, as a tree.

AppError
├── BadRequestError 400            InvalidCursorError
├── UnauthorizedError 401
├── CreditsExhaustedError 402
├── ForbiddenError 403             QuotaExceededError
├── NotFoundError 404
├── MethodNotAllowedError 405
├── RequestTimeoutError 408
├── ConflictError 409
├── PreconditionFailedError 412
├── TooLargeError 413              UriTooLongError 414, HeadersTooLargeError 431
├── UnsupportedMediaTypeError 415
├── UnacceptableError 422          one leaf for each stable code
├── RateLimitedError 429
├── UnavailableError 503
├── OutcomeUnknownError 500
└── RunError                       RunOverLimitError 402, RunStoppedError 409, RunRefusedError 422,
                                   RunFailedError 502, RunUnfinishedError 504
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True, slots=True)
class Flaw:
    """One thing wrong with a document: where (RFC 6901 pointer) and what."""

    pointer: str
    message: str


class AppError(Exception):
    """Something a caller is told about. `code` is stable, the text is not."""

    status: ClassVar[int] = 500
    code: str = "internal_error"
    title: ClassVar[str] = "Something went wrong on our side"

    def __init__(
        self,
        detail: str,
        *,
        flaws: Sequence[Flaw] = (),
        headers: dict[str, str] | None = None,
        code: str | None = None,
    ) -> None:
        super().__init__(detail)
        self.detail = detail
        self.flaws = tuple(flaws)
        self.headers = headers or {}
        if code is not None:
            self.code = code


class BadRequestError(AppError):
    """The request cannot be parsed."""

    status = 400
    code = "bad_request"
    title = "The request could not be understood"


class InvalidCursorError(BadRequestError):
    """A cursor that we did not make, or made for another list."""

    code = "invalid_cursor"


class UnauthorizedError(AppError):
    """No key, or none that is good; which of the two is never said."""

    status = 401
    code = "unauthorized"
    title = "A valid API key is needed"

    def __init__(self) -> None:
        super().__init__(
            "Send a valid API key as 'Authorization: Bearer rl_…'.",
            headers={"WWW-Authenticate": "Bearer"},
        )


class CreditsExhaustedError(AppError):
    """The workspace has nothing left to spend; trying again without a top-up is pointless."""

    status = 402
    code = "credits_exhausted"
    title = "No credits left"


class ForbiddenError(AppError):
    """The key is good, but may not do this."""

    status = 403
    code = "forbidden"
    title = "This key may not do that"


class QuotaExceededError(ForbiddenError):
    """As much is there as is allowed; trying again helps only when some of it is gone."""

    code = "quota_exceeded"
    title = "There is no room for more"


class NotFoundError(AppError):
    """It does not exist, or belongs to somebody else: one and the same answer."""

    status = 404
    code = "not_found"
    title = "Not found"

    def __init__(self) -> None:
        super().__init__("There is nothing here.")


class MethodNotAllowedError(AppError):
    """The address exists, the method does not."""

    status = 405
    code = "method_not_allowed"
    title = "Method not allowed"


class RequestTimeoutError(AppError):
    """The request did not arrive in time."""

    status = 408
    code = "request_timeout"
    title = "The request took too long to arrive"


class ConflictError(AppError):
    """The state of things does not allow this now."""

    status = 409
    code = "conflict"
    title = "Conflict with the current state"


class PreconditionFailedError(AppError):
    """`If-Match` names an older state."""

    status = 412
    code = "precondition_failed"
    title = "It has changed in the meantime"


class TooLargeError(AppError):
    """More bytes than the limit."""

    status = 413
    code = "too_large"
    title = "The request is too large"


class UriTooLongError(AppError):
    """A path or query over the limit."""

    status = 414
    code = "uri_too_long"
    title = "The address is too long"


class HeadersTooLargeError(AppError):
    """Header fields over the limit."""

    status = 431
    code = "headers_too_large"
    title = "The headers are too large"


class UnsupportedMediaTypeError(AppError):
    """Something other than plain application/json."""

    status = 415
    code = "unsupported_media_type"
    title = "Only JSON is understood here"


class UnacceptableError(AppError):
    """Parsed, but not acceptable; `flaws` says where and why."""

    status = 422
    code = "invalid"
    title = "The request is not acceptable"


class RateLimitedError(AppError):
    """Too many requests in the window."""

    status = 429
    code = "rate_limited"
    title = "Too many requests"


class UnavailableError(AppError):
    """A dependency is away and certainly nothing was stored: safe to try again."""

    status = 503
    code = "unavailable"
    title = "Temporarily unavailable"

    def __init__(self, detail: str = "The service cannot do this right now.") -> None:
        super().__init__(detail, headers={"Retry-After": "2"})


class OutcomeUnknownError(AppError):
    """The connection was lost during the commit: the run may or may not exist."""

    status = 500
    code = "outcome_unknown"
    title = "The outcome is unknown"

    def __init__(self, run_id: str) -> None:
        super().__init__(
            f"The run {run_id} may or may not have been stored. Read it by its id, or submit "
            "again with the same Idempotency-Key."
        )
        self.run_id = run_id


class RunError(AppError):
    """A run that was accepted and has no answer; `why` is its own error, where it has one."""

    status = 502
    code = "run_failed"
    title = "The run failed"

    def __init__(self, run_id: str, detail: str, why: object = None) -> None:
        super().__init__(detail)
        self.run_id = run_id
        self.why = why


class RunFailedError(RunError):
    """The provider failed, or we did, and nothing is tried any more."""


class RunRefusedError(RunError):
    """The run could not be carried out as it was asked for."""

    status = 422
    code = "run_refused"
    title = "The run cannot be carried out"


class RunOverLimitError(RunError):
    """The run's next call might have cost more than the run may; it was not made."""

    status = 402
    code = "COST_LIMIT_EXCEEDED"  # spelled as PromptShuttle's clients compare it
    title = "The run would cost more than it may"


class RunStoppedError(RunError):
    """The run was canceled, or its time was over."""

    status = 409
    code = "run_stopped"
    title = "The run was stopped"


class RunUnfinishedError(RunError):
    """The run takes longer than its request may; it goes on."""

    status = 504
    code = "run_unfinished"
    title = "The run is not over yet"

    def __init__(self, run_id: str) -> None:
        super().__init__(
            run_id,
            f"The run {run_id} was accepted, and how it ends is not known here yet: read it by its "
            "id, or ask again with the same Idempotency-Key.",
        )
