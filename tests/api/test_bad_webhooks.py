"""The rows of bad input that concern webhooks, at the routes, as it is outside development."""

from base64 import b64encode
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from shared import deps as shared_deps
from shared.deps import Deps
from shared.settings import Settings
from tests.api.clients import client_with
from tests.api.refusals import JSON, refused
from tests.factories import Tenant

URL = "https://example.com/hook"
SECRET = "whsec_" + b64encode(bytes(range(1, 33))).decode()


@pytest.fixture
async def client(
    settings: Settings, deps: Deps, tenant: Tenant
) -> AsyncIterator[httpx.AsyncClient]:
    production = settings.model_copy(update={"dev_mode": False})
    strict = shared_deps.build(production, deps.clock, deps.random, deps.store, deps.lanes)
    async with client_with(strict, tenant.key) as client:
        yield client


def _secret(data: bytes) -> str:
    return "whsec_" + b64encode(data).decode()


URLS = [
    "", "/relative", "relative", "//example.com/", "example.com", "ftp://example.com/",
    "file:///etc/passwd", "javascript:alert(1)", "gopher://example.com/", "data:,x",
    "https://example.com/" + "x" * 2_029,
    "http://example.com/",
    "https://a:b@example.com/", "https://a@example.com/", "https://example.com/#x",
    "https://example.com/#", "https://127.0.0.1\\@evil.com/", "https://evil.com\\.example.com/",
    "https://", "https:///path", "https://exa mple.com/", "https://example.com/a b",
    "https://example.com/\x01", "https://example.com/\r\nX: y", "https://example.com\t/",
    "https://example.com./", "https://example..com/", "https://.example.com/",
    f"https://{'a' * 64}.com/", "https://xn--a.com/", "https://xn--\u00fc.com/",
    "https://\u200b.com/", "https://-a.com/",
    *[f"https://example.com:{port}/" for port in ("0", "22", "6379", "99999", "-1", "x", "")],
    *[f"https://{host}/" for host in (
        "127.0.0.1", "127.1", "2130706433", "0x7f000001", "0", "localhost", "a.localhost",
        "LOCALHOST", "[::1]", "[::]", "[::ffff:7f00:1]", "[::ffff:127.0.0.1]", "169.254.169.254",
        "10.0.0.1", "100.64.0.1", "224.0.0.1", "192.168.0.1", "172.16.0.1", "0.0.0.1",
        "0177.0.0.1", "\u2460\u2461\u2466.\u24ea.\u24ea.\u2460", "[fe80::1]", "[fd00::1]",
        "[64:ff9b::7f00:1]", "[2002:7f00:1::]", "[::7f00:1]", "[fe80::1%25eth0]", "[::1",
    )],
]  # fmt: skip
FIELDS: list[tuple[str, dict[str, Any]]] = [
    ("/events/0", {"events": ["run.finished"]}),
    ("/events/1", {"events": ["ping", "RUN.FAILED"]}),
    ("/events/0", {"events": [""]}),
    ("/events/0", {"events": [1]}),
    ("/events", {"events": {"run.failed": True}}),
    *[
        (f"/headers/{name}", {"headers": {name: "x"}})
        for name in ("Host", "Content-Length", "webhook-id", "Transfer-Encoding",
                     "Webhook-Signature", "connection", "Proxy-Authorization", "content-type",
                     "a b", "a:b")
    ],
    ("/headers/", {"headers": {"": "x"}}),
    ("/headers/X", {"headers": {"X": "a\r\nY: b"}}),
    ("/headers/X", {"headers": {"X": "a\nb"}}),
    ("/headers/X", {"headers": {"X": "caf\u00e9"}}),
    ("/headers/X", {"headers": {"X": "v" * 8_192}}),
    ("/headers", {"headers": {"X": 1}}),
    ("/headers", {"headers": {"X": None}}),
    ("/headers/x", {"headers": {"X": "a", "x": "b"}}),
    ("/headers", {"headers": {f"X-{n}": "v" for n in range(51)}}),
    ("/headers", {"headers": [["X", "v"]]}),
    ("/headers", {"headers": {"a\tb": "x"}}),
    ("/format", {"format": "xml"}),
    ("/includeOutput", {"includeOutput": 1}),
    ("/environments/0", {"environments": ["nowhere"]}),
    ("/id", {"id": "x"}),
    ("/createdAt", {"createdAt": "2026-11-22T12:00:00Z"}),
    ("/disabledAt", {"disabledAt": None}),
    ("/URL", {"URL": URL}),
]  # fmt: skip
SECRETS = [
    "", "secret", SECRET.removeprefix("whsec_"), SECRET.upper(), "whsec_", "whsec_!!!",
    SECRET + "=", SECRET[:-1], SECRET + "\n", _secret(b"x" * 23), _secret(b"x" * 65),
    _secret(bytes(32)), SECRET.replace("/", "_").replace("+", "-") + "-_",
]  # fmt: skip


async def _listed(client: httpx.AsyncClient) -> list[Any]:
    data: list[Any] = (await client.get("/webhooks")).json()["data"]
    return data


def _first(answer: httpx.Response) -> str:
    return str(answer.json()["errors"][0]["pointer"])


