"""Every stable error code of a request, in words: what it means and what helps.

`/docs/errors`, the OpenAPI document and `docs/reference/errors.md` are made from this; a test
holds it against the code.
"""

from typing import NamedTuple


class RequestError(NamedTuple):
    """The `code` of a problem, with the HTTP status it comes with."""

    code: str
    status: int
    meaning: str
    remedy: str
    reserved: bool = False  # part of the contract, sent by no route of this version


REQUEST_ERRORS: tuple[RequestError, ...] = (
    RequestError(
        "bad_request",
        400,
        "The request cannot be parsed: its address, a query parameter or a header field.",
        "Read `detail`; repeating the request unchanged cannot help.",
    ),
    RequestError(
        "empty_body",
        400,
        "The route needs a body and none came.",
        "Send a JSON object with `Content-Type: application/json`.",
    ),
    RequestError(
        "invalid_cursor",
        400,
        "The cursor was not made by this server, or was made for another list or filter.",
        "Pass `nextCursor` on unchanged, to the list it came from.",
    ),
    RequestError(
        "invalid_json",
        400,
        "The body is not JSON after RFC 8259, or not UTF-8, or nested absurdly deep.",
        "Read `detail`: it names the place.",
    ),
    RequestError(
        "unauthorized",
        401,
        "No API key came, or none that is good. Which of the two is never said.",
        "Send `Authorization: Bearer rl_…` with a key that is neither revoked nor expired.",
    ),
    RequestError(
        "COST_LIMIT_EXCEEDED",
        402,
        "The next call of a flow's run might have cost more than the run may; it was not made.",
        "Allow the run more, or ask for less; `runId` is the run with the calls it made.",
    ),
    RequestError(
        "credits_exhausted",
        402,
        "The workspace has nothing left to spend.",
        "Top up; trying again without that is pointless.",
    ),
    RequestError(
        "environment_forbidden",
        403,
        "The key is limited to some environments, and this is none of them.",
        "Name an environment the key may use, or use another key.",
    ),
    RequestError(
        "expiry_forbidden",
        403,
        "The key expires, and what it asks for would outlive it.",
        "Name an `expiresAt` not after the key's own, or use another key.",
    ),
    RequestError(
        "forbidden",
        403,
        "The key is good, but may not do this.",
        "Use a key that may.",
    ),
    RequestError(
        "missing_scope",
        403,
        "The key lacks the scope that the route asks for.",
        "Use a key with that scope; `detail` names it.",
    ),
    RequestError(
        "quota_exceeded",
        403,
        "As many runs wait in the environment as may (`limits.queuedRuns`, or the server's), or "
        "nothing is left to spend of the workspace's credits or of a budget; `detail` says which.",
        "Wait until some have started or for the budget's next day or month, raise the limit or "
        "the budget, or ask the operator for credits.",
    ),
    RequestError(
        "not_found",
        404,
        "It does not exist, or belongs to another workspace: one and the same answer.",
        "Check the address and the id, and whose key you use.",
    ),
    RequestError(
        "method_not_allowed",
        405,
        "The address exists, the method does not.",
        "`Allow` lists the methods that will do.",
    ),
    RequestError(
        "request_timeout",
        408,
        "Header fields or body did not arrive in time.",
        "Send the request in one go.",
    ),
    RequestError(
        "conflict",
        409,
        "The state of things does not allow this now.",
        "Read the thing again, then decide.",
    ),
    RequestError(
        "contents_erased",
        409,
        "The run's inputs are gone: its environment keeps contents no longer than that.",
        "Submit a new run with its inputs.",
    ),
    RequestError(
        "cursor_reset",
        409,
        "The database was restored since the cursor was made: what came behind it is unknown.",
        "Read the feed from its beginning (no cursor) or from `now`, and drop ids you know.",
    ),
    RequestError(
        "default_environment",
        409,
        "A workspace always has a default environment, and this is it.",
        "Make another environment the default first.",
    ),
    RequestError(
        "delivery_pending",
        409,
        "The delivery is still being made, or waits for its next try.",
        "`nextTryAt` says when that is.",
    ),
    RequestError(
        "environment_deleting",
        409,
        "The environment is being deleted by force and cannot be changed any more.",
        "Repeat its deletion, which goes on where it was.",
    ),
    RequestError(
        "environment_in_use",
        409,
        "Runs of this environment wait or run; `detail` says how many.",
        "Let them end, or delete it with `?force=true`, which cancels them.",
    ),
    RequestError(
        "idempotency_key_in_use",
        409,
        "A request with the same `Idempotency-Key` is under way.",
        "Try again after `Retry-After`: the answer will be that request's.",
    ),
    RequestError(
        "name_taken",
        409,
        "An environment of this name exists, in this or another spelling of its letters.",
        "Choose another name.",
    ),
    RequestError(
        "no_earlier_version",
        409,
        "The tag has pointed at nothing else before that is still there.",
        "Point it at a version with `PUT`; its history lists where it has been.",
    ),
    RequestError(
        "no_master_key",
        409,
        "The server has no master key that fits, so it cannot keep or open secrets.",
        "The operator sets `MASTER_KEY`.",
    ),
    RequestError(
        "not_pinned",
        409,
        "Neither the environment nor the default one pins a version of the prompt.",
        "Pin one in the environment, or name the version to run.",
    ),
    RequestError(
        "run_stopped",
        409,
        "The run of a flow was canceled, or its time was over: it has no answer.",
        "Read `runError`, and the run by `runId`; submit it again where that makes sense.",
    ),
    RequestError(
        "slug_taken",
        409,
        "A prompt has this slug, or once had it and still answers to it.",
        "Choose another slug.",
    ),
    RequestError(
        "thread_in_use",
        409,
        "Runs of this thread wait or run; `detail` says how many.",
        "Let them end or cancel them (`GET /runs?thread=`), then delete it.",
    ),
    RequestError(
        "too_many_aliases",
        409,
        "The workspace has as many aliases as a workspace may have.",
        "Delete one first.",
    ),
    RequestError(
        "too_many_secrets",
        409,
        "As many secrets sign this webhook's deliveries as may at once.",
        "Wait until an overlap is over, or rotate with `overlapSeconds` 0.",
    ),
    RequestError(
        "too_many_tags",
        409,
        "The prompt has as many tags as a prompt may have.",
        "Remove one first.",
    ),
    RequestError(
        "too_many_variables",
        409,
        "The environment has as many variables as an environment may have.",
        "Delete one first.",
    ),
    RequestError(
        "too_many_webhooks",
        409,
        "An environment has as many webhooks as an environment may have.",
        "Delete one first.",
    ),
    RequestError(
        "version_in_use",
        409,
        "A tag points at the version, an environment pins it, or runs were made of it, and their "
        "history needs it.",
        "Move the tags or pins that `detail` names. A version with runs stays.",
    ),
    RequestError(
        "version_not_published",
        409,
        "The version is a draft.",
        "Publish it before a tag points at it.",
    ),
    RequestError(
        "version_published",
        409,
        "The version is published, so it never changes.",
        "Add a new version.",
    ),
    RequestError(
        "version_unfinished",
        409,
        "The draft cannot be run yet; `errors` says what it lacks.",
        "Give its entrypoint a model and something to say, then repeat the request.",
    ),
    RequestError(
        "webhook_disabled",
        409,
        "The webhook is disabled or deleted, so nothing can be sent to it.",
        "Enable it first.",
    ),
    RequestError(
        "precondition_failed",
        412,
        "`If-Match` names another state than the present one, or there is none yet.",
        "Read the thing again, then repeat the change.",
    ),
    RequestError(
        "too_large",
        413,
        "The body is longer than the route takes.",
        "Send less; the limits are settings of the server.",
    ),
    RequestError(
        "uri_too_long",
        414,
        "The path or the query is longer than is read.",
        "A path may have 2 KiB, a query 4 KiB.",
    ),
    RequestError(
        "unsupported_media_type",
        415,
        "The body is something other than plain `application/json`.",
        "Send JSON in UTF-8, not compressed.",
    ),
    RequestError(
        "idempotency_key_reused",
        422,
        "This `Idempotency-Key` came with another request before.",
        "Use a new key for a new request.",
    ),
    RequestError(
        "invalid",
        422,
        "The request was understood and is not acceptable.",
        "`errors` says where (RFC 6901 pointers into the body) and why.",
    ),
    RequestError(
        "invalid_secret",
        422,
        "The webhook secret is none that should be signed with.",
        "Give `whsec_` and 24 to 64 bytes as base64, or leave it out: one is made.",
    ),
    RequestError(
        "missing_inputs",
        422,
        "The prompt has tokens for which neither an input nor a template is there.",
        "Give every input that `errors` names.",
    ),
    RequestError(
        "run_refused",
        422,
        "The run of a flow was accepted and then could not be carried out as it was asked for.",
        "Read `runError`: a key is missing, say, or the template renders to too much.",
    ),
    RequestError(
        "template_limit",
        422,
        "A template, or what it renders to, is over a limit.",
        "Make the template or the inputs smaller.",
    ),
    RequestError(
        "unknown_alias",
        422,
        "The version names an alias that was deleted.",
        "Set the alias again, or name a model in the request.",
    ),
    RequestError(
        "unknown_environment",
        422,
        "The workspace has no environment of this name.",
        "Create it, name another, or leave it out to use the default one.",
    ),
    RequestError(
        "rate_limited",
        429,
        "Too many submissions or requests of this key, tests of a webhook, or requests of this "
        "address without a good key.",
        "Wait for as long as `Retry-After` says; `RateLimit` on other answers tells what is left.",
    ),
    RequestError(
        "headers_too_large",
        431,
        "The header fields are too many or too long.",
        "Send at most 64 fields with 16 KiB in all.",
    ),
    RequestError(
        "internal_error",
        500,
        "Something broke that nobody foresaw.",
        "Report the `requestId`: the server's log knows more under it.",
    ),
    RequestError(
        "outcome_unknown",
        500,
        "The database went away during the commit: the run may or may not be stored.",
        "Read the run by the id in `detail`, or submit again with the same `Idempotency-Key`.",
    ),
    RequestError(
        "run_failed",
        502,
        "The run of a flow was given up: the provider failed, or we did.",
        "Read `runError`; `runId` is the run with all its attempts.",
    ),
    RequestError(
        "unavailable",
        503,
        "Something the request depends on is away, and certainly nothing was stored.",
        "Try again after `Retry-After`.",
    ),
    RequestError(
        "run_unfinished",
        504,
        "The run of a flow takes longer than a request may. It goes on.",
        "Read the run by `runId`, or ask again with the same `Idempotency-Key`.",
    ),
)
