"""What nonsense gets, as a table: in words, the status, the code, and requests of that kind.

It is a sample: what is like it must be treated like it. `ANY` leaves the code open.
"""

import json
from base64 import b64encode
from typing import Any

from tests.api.stage import HOOK, RUN, RUNS, VERSION, Ask

ANY = ""
Row = tuple[str, int, str, list[Ask]]


def run(*bodies: dict[str, Any]) -> list[Ask]:
    """Submissions with other fields than a good one."""
    return [Ask(RUNS, RUN | body) for body in bodies]


def raw(*bodies: bytes, path: str = RUNS) -> list[Ask]:
    return [Ask(path, body) for body in bodies]


def hook(*bodies: dict[str, Any]) -> list[Ask]:
    """The same at a webhook's creation and at its change."""
    return [
        one
        for body in bodies
        for one in (Ask("/webhooks", HOOK | body), Ask("/webhooks/{hook}", body, "PATCH"))
    ]


def version(*bodies: dict[str, Any]) -> list[Ask]:
    return [Ask("/prompts/greeting/versions", VERSION | body) for body in bodies]


def template(*texts: str) -> list[Ask]:
    return version(*({"messages": [{"role": "user", "content": text}]} for text in texts))


def get(*paths: str) -> list[Ask]:
    return [Ask(path, None, "GET") for path in paths]


def authorized(*values: str | bytes) -> list[Ask]:
    """Submissions with these instead of the good key."""
    return [Ask(RUNS, RUN, headers=(("authorization", value),), bare=True) for value in values]


def typed(*media_types: str) -> list[Ask]:
    body = json.dumps(RUN).encode()
    return [Ask(RUNS, body, headers=(("content-type", one),)) for one in media_types]


def keyed(*keys: bytes) -> list[Ask]:
    return [Ask(RUNS, RUN, headers=(("idempotency-key", key),)) for key in keys]


def field(name: str, *values: str) -> list[Ask]:
    """JSON written by hand, for what a library would not write."""
    return raw(
        *(f'{{"inputs": {{"name": "Ada"}}, "{name}": {value}}}'.encode() for value in values)
    )


def named(*texts: str) -> list[Ask]:
    return raw(*(f'{{"inputs": {{"name": "{text}"}}}}'.encode() for text in texts))


def secret(data: bytes) -> str:
    return "whsec_" + b64encode(data).decode()


def nested(depth: int) -> bytes:
    return b'{"inputs": ' + b"[" * depth + b"]" * depth + b"}"


def many(count: int) -> dict[str, str]:
    return {f"KEY_{number}": "x" for number in range(count)}


CYCLE = {"entrypoint": "main", "templates": {
    "main": {"model": "sim/echo", "messages": [{"role": "user", "content": "{{ a }}"}]},
    "a": {"text": "{{ a }}"},
}}  # fmt: skip
MIB = 1_048_576
LOOPBACK = ("127.0.0.1", "127.1", "2130706433", "0x7f000001", "0", "localhost", "a.localhost",
            "[::1]", "[::]", "[::ffff:7f00:1]", "169.254.169.254", "10.0.0.1", "100.64.0.1",
            "224.0.0.1")  # fmt: skip