async def test_a_url_that_no_webhook_may_have_is_refused_at_its_creation_and_at_its_change(
    client: httpx.AsyncClient,
) -> None:
    path = f"/webhooks/{(await client.post('/webhooks', json={'url': URL})).json()['id']}"

    created = {url: await client.post("/webhooks", json={"url": url}) for url in URLS}
    changed = {url: await client.patch(path, json={"url": url}) for url in URLS}

    expected = dict.fromkeys(URLS, (422, "/url"))
    for answers in (created, changed):
        assert expected == {
            url: (refused(answer)[0], _first(answer)) for url, answer in answers.items()
        }
    assert [URL] == [one["url"] for one in await _listed(client)]


async def test_a_field_that_will_not_do_is_named_at_creation_and_change(
    client: httpx.AsyncClient,
) -> None:
    path = f"/webhooks/{(await client.post('/webhooks', json={'url': URL})).json()['id']}"
    before = await _listed(client)

    created = [await client.post("/webhooks", json={"url": URL} | fields) for _, fields in FIELDS]
    changed = [await client.patch(path, json=fields) for _, fields in FIELDS]

    expected = [(422, pointer) for pointer, _ in FIELDS]
    for answers in (created, changed):
        assert expected == [(refused(answer)[0], _first(answer)) for answer in answers]
    assert before == await _listed(client)


async def test_a_secret_that_protects_nothing_is_refused_and_never_repeated(
    client: httpx.AsyncClient,
) -> None:
    answers = [await client.post("/webhooks", json={"url": URL, "secret": s}) for s in SECRETS]

    assert [(422, "invalid_secret")] * len(SECRETS) == [refused(answer) for answer in answers]
    assert [] == [
        answer.text for answer, one in zip(answers, SECRETS, strict=True) if len(one) > 8
        and one in answer.text
    ]  # fmt: skip
    assert [] == await _listed(client)


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400), (b"{", 400), (b'{"url": "x"} trailing', 400), (b"[]", 422), (b"null", 422),
        (b'"x"', 422), (b"{}", 422), (b'{"url": null}', 422), (b'{"url": 1}', 422),
        (b'{"url": "https://a.example/\\u0000"}', 422),
        (b'{"url": "https://a.example/\\ud800"}', 400),
        (b'{"url": "https://a.example/", "url": "https://b.example/"}', 422),
        (b'{"url": "https://a.example/", "headers": {"a\\u0001": "x"}}', 422),
        (b'{"url": "https://a.example/", "description": "' + b"x" * 262_144 + b'"}', 413),
    ],
)  # fmt: skip
async def test_a_body_that_is_no_webhook_is_refused(
    client: httpx.AsyncClient, body: bytes, status: int
) -> None:
    answer = await client.post("/webhooks", content=body, headers=JSON)

    assert status == refused(answer)[0]
    assert [] == await _listed(client)


async def test_a_creation_cut_anywhere_creates_nothing(client: httpx.AsyncClient) -> None:
    body = b'{"url": "https://example.com/", "description": "' + b"x" * 1_900 + b'"}'

    answers = [
        await client.post("/webhooks", content=body[:length], headers=JSON)
        for length in range(0, len(body), 200)
    ]

    assert {400} == {refused(answer)[0] for answer in answers}
    assert [] == await _listed(client)


async def test_what_is_shown_of_a_webhook_is_no_creation_and_no_change(
    client: httpx.AsyncClient,
) -> None:
    made = (await client.post("/webhooks", json={"url": URL})).json()
    path = f"/webhooks/{made['id']}"
    shown = (await client.get(path)).json()

    answers = [
        await client.post("/webhooks", json=made),
        await client.post("/webhooks", json=shown),
        await client.patch(path, json=shown),
        *[await client.post(f"{path}/{action}", json=shown)
          for action in ("test", "enable", "recover", "rotate-secret")],
    ]  # fmt: skip

    assert {422} == {refused(answer)[0] for answer in answers}
    assert [shown] == await _listed(client)


async def test_another_thing_s_id_is_no_webhook_s(
    client: httpx.AsyncClient, tenant: Tenant
) -> None:
    hook = (await client.post("/webhooks", json={"url": URL})).json()["id"]
    key = (await client.get("/keys")).json()["data"][0]["id"]
    others = [key, str(tenant.environment_id), str(tenant.workspace_id), hook.upper() + "0", "%00"]

    answers = [
        await client.request(method, path)
        for one in others
        for method, path in [
            ("GET", f"/webhooks/{one}"), ("DELETE", f"/webhooks/{one}"),
            ("GET", f"/webhooks/{one}/secret"), ("GET", f"/webhooks/{one}/deliveries"),
            ("POST", f"/webhooks/{one}/test"), ("POST", f"/webhooks/{one}/enable"),
            ("POST", f"/webhooks/{one}/rotate-secret"), ("GET", f"/deliveries/{one}"),
            ("POST", f"/deliveries/{one}/resend"), ("GET", f"/deliveries/{hook}"),
        ]
    ]  # fmt: skip

    assert {(404, "not_found")} == {refused(answer) for answer in answers}
    assert [hook] == [one["id"] for one in await _listed(client)]
