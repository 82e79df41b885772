"""The words of a run's life: lanes, statuses, outcomes. The state machine is in DESIGN of docs/."""

from enum import StrEnum


class Lane(StrEnum):
    """Where a run waits. The order is the priority."""

    ONSITE = "onsite"
    NORMAL = "normal"
    LOW = "low"


class RunStatus(StrEnum):
    """Where a run is in its life. Terminal values are final for ever."""

    SCHEDULED = "scheduled"
    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    INCOMPLETE = "incomplete"
    FAILED = "failed"
    CANCELED = "canceled"
    EXPIRED = "expired"


LIVE = frozenset({RunStatus.SCHEDULED, RunStatus.QUEUED, RunStatus.RUNNING})
TERMINAL = frozenset(RunStatus) - LIVE


class UnknownOutcome(StrEnum):
    """What to do when nobody can say whether a provider took a call."""

    RETRY = "retry"
    FAIL = "fail"


class AttemptOutcome(StrEnum):
    """How one provider call ended; `None` in the row while it is under way."""

    SUCCEEDED = "succeeded"
    INCOMPLETE = "incomplete"
    NOT_SENT = "not_sent"
    NOT_STARTED = "not_started"
    REFUSED = "refused"
    SERVER_ERROR = "server_error"
    UNKNOWN = "unknown"
    LOST = "lost"
    CANCELED = "canceled"


class Billed(StrEnum):
    """Whether a call cost money."""

    YES = "yes"
    NO = "no"
    UNKNOWN = "unknown"


class ErrorOrigin(StrEnum):
    """Who has to act on a run's error."""

    CALLER = "caller"
    TEMPLATE = "template"
    PROVIDER = "provider"
    PLATFORM = "platform"
    POLICY = "policy"


class IncompleteReason(StrEnum):
    """Why an answer is there but not whole."""

    MAX_TOKENS = "max_tokens"
    CONTENT_FILTER = "content_filter"
    DEADLINE = "deadline"
    SCHEMA = "schema"


class Memory(StrEnum):
    """What a template does with its thread."""

    STATELESS = "stateless"
    READ_ONLY = "read_only"
    READ_WRITE = "read_write"
    WRITE_ONLY = "write_only"


READS_HISTORY = frozenset({Memory.READ_ONLY, Memory.READ_WRITE})


class WebhookFormat(StrEnum):
    """How an endpoint wants its events."""

    STANDARD = "standard"
    PROMPTJUGGLER = "promptjuggler"


class DeliveryStatus(StrEnum):
    """How far one event is on its way to one endpoint."""

    PENDING = "pending"
    SUCCEEDED = "succeeded"
    EXHAUSTED = "exhausted"
    CANCELED = "canceled"
