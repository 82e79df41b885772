"""A request that takes too long is answered; its work is abandoned, not waited for.

Cancelling a database call on a dead link can itself take many seconds, so the work is left to end
by itself, and whatever it answers then goes nowhere.
"""

import asyncio
from collections.abc import Callable

from litestar.enums import ScopeType
from litestar.types import ASGIApp, Receive, Scope, Send
from litestar.types.asgi_types import Message

from api import errors
from shared.errors import (
    AppError,
    OutcomeUnknownError,
    RunUnfinishedError,
    UnavailableError,
)

GRACE_S = 0.1
_HARMLESS_POSTS = ("/runs", "/preview", "/inference")
# A submission says when it begins to store; until then it is harmless. A preview stores nothing.
LIMIT = "limit"
"""In `scope["state"]`: the request's `Limit`."""


class Limit:
    """By when a request has to be answered: `ends_at`, on the loop's clock."""

    def __init__(self, seconds: float, give_up: Callable[[], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._give_up = give_up
        self.ends_at = self._loop.time() + seconds
        self._timer = self._loop.call_at(self.ends_at + GRACE_S, give_up)
        self.stored_as: str | None = None
        self.accepted_as: str | None = None  # a run that is there: late means only not over yet

    def stores(self, run_id: str) -> None:
        """From now on a run of this id may be there: nobody may say that nothing was stored."""
        self.stored_as = run_id

    def extend(self, seconds: float) -> None:
        """Allow a request that waits on purpose so much more."""
        self._timer.cancel()
        self.ends_at += seconds
        self._timer = self._loop.call_at(self.ends_at + GRACE_S, self._give_up)

    def lift(self) -> None:
        self._timer.cancel()


class Deadline:
    """ASGI middleware inside the guard: answers 503 when `seconds` have passed unanswered."""

    def __init__(self, app: ASGIApp, seconds: float) -> None:
        self._app = app
        self._seconds = seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != ScopeType.HTTP:
            await self._app(scope, receive, send)
            return
        method, path = scope["method"], scope["path"]
        harmless = method == "GET" or (method == "POST" and path.endswith(_HARMLESS_POSTS))
        answer = _Once(send, scope["state"]["request_id"], harmless=harmless)
        limit = scope["state"][LIMIT] = Limit(self._seconds, lambda: answer.give_up(limit))
        try:
            await self._app(scope, receive, answer)
        finally:
            limit.lift()
            await answer.sent()


class _Once:
    """Lets one answer out: the application's or ours, whichever comes first."""

    def __init__(self, send: Send, request_id: str, *, harmless: bool) -> None:
        self._send = send
        self._harmless = harmless
        self._request_id = request_id
        self._started = False
        self._gave_up: asyncio.Task[None] | None = None

    async def __call__(self, message: Message) -> None:
        if self._gave_up is not None:
            return
        self._started = True
        await self._send(message)

    def give_up(self, limit: Limit) -> None:
        if not self._started:
            self._started = True
            error: AppError
            if limit.accepted_as is not None:
                error = RunUnfinishedError(limit.accepted_as)
            elif limit.stored_as is not None:
                error = OutcomeUnknownError(limit.stored_as)
            elif self._harmless:
                error = UnavailableError("This took too long; nothing was stored.")
            else:
                error = AppError(
                    "This took too long: it may or may not have been stored.",
                    code="outcome_unknown",
                )
            self._gave_up = asyncio.ensure_future(
                errors.send_problem(self._send, error, self._request_id)
            )

    async def sent(self) -> None:
        """Wait for our own answer: without it the web server would make up one."""
        if self._gave_up is not None:
            await self._gave_up
