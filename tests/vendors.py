"""The fake vendors: one loopback HTTP server that speaks OpenAI's and Anthropic's wire formats.

What a call gets is decided by the script of its run (`VendorServer.script`), else by its model's
name (`mock-500`, `mock-429-after-2`, `mock-hang`, …: see `named`), else it is an echo.
In a process of its own (`python -m tests.vendors --port N`) the same is steered over HTTP:
`GET /_ledger`, `POST /_script/{run id}` with steps by name, `POST /_release`.
"""

import argparse
import asyncio
import contextlib
import functools
import re
import sys
import zlib
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from types import TracebackType
from typing import Any, Self

import msgspec
from aiohttp import web

from shared.clock import SystemClock, rfc3339

BODY_LIMIT_BYTES = 64 * 1024 * 1024
HUGE_BYTES = 50_000_000
CHUNK_BYTES = 50_000
ANSWER = "Here is the answer."


@dataclass(frozen=True, slots=True)
class Step:
    """What one call gets: `answer`, `raw`, `hang`, `cut`, `cut_body`, `drip` or `huge`."""

    kind: str = "answer"
    name: str = "answer"
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    text: str | None = None
    finish: str | None = None
    usage: Mapping[str, Any] | None = None
    body: bytes = b""
    said: tuple[str | tuple[str, str], ...] = ()
    delay_s: float = 0.0


def answers(
    text: str | None = None,
    *,
    finish: str | None = None,
    usage: Mapping[str, Any] | None = None,
    headers: Mapping[str, str] | None = None,
    delay_s: float = 0.0,
    name: str = "answer",
) -> Step:
    """Answer well; `finish` and `usage` are in the vendor's own words."""
    return Step(
        text=text, finish=finish, usage=usage, headers=headers or {}, delay_s=delay_s, name=name
    )


def calls_tools(*said: str | tuple[str, str]) -> Step:
    """Answer with texts and, among them, calls of tools: their names and arguments as JSON.

    OpenAI's answers have one text, before all calls.
    """
    return Step(name="tools", said=said, text="".join(one for one in said if isinstance(one, str)))


def fails(
    status: int,
    *,
    retry_after: str | None = None,
    message: str | None = None,
    code: str = "mock_error",
    headers: Mapping[str, str] | None = None,
) -> Step:
    """Answer with an error document both vendors' clients understand."""
    wait = {} if retry_after is None else {"retry-after": retry_after}
    error = {
        "type": "error",
        "error": {
            "type": "mock_error",
            "code": code,
            "message": message or f"The mock vendor answers {status}.",
        },
    }
    return Step(
        kind="raw",
        name=str(status),
        status=status,
        headers={"content-type": "application/json", **wait, **(headers or {})},
        body=msgspec.json.encode(error),
    )


def raw(body: bytes, *, name: str, encoding: str | None = None) -> Step:
    """Answer 200 with exactly these bytes."""
    headers = {"content-type": "application/json"}
    if encoding is not None:
        headers["content-encoding"] = encoding
    return Step(kind="raw", name=name, headers=headers, body=body)


def hangs() -> Step:
    """Say nothing until released (then answer) or until the client goes away."""
    return Step(kind="hang", name="hang")


