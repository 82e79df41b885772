"""Pages of the documentation, walked through: every command typed, every output compared.

A block of `sh` is typed, and the `text`, `json` or `diff` behind it is what it prints; without
one it prints nothing. It has to succeed, unless it is marked `sh fails`. A command of `sh receiver`
goes on in a terminal of its own, whose words are in `text receiver`. `text example` is not looked
at.
"""

import re
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

from tests.e2e.processes import Process
from tests.terminal import Terminal
from tests.waiting import until

_BLOCK = re.compile(r"^```(sh|text|json|diff)(?: (\w+))?\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_ID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_VARYING = {
    r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:\.\d+)?Z": "<moment>",
    r"http://127\.0\.0\.1:\d+": "<address>",
    r"whsec_[\w+/=]+": "<secret>",
    r"rl_\w+": "<key>",
    r"request [0-9a-f]{12}-[0-9a-f]+": "request <id>",
    r'^etag: "\w+"': "etag: <tag>",
    r"[ \t]+$": "",
}


class Walk:
    """One page, walked through in a folder; what differs is in `printed` and `written`."""

    def __init__(self, page: Path, folder: Path, env: Mapping[str, str]) -> None:
        self._blocks: list[tuple[str, str | None, str]] = [
            (found[1], found[2], found[3]) for found in _BLOCK.finditer(page.read_text())
        ]
        self._folder = folder
        self._env = env
        self.printed: list[str] = []
        self.written: list[str] = []

    def through(self) -> None:
        with ExitStack() as stack:
            terminal = stack.enter_context(Terminal(self._folder, self._env))
            receiver: Process | None = None
            for place, (language, about, text) in enumerate(self._blocks):
                match language, about:
                    case "sh", "receiver":
                        process = Process(text.split(), env=self._env, cwd=self._folder)
                        receiver = stack.enter_context(process)
                        receiver.says("Receiving")
                    case "sh", _:
                        code, said = terminal.type(text)
                        assert (code != 0) == (about == "fails"), f"{text}{said}"
                        self._compare(said, self._behind(place))
                    case _, "receiver":
                        assert receiver is not None
                        self._compare(_heard(receiver, text.count("\n")), text)

    def _behind(self, place: int) -> str:
        language, about, text = [*self._blocks, ("sh", None, "")][place + 1]
        return "" if language == "sh" or about is not None else text

    def _compare(self, printed: str, written: str) -> None:
        self.printed.append(printed)
        self.written.append(written)


def alike(texts: list[str]) -> list[str]:
    """The texts without what no two walks have in common; what was the same id still is."""
    known: dict[str, str] = {}

    def numbered(found: re.Match[str]) -> str:
        return known.setdefault(found[0], f"<id {len(known) + 1}>")

    return [_without_varying(_ID.sub(numbered, text)) for text in texts]


def _without_varying(text: str) -> str:
    for pattern, name in _VARYING.items():
        text = re.sub(pattern, name, text, flags=re.MULTILINE)
    return text


def _heard(receiver: Process, lines: int) -> str:
    until(lambda: receiver.said().count("\n") >= lines, otherwise=receiver.said)
    return receiver.said()
