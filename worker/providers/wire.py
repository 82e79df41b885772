"""What the vendors' wires have in common: headers, decoding, and one class for every failure."""

import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Annotated, Any, TypeVar

import msgspec

from shared.domain.completions import CompletionRequest, FailureClass, ProviderError
from shared.domain.flow_runs import VERBATIM_MAX_BYTES
from shared.domain.states import Billed, ErrorOrigin
from shared.domain.tools import EmitTool

MESSAGE_MAX_CHARS = 2000
NAME_MAX_CHARS = 200
USAGE_MAX_BYTES = 16 * 1024
RETRY_AFTER_MAX_S = 30 * 86_400.0

Tokens = Annotated[int, msgspec.Meta(ge=0, le=1_000_000_000)]
Reply = TypeVar("Reply")

_AUTH = frozenset({401, 403})
_RATE_LIMITED = 429
_NOT_STARTED = {_RATE_LIMITED: "provider_rate_limited", 529: "provider_overloaded"}
AUTH_FAILED = "provider_auth_failed"
OUT_OF_QUOTA = "provider_quota_exhausted"
CONTEXT_LENGTH = "provider_context_length"
CONTENT_POLICY = "provider_content_policy"
UNKNOWN_MODEL = "model_not_found"
_NO_SUCH_MODEL = 404
_SPEAKS_OF_THE_REQUEST = frozenset({400, 403, _NO_SUCH_MODEL, 413, 422})
# What the vendors call these, in `code` or `type`.
_WORDS = {
    "context_length_exceeded": CONTEXT_LENGTH,
    "request_too_large": CONTEXT_LENGTH,
    "content_filter": CONTENT_POLICY,
    "content_policy_violation": CONTENT_POLICY,
    "invalid_prompt": CONTENT_POLICY,
    "moderation_blocked": CONTENT_POLICY,
    "model_decommissioned": UNKNOWN_MODEL,
    "model_not_found": UNKNOWN_MODEL,
}
# What they say where they have no word for it: Anthropic, Gemini, vLLM, OpenRouter.
_PHRASES = (
    (
        re.compile(
            r"prompt is too long|exceeds? (the )?context limit"
            r"|(maximum|model's) context (length|window)"
            r"|exceed(s|ed)? the maximum number of tokens",
            re.IGNORECASE,
        ),
        CONTEXT_LENGTH,
    ),
    (
        re.compile(r"content filtering policy|usage policy|requires moderation", re.IGNORECASE),
        CONTENT_POLICY,
    ),
    (re.compile(r"not a valid model", re.IGNORECASE), UNKNOWN_MODEL),
)
_UNAVAILABLE = 503
_FIRST_SERVER_STATUS = 500
_CONFLICT = 409  # the vendors' SDKs repeat it: another request held a lock
_UNKNOWN = frozenset({408, 504, 520, 524})  # the last two: Cloudflare lost the vendor's answer


def call_headers(request: CompletionRequest) -> dict[str, str]:
    """Headers of one call. Vendors ignore the first two; servers of our own and tests read them."""
    headers = {
        "x-runlane-run": request.run_id,
        "x-runlane-attempt": str(request.attempt),
        "Idempotency-Key": f"{request.run_id}-{request.attempt}",
    }
    if request.traceparent is not None:
        headers["traceparent"] = request.traceparent
    return headers


def sdk_headers(defaults: Mapping[str, object], auth: Mapping[str, str]) -> dict[str, str]:
    """An SDK's headers for one key; what it marks as left out is."""
    headers = {name: value for name, value in defaults.items() if isinstance(value, str)}
    return headers | dict(auth) | {"Accept-Encoding": "gzip"}


def check_key(request: CompletionRequest) -> None:
    """Refuse a key that cannot stand in a header, before anything is sent."""
    key = request.api_key
    if not key or not key.isascii() or not key.isprintable() or " " in key:
        raise ProviderError(
            FailureClass.REFUSED,
            code="provider_key_invalid",
            message="There is no usable API key for this provider.",
            origin=ErrorOrigin.CALLER,
            credential_bad=True,
        )


def schema_of(response_format: Mapping[str, Any]) -> msgspec.Raw:
    """The JSON Schema of a `json_schema` format, which carries it as a string."""
    schema = response_format.get("schema")
    text = schema.encode() if isinstance(schema, str) else msgspec.json.encode(schema)
    try:
        msgspec.json.decode(text, type=dict[str, Any])
    except (msgspec.DecodeError, RecursionError) as error:
        raise ProviderError(
            FailureClass.REFUSED,
            code="response_format_invalid",
            message="The schema of the response format is not a JSON object.",
            origin=ErrorOrigin.TEMPLATE,
        ) from error
    return msgspec.Raw(text)


def schema_of_tool(tool: EmitTool) -> msgspec.Raw:
    """The JSON Schema of what a tool is called with; a version keeps it as a string."""
    return msgspec.Raw(tool.params_schema.encode())


def decode(decoder: msgspec.json.Decoder[Reply], body: bytes, request_id_: str | None) -> Reply:
    """Decode an answer strictly; anything unexpected is a broken answer, maybe billed."""
    try:
        return decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise broken("The answer is not what the provider's API promises.", request_id_) from None


def unknown(code: str, message: str, request_id_: str | None = None) -> ProviderError:
    """A failure after the send: nobody can say whether the call was carried out and billed."""
    return ProviderError(
        FailureClass.UNKNOWN,
        code=code,
        message=message,
        billed=Billed.UNKNOWN,
        provider_request_id=request_id_,
    )


def broken(message: str, request_id_: str | None = None) -> ProviderError:
    return unknown("provider_bad_response", message, request_id_)