@functools.cache
def gzip_bomb(size_bytes: int = 200_000_000) -> bytes:
    """A JSON document of so many bytes, compressed about a thousandfold."""
    packer = zlib.compressobj(level=1, wbits=31)
    parts = [packer.compress(b'{"id":"')]
    block = b"a" * 1_000_000
    parts.extend(packer.compress(block) for _ in range(size_bytes // len(block)))
    parts.extend((packer.compress(b'"}'), packer.flush()))
    return b"".join(parts)


_NAMED: Mapping[str, Callable[[], Step]] = {
    "hang": hangs,
    "cut": lambda: Step(kind="cut", name="cut"),
    "cut-body": lambda: Step(kind="cut_body", name="cut-body"),
    "drip": lambda: Step(kind="drip", name="drip"),
    "bad-json": lambda: raw(b'{"id": "x", "choices": [', name="bad-json"),
    "bad-utf8": lambda: raw(b'{"id":"\xff\xfe","content":"\xc3"}', name="bad-utf8"),
    "empty": lambda: raw(b"", name="empty"),
    "html": lambda: raw(b"<html><body>Bad gateway</body></html>", name="html"),
    "wrong-schema": lambda: raw(
        b'{"id":7,"choices":{},"content":"text","usage":[]}', name="wrong-schema"
    ),
    "empty-choices": lambda: raw(
        b'{"id":"x","model":"m","choices":[],"content":[],"stop_reason":"end_turn",'
        b'"usage":{"prompt_tokens":3,"completion_tokens":0,"input_tokens":3,"output_tokens":0}}',
        name="empty-choices",
    ),
    "huge": lambda: Step(kind="huge", name="huge"),
    "bomb": lambda: raw(gzip_bomb(), name="bomb", encoding="gzip"),
    "bad-gzip": lambda: raw(b"\x1f\x8b\x08 not gzip at all", name="bad-gzip", encoding="gzip"),
    "nul": lambda: answers("before\x00after", name="nul"),
    "truncated": lambda: answers("cut sho", finish="max_tokens", name="truncated"),
    "filtered": lambda: answers("", finish="refusal", name="filtered"),
}
_STATUS_NAME = re.compile(r"(\d{3})(?:-after-(.+))?")


def named(name: str) -> Step:
    """The step of a name: `500`, `429-after-2`, `hang`, `cut`, … or `answer`. Unknown: KeyError."""
    if name == "answer":
        return answers()
    if status := _STATUS_NAME.fullmatch(name):
        return fails(int(status[1]), retry_after=status[2])
    return _NAMED[name]()


@dataclass(slots=True, eq=False)
class Call:
    """One request as it came in. `ended` is set when it was answered or the client went away."""

    number: int
    vendor: str
    run_id: str
    attempt: int
    model: str
    headers: Mapping[str, str]
    body: Mapping[str, Any]
    received_at: datetime
    peer: str  # one for each connection
    step: str
    client_left: bool = False
    ended: asyncio.Event = field(default_factory=asyncio.Event)


class VendorServer:
    """An async context manager; its `url` serves both vendors (OpenAI's base URL is `url/v1`)."""

    def __init__(self, *, port: int = 0, delay_s: float = 0.0, keep_ledger: bool = True) -> None:
        self.ledger: list[Call] = []
        self.released = asyncio.Event()
        self.of_keys: dict[str, Step] = {}
        """What every call with a credential gets, whatever else it asks for."""
        self._port = port
        self._delay_s = delay_s
        self._keep_ledger = keep_ledger
        self._scripts: dict[str, deque[Step]] = {}
        self._arrived = asyncio.Condition()
        self._clock = SystemClock()
        app = web.Application(client_max_size=BODY_LIMIT_BYTES)
        app.router.add_post("/v1/chat/completions", functools.partial(self._serve, "openai"))
        app.router.add_post("/v1/messages", functools.partial(self._serve, "anthropic"))
        app.router.add_get("/_ledger", self._show_ledger)
        app.router.add_post("/_script/{run_id}", self._take_script)
        app.router.add_post("/_release", self._take_release)
        self._runner = web.AppRunner(
            app, handler_cancellation=True, access_log=None, shutdown_timeout=0.1
        )

    async def __aenter__(self) -> Self:
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self._port, backlog=4096).start()
        self._port = self._runner.addresses[0][1]
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.released.set()
        await self._runner.cleanup()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    @property
    def openai_url(self) -> str:
        return f"{self.url}/v1"

    def script(self, run_id: str, steps: list[Step]) -> None:
        """Let the next calls of a run get these, in order; afterwards its model's name decides."""
        self._scripts[run_id] = deque(steps)

    def release(self) -> None:
        """Let every hanging call answer, now and from now on."""
        self.released.set()

    def calls_of(self, run_id: str) -> list[Call]:
        return [call for call in self.ledger if call.run_id == run_id]

    async def called(self, count: int = 1, *, timeout_s: float = 5.0) -> Call:
        """Wait until so many calls have come in, ever; answers the last of them."""
        async with asyncio.timeout(timeout_s), self._arrived:
            await self._arrived.wait_for(lambda: len(self.ledger) >= count)
        return self.ledger[count - 1]

    async def _serve(self, vendor: str, request: web.Request) -> web.StreamResponse:
        body: dict[str, Any] = msgspec.json.decode(await request.read())
        run_id = request.headers.get("x-runlane-run", "")
        step = self.of_keys.get(_key(request)) or self._next_step(
            run_id, str(body.get("model", ""))
        )
        call = Call(
            number=len(self.ledger) + 1,
            vendor=vendor,
            run_id=run_id,
            attempt=int(request.headers.get("x-runlane-attempt", "0")),
            model=str(body.get("model", "")),
            headers={name.lower(): value for name, value in request.headers.items()},
            body=body,
            received_at=self._clock.now(),
            peer=str(_transport(request).get_extra_info("peername")),
            step=step.name,
        )
        if self._keep_ledger:
            async with self._arrived:
                self.ledger.append(call)
                self._arrived.notify_all()
        try:
            return await self._react(request, call, step)
        except (asyncio.CancelledError, ConnectionError):
            call.client_left = True
            raise
        finally:
            call.ended.set()

    def _next_step(self, run_id: str, model: str) -> Step:
        if script := self._scripts.get(run_id):
            return script.popleft()
        if model.startswith("mock-"):
            return named(model.removeprefix("mock-"))
        return answers(delay_s=self._delay_s)

    async def _react(self, request: web.Request, call: Call, step: Step) -> web.StreamResponse:
        if step.delay_s:
            await asyncio.sleep(step.delay_s)
        if step.kind == "hang":
            await self.released.wait()
        ids = {_ID_HEADER[call.vendor]: f"req_{call.number}"}
        if step.kind == "raw":
            headers = {**ids, **step.headers}
            return web.Response(status=step.status, body=step.body, headers=headers)
        if step.kind == "cut":
            _transport(request).abort()
            return web.Response()
        if step.kind == "huge":
            return await _send_huge(request, ids)
        body = _ANSWERS[call.vendor](call, step)
        headers = {"content-type": "application/json", **ids, **step.headers}
        if step.kind == "cut_body":
            return await _send_half(request, headers, body)
        if step.kind == "drip":
            return await _drip(request, headers, body)
        return web.Response(body=body, headers=headers)

    async def _show_ledger(self, _: web.Request) -> web.Response:
        calls = [
            {
                "number": call.number,
                "vendor": call.vendor,
                "runId": call.run_id,
                "attempt": call.attempt,
                "model": call.model,
                "headers": call.headers,
                "body": call.body,
                "receivedAt": rfc3339(call.received_at),
                "step": call.step,
                "ended": call.ended.is_set(),
                "clientLeft": call.client_left,
            }
            for call in self.ledger
        ]
        return web.Response(body=msgspec.json.encode(calls), content_type="application/json")

    async def _take_script(self, request: web.Request) -> web.Response:
        names = msgspec.json.decode(await request.read(), type=list[str])
        self.script(request.match_info["run_id"], [named(name) for name in names])
        return web.Response(status=204)

    async def _take_release(self, _: web.Request) -> web.Response:
        self.release()
        return web.Response(status=204)


_ID_HEADER = {"openai": "x-request-id", "anthropic": "request-id"}


def _key(request: web.Request) -> str:
    bearer = request.headers.get("authorization", "").removeprefix("Bearer ")
    return request.headers.get("x-api-key", bearer)


def _transport(request: web.Request) -> asyncio.WriteTransport:
    transport = request.transport
    if transport is None:
        raise ConnectionResetError("The client went away.")
    return transport


async def _send_half(
    request: web.Request, headers: Mapping[str, str], body: bytes
) -> web.StreamResponse:
    response = web.StreamResponse(headers={**headers, "content-length": str(len(body))})
    await response.prepare(request)
    await response.write(body[: len(body) // 2])
    _transport(request).close()
    return response


async def _send_huge(request: web.Request, headers: Mapping[str, str]) -> web.StreamResponse:
    response = web.StreamResponse(headers={**headers, "content-type": "application/json"})
    await response.prepare(request)
    await response.write(b'{"id":"')
    for _ in range(HUGE_BYTES // CHUNK_BYTES):
        await response.write(b"a" * CHUNK_BYTES)
    await response.write(b'"}')
    return response


async def _drip(
    request: web.Request, headers: Mapping[str, str], body: bytes
) -> web.StreamResponse:
    response = web.StreamResponse(headers={**headers, "content-length": str(len(body))})
    await response.prepare(request)
    for offset in range(len(body)):
        await response.write(body[offset : offset + 1])
        await asyncio.sleep(0.05)
    return response


def _said(body: Mapping[str, Any]) -> str:
    """What the user said last: the echo lets a test see that the right prompt arrived."""
    for message in reversed(body["messages"]):
        if message["role"] == "user":
            return f"{ANSWER} You said: {message['content']}"
    return ANSWER


def _tokens(text: str) -> int:
    return len(text) // 4 + 1


def _openai_answer(call: Call, step: Step) -> bytes:
    text = _said(call.body) if step.text is None else step.text
    spent = (_tokens(str(call.body["messages"])), _tokens(text))
    finish = {"max_tokens": "length", "refusal": "content_filter"}.get(step.finish or "")
    usage = step.usage or {
        "prompt_tokens": spent[0],
        "completion_tokens": spent[1],
        "total_tokens": sum(spent),
        "prompt_tokens_details": {"cached_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 0},
    }
    document = {
        "id": f"chatcmpl-{call.number}",
        "object": "chat.completion",
        "created": 1_700_000_000,
        "model": f"{call.model}-2026-01-01",
        "choices": [
            {
                "index": 0,
                "message": {
                    "role": "assistant",
                    "content": text or (None if step.said else text),
                    "refusal": None,
                    **_openai_calls(step),
                },
                "logprobs": None,
                "finish_reason": finish or step.finish or ("tool_calls" if step.said else "stop"),
            }
        ],
        "usage": usage,
        "service_tier": "default",
        "system_fingerprint": "fp_mock",
    }
    return msgspec.json.encode(document)


def _openai_calls(step: Step) -> dict[str, Any]:
    calls = [
        {
            "id": f"call_{number}",
            "type": "function",
            "function": {"name": one[0], "arguments": one[1]},
        }
        for number, one in enumerate(step.said)
        if not isinstance(one, str)
    ]
    return {"tool_calls": calls} if calls else {}


def _anthropic_block(number: int, said: str | tuple[str, str]) -> dict[str, Any]:
    if isinstance(said, str):
        return {"type": "text", "text": said}
    name, arguments = said
    return {
        "type": "tool_use",
        "id": f"toolu_{number}",
        "name": name,
        "input": msgspec.Raw(arguments.encode()),
    }


def _anthropic_answer(call: Call, step: Step) -> bytes:
    text = _said(call.body) if step.text is None else step.text
    usage = step.usage or {
        "input_tokens": _tokens(str(call.body["messages"])),
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": 0,
        "output_tokens": _tokens(text),
        "service_tier": "standard",
    }
    document = {
        "id": f"msg_{call.number}",
        "type": "message",
        "role": "assistant",
        "model": f"{call.model}-20260101",
        "content": [
            _anthropic_block(number, one)
            for number, one in enumerate(step.said or ([text] if text else []))
        ],
        "stop_reason": step.finish or ("tool_use" if step.said else "end_turn"),
        "stop_sequence": None,
        "usage": usage,
    }
    return msgspec.json.encode(document)


_ANSWERS: Mapping[str, Callable[[Call, Step], bytes]] = {
    "openai": _openai_answer,
    "anthropic": _anthropic_answer,
}


async def _main() -> None:
    options = argparse.ArgumentParser(description="Serve the fake vendors until interrupted.")
    options.add_argument("--port", type=int, default=0)
    options.add_argument("--delay", type=float, default=0.0, help="seconds before each answer")
    options.add_argument("--no-ledger", action="store_true", help="keep no calls, for benchmarks")
    given = options.parse_args()
    async with VendorServer(
        port=given.port, delay_s=given.delay, keep_ledger=not given.no_ledger
    ) as server:
        sys.stdout.write(f"{server.url}\n")
        sys.stdout.flush()
        await asyncio.Event().wait()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_main())
