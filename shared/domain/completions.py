"""What goes to a provider and what comes back, in no vendor's words."""

from collections.abc import Mapping
from enum import StrEnum
from typing import Any

import msgspec

from shared.domain.states import AttemptOutcome, Billed, ErrorOrigin, IncompleteReason
from shared.domain.tools import EmitTool


class Message(msgspec.Struct, frozen=True):
    """One rendered message; `role` is `system`, `user` or `assistant`."""

    role: str
    content: str


class Usage(msgspec.Struct, frozen=True, rename="camel"):
    """Tokens in disjoint buckets: no token is counted twice. `reasoning` is part of `output`."""

    input: int = 0
    cache_write: int = 0
    cache_read: int = 0
    output: int = 0
    reasoning: int = 0


class ModelParams(
    msgspec.Struct, frozen=True, rename="camel", omit_defaults=True, forbid_unknown_fields=True
):
    """Model parameters of API.md, all optional. `sim` steers the simulated provider only."""

    max_completion_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    verbosity: str | None = None
    reasoning_effort: str | None = None
    reasoning_summary: str | None = None
    service_tier: str | None = None
    sim: Mapping[str, Any] | None = None


class ToolCall(msgspec.Struct, frozen=True):
    """A tool that a model called, with its arguments as the JSON it wrote."""

    tool: str
    arguments: str


class RunParams(
    ModelParams, frozen=True, rename="camel", omit_defaults=True, forbid_unknown_fields=True
):
    """A run's own parameters. `flow` says that more than these changes its call.

    A worker that does not know of that does not know this field either, and refuses the run
    rather than asking another question than was meant.
    """

    flow: bool = False


class CompletionRequest(msgspec.Struct, frozen=True):
    """One call: a bare model name (`gpt-5-mini`), rendered messages, and how to be paid for it.

    `keeps_answer` asks for the answer as it came, beside what is read of it.
    """

    run_id: str
    attempt: int
    model: str
    messages: tuple[Message, ...]
    params: ModelParams
    response_format: Mapping[str, Any] | None
    api_key: str
    timeout_s: float
    traceparent: str | None = None
    tools: tuple[EmitTool, ...] = ()
    keeps_answer: bool = False

    def __repr__(self) -> str:
        """Name the call only: neither the key nor a prompt belongs into a log."""
        return f"CompletionRequest(run_id={self.run_id!r}, attempt={self.attempt})"


class Completion(msgspec.Struct, frozen=True):
    """An answer in hand. `text` never holds U+0000. `incomplete` says why it is not whole.

    `said` is empty unless tools were called: then the texts and calls in their order.
    """

    text: str
    model: str
    usage: Usage
    usage_raw: bytes
    provider_request_id: str | None = None
    service_tier: str | None = None
    incomplete: IncompleteReason | None = None
    said: tuple[str | ToolCall, ...] = ()
    verbatim: str | None = None


class FailureClass(StrEnum):
    """How a failed call is to be treated; the values are those of the attempt's outcome."""

    NOT_SENT = AttemptOutcome.NOT_SENT.value
    NOT_STARTED = AttemptOutcome.NOT_STARTED.value
    REFUSED = AttemptOutcome.REFUSED.value
    SERVER_ERROR = AttemptOutcome.SERVER_ERROR.value
    UNKNOWN = AttemptOutcome.UNKNOWN.value


class ProviderError(Exception):
    """A call that brought no answer.

    `kind` decides what happens next, `code` is stable, `message` is the vendor's own words (safe to
    show to the run's owner, at most 2,000 characters, no NUL). `retry_after_s` is what the vendor
    asks for.
    `credential_bad` is set for 401, 403 and an account without quota: the breaker of that
    credential opens at once.
    `usage` is what a failed call is known to have cost; then `billed` is `yes`.
    """

    def __init__(  # noqa: PLR0913 (a record, raised by keyword)
        self,
        kind: FailureClass,
        *,
        code: str,
        message: str,
        origin: ErrorOrigin = ErrorOrigin.PROVIDER,
        billed: Billed = Billed.NO,
        retry_after_s: float | None = None,
        provider_request_id: str | None = None,
        credential_bad: bool = False,
        usage: Usage | None = None,
    ) -> None:
        super().__init__(message)
        self.kind = kind
        self.code = code
        self.message = message
        self.origin = origin
        self.billed = billed
        self.retry_after_s = retry_after_s
        self.provider_request_id = provider_request_id
        self.credential_bad = credential_bad
        self.usage = usage