def from_status(
    status: int, body: bytes, headers: Mapping[str, str], request: CompletionRequest, now: datetime
) -> ProviderError:
    """Turn an error answer into exactly one class."""
    retry_after = retry_after_s(headers, now)
    document = _document(body)
    code = _about_the_request(status, document)
    if status == _RATE_LIMITED and _out_of_quota(document):
        kind, code = FailureClass.REFUSED, OUT_OF_QUOTA
    elif code is not None:
        kind = FailureClass.REFUSED
    else:
        kind, code = _classify(status, headers.get("x-should-retry"), retry_after)
    return ProviderError(
        kind,
        code=code,
        message=_vendor_message(status, document, request.api_key),
        billed=Billed.UNKNOWN if kind is FailureClass.UNKNOWN else Billed.NO,
        retry_after_s=retry_after,
        provider_request_id=request_id(headers),
        credential_bad=code in {AUTH_FAILED, OUT_OF_QUOTA},
    )


def _classify(
    status: int, should_retry: str | None, retry_after: float | None
) -> tuple[FailureClass, str]:
    if status in _AUTH:
        return FailureClass.REFUSED, AUTH_FAILED
    if should_retry == "false":
        return FailureClass.REFUSED, "provider_refused"
    if status in _NOT_STARTED or (status == _UNAVAILABLE and retry_after is not None):
        return FailureClass.NOT_STARTED, _NOT_STARTED.get(status, "provider_overloaded")
    if status in _UNKNOWN:
        return FailureClass.UNKNOWN, "provider_timeout"
    if status >= _FIRST_SERVER_STATUS or status == _CONFLICT:
        return FailureClass.SERVER_ERROR, "provider_server_error"
    return FailureClass.REFUSED, "provider_refused"


def retry_after_s(headers: Mapping[str, str], now: datetime) -> float | None:
    """Read `retry-after-ms` or `Retry-After` (RFC 9110: seconds or a date); nonsense is None.

    A date is counted from the server's own `Date` where it sends one, so that a wrong clock on
    either side does not matter.
    """
    if (wait_ms := _number(headers.get("retry-after-ms"))) is not None:
        return min(wait_ms / 1000, RETRY_AFTER_MAX_S)
    value = headers.get("retry-after")
    if (wait_s := _number(value)) is not None:
        return min(wait_s, RETRY_AFTER_MAX_S)
    due = _date(value)
    if due is None:
        return None
    wait_s = (due - (_date(headers.get("date")) or now)).total_seconds()
    return min(max(wait_s, 0.0), RETRY_AFTER_MAX_S)


def request_id(headers: Mapping[str, str]) -> str | None:
    """The vendor's own name for the call (`x-request-id` at OpenAI, `request-id` at Anthropic)."""
    value = headers.get("x-request-id") or headers.get("request-id")
    return None if value is None else name(value)


def plain(text: str) -> str:
    """Write U+0000 and lone surrogates visibly: PostgreSQL and UTF-8 cannot hold them."""
    return text.replace("\x00", "\\u0000").encode("utf-8", "backslashreplace").decode()


def name(text: str) -> str:
    """The same for short texts of a vendor, such as a model's name."""
    return plain(text[:NAME_MAX_CHARS])


def verbatim(request: CompletionRequest, body: bytes) -> str | None:
    """An answer as it came, where the run wants that and it is not too long to be kept."""
    if not request.keeps_answer or len(body) > VERBATIM_MAX_BYTES:
        return None
    return plain(body.decode("utf-8", "replace"))


def raw_usage(raw: msgspec.Raw) -> bytes:
    """The vendor's own usage document, made safe to store as JSON; `{}` when there is none."""
    usage = bytes(raw)
    if usage == b"null" or len(usage) > USAGE_MAX_BYTES:
        return b"{}"
    return usage.replace(b"\\u0000", b"\\ufffd")


def _about_the_request(status: int, document: object) -> str | None:
    """Whether this very request is what the model cannot take, and another may."""
    if status not in _SPEAKS_OF_THE_REQUEST:
        return None
    error = document.get("error", document) if isinstance(document, Mapping) else document
    if isinstance(error, Mapping):
        for said in (error.get("code"), error.get("type")):
            if isinstance(said, str) and said in _WORDS:
                return _WORDS[said]
        error = error.get("message")
    if isinstance(error, str):
        for phrase, code in _PHRASES:
            if phrase.search(error[:MESSAGE_MAX_CHARS]):
                return code
    return UNKNOWN_MODEL if status == _NO_SUCH_MODEL else None


def _out_of_quota(document: object) -> bool:
    """Whether a 429 will not pass by waiting: OpenAI's account has spent what it may spend."""
    error = document.get("error") if isinstance(document, Mapping) else None
    return isinstance(error, Mapping) and "insufficient_quota" in (
        error.get("code"),
        error.get("type"),
    )


def _document(body: bytes) -> object:
    """What an error's body says: JSON, or the text itself."""
    try:
        return msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return body.decode("utf-8", "replace")


def _vendor_message(status: int, body: object, api_key: str) -> str:
    """The vendor's words, or what stands for them, never with the key in it."""
    error = body.get("error", body) if isinstance(body, Mapping) else body
    text = error.get("message") if isinstance(error, Mapping) else error
    if not isinstance(text, str) or not text.strip():
        text = f"The provider answered with status {status}."
    return plain(text.replace(api_key, "[key]").strip()[:MESSAGE_MAX_CHARS])[:MESSAGE_MAX_CHARS]


def _number(value: str | None) -> float | None:
    try:
        number = float(value or "")
    except ValueError:
        return None
    return number if math.isfinite(number) and number >= 0 else None


def _date(value: str | None) -> datetime | None:
    try:
        moment = parsedate_to_datetime(value or "")
    except (ValueError, OverflowError):
        return None
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
