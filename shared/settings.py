"""Settings: every figure an operator may change, read from the environment once, at start."""

import os
import re
from collections.abc import Mapping
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Annotated, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    SecretStr,
    field_validator,
)
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

IpNetwork = IPv4Network | IPv6Network
PROVIDERS = ("openai", "anthropic", "sim")
"""The providers that are always there."""
ALIAS = "alias"
"""What stands in a provider's place where a model's name is an alias of the workspace."""
_FREE = "sim"
_PROVIDER = re.compile(r"[a-z][a-z0-9_-]{0,31}")


class CompatibleServer(BaseModel):
    """A server that speaks OpenAI's Chat Completions; its name is the provider's.

    `key_variable` names the variable with its key, as `OPENAI_API_KEY` does for OpenAI: of the run,
    the environment, or this server. `null` is for a server that wants none.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    base_url: str = Field(pattern=r"^https?://[!-~]+$")
    key_variable: str | None = Field(default="", pattern=r"^([A-Z][A-Z0-9_]*)?$")
    header: Literal["authorization", "api-key", "x-api-key"] = "authorization"


class Settings(BaseSettings):
    """Read from environment variables of the same name in upper case.

    Durations end in `_s` and are seconds. `docs/reference/settings.md` is made from this class.
    """

    model_config = SettingsConfigDict(frozen=True, extra="ignore", populate_by_name=True)

    # Where things are
    database_url: SecretStr = Field(
        default=SecretStr(""), description="PostgreSQL 14 or newer, as `postgresql://…`."
    )
    redis_url: SecretStr = Field(
        default=SecretStr(""), description="Redis 7 or Valkey, as `redis://…` or `unix://…`."
    )
    data_dir: Path = Field(
        default=Path(".runlane"), description="Folder for embedded servers and spilled results."
    )
    api_host: str = Field(default="127.0.0.1", description="Address the API listens on.")
    api_port: int = Field(default=8000, ge=0, le=65535, description="Port the API listens on.")
    api_linger_s: NonNegativeFloat = Field(
        default=0,
        description="A stopping API answers on for so long, `/readyz` with 503: give balancers "
        "time to turn away.",
    )
    alive_file: str = Field(
        default="",
        description="A file touched every second while the process's loop runs, for probes.",
    )
    notify_socket: str = Field(
        default="", description="Set by systemd: told when ready, and every second from then on."
    )
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        default="INFO", description="How much is logged."
    )
    dev_mode: bool = Field(
        default=False,
        description="Loopback webhooks, no rate limits, quick retries. Not for production.",
    )
    master_key: SecretStr = Field(
        default=SecretStr(""),
        description="Keys for secrets at rest: `id:base64 of 32 bytes`, newest first, by commas.",
    )

    # Sessions, leases, sweeping
    lease_s: PositiveFloat = Field(default=30, description="How long a worker's lease lasts.")
    renew_s: PositiveFloat = Field(default=5, description="How often a worker renews its lease.")
    self_fence_s: PositiveFloat = Field(
        default=24, description="Without a renewal for so long a worker starts nothing new."
    )
    reap_s: PositiveFloat = Field(default=2, description="How often lost workers are looked for.")
    sweep_s: PositiveFloat = Field(default=5, description="How often due runs are rung again.")
    sweep_limit: PositiveInt = Field(default=10_000, description="Ids looked at in one sweep.")
    poison_deaths: PositiveInt = Field(
        default=3, description="Worker deaths after which a run fails for good."
    )
    drain_s: PositiveFloat = Field(
        default=120, description="How long a stopping worker waits for what it runs."
    )

    # Lanes
    slots: PositiveInt = Field(default=2000, description="Runs one worker process holds at once.")
    lane_floors: tuple[float, float, float] = Field(
        default=(0.15, 0.05, 0.05), description="Share of slots kept for onsite, normal, low."
    )
    lane_weights: tuple[int, int, int] = Field(
        default=(8, 3, 1), description="How shared slots are dealt to onsite, normal, low."
    )
    claim_limit: PositiveInt = Field(default=200, description="Runs taken in one claim.")
    gather_s: NonNegativeFloat = Field(
        default=0.01, description="Freed slots wait so long for more before a claim for low alone."
    )
    poll_s: PositiveFloat = Field(default=1, description="Fallback poll of an idle worker.")
    redis_away_s: PositiveFloat = Field(
        default=2,
        description="Errors of Redis for so long make a worker claim from the database.",
    )

    # Providers
    connect_timeout_s: PositiveFloat = Field(default=5, description="Connecting to a provider.")
    call_timeout_s: float = Field(default=600, ge=0.05, le=3600, description="One provider call.")
    max_attempts: int = Field(default=3, ge=1, le=20, description="Provider calls a run may make.")
    retry_backoff_s: PositiveFloat = Field(default=2, description="First retry waits up to this.")
    retry_backoff_max_s: PositiveFloat = Field(default=60, description="No retry waits longer.")
    retry_after_max_s: PositiveFloat = Field(
        default=3600, description="A provider's `Retry-After` is honoured up to this."
    )
    response_max_bytes: PositiveInt = Field(
        default=20_000_000, description="Longest provider answer that is read."
    )
    openai_base_url: str = Field(
        default="https://api.openai.com/v1", description="Where `openai/…` models are called."
    )
    anthropic_base_url: str = Field(
        default="https://api.anthropic.com", description="Where `anthropic/…` models are called."
    )
    providers: dict[str, CompatibleServer] = Field(
        default={},
        description="More servers that speak OpenAI's Chat Completions, by name, as JSON: "
        '`{"groq": {"base_url": "https://api.groq.com/openai/v1"}}`. Workers and API need it.',
    )
    openai_api_key: SecretStr = Field(
        default=SecretStr(""),
        description="The server's own OpenAI key, for allowed workspaces. Workers call with it; "
        "the API needs it to know that they can.",
    )
    anthropic_api_key: SecretStr = Field(
        default=SecretStr(""),
        description="The server's own Anthropic key, for allowed workspaces. Workers call with it; "
        "the API needs it to know that they can.",
    )
    breaker_failures: PositiveInt = Field(default=5, description="Failures that open a breaker.")
    breaker_window_s: PositiveFloat = Field(default=60, description="Window they are counted in.")
    breaker_open_s: PositiveFloat = Field(default=30, description="How long it stays open.")

    # Runs
    expires_in_s: PositiveInt = Field(
        default=86_400, description="How long a run may wait in the queue."
    )
    max_duration_s: PositiveInt = Field(
        default=86_400, description="How long a run may take from its first start."
    )
    queued_runs_max: NonNegativeInt = Field(
        default=1_000_000,
        description="Runs that may wait in one environment, which may allow fewer. 0: any number.",
    )
    idempotency_days: int = Field(default=7, ge=1, le=30, description="How long keys are kept.")

    # Retention
    retain_contents_days: NonNegativeInt | None = Field(
        default=None,
        le=3650,
        description="Days after its end that a run's inputs, messages and output stay, where its "
        "environment and workspace say nothing. 0: until its webhooks are delivered; unset: as "
        "long as the run.",
    )
    retain_runs_days: PositiveInt | None = Field(
        default=None, le=3650, description="Days after its end that a run stays. Unset: for ever."
    )
    prune_s: PositiveFloat = Field(
        default=2, description="How often what is to go is looked for; one worker does it."
    )
    prune_batch: PositiveInt = Field(
        default=20, description="Runs that one transaction of it takes."
    )
    prune_share: float = Field(
        default=0.05, gt=0, le=1, description="Share of the time that it keeps the database busy."
    )

    # Money
    budget_wait_s: PositiveFloat = Field(
        default=300,
        description="A run that waits for money tries again after so long if nothing woke it.",
    )
    hold_output_tokens: PositiveInt = Field(
        default=4096,
        description="How long an answer may be, for what is held, where no parameter caps it.",
    )
    unknown_holds: Literal["keep", "release", "charge"] = Field(
        default="release",
        description="Calls of which nobody knows the cost: held until the operator settles them, "
        "or after some days given back, or charged with what is held.",
    )
    unknown_hold_days: PositiveFloat = Field(default=7, description="After so many days.")
    tally_s: PositiveFloat = Field(
        default=5, description="How often calls are added up for `GET /usage`; one worker does it."
    )
    tally_lag_s: NonNegativeFloat = Field(
        default=60,
        description="How long ago they began; by then most are over. More than the database's "
        "clock may ever be set back.",
    )
    tally_batch: PositiveInt = Field(
        default=2_000, description="Calls that one transaction of it takes."
    )
    tally_share: float = Field(
        default=0.2, gt=0, le=1, description="Share of the time that it keeps the database busy."
    )

    # Webhooks
    webhook_allow_http: bool = Field(
        default=False, description="Webhook URLs may start with `http://`; dev mode allows it too."
    )
    webhook_allow_cidrs: Annotated[tuple[IpNetwork, ...], NoDecode] = Field(
        default=(), description="Networks webhooks may reach although they are not public."
    )
    webhook_timeout_s: PositiveFloat = Field(default=15, description="One delivery, in all.")
    webhook_connect_timeout_s: PositiveFloat = Field(default=5, description="Connecting to it.")
    webhook_schedule_s: Annotated[tuple[float, ...], NoDecode] = Field(
        default=(0, 5, 300, 1800, 7200, 18_000, 36_000, 50_400, 72_000, 86_400),
        description="Waits before each try of a delivery.",
    )
    webhook_jitter: float = Field(default=0.2, ge=0, le=1, description="± share of each wait.")
    webhook_lease_s: PositiveFloat = Field(
        default=45, description="How long a delivery belongs to the worker that sends it."
    )
    webhook_poll_s: PositiveFloat = Field(
        default=1, description="How often due deliveries are looked for."
    )
    webhook_overlap_s: int = Field(
        default=86_400,
        ge=0,
        le=604_800,
        description="After a rotation the old secret signs along for so long.",
    )
    webhook_recover_max: PositiveInt = Field(
        default=10_000, description="Events one request may have sent again."
    )
    webhook_at_once: PositiveInt = Field(
        default=10, description="Requests to one endpoint at once, a worker, at first."
    )
    webhook_at_once_max: PositiveInt = Field(
        default=100, description="While it answers fast, this grows up to here."
    )
    webhook_fast_s: PositiveFloat = Field(default=1, description="What counts as a fast answer.")
    webhook_pause_failures: PositiveInt = Field(
        default=10, description="Failures in a row that pause an endpoint."
    )
    webhook_pause_s: PositiveFloat = Field(
        default=60, description="The first pause; each probe that fails doubles it."
    )
    webhook_pause_max_s: PositiveFloat = Field(default=1800, description="No pause is longer.")
    webhook_disable_s: PositiveFloat = Field(
        default=432_000, description="An endpoint without success for so long is disabled,"
    )
    webhook_disable_failures: PositiveInt = Field(
        default=3, description="if it failed at least so often"
    )
    webhook_disable_apart_s: PositiveFloat = Field(
        default=43_200, description="with at least so long between these failures."
    )
    delivery_log_days: PositiveInt = Field(
        default=30, description="How long ended deliveries and their tries are kept."
    )

    # Limits of a request
    body_max_bytes: PositiveInt = Field(default=262_144, description="Body of most requests.")
    run_body_max_bytes: PositiveInt = Field(default=1_048_576, description="Body of a run.")
    batch_body_max_bytes: PositiveInt = Field(default=8_388_608, description="Body of a batch.")
    receive_timeout_s: PositiveFloat = Field(
        default=10, description="Time for headers, and for the body, to arrive."
    )
    request_deadline_s: PositiveFloat = Field(
        default=2.8, description="Time for the work of a request that does not wait."
    )
    waiters: PositiveInt = Field(
        default=1000, description="Requests that may wait for runs at once, a process."
    )
    wait_max_s: PositiveInt = Field(default=60, description="Longest `?wait` and `Prefer: wait`.")
    flow_wait_s: PositiveFloat = Field(
        default=600, description="Longest wait of a request for its run of a flow; then 504."
    )
    key_cache_s: PositiveFloat = Field(
        default=4, description="How long a checked API key is trusted without a look-up."
    )

    # Watching
    metrics_host: str = Field(default="127.0.0.1", description="Address `/metrics` listens on.")
    metrics_port: int | None = Field(
        default=None,
        ge=0,
        le=65535,
        description="Port of this process's `/metrics`: one for each process. Empty: none; "
        "0: any free one, which the log names.",
    )
    otel_exporter_otlp_endpoint: str = Field(
        default="",
        pattern=r"^(https?://[!-~]+)?$",
        description="Where traces go (OTLP over HTTP, `/v1/traces` below this URL). Empty: none.",
    )
    trace_contents: bool = Field(
        default=False,
        description="Traces hold the messages and answers of provider calls. Others may read them.",
    )

    # Rates
    rate_submissions_per_minute: NonNegativeInt = Field(
        default=6_000,
        description="Runs one key may submit in a minute; a batch counts its items. 0: any number.",
    )
    rate_requests_per_minute: NonNegativeInt = Field(
        default=60_000, description="Other requests of one key in a minute. 0: any number."
    )
    rate_failures_per_minute: NonNegativeInt = Field(
        default=20,
        description="Requests without a good key from one address in a minute. 0: any number.",
    )
    trusted_proxies: Annotated[tuple[IpNetwork, ...], NoDecode] = Field(
        default=(),
        description="Networks of proxies in front of the API, whose `X-Forwarded-For` is believed.",
    )

    # Connections
    api_pool: PositiveInt = Field(default=10, description="Database connections of the API.")
    worker_pool: PositiveInt = Field(default=4, description="Database connections of a worker.")
    pool_wait_s: PositiveFloat = Field(default=1, description="Wait for a free connection.")
    statement_timeout_s: PositiveFloat = Field(default=2, description="One API statement.")
    maintenance_timeout_s: PositiveFloat = Field(
        default=30, description="One statement of the worker, sweeper or a migration."
    )
    lock_timeout_s: PositiveFloat = Field(default=1, description="Wait for a row lock.")
    ring_budget_s: PositiveFloat = Field(
        default=0.5, description="Longest wait for Redis after a commit."
    )
    redis_timeout_s: PositiveFloat = Field(default=2, description="One answer of Redis.")
    redis_connect_timeout_s: PositiveFloat = Field(default=1, description="Connecting to Redis.")

    # For tests
    clock_skew_s: float = Field(default=0, description="Shifts this process's clock.")
    crash_point: str = Field(default="", description="Arms a crash point, for fault tests.")

    @field_validator("providers")
    @classmethod
    def _named(cls, given: dict[str, CompatibleServer]) -> dict[str, CompatibleServer]:
        for name in given:
            if name in {*PROVIDERS, ALIAS} or not _PROVIDER.fullmatch(name):
                raise ValueError(f"{name!r} cannot be a provider's name.")
        return given

    @property
    def provider_names(self) -> tuple[str, ...]:
        """What may stand before the slash of a model's name."""
        return (*PROVIDERS, *self.providers)

    def key_variable(self, provider: str) -> str | None:
        """The variable that holds a provider's key; `None` for one that wants none."""
        server = self.providers.get(provider)
        if provider == _FREE or (server is not None and server.key_variable is None):
            return None
        own = f"{provider.upper().replace('-', '_')}_API_KEY"
        return own if server is None else server.key_variable or own

    def server_key(self, provider: str) -> str:
        """The server's own key of a provider; empty when it has none."""
        if provider in self.providers:
            return environment().get(self.key_variable(provider) or "", "")
        found = {"openai": self.openai_api_key, "anthropic": self.anthropic_api_key}.get(provider)
        return "" if found is None else found.get_secret_value()

    @field_validator("metrics_port", mode="before")
    @classmethod
    def _or_none(cls, value: object) -> object:
        return None if value == "" else value

    @field_validator("webhook_allow_cidrs", "webhook_schedule_s", "trusted_proxies", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        if isinstance(value, str):
            return [part.strip() for part in value.split(",") if part.strip()]
        return value


def environment() -> Mapping[str, str]:
    """Return the process's environment, for handing to child processes."""
    return os.environ  # noqa: TID251 (this is the one place)
