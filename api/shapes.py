"""What answers look like that PostgreSQL writes itself: shapes for the documentation and its tests.

Nothing decodes into these on a request's way; tests hold real answers against them.
"""

from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

import msgspec
from msgspec import UNSET, Meta, UnsetType

from shared.domain.completions import ModelParams
from shared.domain.states import (
    AttemptOutcome,
    Billed,
    ErrorOrigin,
    IncompleteReason,
    Lane,
    RunStatus,
)
from shared.domain.templates import Syntax
from shared.domain.versions import TemplateBody

Moment = Annotated[datetime, Meta(tz=True)]


class Shape(msgspec.Struct, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True):
    """What all shapes have in common."""


class AcceptedLinks(Shape, frozen=True):
    """Where to read an accepted run."""

    self: str
    prompt_run: str


class BatchedRun(Shape, frozen=True):
    """A run of a batch."""

    id: UUID
    thread: UUID
    status: RunStatus


class AcceptedBatch(Shape, frozen=True):
    """The runs of a batch, in the order they were sent."""

    runs: list[BatchedRun]


class TokenUsage(Shape, frozen=True):
    """Tokens: `input` includes what was cached, `output` includes reasoning."""

    input: int
    input_cached: int
    input_cache_write: int
    output: int
    reasoning: int
    total: int
    service_tier: str | None


class CostParts(Shape, frozen=True):
    """US dollars."""

    input: float
    cached_input: float
    cache_write: float
    output: float
    web_search: float
    total: float


class Cost(Shape, frozen=True):
    """US dollars: of the call that answered, of those that did not, and in all."""

    success: CostParts
    retries: CostParts
    total: float


class TranscriptText(Shape, frozen=True, tag_field="type", tag="text"):
    """A stretch of text in a transcript."""

    content: str
    citations: list[Any]


class Emitted(Shape, frozen=True):
    """What the model called an `emit` tool with; it keeps to the tool's schema."""

    tool: str
    payload: dict[str, Any]


class TranscriptData(Emitted, frozen=True, tag_field="type", tag="data"):
    """Such a payload, at the place where it was emitted."""


class PromptRun(Shape, frozen=True):
    """A run as clients of the prompts door know it."""

    id: UUID
    status: Annotated[
        Literal["pending", "completed", "failed"],
        Meta(
            description="pending: scheduled, queued or running; completed: succeeded or "
            "incomplete; failed: the other three."
        ),
    ]
    created_at: Moment
    finished_at: Moment | None
    output: str | None
    emitted: list[Emitted]
    transcript: list[TranscriptText | TranscriptData]
    error: Annotated[
        str | None, Meta(description="The latest failed attempt's, also when a retry succeeded.")
    ]
    token_usage: TokenUsage | None
    cost: Annotated[
        Cost | None, Meta(description="Null while pending, and when no price is known.")
    ]


class AcceptedRun(Shape, frozen=True):
    """A run that is stored and will be carried out."""

    id: UUID
    thread: UUID
    status: RunStatus
    links: AcceptedLinks
    prompt_run: Annotated[
        PromptRun | UnsetType, Meta(description="With `Prefer: wait` only: the run as it is now.")
    ] = UNSET


class PromptReference(Shape, frozen=True):
    """The version a run was resolved to when it was submitted.

    `tag` is the name it was asked for by: a tag, or `__pinned__`; null for a number or an id.
    """

    slug: str
    version: int
    version_id: UUID
    tag: str | None


class Failure(Shape, frozen=True):
    """Why a run failed, and who has to act on it."""

    code: str
    message: str
    origin: ErrorOrigin


class AttemptFailure(Shape, frozen=True):
    """Why one provider call failed."""

    code: str
    message: str


class Attempt(Shape, frozen=True):
    """One provider call. `outcome` is null while it is under way."""

    number: int
    started_at: Moment
    finished_at: Moment | None
    outcome: AttemptOutcome | None
    model: str
    provider_request_id: str | None
    usage: TokenUsage | None
    cost: CostParts | None
    billed: Billed | None
    late: Annotated[
        bool, Meta(description="It ended after the run had been taken from its worker.")
    ]
    error: AttemptFailure | None


class SentMessage(Shape, frozen=True):
    """A message as it was rendered and sent."""

    role: Literal["system", "user", "assistant"]
    content: str


class RunLinks(Shape, frozen=True):
    """Where a run's other addresses are."""

    self: str
    cancel: str
    replay: str
    deliveries: str


