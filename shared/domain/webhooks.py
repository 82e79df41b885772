"""What an endpoint may ask for: the events it wants and the headers it is sent."""

import re
from collections.abc import Iterable, Iterator, Mapping

from shared.domain import documents
from shared.domain.states import TERMINAL
from shared.errors import Flaw

PING = "ping"
PROMPTRUN_FINISHED = "promptrun.finished"
RUN_EVENTS = tuple(f"run.{status}" for status in sorted(TERMINAL))
EVENTS = (*RUN_EVENTS, PING)

MAX_HEADERS = 50
MAX_HEADER_NAME = 128
MAX_HEADER_VALUE = 4_096

# A token of RFC 9110, and a value of visible ASCII with blanks inside only.
_HEADER_NAME = re.compile(rf"[!#$%&'*+.^_`|~0-9A-Za-z-]{{1,{MAX_HEADER_NAME}}}")
_HEADER_VALUE = re.compile(r"(?:[!-~](?:[ \t!-~]*[!-~])?)?")
_OURS = frozenset(
    {
        "accept-encoding",
        "connection",
        "content-encoding",
        "content-length",
        "content-type",
        "expect",
        "host",
        "keep-alive",
        "promptjuggler-signature",
        "te",
        "traceparent",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
_OUR_PREFIXES = ("proxy-", "webhook-")


def wanted_events(names: Iterable[str]) -> tuple[str, ...]:
    """Write an event filter in our own words, each once, in their order.

    `promptrun.finished` is the other product's word for every terminal event.
    """
    given = set(names)
    if PROMPTRUN_FINISHED in given:
        given.update(RUN_EVENTS)
    return tuple(event for event in EVENTS if event in given)


def event_flaws(names: Iterable[str]) -> Iterator[Flaw]:
    """Name the events nobody sends."""
    for place, name in enumerate(names):
        if name not in EVENTS and name != PROMPTRUN_FINISHED:
            yield Flaw(f"/events/{place}", f"Known events: {', '.join(EVENTS)}.")


def header_flaws(headers: Mapping[str, str]) -> Iterator[Flaw]:
    """Name the headers an endpoint cannot be sent; values are never repeated."""
    if len(headers) > MAX_HEADERS:
        yield Flaw("/headers", f"At most {MAX_HEADERS} headers are accepted.")
    seen: set[str] = set()
    for name, value in headers.items():
        lower, pointer = name.lower(), f"/headers{documents.step(name)}"
        if not _HEADER_NAME.fullmatch(name):
            yield Flaw(pointer, f"A header's name is a token of at most {MAX_HEADER_NAME}.")
        elif lower in _OURS or lower.startswith(_OUR_PREFIXES):
            yield Flaw(pointer, "This header is set by Runlane or by HTTP itself.")
        elif lower in seen:
            yield Flaw(pointer, "This header is there already, in another case.")
        elif len(value) > MAX_HEADER_VALUE or not _HEADER_VALUE.fullmatch(value):
            yield Flaw(
                pointer,
                f"A header's value is visible ASCII, {MAX_HEADER_VALUE:,} characters at most.",
            )
        seen.add(lower)
