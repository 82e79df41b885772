"""Examples for the OpenAPI document: made from the schemas, with values that read well."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import msgspec

from api import flow_examples, flow_wording
from api.error_catalog import RequestError
from shared.errors import AppError

_REF = "#/components/schemas/"
_RUN = "019ab3c4-5d6e-7f80-9a1b-2c3d4e5f6071"
_THREAD = "019ab3c4-5d6e-7f80-9a1b-2c3d4e5f6072"
_EVENT = "019ab3c4-61f0-7b52-8d4e-0a1b2c3d4e5f"
_MOMENT = "2026-11-22T12:00:00.123Z"
_LATER = "2026-11-22T12:00:01.456Z"
_ZERO = dict.fromkeys(("input", "cachedInput", "cacheWrite", "output", "webSearch", "total"), 0)
_SPENT = _ZERO | {"input": 0.0000018, "output": 0.0000048, "total": 0.0000066}

_SENT = [
    {"role": "system", "content": "You greet people in one short sentence."},
    {"role": "user", "content": "Say hello to Ada."},
]
_ATTEMPT: Mapping[str, Any] = {
    "number": 1,
    "startedAt": _LATER,
    "durationMs": 41,
    "status": 204,
    "outcome": "answered",
    "excerpt": "",
    "address": "203.0.113.9",
}

_MAIN: dict[str, Any] = {
    "model": "sim/echo",
    "messages": [{"role": "user", "content": "Say hello to {{ name }}."}],
}
_SYSTEM: dict[str, Any] = {"systemInstruction": "You greet people in one short sentence."}

# Bodies to try as they stand, by operation.
_REQUESTS: Mapping[str, Any] = flow_wording.REQUESTS | {
    **flow_examples.REQUESTS,
    "submitRun": {"inputs": {"name": "Ada"}, "priority": "onsite", "metadata": {"user": "42"}},
    "previewRun": {"inputs": {"name": "Ada"}, "params": {"maxCompletionTokens": 100}},
    "replayRun": {"version": "current"},
    "submitBatch": {
        "runs": [
            {"prompt": "greeting", "version": "production", "inputs": {"name": name}}
            for name in ("Ada", "Grace")
        ]
    },
    "createPrompt": {"name": "Greeting", "slug": "greeting"},
    "changePrompt": {"description": "Says hello."},
    "addVersion": _MAIN | _SYSTEM,
    "replaceVersion": _MAIN | _SYSTEM,
    "rollBackTag": {"comment": "Too chatty"},
    "setTag": {"version": 3, "comment": "Shorter greetings"},
    "createEnvironment": {"name": "staging"},
    "changeEnvironment": {"isDefault": True, "retention": {"contentsDays": 30, "runsDays": 365}},
    "setVariable": {"value": "sk-…"},
    "createWebhook": {
        "url": "https://example.com/hooks/runlane",
        "environments": ["production"],
        "events": ["run.succeeded", "run.failed"],
    },
    "changeWebhook": {"events": ["run.failed"]},
    "rotateSecret": {"overlapSeconds": 3600},
    "recoverWebhook": {"since": _MOMENT, "until": _LATER},
    "createKey": {"name": "backend", "scopes": ["runs:write"]},
}

# What a field of this name shows; a field of one schema goes before one of any.
_FIELDS: Mapping[str, Any] = {
    "address": "203.0.113.9",
    "at": _MOMENT,
    "attempts": [],
    "channel": "default",
    "citations": [],
    "code": "provider_server_error",
    "comment": "Shorter greetings",
    "content": "You said: Say hello to Ada.",
    "createdAt": _MOMENT,
    "description": "Says hello.",
    "emitted": [],
    "environment": "production",
    "environments": ["production"],
    "events": ["run.succeeded", "run.failed"],
    "format": "standard",
    "from": 2,
    "headers": ["X-Team"],
    "inputs": {"name": "Ada"},
    "key": "OPENAI_API_KEY",
    "last4": "9f3a",
    "metadata": {"user": "42"},
    "model": "sim/echo",
    "name": "Greeting",
    "nextCursor": None,
    "number": 3,
    "output": "You said: Say hello to Ada.",
    "priority": "normal",
    "prefix": "rl_4fT9aQ2x",
    "provider": "sim",
    "providerRequestId": "sim-019ab3c4-1",
    "publishedAt": _MOMENT,
    "scopes": ["runs:write"],
    "secret": "whsec_…",
    "slug": "greeting",
    "statusReason": None,
    "systemInstruction": "You greet people in one short sentence.",
    "tag": "production",
    "tags": ["production"],
    "thread": _THREAD,
    "to": 3,
    "tools": [],
    "transcript": [{"type": "text", "content": "You said: Say hello to Ada.", "citations": []}],
    "updatedAt": _MOMENT,
    "url": "https://example.com/hooks/runlane",
    "version": 3,
    "warnings": [],
    "billed": "yes",
    "done": True,
    "finishedAt": _LATER,
    "hasMore": False,
    "includeOutput": True,
    "published": True,
    "self": f"/api/v1/runs/{_RUN}",
    "cancel": f"/api/v1/runs/{_RUN}/cancel",
    "replay": f"/api/v1/runs/{_RUN}/replay",
    "deliveries": f"/api/v1/runs/{_RUN}/deliveries",
    "startedAt": _MOMENT,
    "timestamp": _LATER,
    "tokenUsage": {
        "input": 18,
        "inputCached": 0,
        "inputCacheWrite": 0,
        "output": 8,
        "reasoning": 0,
        "total": 26,
        "serviceTier": None,
    },
}
_VERSION: dict[str, Any] = {
    "id": _RUN,
    "number": 3,
    "published": True,
    "warnings": [],
    "createdAt": _MOMENT,
    "publishedAt": _MOMENT,
}
_DIFF = """--- 2/templates/main/messages/0/content
+++ 3/templates/main/messages/0/content
@@ -1 +1 @@
-Say hello to {{ name }}.
\\ No newline at end of file
+Greet {{ name }}.
\\ No newline at end of file
"""
_OF_SCHEMA: Mapping[tuple[str, str], Any] = flow_wording.OF_SCHEMA | {
    **flow_examples.OF_SCHEMA,
    ("AcceptedLinks", "promptRun"): f"/api/v1/promptruns/{_RUN}",
    ("AcceptedRun", "status"): "queued",
    ("AuditEntry", "action"): "tag.moved",
    ("AuditEntry", "actor"): "key",
    ("AuditEntry", "details"): {"prompt": "greeting", "from": 2, "to": 3},
    ("AuditEntry", "environments"): [],
    ("AuditEntry", "keyName"): "backend",
    ("AuditEntry", "requestId"): "4fT9aQ2x-1c",
    ("BatchedRun", "status"): "queued",
    ("CreatedKey", "key"): "rl_4fT9aQ2x_…",
    ("CreatedKey", "name"): "backend",
    ("Environment", "name"): "production",
    ("Key", "name"): "backend",
    ("PromptRun", "status"): "completed",
    ("PromptRunFinished", "status"): "completed",
    ("RunSummary", "status"): "succeeded",
    ("Delivery", "attempts"): [_ATTEMPT],
    ("Delivery", "status"): "succeeded",
    ("Delivery", "type"): "run.succeeded",
    ("ListedDelivery", "lastAttempt"): _ATTEMPT,
    ("ListedDelivery", "status"): "succeeded",
    ("ListedDelivery", "type"): "run.succeeded",
    ("EventList", "nextCursor"): "XqLw8r0Yk3…",
    ("FeedEvent", "id"): _EVENT,
    ("FeedEvent", "type"): "run.succeeded",
    ("PingEvent", "environment"): None,
    ("PingEvent", "id"): _EVENT,
    ("PingEvent", "type"): "ping",
    ("RotatedSecret", "previousExpiresAt"): "2026-11-22T13:00:00.123Z",
    ("Recovered", "recovered"): 42,
    ("RunEvent", "type"): "run.succeeded",
    ("Run", "status"): "succeeded",
    ("EventRun", "status"): "succeeded",
    ("RunEvent", "id"): _EVENT,
    ("TargetView", "kind"): "tag",
    ("TargetView", "name"): "production",
    ("Target", "kind"): "tag",
    ("Target", "name"): "production",
    ("Cost", "success"): _SPENT,
    ("Cost", "retries"): _ZERO,
    ("Cost", "total"): _SPENT["total"],
    ("Run", "messages"): _SENT,
    ("Preview", "messages"): _SENT,
    ("Preview", "params"): {"maxCompletionTokens": 100},
    ("Preview", "missingInputs"): [],
    ("Preview", "unusedInputs"): [],
    ("Preview", "costCeiling"): _ZERO | {"input": 0.000022, "output": 0.0004, "total": 0.000422},
    ("Preview", "waitingAhead"): 0,
    ("TokenEstimate", "input"): 22,
    ("TokenEstimate", "maxOutput"): 100,
    ("EventRun", "outputTruncated"): False,
    ("Change", "pointer"): "/templates/main/messages/0/content",
    ("Change", "before"): "Say hello to {{ name }}.",
    ("Change", "after"): "Greet {{ name }}.",
    ("Change", "diff"): _DIFF,
    ("TagChange", "keyName"): "backend",
    ("VersionDiff", "from"): _VERSION | {"number": 2},
    ("VersionDiff", "to"): _VERSION,
    ("VersionBody", "entrypoint"): "main",
    ("VersionBody", "templates"): {"main": _MAIN},
}
# There only when something else was asked for.
_LEFT_OUT = frozenset({("AcceptedRun", "promptRun"), ("FeedData", "webhook")})
# Empty in a run that simply succeeded.
_NULL = frozenset(
    {
        "cancelRequestedAt",
        "contentsErasedAt",
        "continueFrom",
        "deletingSince",
        "disabledAt",
        "disabledReason",
        "error",
        "expiresAt",
        "incompleteReason",
        "lastUsedAt",
        "nextAttemptAt",
        "nextTryAt",
        "pausedUntil",
        "replayedFrom",
    }
)

_KINDS: tuple[type[AppError], ...] = (AppError, *AppError.__subclasses__())
_TITLES: dict[int | str, str] = {
    key: kind.title for kind in _KINDS for key in (kind.status, kind.code)
}


class Event(NamedTuple):
    """An event as one format of endpoints receives it."""

    name: str
    meaning: str
    schema: str
    status: str
    headers: tuple[tuple[str, str], ...]


_STANDARD = (
    ("webhook-id", "The event's id, the same on every try: use it to drop duplicates."),
    ("webhook-timestamp", "Unix seconds of this try; refuse what is older than five minutes."),
    ("webhook-signature", "`v1,<base64>`, one for each live secret, separated by spaces."),
    ("traceparent", "The trace of the run, where there is one (W3C Trace Context)."),
)
_PROMPTJUGGLER = (("PromptJuggler-Signature", "`t=<unix seconds>,v1=<hex HMAC-SHA256>`."),)

EVENTS: tuple[Event, ...] = (
    Event("run.succeeded", "A run has its answer.", "RunEvent", "succeeded", _STANDARD),
    Event(
        "run.incomplete",
        "A run has an answer that was cut short or filtered.",
        "RunEvent",
        "incomplete",
        _STANDARD,
    ),
    Event("run.failed", "A run was given up.", "RunEvent", "failed", _STANDARD),
    Event("run.canceled", "A run was canceled.", "RunEvent", "canceled", _STANDARD),
    Event("run.expired", "A run waited too long to start.", "RunEvent", "expired", _STANDARD),
    Event("ping", "A test, asked for by hand.", "PingEvent", "", _STANDARD),
    Event(
        "promptrun.finished",
        "Any of the five, as endpoints with `format: promptjuggler` receive it.",
        "PromptRunFinished",
        "completed",
        _PROMPTJUGGLER,
    ),
)


def request(operation: str, schema: Mapping[str, Any], components: Mapping[str, Any]) -> Any:
    """A body for an operation: written by hand, else made from what the schema requires."""
    found = _REQUESTS.get(operation)
    return of(schema, components, only_required=True) if found is None else found


def of(
    schema: Mapping[str, Any], components: Mapping[str, Any], *, only_required: bool = False
) -> Any:
    """Make an example of a schema."""
    return _Maker(components, only_required=only_required).value(schema, "", "")


def problem(error: RequestError) -> dict[str, Any]:
    """Write an error as a client would receive it."""
    flaws = [{"pointer": "/inputs/name", "message": "This input is needed."}]
    return {
        "type": f"/docs/errors#{error.code}",
        "title": _TITLES.get(error.code) or _TITLES.get(error.status, AppError.title),
        "status": error.status,
        "detail": error.meaning,
        "code": error.code,
        "requestId": "5f3c9a1e7b20-2f",
        "errors": flaws if error.code == "missing_inputs" else [],
        "error": error.meaning,
    }


def event(wanted: Event, components: Mapping[str, Any]) -> Any:
    """Write an event as its endpoint would receive it."""
    body = msgspec.json.decode(msgspec.json.encode(of({"$ref": _REF + wanted.schema}, components)))
    if wanted.schema != "RunEvent":
        return body
    run = body["data"]["run"]
    body["type"], run["status"] = wanted.name, wanted.status
    match wanted.status:
        case "incomplete":
            run["incompleteReason"] = "max_tokens"
        case "failed":
            run |= {"output": None, "tokenUsage": None}
            run["error"] = {
                "code": "provider_server_error",
                "message": "This model always fails.",
                "origin": "provider",
            }
        case "canceled" | "expired":
            run |= {"output": None, "tokenUsage": None, "startedAt": None}
            run["cost"] = {"success": _ZERO, "retries": _ZERO, "total": 0}
    return body


class _Maker:
    """Walks a schema and puts a value at each place."""

    def __init__(self, components: Mapping[str, Any], *, only_required: bool) -> None:
        self._components = components
        self._only_required = only_required

    def value(self, schema: Mapping[str, Any], owner: str, field: str) -> Any:
        known = self._known(owner, field)
        if known is not _UNKNOWN:
            return known
        if "$ref" in schema:
            name = schema["$ref"].removeprefix(_REF)
            return self.value(self._components[name], owner, field)
        for words in ("const", "default"):
            if words in schema:
                return schema[words]
        if "enum" in schema:
            return schema["enum"][0]
        choices = schema.get("anyOf") or schema.get("oneOf")
        if choices:
            return self.value(choices[0], owner, field)
        return self._of_type(schema, field)

    def _known(self, owner: str, field: str) -> Any:
        if field in _NULL:
            return None
        return _OF_SCHEMA.get((owner, field), _FIELDS.get(field, _UNKNOWN))

    def _of_type(self, schema: Mapping[str, Any], field: str) -> Any:
        match schema.get("type"):
            case "object":
                return self._object(schema)
            case "array":
                return [self.value(schema.get("items", {}), "", "")]
            case "string":
                is_id = schema.get("format") == "uuid" or field.lower().endswith("id")
                return _MOMENT if schema.get("format") == "date-time" else _RUN if is_id else "…"
            case kind:
                return {"integer": 1, "number": 1, "boolean": True}.get(kind or "")

    def _object(self, schema: Mapping[str, Any]) -> Any:
        names = schema.get("properties", {})
        if self._only_required:
            names = {name: names[name] for name in schema.get("required", ())}
        owner = schema.get("title", "")
        return {
            name: self.value(inner, owner, name)
            for name, inner in names.items()
            if (owner, name) not in _LEFT_OUT
        }


_UNKNOWN: Any = object()
