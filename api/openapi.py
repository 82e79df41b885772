"""The OpenAPI document, written from the routes: their types, their errors, and examples."""

import re
import sys
from collections.abc import Iterator, Mapping
from functools import cache
from http import HTTPStatus
from importlib.metadata import version
from inspect import getdoc
from typing import Any, NamedTuple, TypeVar

import msgspec
from litestar import Litestar, Response
from litestar.handlers import HTTPRouteHandler
from litestar.params import QueryParameter
from litestar.routes import HTTPRoute

from api import errors, examples, flow_wording, hook_shapes, shapes, wording
from api.auth import SCOPE
from api.conditions import EXPECTED
from api.error_catalog import REQUEST_ERRORS, RequestError
from api.requests import QUERY_FAMILIES, NoFields

Document = dict[str, Any]
Body = TypeVar("Body")

NOUNS = (
    "runs",
    "threads",
    "prompts",
    "flows",
    "environments",
    "webhooks",
    "deliveries",
    "events",
    "keys",
    "models",
)
"""The order in which the nouns are shown; others follow by name."""

_NOUN_OF = {
    "previews": "runs",
    "run_lists": "runs",
    "flow_runs": "flows",
    "inference": "flows",
    "pins": "environments",
}  # modules that share a noun
_PATH_PARAMETER = re.compile(r"\{(\w+)\}")
_REF = "#/components/schemas/"
_JSON = "application/json"
_LISTING = re.compile(r"Listing_(?:.*\.)?(\w+?)(?:View)?_")
_DESCRIPTION = """Runlane runs versioned prompts: submit a run, read it or wait for its webhook.

Every request carries `Authorization: Bearer <key>`. Every error is a problem (RFC 9457) with a
stable `code`; [the list](/docs/errors) says what each means. Ids are UUIDs, moments are RFC 3339
in UTC, `null` equals absent in every request."""

# Bodies that a route takes as free JSON, and answers that it passes on as bytes.
_BODIES: Mapping[str, tuple[type, ...]] = {
    "addVersion": (shapes.ShortVersion, shapes.LongVersion),
    "replaceVersion": (shapes.ShortDraft, shapes.LongDraft),
}
_ANSWERS: Mapping[str, Mapping[int, type | None]] = {
    "submitRun": {200: shapes.AcceptedRun},
    "submitBatch": {200: shapes.AcceptedBatch},
    "previewRun": {200: shapes.Preview},
    "readPromptRun": {200: shapes.PromptRun},
    "readRun": {200: shapes.Run, 304: None},
    "replayRun": {200: shapes.AcceptedRun},
    "listRuns": {200: shapes.RunList},
    "listDeliveries": {200: hook_shapes.DeliveryList},
    "listWebhookDeliveries": {200: hook_shapes.WebhookDeliveryList},
    "readDelivery": {200: hook_shapes.Delivery},
    "resendDelivery": {202: hook_shapes.Delivery},
    "testWebhook": {202: hook_shapes.Delivery},
    "listEvents": {200: hook_shapes.EventList},
    "listMessages": {200: shapes.MessageList},
    **flow_wording.ANSWERS,
    "cancelRun": {202: shapes.Run, 200: shapes.Run},
}
_KEY = (
    "Idempotency-Key",
    "1 to 255 printable ASCII characters. The same key again answers with the same run.",
)
_IF_MATCH = (
    "If-Match",
    "The `ETag` of what was read, or several, or `*`; 412 when it has changed since.",
)
_TRACE = ("traceparent", "W3C Trace Context; handed on to provider calls and webhooks.")
_HEADERS: Mapping[str, tuple[tuple[str, str], ...]] = {
    "submitRun": (
        _KEY,
        ("Prefer", "`wait=N`: answer when the run is over, or after N seconds, at most 60."),
        _TRACE,
    ),
    "replayRun": (_KEY, _TRACE),
    "runFlow": (_KEY, _TRACE, *flow_wording.HEADERS),
    "runInference": (_KEY, _TRACE, *flow_wording.HEADERS),
    "submitBatch": (_TRACE,),
    "readRun": (("If-None-Match", "The `ETag` of an earlier answer: 304 if nothing changed."),),
}
_ETAG: Document = {
    "ETag": {
        "description": "Names this state: give it as `If-Match` to change nothing newer.",
        "schema": {"type": "string"},
    }
}
_ANSWER_TEXTS = {
    200: "Done.",
    201: "Created.",
    202: "Accepted; it is on its way.",
    204: "Gone.",
    304: "Unchanged.",
}
_CALLER_STATUSES = frozenset({400, 401, 403, 408, 429, 431, 500, 503})
_BODY_STATUSES = frozenset({413, 415, 422})
_OTHER_STATUSES: Mapping[str, frozenset[int]] = {
    "listEvents": frozenset({409, 422}),
    "diffEnvironments": frozenset({404}),
    "listParameters": frozenset({409, 422}),
    "runFlow": frozenset({402, 502, 504}),
    "runInference": frozenset({402, 502, 504}),
}