ROWS: list[Row] = [
    # Who is asking
    ("no Authorization", 401, "unauthorized", [Ask(RUNS, RUN, bare=True)]),
    ("Basic, Bearer alone, Bearer and empty, two tokens", 401, "unauthorized", authorized(
        "Basic dXNlcjpwYXNz", "Bearer", "Bearer ", "Bearer {key} {key}", "{key}")),
    ("right prefix, wrong checksum", 401, "unauthorized", authorized("Bearer {wrong_key}")),
    ("unknown, expired, revoked key", 401, "unauthorized", authorized(
        "Bearer {unknown_key}", "Bearer {expired_key}", "Bearer {revoked_key}")),
    ("non-ASCII, NUL-like or 10 kB token", 401, "unauthorized", authorized(
        b"Bearer \xc3\xa9", b"Bearer \xff\xfe", b"Bearer rl_\x00", b"Bearer " + b"a" * 10_000)),
    ("valid key, missing scope", 403, "missing_scope", authorized("Bearer {reader_key}")),
    ("key of workspace A, object of workspace B", 404, "not_found", [
        *get("/runs/{their_run}", "/webhooks/{their_hook}", "/deliveries/{their_delivery}",
             "/prompts/theirs", "/prompts/theirs/1"),
        Ask("/keys/{their_key}", None, "DELETE"), Ask("/runs/{their_run}/cancel"),
        Ask("/prompts/theirs/1/runs", RUN)]),
    # Where to
    ("unknown route", 404, "not_found", [
        *get("/nothing", "/runs/{done}/nothing"), Ask("/nothing"), Ask("/workflows/x/runs", {})]),
    ("wrong method; TRACE", 405, "method_not_allowed", [
        Ask("/keys", None, "PUT"), Ask("/runs", {}, "POST"), Ask("/runs", None, "TRACE"),
        Ask("/runs", None, "PROPFIND")]),
    ("path with %00, ..%2f, //", 404, "not_found", [
        *get("/runs/%00", "/prompts/..%2fgreeting", "/prompts//greeting", "/prompts/%2e%2e/keys",
             "/prompts/a%5cb", "/prompts/%ff"),
        Ask("/prompts/greeting%00/1/runs", RUN)]),
    ("path over 2 KiB", 414, "uri_too_long", get(
        f"/prompts/{'x' * 5000}", f"/runs?a={'x' * 5000}")),
    ("headers over 16 KiB or over 64 fields", 431, "headers_too_large", [
        Ask(RUNS, RUN, headers=(("x-large", "x" * 16_384),)),
        Ask(RUNS, RUN, headers=tuple((f"x-{n}", "x") for n in range(65)))]),
    # The body as such
    ("empty body", 400, "empty_body", [*raw(b""), *raw(b"", path="/webhooks")]),
    ("no JSON: {, trailing data, comments, single quotes, BOM", 400, "invalid_json", raw(
        b"{", b'{"inputs": {}} x', b'{"inputs": {}} // x', b"{'inputs': {}}", b'{"inputs": {},}',
        b'\xef\xbb\xbf{"inputs": {}}')),
    ("[], null, text, number at top level", 422, "invalid", [
        *raw(b"[]", b"null", b'"x"', b"1"), *raw(b"[]", b"null", path="/keys")]),
    ("text/plain, no content type, multipart, form, XML, msgpack", 415, "unsupported_media_type",
        typed("text/plain", "", "multipart/form-data; boundary=x", "application/xml",
              "application/x-www-form-urlencoded", "application/msgpack")),
    ("Content-Encoding gzip, br, deflate", 415, "unsupported_media_type", [
        Ask(RUNS, RUN, headers=(("content-encoding", one),)) for one in ("gzip", "br", "deflate")]),
    ("body of 1 MiB and a byte", 413, "too_large", raw(b'{"inputs": {"name": "' + b"x" * MIB)),
    ("nesting 33", 422, "invalid", raw(nested(33))),
    ("nesting 1,000 and 100,000", 400, "invalid_json", raw(nested(1000), nested(100_000))),
    ("invalid UTF-8 in a string; overlong encoding", 400, "invalid_json", raw(
        b'{"inputs": {"name": "\xff"}}', b'{"inputs": {"name": "\xc0\xaf"}}')),
    ("a lone surrogate", 400, "invalid_json", named("\\ud800", "\\udc00a")),
    ("U+0000 in any string or key; U+0001 in a name or key", 422, ANY, [
        *named("a\\u0000b"), *raw(b'{"inputs": {"na\\u0000me": "a"}}'),
        *run({"metadata": {"a\x01b": "x"}}), Ask("/prompts", {"name": "a\x01b"}),
        Ask("/environments", {"name": "a\x01b"}),
        Ask("/keys", {"name": "a\x01", "scopes": ["admin"]})]),
    ("form feed or ESC inside an input or template", 200, ANY, run({"inputs": {"name": "\f\x1b"}})),
    ("NaN, Infinity, 1e400, 5,000 digits", 400, "invalid_json", field(
        "expiresIn", "NaN", "Infinity", "-Infinity", "1e400", "9" * 5000)),
    ("numbers beyond 53 and 63 bits in integer fields", 422, "invalid", field(
        "expiresIn", str(2**53 + 1), str(2**63), str(-(2**63) - 1))),
    ("true, text, 1.0 for an integer; null for what is required", 422, "invalid", [
        *field("maxAttempts", "true", '"1"', "1.0"), *run({"inputs": None})]),
    ("duplicate keys", 422, "duplicate_key", raw(
        b'{"inputs": {}, "inputs": {}}', b'{"inputs": {"a": "1", "a": "2"}}')),
    ("unknown field; another case; output-only field", 422, ANY, [
        *run({"nothing": 1}, {"Priority": "low"}, {"status": "queued"}, {"env_id": "x"},
             {"id": "x"}),
        Ask("/prompts", {"name": "x", "createdAt": "2026-11-22T12:00:00Z"}),
        Ask("/environments", {"Name": "x"}), *hook({"disabledAt": None})]),
    ("__proto__, constructor, $ref, {{x}} as keys in free objects", 200, ANY, run(
        {"inputs": {"name": "Ada", "__proto__": "a", "constructor": "b",
                    "$ref": "c", "{{x}}": "d"}},
        {"metadata": {"__proto__": "a", "constructor": "b", "$ref": "c", "{{x}}": "d"}})),
    # Submitting
    ("missing prompt; empty slug; slugs that are none", 422, ANY, [
        Ask("/prompts", {"name": "x", "slug": slug})
        for slug in ("", "a/b", "a b", "Upper", "x" * 300, "\u202eabc", "a\u200bb", "-a",
                     "\uff41")]),
    ("unknown prompt, prompt of another workspace", 404, "not_found", [
        Ask("/prompts/nothing/1/runs", RUN), Ask("/prompts/theirs/1/runs", RUN),
        Ask("/prompts/GREETING/1/runs", RUN)]),
    ("unknown version; version 0, -1, 'latest '", 404, "not_found", [
        Ask(f"/prompts/greeting/{one}/runs", RUN)
        for one in ("99", "0", "-1", "latest%20", "2", "01", "1.0", "nothing", "{other}")]),
    ("missing input", 422, "missing_inputs", run({"inputs": {}}, {"inputs": {"nme": "Ada"}})),
    ("extra input", 200, ANY, run({"inputs": {"name": "Ada", "more": "x"}})),
    ("{{other}}, {% %}, ${}, %s as values", 200, ANY, run(
        {"inputs": {"name": "{{other}} {% for %} ${x} %s"}}, {"envVars": {"A": "{{other}} %s"}})),
    ("maxDuration, maxAttempts, onUnknownOutcome, priority, inputs", 422, ANY, [
        *field("maxDuration", "0", "-1", "1000000000", '"10"'), *field("maxAttempts", "0", "100"),
        *run({"onUnknownOutcome": "maybe"}, {"priority": "urgent"}, {"inputs": []},
             {"inputs": {"name": 1}}),
        Ask(RUNS, {})]),
    ("runAt in the past", 200, ANY, run({"runAt": "2020-01-01T00:00:00Z"})),
    ("runAt 367 days ahead, without zone, on no day", 422, ANY, run(
        {"runAt": "2399-01-01T00:00:00Z"}, {"runAt": "2026-11-22T12:00:00"},
        {"runAt": "2026-02-30T00:00:00Z"})),
    ("metadata: 51 keys, 513 characters, nested, number", 422, ANY, run(
        {"metadata": many(51)}, {"metadata": {"a": "x" * 513}}, {"metadata": {"a": {"b": "c"}}},
        {"metadata": {"a": 1}}, {"metadata": {"a": ["x"] * 21}})),
    ("model parameters base_url, api_key, extra_headers", 422, ANY, [
        *run(*({"params": {name: "x"}} for name in ("base_url", "api_key", "extra_headers"))),
        *version(*({"modelParams": {name: "x"}} for name in ("base_url", "api_key", "timeout")))]),
    ("Idempotency-Key empty, 256 characters, control or non-ASCII", 400, "bad_request", keyed(
        b"", b"k" * 256, b"a\x01b", b"\xc3\xa9")),
    ("two different Idempotency-Key headers", 400, "bad_request", [
        Ask(RUNS, RUN, headers=(("idempotency-key", "a"), ("idempotency-key", "b")))]),
    ("batch of 0, of 1,001, with one invalid item, with duplicate keys", 422, ANY, [
        Ask("/runs/batch", {"runs": runs})
        for one in [{"prompt": "greeting", "version": 1} | RUN]
        for runs in ([], [one] * 1001, [one, one | {"priority": "urgent"}],
                     [one, one | {"inputs": {}}],
                     [one | {"idempotencyKey": "a"}] * 2)]),
    # Reading
    ("id not a UUID; 1 kB id; another workspace's id", 404, "not_found", [
        *get("/runs/x", f"/runs/{'a' * 1000}", "/runs/{their_run}", "/promptruns/{their_run}",
             "/webhooks/1", "/deliveries/x", "/runs/{hook}", "/webhooks/{done}"),
        Ask("/keys/x", None, "DELETE"), Ask("/runs/{hook}/cancel"),
        Ask("/runs/{hook}/replay", {})]),
    ("limit 0, 101, -1, abc, empty, repeated", 400, ANY, get(
        *(f"/{one}?limit={limit}" for one in ("runs", "prompts", "events", "webhooks")
          for limit in ("0", "101", "-1", "abc", "", "1&limit=1", "1.0", "%D9%A1", "+1", "1e1")))),
    ("cursor garbage, truncated, of another list or filter, with NUL", 400, ANY, get(
        *(f"/{where}after={one}" for where in ("runs?", "keys?", "prompts/greeting/versions?")
          for one in ("x", "", "{cursor}", "%00", "AAAA", "x" * 600)),
        "/prompts?after={cursor}A", "/prompts?after={cursor}=",
        "/prompts?after={cursor}&before={cursor}",
        "/webhooks/{hook}/deliveries?after={cursor}", "/events?after={cursor}")),
    ("filters that make no sense; unknown ones", 400, ANY, get(
        *(f"/runs?{one}" for one in (
            "status=done", "version=x", "priority=urgent", "thread=x", "createdAfter=yesterday",
            "createdBefore=2026-02-30T00:00:00Z", "nothing=1", "Status=queued", "metadata=x",
            "metadata[a]=1&metadata[a]=2", "prompt=a&prompt=b")),
        "/webhooks/{hook}/deliveries?status=x", "/runs/{done}?wait=61", "/runs/{done}?wait=-1")),
    ("cancel a finished run; cancel twice; cancel with a body", 200, ANY, [
        Ask("/runs/{done}/cancel"), Ask("/runs/{done}/cancel", {"x": 1}),
        Ask("/runs/{done}/cancel", b"{")]),
    # Prompts
    ("duplicate slug", 409, ANY, [
        Ask("/prompts", {"name": "x", "slug": "greeting"}),
        Ask("/prompts/other", {"slug": "greeting"}, "PATCH")]),
    ("template over 256 KiB, of one long line; 201 placeholders", 422, ANY, template(
        "x" * 262_145, "".join(f"{{{{ a{n} }}}}" for n in range(201)), "é" * 131_073)),
    ("empty messages; unknown role; system in the middle; 1,000 messages", 422, ANY, version(
        {"messages": []}, {"messages": [{"role": "robot", "content": "x"}]},
        {"messages": [{"role": role, "content": "x"} for role in ("user", "system", "user")]},
        {"messages": [{"role": "user", "content": "x"}] * 1000})),
    ("near misses of placeholders", 201, ANY, template("{{ a b }} {{ x|attr }} {{ {% for %}")),
    ("includes in a circle", 422, ANY, [Ask("/prompts/greeting/versions", CYCLE)]),
    ("publishing what is published or is not there", 404, ANY, [
        Ask(f"/prompts/greeting/versions/{one}/publish") for one in ("99", "0", "x", "-1")]),
    ("tags that mislead", 422, ANY, [
        Ask(f"/prompts/greeting/tags/{tag}", {"version": 1}, "PUT")
        for tag in ("1", "latest", "versions", "tags", "__latest__", "Upper", "a.b", "x" * 65,
                    "{done}")]),
    ("tag moved to a version that is not there, or to another prompt's", 404, ANY, [
        Ask("/prompts/greeting/tags/live", {"version": one}, "PUT") for one in (99, 0, -1)]),
    ("tag moved to a draft", 409, "version_not_published", [
        Ask("/prompts/greeting/tags/live", {"version": 2}, "PUT")]),
    # Environments
    ("duplicate environment name, in any case", 409, ANY, [
        Ask("/environments", {"name": name}) for name in ("staging", "Staging", "PRODUCTION")]),
    ("environment .., empty, with a slash", 422, ANY, [
        Ask("/environments", {"name": name}) for name in ("..", "", "a/b", "a b", "x" * 65, "é")]),
    ("variable lowercase, A=B, newline, 200 characters", 422, ANY, [
        Ask(f"/environments/staging/variables/{key}", {"value": "x"}, "PUT")
        for key in ("lowercase", "A=B", "A" * 200, "1A", "A-B", "%C3%84")]),
    ("read a variable's value back", 405, ANY, get("/environments/staging/variables/A")),
    # Webhooks
    ("URL empty, relative, of another scheme, too long", 422, ANY, hook(*(
        {"url": url} for url in ("", "/x", "x", "ftp://example.com/", "file:///etc/passwd",
        "javascript:alert(1)", "gopher://example.com/", "https://example.com/" + "x" * 2029)))),
    ("http where https is required", 422, ANY, hook({"url": "http://example.com/"})),
    ("userinfo, fragment, backslash", 422, ANY, hook(*({"url": url} for url in (
        "https://a:b@example.com/", "https://example.com/#x", "https://127.0.0.1\\@evil.com/")))),
    ("host empty, with space or control characters, too long, bad IDNA", 422, ANY, hook(*(
        {"url": f"https://{host}/"} for host in ("", "exa mple.com", "a\x01.com", "a\r\nb.com",
        "example.com.", "example..com", "a" * 64 + ".com", "xn--\u00fc.com")))),
    ("port 0, 22, 6379, 99999", 422, ANY, hook(*(
        {"url": f"https://example.com:{port}/"} for port in (0, 22, 6379, 99999)))),
    ("private addresses in every spelling", 422, ANY, hook(*(
        {"url": f"https://{host}/"} for host in LOOPBACK))),
    ("events with an unknown name", 422, ANY, hook({"events": ["run.done"]}, {"events": [""]})),
    ("events with duplicates", 201, ANY, [
        Ask("/webhooks", HOOK | {"events": ["run.failed", "run.failed"]})]),
    ("headers that are not the caller's to set", 422, ANY, hook(
        *({"headers": {name: "x"}} for name in (
            "Host", "Content-Length", "webhook-id", "Transfer-Encoding", "a b", "")),
        {"headers": {"X": "a\r\nb"}}, {"headers": {"X": "v" * 8192}},
        {"headers": {f"X-{n}": "v" for n in range(51)}})),
    ("secret without prefix, bad base64, too short or long, all zero", 422, "invalid_secret", [
        Ask("/webhooks", HOOK | {"secret": one}) for one in (
            "", "secret", "whsec_!!!", secret(b"x" * 23), secret(b"x" * 65), secret(bytes(32)))]),
    ("rotate with overlap -1, 604,801, '1h'", 422, ANY, [
        Ask("/webhooks/{hook}/rotate-secret", {"overlapSeconds": one})
        for one in (-1, 604_801, "1h")]),
    ("resend of an unknown, a foreign delivery", 404, "not_found", [
        Ask("/deliveries/{unknown}/resend"), Ask("/deliveries/{their_delivery}/resend")]),
    ("resend of a pending delivery; to a disabled endpoint", 409, ANY, [
        Ask("/deliveries/{hook_delivery}/resend"), Ask("/deliveries/{disabled_delivery}/resend")]),
    ("delete twice", 404, "not_found", [Ask("/webhooks/{gone}", None, "DELETE")]),
]  # fmt: skip
