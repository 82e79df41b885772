"""Metrics: every figure a process tells Prometheus, by name, with what it costs to count.

Counting is cheap enough to be always on (half a microsecond an increment, one and a half an
observation); nothing listens until `METRICS_PORT` is set. No label ever holds what a tenant chose:
see `Names`.
"""

from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
)
from prometheus_client.process_collector import ProcessCollector

disable_created_metrics()  # type: ignore[no-untyped-call] # as shipped
REGISTRY = CollectorRegistry(auto_describe=True)
MAX_MODELS = 200
"""So many models have figures of their own in one process; the others share `other`."""
OTHER = "other"

_WAITS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800)
_CALLS_S = (0.05, 0.1, 0.25, 0.5, 1, 2, 4, 8, 15, 30, 60, 120, 300, 600)
_ANSWERS_S = (0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 15, 60)
_LAGS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10)
_SIZES = (1, 2, 5, 10, 20, 50, 100, 200, 500)


class Described(NamedTuple):
    """What the reference says of a metric; `name` is the one to query."""

    name: str
    kind: str
    labels: tuple[str, ...]
    text: str


DESCRIBED: list[Described] = []


class Count:
    """Something that only grows. Labels are given in the order they were declared in."""

    def __init__(self, name: str, text: str, *labels: str) -> None:
        DESCRIBED.append(Described(name, "counter", labels, text))
        self._all = Counter(name, text, labels, registry=REGISTRY)
        self._children: dict[tuple[str, ...], Counter] = {}

    def add(self, *labels: str, by: float = 1) -> None:
        """Count; by 0 only shows that it may happen, so that the first time is a growth."""
        child = self._children.get(labels)
        if child is None:
            child = self._children[labels] = self._all.labels(*labels) if labels else self._all
        child.inc(by)


class Level:
    """Something that goes up and down; set when somebody looks."""

    def __init__(self, name: str, text: str, *labels: str) -> None:
        DESCRIBED.append(Described(name, "gauge", labels, text))
        self._all = Gauge(name, text, labels, registry=REGISTRY)

    def set(self, value: float, *labels: str) -> None:
        (self._all.labels(*labels) if labels else self._all).set(value)

    def forget(self) -> None:
        """Say nothing, for values that nobody knows right now; labelled ones only."""
        self._all.clear()


class Spread:
    """A histogram."""

    def __init__(self, name: str, text: str, *labels: str, buckets: Sequence[float]) -> None:
        DESCRIBED.append(Described(name, "histogram", labels, text))
        self._all = Histogram(name, text, labels, registry=REGISTRY, buckets=buckets)
        self._children: dict[tuple[str, ...], Histogram] = {}

    def note(self, value: float, *labels: str) -> None:
        child = self._children.get(labels)
        if child is None:
            child = self._children[labels] = self._all.labels(*labels) if labels else self._all
        child.observe(value)


# Runs
SUBMITTED = Count(
    "runlane_runs_submitted_total",
    "Runs stored. A request that an Idempotency-Key answers with an earlier run counts nothing.",
    "lane",
)
CLAIMED = Count("runlane_runs_claimed_total", "Runs that a worker took, retries too.", "lane")
WAITED = Spread(
    "runlane_run_wait_seconds",
    "From the moment a run was due (submitted, or its runAt) to its first claim. "
    "`threaded` is `yes` for runs that take a turn in a thread: they wait for earlier turns.",
    "lane",
    "threaded",
    buckets=_WAITS_S,
)
REQUEUED = Count(
    "runlane_runs_requeued_total",
    "Runs that a worker put back into the queue. `reason` is their statusReason, or `other`.",
    "reason",
)
ENDED = Count(
    "runlane_runs_ended_total",
    "Runs that reached their end. `reason` is the code of the error of those that failed or "
    "expired, and the incompleteReason of incomplete ones.",
    "status",
    "reason",
)

# Lanes
DEPTH = Level("runlane_lane_depth", "Ids that wait in a lane in Redis, due or not.", "lane")
OLDEST_DUE_S = Level(
    "runlane_lane_oldest_due_seconds",
    "How long the run has been due that waits longest in a lane, by the database; 0 for none. "
    "Runs that wait for an earlier turn of their thread do not count.",
    "lane",
)
PAUSED = Level("runlane_lane_paused", "1 while the operator has paused a lane.", "lane")
RING_FAILURES = Count(
    "runlane_ring_failures_total", "Runs that Redis was not told of; the sweeper finds them."
)

# Providers
CALLS = Count(
    "runlane_provider_calls_total",
    "Calls of a provider, by outcome: that of the attempt, before an answer is held against a "
    "schema.",
    "provider",
    "model",
    "outcome",
)
CALL_S = Spread(
    "runlane_provider_call_duration_seconds",
    "How long calls of a provider took, however they ended.",
    "provider",
    "model",
    buckets=_CALLS_S,
)
TOKENS = Count(
    "runlane_tokens_total",
    "Tokens used, `kind` being input, cache_write, cache_read or output; none counts twice.",
    "provider",
    "model",
    "kind",
)
COST_USD = Count(
    "runlane_cost_usd_total",
    "What calls cost in dollars, where the price of their model is known.",
    "provider",
    "model",
)
BREAKER_OPENINGS = Count(
    "runlane_breaker_openings_total",
    "How often a breaker opened, or opened again after its probe failed.",
    "provider",
    "model",
)
BREAKERS_OPEN = Level(
    "runlane_breakers_open", "Breakers that are open in this worker right now.", "provider"
)