class Operation(NamedTuple):
    """One method of one path."""

    id: str
    path: str
    method: str
    noun: str
    handler: HTTPRouteHandler

    @property
    def takes(self) -> tuple[type, ...]:
        field = self.handler.parsed_data_field
        if field is None or field.annotation is NoFields:
            return ()
        return _BODIES.get(self.id) or (field.annotation,)

    @property
    def answers(self) -> Mapping[int, type | None]:
        given = _ANSWERS.get(self.id)
        if given is not None:
            return given
        answer = self.handler.parsed_fn_signature.return_type.annotation
        if self.tagged:
            (answer,) = answer.__args__
        free = answer in {None, type(None)} or getattr(answer, "__origin__", None) is Response
        return {self.handler.status_code: None if free else answer}

    @property
    def tagged(self) -> bool:
        """Whether it answers through `conditions.tagged`, so with an entity tag."""
        answer = self.handler.parsed_fn_signature.return_type.annotation
        passed_on = getattr(answer, "__origin__", None) is Response
        return passed_on and answer.__args__ != (bytes,)

    @property
    def conditional(self) -> bool:
        """Whether `If-Match` can hold it back."""
        return EXPECTED in self.handler.parsed_fn_signature.parameters


def document(app: Litestar) -> Document:
    """Write the document for an application's routes."""
    found = sorted(operations(app), key=place)
    refs, components = _schemas(found)
    paths: dict[str, dict[str, Any]] = {}
    for operation in found:
        paths.setdefault(operation.path, {})[operation.method] = _describe(
            operation, refs, components
        )
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Runlane",
            "version": version("runlane"),
            "description": _DESCRIPTION,
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "servers": [{"url": "/"}],
        "security": [{"key": []}],
        "tags": [{"name": noun} for noun in dict.fromkeys(one.noun for one in found)],
        "paths": paths,
        "webhooks": _webhooks(components),
        "components": {
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
            "schemas": components,
            "responses": _problems(),
        },
    }


def operations(app: Litestar, *, described: bool = True) -> Iterator[Operation]:
    """Go through what the document describes, or through what it leaves out."""
    for route in app.routes:
        if not isinstance(route, HTTPRoute):
            continue
        for handler in route.route_handlers:
            if handler.resolve_include_in_schema() != described:
                continue
            module = handler.fn.__module__.rpartition(".")[2]
            noun = _NOUN_OF.get(module, module.replace("_", " "))
            for method in handler.http_methods - {"OPTIONS"}:
                yield Operation(
                    _camel(handler.handler_name), route.path_format, method.lower(), noun, handler
                )


def place(operation: Operation) -> tuple[int, str, bool, str, int]:
    """Sort by noun, then as the noun's own module lists its handlers."""
    noun = operation.noun
    first = NOUNS.index(noun) if noun in NOUNS else len(NOUNS)
    module = operation.handler.fn.__module__
    names = [handler.fn.__name__ for handler in sys.modules[module].HANDLERS]
    at = names.index(operation.handler.fn.__name__)
    return first, noun, not module.endswith(f".{noun}"), module, at


def _schemas(operations: list[Operation]) -> tuple[dict[type, Any], dict[str, Any]]:
    """Write every type once; answers how to refer to each, and the components."""
    types: dict[type, None] = dict.fromkeys((*shapes.ALL, *hook_shapes.ALL, errors.Problem))
    for operation in operations:
        types.update(dict.fromkeys(operation.takes))
        types.update(dict.fromkeys(kind for kind in operation.answers.values() if kind))
    written, found = msgspec.json.schema_components(types, ref_template=_REF + "{name}")
    names = {name: _name(name, found) for name in found}
    text = msgspec.json.encode((written, found)).decode()
    for old, new in sorted(names.items(), key=lambda pair: -len(pair[0])):
        text = text.replace(f'"{_REF}{old}"', f'"{_REF}{new}"')
    refs, components = msgspec.json.decode(text)
    renamed = {names[name]: _worded(names[name], schema) for name, schema in components.items()}
    return dict(zip(types, refs, strict=True)), dict(sorted(renamed.items()))


def _worded(name: str, schema: Document) -> Document:
    """Name a schema and say what its fields mean."""
    for field, text in wording.FIELDS.get(name, {}).items():
        schema["properties"][field].setdefault("description", text)
    return schema | {"title": name}


def _name(name: str, taken: Mapping[str, object]) -> str:
    """`Listing[PromptView]` is a `PromptList`, a `PromptView` a `Prompt`, where that is free."""
    listing = _LISTING.fullmatch(name)
    if listing:
        return f"{listing[1]}List"
    short = name.removesuffix("View").lstrip("_")
    return name if short in taken else short


