"""The API reference as HTML: made once from the OpenAPI document, without any outside host."""

import json
import re
import shlex
from collections.abc import Iterable, Mapping
from html import escape
from http import HTTPStatus
from itertools import groupby
from typing import Any

from api.error_catalog import REQUEST_ERRORS, RequestError
from api.run_error_catalog import RUN_ERRORS

Document = Mapping[str, Any]

_REF = "#/components/schemas/"
_MAX_DEPTH = 4
_CODE = re.compile(r"`([^`]+)`")
_LINK = re.compile(r"\[([^\]]+)\]\((/[^)]*)\)")
_PARAMETER = re.compile(r"\{(\w+)\}")
_PLACES = {
    "key": "OPENAI_API_KEY",
    "name": "production",
    "number": "3",
    "slug": "greeting",
    "tag": "production",
    "version": "production",
}
_SOME_ID = "019ab3c4-5d6e-7f80-9a1b-2c3d4e5f6071"
_FORMATS = {"date-time": "moment", "uuid": "UUID"}
_METHODS = ("get", "post", "put", "patch", "delete")
_FIRST_ERROR = 400


def reference(document: Document) -> bytes:
    """Write the page of all endpoints and webhooks."""
    groups = [
        (tag["name"], [one for one in _operations(document) if tag["name"] in one[2]["tags"]])
        for tag in document["tags"]
    ]
    body = _intro(document)
    for noun, operations in groups:
        body += f'<section class="noun"><h2 id="{escape(noun)}">{escape(noun.capitalize())}</h2>'
        body += "".join(_endpoint(document, *operation) for operation in operations)
        body += "</section>"
    body += _events(document)
    nav = "".join(_nav_group(noun, operations) for noun, operations in groups)
    events = "".join(
        f'<li><a href="#{escape(hook["post"]["operationId"])}">{escape(name)}</a></li>'
        for name, hook in document["webhooks"].items()
    )
    nav += f'<h2><a href="#events">Webhook events</a></h2><ul>{events}</ul>'
    return _page("API reference", nav, body)


def error_list() -> bytes:
    """Write the page that the `type` of every problem points at."""
    body = (
        "<h1>Errors</h1><p>Every error is a problem document (RFC 9457,"
        " <code>application/problem+json</code>). Compare its <code>code</code>: it is stable."
        " Texts are for people and may change. <code>errors</code> lists what is wrong where, as"
        " RFC 6901 pointers into the body; <code>requestId</code> finds the request in the"
        " server's log.</p>"
    )
    nav = ""
    for status, errors in groupby(REQUEST_ERRORS, key=lambda error: error.status):
        listed = list(errors)
        phrase = f"{status} {HTTPStatus(status).phrase}"
        body += f'<section><h2 id="status-{status}">{escape(phrase)}</h2>'
        body += "".join(_error(error) for error in listed) + "</section>"
        links = "".join(f'<li><a href="#{e.code}">{e.code}</a></li>' for e in listed)
        nav += f'<h2><a href="#status-{status}">{escape(phrase)}</a></h2><ul>{links}</ul>'
    body += _run_errors()
    links = "".join(f'<li><a href="#run-{e.code}">{e.code}</a></li>' for e in RUN_ERRORS)
    nav += f'<h2><a href="#runs">Errors of runs</a></h2><ul>{links}</ul>'
    return _page("Errors", nav, body)


def _page(title: str, nav: str, body: str) -> bytes:
    text = f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{escape(title)} · Runlane</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="/docs/docs.css">