# Webhooks
TRIES = Count(
    "runlane_delivery_tries_total",
    "Tries of deliveries. `result` is `succeeded`, `pending` (to be tried again) or `exhausted` "
    "(given up); `reason` the class of the answer (`2xx` …) or why there was none.",
    "result",
    "reason",
)
DELIVERY_S = Spread(
    "runlane_delivery_duration_seconds", "How long tries of deliveries took.", buckets=_ANSWERS_S
)
SENDING = Level("runlane_deliveries_sending", "Requests to webhooks under way in this worker.")
ENDPOINTS_PAUSED = Count(
    "runlane_endpoints_paused_total", "Pauses of endpoints, as this worker came to know of them."
)
ENDPOINTS_DISABLED = Count(
    "runlane_endpoints_disabled_total",
    "Endpoints that were disabled: `gone` (410) or `failing`.",
    "reason",
)

# Workers
RUNNING = Level("runlane_slots_used", "Slots of this worker that a lane's runs hold.", "lane")
FREE = Level("runlane_slots_free", "Free slots of this worker.")
REDIS_AWAY = Level(
    "runlane_redis_away", "1 while this worker cannot claim through Redis (see REDIS_AWAY_S)."
)
LEASE_AGE_S = Level(
    "runlane_lease_age_seconds",
    "Since this worker last renewed its lease; it starts nothing beyond SELF_FENCE_S.",
)
RENEWAL_FAILURES = Count("runlane_lease_renewal_failures_total", "Renewals that failed.")
LEASES_LOST = Count(
    "runlane_lease_losses_total", "How often this worker found that others had declared it dead."
)
LATE_RESULTS = Count(
    "runlane_late_results_total", "Results that came after the claim was lost; kept, not applied."
)
LOST_CLAIMS = Count(
    "runlane_lost_claims_total", "Runs given back because the answer to their claim never came."
)
HELD_BYTES = Level(
    "runlane_results_held_bytes", "Results in memory that wait to be written to the database."
)
SPILLED = Count("runlane_results_spilled_total", "Results kept in files: no database took them.")

# Sweeper and reaper
LEADS = Level(
    "runlane_sweeper_leads", "1 in the worker that sweeps and reaps; over all workers it is one."
)
SWEEPS = Count("runlane_sweeps_total", "Sweeps that came to their end.")
RESCUES = Count(
    "runlane_sweeper_rescues_total",
    "Due runs that were missing in Redis and were rung again by the sweeper.",
    "lane",
)
EMPTIED = Count("runlane_redis_emptied_total", "How often Redis was found emptied.")
WORKERS_LOST = Count("runlane_workers_lost_total", "Workers whose lease ran out.")
REAPED = Count(
    "runlane_runs_reaped_total", "Runs taken from lost workers, by what became of them.", "status"
)

# Requests
REQUESTS = Count(
    "runlane_http_requests_total",
    "Requests answered. `route` is the route's pattern, `none` where there was none.",
    "method",
    "route",
    "status",
)
REQUEST_S = Spread(
    "runlane_http_request_duration_seconds",
    "From a request's head to the end of its answer, waiting for runs included.",
    "method",
    "route",
    buckets=_ANSWERS_S,
)
WAITERS = Level("runlane_waiters", "Requests that wait for the end of a run right now.")

# Processes
BUILD = Level("runlane_build_info", "Always 1.", "version", "python")
UP = Level(
    "runlane_dependency_up",
    "1 where `postgresql` or `redis` answered this scrape within a second.",
    "dependency",
)
BATCH = Spread(
    "runlane_batch_items", "How many items one flush of a batch held.", "batch", buckets=_SIZES
)
POOL_CONNECTIONS = Level(
    "runlane_pool_connections", "Database connections, `idle` or `busy`.", "pool", "state"
)
POOL_WAITING = Level("runlane_pool_waiting", "Who waits for a connection right now.", "pool")
POOL_WAITS = Count("runlane_pool_waits_total", "Who had to wait for a connection.", "pool")
POOL_WAIT_S = Count("runlane_pool_wait_seconds_total", "How long they waited, in all.", "pool")
POOL_TIMEOUTS = Count("runlane_pool_timeouts_total", "Who got none within POOL_WAIT_S.", "pool")
LOOP_LAG_S = Spread(
    "runlane_event_loop_lag_seconds",
    "By how much a timer of half a second came too late: what holds up everything else.",
    buckets=_LAGS_S,
)
ProcessCollector(registry=REGISTRY)


class Names:
    """Which models have figures of their own: tenants choose names, and may choose thousands."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._known: set[tuple[str, str]] = set()

    def label(self, provider: str, listed: str | None) -> str:
        """The label of a model; `listed` is what the price book calls it, if it knows it."""
        if listed is None:
            return OTHER
        if (provider, listed) not in self._known:
            if len(self._known) >= self._most:
                return OTHER
            self._known.add((provider, listed))
        return listed


MODELS = Names(MAX_MODELS)

Probe = Callable[[], Awaitable[None]]
_probes: list[Probe] = []


@contextmanager
def looked_at(*found: Probe) -> Iterator[None]:
    """For the length of a block, let every scrape call these first, to set levels."""
    _probes.extend(found)
    try:
        yield
    finally:
        for probe in found:
            _probes.remove(probe)


def probes() -> Sequence[Probe]:
    """What to call before a scrape is answered."""
    return tuple(_probes)


def sized(batch: str) -> Callable[[int], None]:
    """For a batcher: note how many items each flush holds."""

    def note(size: int) -> None:
        BATCH.note(size, batch)

    return note
