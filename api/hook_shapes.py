"""What answers and bodies about webhooks look like: deliveries, events, the feed."""

from typing import Annotated, Literal
from uuid import UUID

import msgspec
from msgspec import UNSET, Meta, UnsetType

from api.shapes import Moment, RunSummary, Shape
from shared.domain.states import DeliveryStatus


class DeliveryAttempt(Shape, frozen=True):
    """One request to a webhook and what came of it."""

    number: int
    started_at: Moment
    duration_ms: int
    status: Annotated[int | None, Meta(description="The status it answered with, if it did.")]
    outcome: Annotated[str, Meta(description="`answered`, or why there was no answer.")]
    excerpt: Annotated[str, Meta(description="The beginning of its answer, or what went wrong.")]
    address: Annotated[str | None, Meta(description="The address that was dialled.")]


class _Delivery(Shape, frozen=True):
    """One webhook's copy of an event."""

    id: UUID
    event_id: Annotated[UUID, Meta(description="What receivers see as `webhook-id`.")]
    type: str
    run: Annotated[UUID | None, Meta(description="The run it tells of; null for a `ping`.")]
    environment: str | None
    webhook: UUID
    url: str
    status: DeliveryStatus
    tries: Annotated[int, Meta(description="Requests since it was written or sent again.")]
    created_at: Moment
    finished_at: Moment | None
    next_try_at: Moment | None


class ListedDelivery(_Delivery, frozen=True):
    """A delivery with its last attempt."""

    last_attempt: DeliveryAttempt | None


class Delivery(_Delivery, frozen=True):
    """A delivery with all its attempts."""

    attempts: list[DeliveryAttempt]


class DeliveryList(Shape, frozen=True):
    """The deliveries of a run."""

    data: list[Delivery]
    has_more: bool
    next_cursor: str | None


class WebhookDeliveryList(Shape, frozen=True):
    """One page of the deliveries to a webhook."""

    data: list[ListedDelivery]
    has_more: bool
    next_cursor: str | None


class EventRun(RunSummary, frozen=True):
    """A run in an event: without inputs, messages and attempts."""

    output_truncated: Annotated[
        bool, Meta(description="The output is over 8 KiB: read it from the run.")
    ]


class EventData(Shape, frozen=True):
    """What an event is about."""

    run: EventRun


class RunEvent(Shape, frozen=True):
    """The body of a webhook in the standard format."""

    id: UUID
    type: str
    timestamp: Moment
    environment: str
    data: EventData


class PingData(Shape, frozen=True):
    """The webhook that is tested."""

    webhook: UUID


class PingEvent(Shape, frozen=True):
    """The body of a test."""

    id: UUID
    type: Literal["ping"]
    timestamp: Moment
    environment: None
    data: PingData


class FeedData(Shape, frozen=True):
    """What an event of the feed is about: a run, or the webhook that was tested."""

    run: EventRun | UnsetType = UNSET
    webhook: Annotated[UUID | UnsetType, Meta(description="Of a `ping` only.")] = UNSET


class FeedEvent(Shape, frozen=True):
    """An event as webhooks in the standard format receive it."""

    id: UUID
    type: str
    timestamp: Moment
    environment: Annotated[str | None, Meta(description="Null for a `ping`.")]
    data: FeedData


class EventList(Shape, frozen=True):
    """One page of the feed."""

    data: list[FeedEvent]
    has_more: bool
    next_cursor: Annotated[str, Meta(description="Ask again with this as `after`, at any time.")]


class PromptRunFinished(Shape, frozen=True):
    """The body of a webhook with `format: promptjuggler`."""

    id: UUID
    status: Literal["completed", "failed"]


ALL: tuple[type[msgspec.Struct], ...] = (
    Delivery,
    DeliveryList,
    EventList,
    PingEvent,
    PromptRunFinished,
    RunEvent,
    WebhookDeliveryList,
)
"""The shapes that the OpenAPI document adds to those of the routes."""
