"""Every stable error code of runs and their attempts, in words; see `error_catalog`."""

from typing import NamedTuple


class RunError(NamedTuple):
    """The `code` in a run's `error`, or in that of one attempt."""

    code: str
    origin: str
    meaning: str


RUN_ERRORS: tuple[RunError, ...] = (
    RunError(
        "COST_LIMIT_EXCEEDED",
        "policy",
        "The next call might have cost more than `maxRequestCostCredits` leaves; it was not made.",
    ),
    RunError(
        "attempts_exhausted", "policy or platform", "Every allowed provider call was used up."
    ),
    RunError("deadline_exceeded", "policy", "`deadline` or `maxDuration` passed first."),
    RunError("expired", "policy", "The run waited longer than `expiresIn` and never started."),
    RunError(
        "internal_error", "platform", "Something broke on our side; the caller is not to blame."
    ),
    RunError("missing_credentials", "caller", "There is no API key for the provider."),
    RunError("model_not_found", "provider or template", "The provider has no such model."),
    RunError(
        "outcome_unknown",
        "provider or platform",
        "Whether the provider carried the call out is unknown, and the run says `fail` for that.",
    ),
    RunError("provider_auth_failed", "provider", "The provider does not accept the API key."),
    RunError("provider_bad_response", "provider", "The answer is not what its API promises."),
    RunError("provider_connection_lost", "provider", "The connection broke during the call."),
    RunError("provider_content_policy", "provider", "The provider does not serve such a request."),
    RunError("provider_context_length", "provider", "The request is too long for the model."),
    RunError("provider_key_invalid", "caller", "The API key cannot even be sent."),
    RunError("provider_overloaded", "provider", "The provider had no room (503 or 529)."),
    RunError(
        "provider_quota_exhausted",
        "provider",
        "The provider's account has no quota or credit left: waiting does not help (429 with "
        "`insufficient_quota`).",
    ),
    RunError("provider_rate_limited", "provider", "The provider's rate limit was reached (429)."),
    RunError("provider_refused", "provider", "The provider refused the request for good."),
    RunError("provider_response_too_large", "provider", "The answer is longer than is read."),
    RunError("provider_server_error", "provider", "The provider failed (5xx)."),
    RunError("provider_timeout", "provider", "No answer came in time."),
    RunError("provider_unreachable", "provider", "No connection came about; nothing was sent."),
    RunError(
        "response_format_invalid", "template", "The schema of `responseFormat` cannot be used."
    ),
    RunError(
        "schema_mismatch",
        "provider",
        "Of an attempt: the answer is not what `responseFormat` asks.",
    ),
    RunError("secret_unreadable", "platform", "No configured master key opens a variable."),
    RunError("sim_params_invalid", "template", "`modelParams.sim` cannot be used."),
    RunError("template_limit", "template", "The rendered messages are over a limit."),
    RunError("unknown_provider", "template", "The server has no such provider."),
    RunError("worker_crashed_repeatedly", "platform", "The worker died each time it ran this."),
    RunError("worker_lost", "platform", "Of an attempt: its worker died during the call."),
    RunError("worker_out_of_memory", "platform", "The worker had no room for the answer."),
    RunError("worker_stopped", "platform", "Of an attempt: its worker was stopped during it."),
)
