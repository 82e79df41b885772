"""`runlane listen`: follows the feed of events and posts each, signed, to an address of yours."""

import asyncio
import signal
from collections.abc import Callable
from http import HTTPStatus
from typing import Any

import aiohttp
import msgspec

from cli import client
from cli.serve import StartError
from shared import tasks
from shared.clock import Clock
from shared.domain import signing

POLL_S = 0.5
FIRST_WAIT_S = 0.5
LONGEST_WAIT_S = 10.0
_FEED_TIMEOUT = aiohttp.ClientTimeout(total=10)
_FORWARD_TIMEOUT = aiohttp.ClientTimeout(total=15)
_ANSWER_BYTES = 16_384

Print = Callable[[str], None]


class _Page(msgspec.Struct, frozen=True, rename="camel"):
    data: list[msgspec.Raw]
    has_more: bool
    next_cursor: str


class _Event(msgspec.Struct, frozen=True):
    id: str
    type: str
    data: dict[str, Any]

    @property
    def subject(self) -> str:
        """What it is about, in two words."""
        run = self.data.get("run")
        return f"run {run['id']}" if run else f"webhook {self.data.get('webhook')}"


class _AwayError(Exception):
    """The API cannot be asked right now; the message says how it looked."""


class _ResetError(Exception):
    """The database was restored: the place in the feed means nothing any more."""


_pages = msgspec.json.Decoder(_Page)
_events = msgspec.json.Decoder(_Event)


class Feed:
    """The events of one server, page by page, from the moment of the first look on."""

    def __init__(self, session: aiohttp.ClientSession, url: str, environment: str | None) -> None:
        self._session = session
        self._url = url
        self._query = {} if environment is None else {"environment": environment}
        self._after = "now"

    async def page(self) -> _Page:
        """What came since the last page. Raises `StartError` for what only a person can change."""
        query = {**self._query, "after": self._after, "limit": "100"}
        try:
            async with self._session.get(f"{self._url}/api/v1/events", params=query) as answer:
                body = await answer.read()
        except (aiohttp.ClientError, TimeoutError) as error:
            why = client.reason(error)
            raise _AwayError(f"No Runlane answers at {self._url} ({why})") from error
        if answer.status == HTTPStatus.CONFLICT:
            self._after = "now"
            raise _ResetError
        if answer.status != HTTPStatus.OK:
            self._refused(answer.status, body)
        try:
            page = _pages.decode(body)
        except msgspec.MsgspecError as error:
            raise StartError(f"What answers at {self._url} is no Runlane.") from error
        self._after = page.next_cursor
        return page

    def _refused(self, status: int, body: bytes) -> None:
        if status >= HTTPStatus.INTERNAL_SERVER_ERROR or status == HTTPStatus.TOO_MANY_REQUESTS:
            raise _AwayError(f"{self._url} answers {status}")
        if status == HTTPStatus.UNAUTHORIZED:
            raise StartError(
                f"{self._url} does not accept the key in RUNLANE_API_KEY: it is wrong, expired, "
                "revoked, or of another server."
            )
        try:
            detail = str(msgspec.json.decode(body)["detail"])
        except (msgspec.MsgspecError, KeyError, TypeError):
            detail = "this version of it may have no feed of events"
        raise StartError(f"{self._url} answers {status}: {detail}")


class Forwarder:
    """Posts events to one address, signed like a webhook, once each."""

    def __init__(
        self, session: aiohttp.ClientSession, target: str, secret: str, clock: Clock
    ) -> None:
        self._session = session
        self._target = target
        self._secret = secret
        self._clock = clock

    async def forward(self, body: bytes, event_id: str) -> str:
        """Send one event; says what came of it."""
        timestamp_s = int(self._clock.now().timestamp())
        headers = signing.sign_standard(
            [self._secret], event_id=event_id, timestamp_s=timestamp_s, body=body
        )
        headers["content-type"] = "application/json"
        began = self._clock.monotonic()
        try:
            async with self._session.post(
                self._target, data=body, headers=headers, allow_redirects=False
            ) as answer:
                await answer.content.read(_ANSWER_BYTES)
        except (aiohttp.ClientError, TimeoutError) as error:
            return f"not delivered: {client.reason(error)}"
        took_ms = round((self._clock.monotonic() - began) * 1000)
        return f"{answer.status} in {took_ms} ms"


async def run(
    server: client.Server, forward: str, environment: str | None, secret: str | None, clock: Clock
) -> None:
    """Forward events until told to stop. Raises `StartError`, `SecretError`."""
    target = client.complete(forward)
    if target is None:
        raise StartError(f"--forward {forward!r} is no address: try http://localhost:3000/hook.")
    secret = signing.new_secret() if secret is None else secret
    signing.parse_secret(secret)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    headers = {"Authorization": f"Bearer {server.key}"}
    async with (
        aiohttp.ClientSession(headers=headers, timeout=_FEED_TIMEOUT) as asking,
        aiohttp.ClientSession(timeout=_FORWARD_TIMEOUT) as sending,
    ):
        feed = Feed(asking, server.url, environment)
        try:
            await feed.page()
        except _AwayError as error:
            raise StartError(f"{error}: is it running?") from error
        _say(f"Forwarding events of {server.url} to {target} (Ctrl-C ends it)")
        _say(f"Signed with the secret {secret}")
        following = loop.create_task(
            follow(feed, Forwarder(sending, target, secret, clock), clock, _say)
        )
        stopping = loop.create_task(_until(stop))
        await asyncio.wait({following, stopping}, return_when=asyncio.FIRST_COMPLETED)
        await tasks.end([following, stopping])
        if not following.cancelled():
            following.result()


async def follow(feed: Feed, forwarder: Forwarder, clock: Clock, say: Print) -> None:
    """Forward what the feed shows, in its order; an API that goes away is waited for."""
    wait_s, away = FIRST_WAIT_S, False
    while True:
        try:
            page = await feed.page()
        except _AwayError as error:
            if not away:
                say(f"{error}. Trying again until it does…")
            away = True
            await asyncio.sleep(wait_s)
            wait_s = min(wait_s * 2, LONGEST_WAIT_S)
            continue
        except _ResetError:
            say("The database was restored: going on with what happens from now on.")
            continue
        if away:
            say("It answers again.")
        wait_s, away = FIRST_WAIT_S, False
        for body in page.data:
            event = _events.decode(body)
            outcome = await forwarder.forward(bytes(body), event.id)
            say(f"{clock.now():%H:%M:%S}  {event.type}  {event.subject}  → {outcome}")
        if not page.has_more:
            await asyncio.sleep(POLL_S)


async def _until(stop: asyncio.Event) -> None:
    await stop.wait()


def _say(line: str) -> None:
    print(line, flush=True)