<script src="/docs/docs.js" defer></script>
</head>
<body>
<a class="skip" href="#content">Skip to the content</a>
<header><a class="brand" href="/docs">Runlane</a>
<nav aria-label="Pages"><a href="/docs">Reference</a><a href="/docs/errors">Errors</a>
<a href="/openapi.json">OpenAPI</a></nav></header>
<details class="contents" open><summary>Contents</summary>
<nav aria-label="Contents">{nav}</nav></details>
<main id="content">{body}</main>
</body>
</html>
"""
    return text.encode()


def _intro(document: Document) -> str:
    paragraphs = document["info"]["description"].split("\n\n")
    text = "".join(f"<p>{_inline(paragraph)}</p>" for paragraph in paragraphs)
    setup = "export RUNLANE_URL=http://127.0.0.1:8000\nexport RUNLANE_API_KEY=rl_…"
    return (
        f"<h1>API reference <small>{escape(document['info']['version'])}</small></h1>{text}"
        "<p>The lines below use two variables; <code>runlane dev</code> writes them to"
        f" <code>.runlane/dev.env</code>:</p>{_pre(setup, 'shell')}"
    )


def _operations(document: Document) -> Iterable[tuple[str, str, Mapping[str, Any]]]:
    for path, item in document["paths"].items():
        for method, operation in item.items():
            if method in _METHODS:
                yield path, method, operation


def _nav_group(noun: str, operations: Iterable[tuple[str, str, Mapping[str, Any]]]) -> str:
    items = "".join(
        f'<li><a href="#{escape(one["operationId"])}">{_badge(method)}'
        f"<span>{escape(one['summary'])}</span></a></li>"
        for _, method, one in operations
    )
    return f'<h2><a href="#{escape(noun)}">{escape(noun.capitalize())}</a></h2><ul>{items}</ul>'


def _endpoint(document: Document, path: str, method: str, operation: Mapping[str, Any]) -> str:
    name = escape(operation["operationId"])
    scope = operation.get("x-scope")
    needs = f'<p class="scope">Scope <code>{escape(scope)}</code></p>' if scope else ""
    content = operation.get("requestBody", {}).get("content", {}).get("application/json")
    told = [
        f"<p>{_inline(operation['description'])}</p>{needs}",
        _parameters(document, operation["parameters"]),
        "" if content is None else "<h4>Body</h4>" + _fields(document, content["schema"]),
    ]
    answers = {
        status: answer for status, answer in operation["responses"].items() if "$ref" not in answer
    }
    told += [_answer(document, status, answer) for status, answer in answers.items()]
    shown = _pre(_curl(path, method, content), "shell") + _examples(answers)
    told.append(_problem_line(operation["responses"]))
    return (
        f'<article id="{name}"><h3><a href="#{name}">{escape(operation["summary"])}</a></h3>'
        f'<p class="path">{_badge(method)}<code>{_breakable(path)}</code></p>'
        f'<div class="pair"><div>{"".join(told)}</div><div class="shown">{shown}</div></div>'
        "</article>"
    )


def _answer(document: Document, status: str, answer: Mapping[str, Any]) -> str:
    words = f"<h4>{status} <small>{_inline(answer['description'])}</small></h4>"
    content = answer.get("content", {}).get("application/json")
    return words if content is None else words + _fields(document, content["schema"], folded=True)


def _examples(answers: Mapping[str, Mapping[str, Any]]) -> str:
    """Show what comes back, once for answers that look the same."""
    shown: dict[str, list[str]] = {}
    for status, answer in answers.items():
        for content in answer.get("content", {}).values():
            shown.setdefault(_json(content["example"]), []).append(status)
    return "".join(_pre(text, f"answer {' or '.join(of)}") for text, of in shown.items())


def _problem_line(responses: Iterable[str]) -> str:
    links = " ".join(
        f'<a href="/docs/errors#status-{status}">{status}</a>'
        for status in responses
        if int(status) >= _FIRST_ERROR
    )
    return f'<p class="problems">Problems: {links}</p>'


def _events(document: Document) -> str:
    body = (
        '<section class="noun"><h2 id="events">Webhook events</h2><p>An endpoint receives events'
        " as <code>POST</code> requests. Any 2xx answer within 15 seconds counts as received;"
        " anything else is tried again later. The standard format is signed as"
        " standardwebhooks.com describes: HMAC-SHA256 over <code>id.timestamp.body</code>, keyed"
        " with what follows <code>whsec_</code>, decoded from base64.</p>"
    )
    for name, hook in document["webhooks"].items():
        one = hook["post"]
        anchor = escape(one["operationId"])
        content = one["requestBody"]["content"]["application/json"]
        body += (
            f'<article id="{anchor}"><h3><a href="#{anchor}">{escape(name)}</a></h3>'
            f'<div class="pair"><div><p>{_inline(one["summary"])}</p>'
            f"{_parameters(document, one['parameters'], 'Header fields')}<h4>Body</h4>"
            f"{_fields(document, content['schema'], folded=True)}</div>"
            f'<div class="shown">{_pre(_json(content["example"]), "body")}</div></div></article>'
        )
    return body + "</section>"


def _parameters(
    document: Document, parameters: Iterable[Mapping[str, Any]], heading: str = "Parameters"
) -> str:
    rows = "".join(
        _row(
            one["name"],
            f'{_type(document, one["schema"])} <span class="in">{one["in"]}</span>',
            one.get("description", ""),
            required=one["required"],
        )
        for one in parameters
    )
    return f"<h4>{heading}</h4>{_list(rows)}" if rows else ""


def _fields(document: Document, schema: Mapping[str, Any], *, folded: bool = False) -> str:
    """Write the fields of a schema; choices one after the other."""
    choices = schema.get("anyOf", [schema])
    text = ""
    for choice in choices:
        found = _resolved(document, choice)
        if len(choices) > 1:
            text += f"<p>{_inline(found.get('description', ''))}</p>"
        rows = _rows(document, found, 1)
        text += _list(rows) if rows else f"<p>{_type(document, choice)}</p>"
    return f"<details><summary>Fields</summary>{text}</details>" if folded else text


def _rows(document: Document, schema: Mapping[str, Any], depth: int) -> str:
    required = schema.get("required", ())
    return "".join(
        _row(
            name,
            _type(document, inner if name in required else _given(inner)),
            inner.get("description", ""),
            required=name in required,
            inside=_inside(document, inner, depth),
        )
        for name, inner in schema.get("properties", {}).items()
    )


def _given(schema: Mapping[str, Any]) -> Mapping[str, Any]:
    """What an optional field holds when it is given: `null` equals absent."""
    kinds = [kind for kind in schema.get("anyOf", ()) if kind.get("type") != "null"]
    return {**schema, "anyOf": kinds} if kinds else schema


def _inside(document: Document, schema: Mapping[str, Any], depth: int) -> str:
    """Write the fields of an object within a field, folded."""
    if depth >= _MAX_DEPTH:
        return ""
    kinds = [kind for kind in schema.get("anyOf", [schema]) if kind.get("type") != "null"]
    kind = _resolved(document, kinds[0]) if kinds else schema
    for below in ("items", "additionalProperties"):
        if isinstance(kind.get(below), Mapping):
            kind = _resolved(document, kind[below])
    rows = _rows(document, kind, depth + 1)
    return f"<details><summary>Fields</summary>{_list(rows)}</details>" if rows else ""


def _row(name: str, kind: str, description: str, *, required: bool, inside: str = "") -> str:
    must = ' <span class="must">required</span>' if required else ""
    told = f"<p>{_inline(description)}</p>" if description else ""
    return f"<div><dt><code>{escape(name)}</code> {kind}{must}</dt><dd>{told}{inside}</dd></div>"


def _list(rows: str) -> str:
    return f'<dl class="fields">{rows}</dl>' if rows else ""


def _resolved(document: Document, schema: Mapping[str, Any]) -> Mapping[str, Any]:
    found: Mapping[str, Any] = schema
    if "$ref" in schema:
        found = document["components"]["schemas"][schema["$ref"].removeprefix(_REF)]
    return found


def _type(document: Document, schema: Mapping[str, Any]) -> str:
    """Name a type in a few words."""
    return f'<span class="type">{_words(document, schema)}</span>'


def _words(document: Document, schema: Mapping[str, Any]) -> str:
    found = _resolved(document, schema)
    choices = found.get("anyOf") or found.get("oneOf")
    if choices:
        return " or ".join(dict.fromkeys(_words(document, choice) for choice in choices))
    if "enum" in found:
        return " | ".join(escape(str(word)) for word in found["enum"])
    kind = str(found.get("type", "any JSON"))
    values = found.get("additionalProperties")
    if kind == "array":
        kind = f"list of {_words(document, found.get('items', {}))}"
    elif kind == "object" and isinstance(values, Mapping):
        kind = f"object of {_words(document, values)}"
    elif kind == "string":
        kind = _FORMATS.get(found.get("format", ""), kind)
    if "minimum" in found and "maximum" in found:
        kind += f" from {found['minimum']} to {found['maximum']}"
    return kind


def _curl(path: str, method: str, content: Mapping[str, Any] | None) -> str:
    filled = _PARAMETER.sub(lambda found: _PLACES.get(found[1], _SOME_ID), path)
    verb = "" if method == "get" or (method == "post" and content) else f"-X {method.upper()} "
    lines = [f'curl -s {verb}"$RUNLANE_URL{filled}"', '-H "Authorization: Bearer $RUNLANE_API_KEY"']
    if content is not None:
        lines.append('-H "Content-Type: application/json"')
        lines.append(f"-d {shlex.quote(json.dumps(content['example'], ensure_ascii=False))}")
    return " \\\n  ".join(lines)


def _error(error: RequestError) -> str:
    kept = '<p class="scope">Reserved: not sent by this version.</p>' if error.reserved else ""
    return (
        f'<article class="error" id="{error.code}"><h3><a href="#{error.code}">'
        f"<code>{error.code}</code></a></h3><p>{_inline(error.meaning)}</p>"
        f'<p class="remedy">{_inline(error.remedy)}</p>{kept}</article>'
    )


def _run_errors() -> str:
    articles = "".join(
        f'<article class="error" id="run-{error.code}"><h3><a href="#run-{error.code}">'
        f"<code>{error.code}</code></a></h3><p>{_inline(error.meaning)}</p>"
        f'<p class="remedy">Origin: {error.origin}</p></article>'
        for error in RUN_ERRORS
    )
    return (
        '<section><h2 id="runs">Errors of runs</h2><p>A run that fails says why in its'
        " <code>error</code>, each of its attempts likewise. <code>origin</code> tells who has to"
        f" act.</p>{articles}</section>"
    )


def _badge(method: str) -> str:
    return f'<span class="method {method}">{method.upper()}</span>'


def _breakable(path: str) -> str:
    return escape(path).replace("/", "/<wbr>")


def _pre(text: str, label: str) -> str:
    return (
        f"<figure><figcaption>{escape(label)}</figcaption>"
        f'<pre tabindex="0"><code>{escape(text)}</code></pre></figure>'
    )


def _json(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False)


def _inline(text: str) -> str:
    """Escape a text and write its `code` and its links as HTML."""
    marked = _CODE.sub(r"<code>\1</code>", escape(text, quote=False))
    return _LINK.sub(r'<a href="\2">\1</a>', marked)