def _describe(operation: Operation, refs: Mapping[type, Any], components: Document) -> Document:
    scope = operation.handler.opt.get(SCOPE)
    entry: Document = {
        "operationId": operation.id,
        "tags": [operation.noun],
        "summary": operation.handler.summary or operation.id,
        "description": getdoc(operation.handler.fn) or "",
        "parameters": [*_parameters(operation)],
    }
    if scope is None:
        entry["security"] = []
    else:
        entry["x-scope"] = scope
    if operation.takes:
        schemas = [refs[kind] for kind in operation.takes]
        schema = schemas[0] if len(schemas) == 1 else {"anyOf": schemas}
        example = examples.request(operation.id, schema, components)
        entry["requestBody"] = {
            "required": True,
            "content": {_JSON: {"schema": schema, "example": example}},
        }
    entry["responses"] = {
        **{
            str(status): _answer(status, None if kind is None else refs[kind], components)
            | ({"headers": _ETAG} if operation.tagged else {})
            for status, kind in operation.answers.items()
        },
        **{str(status): {"$ref": _problem_ref(status)} for status in _statuses(operation)},
    }
    return entry


def _answer(status: int, schema: Document | None, components: Document) -> Document:
    answer: Document = {"description": _ANSWER_TEXTS.get(status, HTTPStatus(status).phrase)}
    if schema is not None:
        example = examples.of(schema, components)
        answer["content"] = {_JSON: {"schema": schema, "example": example}}
    return answer


def _parameters(operation: Operation) -> Iterator[Document]:
    """List what stands in path, query and header fields; dependencies have a query of their own."""
    handler = operation.handler
    for name in _PATH_PARAMETER.findall(operation.path):
        yield _parameter(name, "path", wording.PARAMETERS.get(name), {"type": "string"})
    fields = [*handler.parsed_fn_signature.parameters.values()]
    for provider in handler.resolve_dependencies().values():
        fields += provider.parsed_fn_signature.parameters.values()
    for field in fields:
        query = field.kwarg_definition
        if isinstance(query, QueryParameter):
            kind = msgspec.json.schema(field.annotation)
            (schema,) = (one for one in kind.get("anyOf", [kind]) if one.get("type") != "null")
            name = query.name or field.name
            yield _parameter(name, "query", query.description, schema | (query.schema_extra or {}))
    for name in handler.opt.get(QUERY_FAMILIES, ()):
        schema = {"type": "object", "additionalProperties": {"type": "string"}}
        written = _parameter(name, "query", wording.PARAMETERS.get(name), schema)
        yield written | {"style": "deepObject", "explode": True}
    for name, text in _HEADERS.get(operation.id, ()):
        yield _header(name, text)
    if operation.conditional:
        yield _header(*_IF_MATCH)


def _parameter(name: str, place: str, description: str | None, schema: Document) -> Document:
    told = {} if description is None else {"description": description}
    required = place == "path"
    return {"name": name, "in": place, **told, "required": required, "schema": schema}


def _header(name: str, description: str) -> Document:
    return _parameter(name, "header", description, {"type": "string"})


def _statuses(operation: Operation) -> list[int]:
    """Which problems an operation can answer with."""
    statuses = set(_CALLER_STATUSES)
    if "{" in operation.path:
        statuses.add(404)
    if operation.method != "get":
        statuses |= {409, 422}
    if operation.takes:
        statuses |= _BODY_STATUSES
    if operation.conditional:
        statuses.add(412)
    statuses |= _OTHER_STATUSES.get(operation.id, frozenset())
    return sorted(statuses)


@cache
def _problems() -> Document:
    """One reusable response for each status, with an example for each of its codes."""
    found: dict[int, list[RequestError]] = {}
    for error in REQUEST_ERRORS:
        found.setdefault(error.status, []).append(error)
    return {
        f"Problem{status}": {
            "description": HTTPStatus(status).phrase,
            "content": {
                errors.MEDIA_TYPE: {
                    "schema": {"$ref": f"{_REF}Problem"},
                    "examples": {
                        error.code: {"summary": error.meaning, "value": examples.problem(error)}
                        for error in listed
                    },
                }
            },
        }
        for status, listed in sorted(found.items())
    }


def _problem_ref(status: int) -> str:
    return f"#/components/responses/Problem{status}"


def _webhooks(components: Document) -> Document:
    """The events that endpoints receive, in both formats."""
    return {
        event.name: {
            "post": {
                "operationId": _camel(event.name.replace(".", "_")),
                "summary": event.meaning,
                "parameters": [_header(name, text) for name, text in event.headers],
                "requestBody": {
                    "required": True,
                    "content": {
                        _JSON: {
                            "schema": {"$ref": _REF + event.schema},
                            "example": examples.event(event, components),
                        }
                    },
                },
                "responses": {"2XX": {"description": "Received; any 2xx will do."}},
                "security": [],
            }
        }
        for event in examples.EVENTS
    }


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(word.capitalize() for word in rest)
