"""What a template wants of an answer: its format, and what its tools are called with."""

from collections.abc import Sequence
from typing import Any

import msgspec
from msgspec import Raw

from shared.domain.completions import Completion, ToolCall
from shared.domain.formats import JsonSchemaFormat, TextFormat
from shared.domain.schemas import Checker
from shared.domain.versions import TemplateBody
from worker.providers import wire

MAX_EMITS = 32
_SHOWN_CHARS = 1_000


class Judged(msgspec.Struct, frozen=True):
    """An answer as the template sees it.

    `miss` is what is wrong with it, and `is_final` that nobody shall correct that. `transcript` is
    there when tools were called: texts and payloads in their order. `remembered` is what a thread
    keeps of the answer.
    """

    remembered: str = ""
    transcript: Raw | None = None
    miss: str | None = None
    is_final: bool = False


class Checks:
    """Judges the answers to a template. Make it once for a version and keep it."""

    def __init__(self, template: TemplateBody) -> None:
        """Raises `SchemaError`."""
        wanted = template.response_format
        self._format: Checker | None = None
        if not isinstance(wanted, TextFormat):
            schema = wanted.schema if isinstance(wanted, JsonSchemaFormat) else None
            self._format = Checker(schema)
        self._tools = {tool.name: Checker(tool.params_schema) for tool in template.tools}
        self._fail_fast = {tool.name for tool in template.tools if tool.fail_fast}

    def judge(self, answer: Completion) -> Judged:
        """Hold an answer against its template; one that was cut or filtered says so itself."""
        calls = [part for part in answer.said if isinstance(part, ToolCall)]
        emitted = [self._emitted(call, number) for number, call in enumerate(calls)]
        bad = [(call, why) for call, why in zip(calls, emitted, strict=True) if _is_miss(why)]
        miss = str(bad[0][1]) if bad else self._miss_of_text(answer, calls)
        if answer.incomplete is not None:
            miss = None
        return Judged(
            remembered=answer.text if answer.text.strip() else _written(calls, emitted),
            transcript=_transcript(answer.said, emitted) if calls else None,
            miss=None if miss is None else wire.plain(miss[: wire.MESSAGE_MAX_CHARS]),
            is_final=any(call.tool in self._fail_fast for call, _ in bad),
        )

    def _miss_of_text(self, answer: Completion, calls: Sequence[ToolCall]) -> str | None:
        """What is wrong with the text; a model that only called tools need not write any."""
        if self._format is None or (calls and not answer.text.strip()):
            return None
        return self._format.miss(answer.text)

    def _emitted(self, call: ToolCall, number: int) -> Raw | str:
        """The payload of a call as it is to be kept, or what is wrong with it."""
        checker = self._tools.get(call.tool)
        if number >= MAX_EMITS:
            why: str | None = f"An answer may call tools {MAX_EMITS} times."
        elif checker is None:
            why = f"The tools are {', '.join(self._tools)}."
        else:
            why = checker.miss(call.arguments)
        if why is None:
            try:
                return Raw(msgspec.json.encode(_plain(msgspec.json.decode(call.arguments))))
            except RecursionError:
                why = "It is nested too deeply."
        shown = call.arguments[:_SHOWN_CHARS]
        return f"The call of {call.tool} cannot be used: {why} It was: {shown}"


def _is_miss(emitted: Raw | str) -> bool:
    return isinstance(emitted, str)


def _transcript(said: Sequence[str | ToolCall], emitted: Sequence[Raw | str]) -> Raw:
    lines: list[dict[str, Any]] = []
    payloads = iter(emitted)
    for part in said:
        if isinstance(part, ToolCall):
            payload = next(payloads)
            if not _is_miss(payload):
                lines.append({"type": "data", "tool": part.tool, "payload": payload})
        elif part:
            lines.append({"type": "text", "content": part, "citations": []})
    return Raw(msgspec.json.encode(lines))


def _written(calls: Sequence[ToolCall], emitted: Sequence[Raw | str]) -> str:
    """Good calls as a text: vendors refuse messages without one."""
    return "\n".join(
        f"{call.tool} {bytes(payload).decode()}"
        for call, payload in zip(calls, emitted, strict=True)
        if not isinstance(payload, str)
    )


def _plain(value: Any) -> Any:
    """Write U+0000 visibly, at every depth."""
    if isinstance(value, str):
        return wire.plain(value)
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {wire.plain(key): _plain(item) for key, item in value.items()}
    return value
