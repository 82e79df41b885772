"""The client that commands share: what it repeats, what it does not, and what it says."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import aiohttp
import pytest
from aiohttp import web

from cli import client
from cli.client import Client, RefusedError, Server, UnreachableError, UsageError

KEY = "rl_key"
PROBLEM = {
    "code": "unacceptable",
    "detail": "Two things are wrong.",
    "requestId": "r-1",
    "errors": [
        {"pointer": "/inputs/name", "message": "This input is needed."},
        {"pointer": "/tags", "message": "Too many."},
    ],
}

Reaction = Callable[[web.Request], Awaitable[web.Response]]


@dataclass
class Script:
    """A server that answers as told, then 200 for ever."""

    reactions: list[Reaction | web.Response] = field(default_factory=list)
    asked: list[tuple[str, str, str | None, bytes]] = field(default_factory=list)
    url: str = ""

    async def __aenter__(self) -> Self:
        app = web.Application()
        app.router.add_route("*", "/{rest:.*}", self._answer)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._runner.cleanup()

    async def _answer(self, request: web.Request) -> web.Response:
        key = request.headers.get("Idempotency-Key")
        body = await request.read()
        self.asked.append((request.method, request.raw_path, key, body))
        if not self.reactions:
            return web.json_response({"all": "well"})
        reaction = self.reactions.pop(0)
        return reaction if isinstance(reaction, web.Response) else await reaction(request)


@pytest.fixture
async def script() -> AsyncIterator[Script]:
    async with Script() as script:
        yield script


@pytest.fixture
async def api(script: Script) -> AsyncIterator[Client]:
    async with aiohttp.ClientSession() as session:
        yield Client(Server(script.url, KEY), session)


def _problem(status: int, code: str = "unavailable", **headers: str) -> web.Response:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return web.json_response(PROBLEM | {"code": code}, status=status, headers=named)


async def _hang_up(request: web.Request) -> web.Response:
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


@pytest.mark.parametrize("status", [429, 503])
async def test_an_answer_that_asks_for_patience_is_waited_for(
    script: Script, api: Client, status: int
) -> None:
    script.reactions = [_problem(status, Retry_After="0"), _problem(status, Retry_After="1")]
    troubles: list[str] = []
    api.on_trouble = troubles.append
    api.patience_s = 5

    answer = await api.get("/x")

    assert {"all": "well"} == answer
    assert [f"{script.url} answers {status}"] * 2 == troubles


async def test_a_post_with_a_key_is_repeated_as_it_was(script: Script, api: Client) -> None:
    script.reactions = [_hang_up, _problem(500, "outcome_unknown"), _problem(409, Retry_After="0")]

    await api.post("/x", {"a": 1}, key="k-1")

    assert [("POST", "/x", "k-1", b'{"a":1}')] * 4 == script.asked


@pytest.mark.parametrize(
    "reaction", [_hang_up, _problem(503, Retry_After="0"), _problem(500, "outcome_unknown")]
)
async def test_a_post_without_a_key_is_sent_once(
    script: Script, api: Client, reaction: Any
) -> None:
    script.reactions = [reaction]

    with pytest.raises(client.CommandError):
        await api.post("/x", {"a": 1})

    assert 1 == len(script.asked)


async def test_an_end_without_an_answer_to_what_cannot_be_repeated_says_to_look(
    script: Script, api: Client
) -> None:
    script.reactions = [_hang_up]

    with pytest.raises(UnreachableError, match="may have been done: look before you repeat it"):
        await api.post("/x", {"a": 1})


@pytest.mark.parametrize("status", [400, 403, 404, 409, 412, 422, 500])
async def test_a_refusal_is_not_repeated(script: Script, api: Client, status: int) -> None:
    script.reactions = [_problem(status, "some_code")]

    with pytest.raises(RefusedError) as refused:
        await api.get("/x")

    assert (status, "some_code", 1) == (
        refused.value.status,
        refused.value.code,
        len(script.asked),
    )
    assert (
        "Two things are wrong. (some_code, request r-1)\n"
        "  /inputs/name: This input is needed.\n"
        "  /tags: Too many." == str(refused.value)
    )


async def test_patience_ends_with_the_last_answer(script: Script, api: Client) -> None:
    script.reactions = [_problem(503, Retry_After="3600")]

    with pytest.raises(RefusedError, match="unavailable"):
        await api.get("/x")


async def test_a_wrong_key_is_named_and_not_shown(script: Script, api: Client) -> None:
    script.reactions = [_problem(401, "unauthorized")]

    with pytest.raises(RefusedError, match="does not accept the key in RUNLANE_API_KEY") as refused:
        await api.get("/x")

    assert KEY not in str(refused.value)


@pytest.mark.parametrize(
    "answer",
    [
        web.Response(text="<html>", content_type="text/html"),
        web.Response(status=404, text="<html>", content_type="text/html"),
        web.json_response([1], status=400),
        web.Response(status=302, headers={"Location": "https://example.com/login"}),
    ],
)
async def test_another_server_is_recognised(
    script: Script, api: Client, answer: web.Response
) -> None:
    script.reactions = [answer]

    with pytest.raises(UnreachableError, match="is no Runlane"):
        await api.get("/x")


async def test_a_server_that_is_not_there_is_tried_for_a_moment() -> None:
    async with aiohttp.ClientSession() as session:
        away = Client(Server("http://127.0.0.1:9", KEY), session)
        troubles: list[str] = []
        away.on_trouble = troubles.append

        async with asyncio.timeout(5):
            with pytest.raises(UnreachableError, match=r"connection refused.*Is it running\?"):
                await away.get("/x")

    assert troubles


async def test_pages_are_followed_up_to_the_limit(script: Script, api: Client) -> None:
    first = {"data": list(range(100)), "hasMore": True, "nextCursor": "c 1"}
    second = {"data": list(range(50)), "hasMore": True, "nextCursor": "c 2"}
    script.reactions = [web.json_response(first), web.json_response(second)]

    rows = [row async for page in api.pages("/runs", {"status": ["a", "b"]}, 150) for row in page]

    assert 150 == len(rows)
    assert [
        "/runs?status=a&status=b&limit=100",
        "/runs?status=a&status=b&limit=50&after=c+1",
    ] == [where for _, where, _, _ in script.asked]


def test_each_part_of_an_address_is_quoted() -> None:
    assert "/api/v1/prompts/a%2Fb%3F%20%23/1/runs" == client.path("prompts", "a/b? #", "1", "runs")


@pytest.mark.parametrize(
    ("given", "used"),
    [
        ("localhost:8000", "http://localhost:8000"),
        ("https://runlane.example.com/", "https://runlane.example.com"),
        ("http://[::1]:8000", "http://[::1]:8000"),
    ],
)
def test_an_address_may_be_typed_short(given: str, used: str) -> None:
    assert used == client.find_server(given, KEY).url


@pytest.mark.parametrize("url", ["ftp://x", "http://", "http://[::1", "x:y", "http://x/\n", "x?a"])
def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(UsageError, match="is no address: try"):
        client.find_server(url, KEY)


def test_a_key_that_would_break_a_header_is_refused_and_not_shown() -> None:
    with pytest.raises(UsageError) as refused:
        client.find_server("http://x", "rl_\nhush-hush")

    assert "hush-hush" not in str(refused.value)


def test_the_key_of_a_dev_server_goes_nowhere_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "dev.env").write_text(
        "export RUNLANE_URL=http://127.0.0.1:8000\nexport RUNLANE_API_KEY=rl_dev\n"
    )
    monkeypatch.setenv("DATA_DIR", str(tmp_path))

    assert "rl_dev" == client.find_server(None, None).key
    assert "rl_dev" == client.find_server("http://127.0.0.1:8000/", None).key
    with pytest.raises(UsageError, match="Set RUNLANE_API_KEY to a key of https://elsewhere"):
        client.find_server("https://elsewhere", None)


def test_nothing_set_says_what_to_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATA_DIR", str(tmp_path))

    with pytest.raises(UsageError, match="Set RUNLANE_URL"):
        client.find_server(None, None)
