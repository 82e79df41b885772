"""What a caller may ask of a run: the body of a submission, and the rules it must keep."""

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Annotated
from uuid import UUID

import msgspec

from shared.domain import documents, models
from shared.domain.completions import ModelParams
from shared.domain.credits import MAX_CREDITS
from shared.domain.states import Lane, UnknownOutcome
from shared.errors import Flaw, UnacceptableError

MAX_RUN_AT = timedelta(days=366)
MAX_EXPIRES_IN_S = 14 * 86_400
MAX_DURATION_S = 14 * 86_400
MAX_ENV_VARS = 50
MAX_ENV_VARS_BYTES = 65_536
MAX_METADATA = 50
MAX_METADATA_KEY = 64
MAX_METADATA_VALUE = 512
MAX_METADATA_LIST = 20
MAX_TAGS = 10
MAX_TAG = 128
DEFAULT_CHANNEL = "default"
MAX_CHANNEL = 128
MAX_BATCH = 1000
DEFAULT_CHANNEL = "default"

_VARIABLE = re.compile(r"[A-Z][A-Z0-9_]{0,127}")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")

Moment = Annotated[datetime, msgspec.Meta(tz=True)]


class Submission(
    msgspec.Struct, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True
):
    """The body of a run's creation: the prompts door's fields and our additions."""

    inputs: dict[str, str]
    thread: UUID | None = None
    priority: Lane | None = None
    environment: str | None = None
    env_vars: dict[str, str] | None = None
    metadata: dict[str, str | list[str]] | None = None
    channel: str | None = None
    model: str | None = None
    params: ModelParams | None = None
    tags: list[str] | None = None
    run_at: Moment | None = None
    expires_in: Annotated[int, msgspec.Meta(ge=1, le=MAX_EXPIRES_IN_S)] | None = None
    deadline: Moment | None = None
    max_duration: Annotated[int, msgspec.Meta(ge=1, le=MAX_DURATION_S)] | None = None
    max_attempts: Annotated[int, msgspec.Meta(ge=1, le=20)] | None = None
    on_unknown_outcome: UnknownOutcome | None = None
    max_request_cost_credits: Annotated[int, msgspec.Meta(ge=0, le=MAX_CREDITS)] | None = None


class BatchItem(Submission, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True):
    """One submission of a batch: what the address says of a single one stands beside its body."""

    prompt: str
    version: Annotated[str, msgspec.Meta(min_length=1)] | int
    idempotency_key: Annotated[str, msgspec.Meta(pattern=r"^[\x20-\x7e]{1,255}\Z")] | None = None


class Batch(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Up to a thousand submissions, stored together or not at all."""

    runs: Annotated[list[BatchItem], msgspec.Meta(min_length=1, max_length=MAX_BATCH)]


def check(submission: Submission, *, now: datetime) -> None:
    """Raise `UnacceptableError` with everything that types alone cannot refuse."""
    flaws = [
        *_environment_flaws(submission.env_vars or {}),
        *_metadata_flaws(submission.metadata or {}),
        *_label_flaws(submission),
        *_time_flaws(submission, now),
    ]
    if submission.params is not None:
        flaws.extend(models.params_flaws(submission.params, "/params"))
    if flaws:
        raise UnacceptableError(flaws[0].message, flaws=flaws)


def _environment_flaws(variables: dict[str, str]) -> Iterator[Flaw]:
    if len(variables) > MAX_ENV_VARS:
        yield Flaw("/envVars", f"At most {MAX_ENV_VARS} variables may be given.")
    if sum(len(k.encode()) + len(v.encode()) for k, v in variables.items()) > MAX_ENV_VARS_BYTES:
        yield Flaw("/envVars", f"Variables may take {MAX_ENV_VARS_BYTES} bytes in all.")
    for name in variables:
        if not _VARIABLE.fullmatch(name):
            yield Flaw(
                f"/envVars{documents.step(name)}",
                "A variable's name is a capital letter, then capitals, digits and underscores.",
            )


def _metadata_flaws(metadata: dict[str, str | list[str]]) -> Iterator[Flaw]:
    if len(metadata) > MAX_METADATA:
        yield Flaw("/metadata", f"At most {MAX_METADATA} keys may be given.")
    for key, value in metadata.items():
        pointer = f"/metadata{documents.step(key)}"
        if not 0 < len(key) <= MAX_METADATA_KEY or _CONTROL.search(key):
            yield Flaw(pointer, f"A key is 1 to {MAX_METADATA_KEY} printable characters.")
        values = [value] if isinstance(value, str) else value
        if len(values) > MAX_METADATA_LIST:
            yield Flaw(pointer, f"A list holds at most {MAX_METADATA_LIST} strings.")
        if any(len(one) > MAX_METADATA_VALUE for one in values):
            yield Flaw(pointer, f"A value is at most {MAX_METADATA_VALUE} characters long.")


def _label_flaws(submission: Submission) -> Iterator[Flaw]:
    tags = submission.tags or []
    if len(tags) > MAX_TAGS:
        yield Flaw("/tags", f"At most {MAX_TAGS} tags may be given.")
    for place, tag in enumerate(tags):
        if not 0 < len(tag) <= MAX_TAG or _CONTROL.search(tag):
            yield Flaw(f"/tags/{place}", f"A tag is 1 to {MAX_TAG} printable characters.")
    channel = submission.channel
    if channel is not None and (not 0 < len(channel) <= MAX_CHANNEL or _CONTROL.search(channel)):
        yield Flaw("/channel", f"A channel is 1 to {MAX_CHANNEL} printable characters.")


def start_of(submission: Submission) -> datetime | None:
    """`runAt`; `None`, which is now, also where its offset carries it before the year 1."""
    run_at = submission.run_at
    return run_at if run_at is not None and _is_in_utc(run_at) else None


def _time_flaws(submission: Submission, now: datetime) -> Iterator[Flaw]:
    run_at, deadline = submission.run_at, submission.deadline
    if run_at is not None and run_at > now + MAX_RUN_AT:
        yield Flaw("/runAt", "A run may be scheduled at most 366 days ahead.")
    if deadline is not None:
        if deadline <= now:
            yield Flaw("/deadline", "The deadline has passed already.")
        elif not _is_in_utc(deadline):
            yield Flaw("/deadline", "In UTC this moment has no year of four digits.")
        elif run_at is not None and deadline <= run_at:
            yield Flaw("/deadline", "The deadline lies before runAt.")


def _is_in_utc(moment: datetime) -> bool:
    """Whether the offset leaves it in the years that exist: not 9999 west of Greenwich, say."""
    try:
        moment.astimezone(UTC)
    except OverflowError:
        return False
    return True