class RunSummary(Shape, frozen=True):
    """What events and the whole run have in common."""

    id: UUID
    status: RunStatus
    done: bool
    status_reason: Annotated[
        str | None,
        Meta(
            description="While waiting: thread_busy (an earlier turn of its thread and channel is "
            "not over), lane_paused (by the operator), retry_backoff, provider_rate_limit, "
            "circuit_open, budget_hold (its worst case does not fit into what is left to spend) "
            "or backlog (its environment runs as many as it may); null when nothing special "
            "holds it up."
        ),
    ]
    next_attempt_at: Moment | None
    prompt: PromptReference
    environment: str
    priority: Lane
    thread: UUID
    channel: str
    metadata: dict[str, str | list[str]]
    tags: list[str]
    model: str
    incomplete_reason: IncompleteReason | None
    error: Failure | None
    token_usage: TokenUsage | None
    cost: Cost | None
    created_at: Moment
    started_at: Moment | None
    finished_at: Moment | None
    cancel_requested_at: Moment | None
    contents_erased_at: Annotated[
        Moment | None,
        Meta(
            description="Since when inputs, messages and output are gone and read as null: the "
            "retention of its environment says how long they stay."
        ),
    ]
    replayed_from: UUID | None
    links: RunLinks
    output: str | None


class Run(RunSummary, frozen=True):
    """Everything about a run."""

    inputs: dict[str, str] | None
    emitted: list[Emitted]
    attempts: list[Attempt]
    messages: Annotated[
        list[SentMessage] | None,
        Meta(description="As rendered and sent, history included; null before the first call."),
    ]


class PreviewedPrompt(PromptReference, frozen=True):
    """The version that a run would be resolved to."""

    published: Annotated[bool, Meta(description="False for a draft: it cannot be run.")]


class TokenEstimate(Shape, frozen=True):
    """Tokens of one call."""

    input: Annotated[
        int,
        Meta(
            description="Four bytes of UTF-8 count as one token, each message as four more: close "
            "for English, for other texts the vendor's count may differ by a third and more."
        ),
    ]
    max_output: Annotated[
        int | None,
        Meta(
            description="Reasoning included; `maxCompletionTokens`, or what is sent where the "
            "vendor wants a limit. Null when there is none."
        ),
    ]


class Preview(Shape, frozen=True):
    """What a run would do."""

    prompt: PreviewedPrompt
    environment: str
    priority: Lane
    model: str
    params: Annotated[
        ModelParams, Meta(description="The version's, with those of the request before them.")
    ]
    messages: Annotated[
        list[SentMessage],
        Meta(
            description="As they would be sent, the thread's history included; the token of a "
            "missing input stays as it was written."
        ),
    ]
    missing_inputs: Annotated[
        list[str], Meta(description="With any of these a submission is refused.")
    ]
    unused_inputs: Annotated[list[str], Meta(description="Given, but asked for by nothing.")]
    warnings: Annotated[
        list[str],
        Meta(description="The version's, and what would keep the model from being called."),
    ]
    token_estimate: TokenEstimate
    cost_ceiling: Annotated[
        CostParts | None,
        Meta(
            description="Of one call: the estimated input, and all the output it may have, at "
            "today's prices. Each further attempt costs as much again. Null when no price or no "
            "limit of the output is known."
        ),
    ]
    waiting_ahead: Annotated[
        int,
        Meta(
            description="How many runs of this workspace, as far as the key reaches, could start "
            "and still wait in the lane, among the first 5,000 there. Those of others, with whom "
            "the lane may be shared, are not told: 0 does not promise a start at once."
        ),
    ]


class RunList(Shape, frozen=True):
    """One page of runs."""

    data: list[RunSummary]
    has_more: bool
    next_cursor: str | None


class ThreadMessage(Shape, frozen=True):
    """A message of a turn: what was said to the model, or what it answered."""

    role: Literal["user", "assistant"]
    content: str
    turn: int
    channel: str
    run: UUID
    environment: str
    created_at: Moment


class MessageList(Shape, frozen=True):
    """One page of a channel's messages."""

    data: list[ThreadMessage]
    has_more: bool
    next_cursor: str | None


class ShortDraft(TemplateBody, frozen=True):
    """The body of a draft with one template."""

    syntax: Syntax = Syntax.BRACES


class ShortVersion(ShortDraft, frozen=True):
    """A version with one template."""

    publish: bool = True


class LongDraft(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of a draft with several templates; runs start from the entrypoint."""

    templates: dict[str, TemplateBody]
    entrypoint: str = "main"
    syntax: Syntax = Syntax.BRACES


class LongVersion(LongDraft, frozen=True):
    """A version with several templates; runs start from the entrypoint."""

    publish: bool = True


ALL: tuple[type[msgspec.Struct], ...] = (
    AcceptedBatch,
    AcceptedRun,
    LongDraft,
    LongVersion,
    MessageList,
    Preview,
    PromptRun,
    Run,
    RunList,
    ShortDraft,
    ShortVersion,
)
"""The shapes that the OpenAPI document adds to those of the routes."""
