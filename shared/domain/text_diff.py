"""Unified diffs of texts in all but linear time, whatever the texts are.

`difflib` is quadratic and worse on texts made for it, and a diff is answered by a process that has
others to answer. This one holds on to lines that occur once on both sides (a patience diff). A
stretch without such a line counts as replaced.
"""

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

CONTEXT_LINES = 3
MAX_DEPTH = 12  # each level looks at every line once at most
_NO_NEWLINE = "\n\\ No newline at end of file\n"


class Span(NamedTuple):
    """Lines from `start` to `end` on one side against lines on the other."""

    start: int
    end: int
    other_start: int
    other_end: int


def unified(before: str, after: str, name_before: str, name_after: str) -> str:
    """Write what changed between two texts as a unified diff; empty where nothing did."""
    old, new = _lines(before), _lines(after)
    replaced = list(_replaced(old, new))
    hunks = "".join(_hunk(old, new, group) for group in _groups(replaced))
    return f"--- {name_before}\n+++ {name_after}\n{hunks}" if hunks else ""


def _lines(text: str) -> list[str]:
    """Split at line feeds alone, which stay: only so does a diff give back the text."""
    *whole, rest = text.split("\n")
    return [f"{line}\n" for line in whole] + ([rest] if rest else [])


def _replaced(old: Sequence[str], new: Sequence[str]) -> Iterator[Span]:
    """Go through the stretches that differ, in order and never side by side."""
    open_spans = [(Span(0, len(old), 0, len(new)), 0)]
    last: Span | None = None
    while open_spans:
        whole, depth = open_spans.pop()
        span = _trimmed(old, new, whole)
        if span.start == span.end and span.other_start == span.other_end:
            continue
        parts = _parts(old, new, span) if depth < MAX_DEPTH else []
        if parts:
            open_spans += [(part, depth + 1) for part in reversed(parts)]
        elif last and (last.end, last.other_end) == (span.start, span.other_start):
            last = Span(last.start, span.end, last.other_start, span.other_end)
        else:
            if last:
                yield last
            last = span
    if last:
        yield last


def _trimmed(old: Sequence[str], new: Sequence[str], span: Span) -> Span:
    """Leave out what both sides begin and end with."""
    start, end, other_start, other_end = span
    while start < end and other_start < other_end and old[start] == new[other_start]:
        start += 1
        other_start += 1
    while start < end and other_start < other_end and old[end - 1] == new[other_end - 1]:
        end -= 1
        other_end -= 1
    return Span(start, end, other_start, other_end)


def _parts(old: Sequence[str], new: Sequence[str], span: Span) -> list[Span]:
    """Cut at the lines that both sides have once, as many as are in the same order on both."""
    places = _once(old, span.start, span.end)
    others = _once(new, span.other_start, span.other_end)
    common = [(place, others[line]) for line, place in places.items() if line in others]
    cuts = _rising(common)
    if not cuts:
        return []
    bounds = [(span.start, span.other_start), *cuts, (span.end, span.other_end)]
    return [
        Span(start, end, other_start, other_end)
        for (start, other_start), (end, other_end) in pairwise(bounds)
    ]


def _once(lines: Sequence[str], start: int, end: int) -> dict[str, int]:
    """Find the lines that occur once, with their places, in order."""
    places: dict[str, int] = {}
    repeated: set[str] = set()
    for place in range(start, end):
        line = lines[place]
        if line in places:
            repeated.add(line)
        places[line] = place
    return {line: place for line, place in places.items() if line not in repeated}


def _rising(pairs: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Choose the longest run of pairs, sorted by their first, whose second rises too."""
    tops: list[int] = []  # the smallest second that a run of each length ends with
    ends: list[int] = []  # the pair it belongs to
    previous: list[int] = []
    for at, (_, second) in enumerate(pairs):
        length = bisect_left(tops, second)
        previous.append(ends[length - 1] if length else -1)
        tops[length : length + 1] = [second]
        ends[length : length + 1] = [at]
    chosen: list[tuple[int, int]] = []
    at = ends[-1] if ends else -1
    while at >= 0:
        chosen.append(pairs[at])
        at = previous[at]
    return chosen[::-1]


def _groups(replaced: Sequence[Span]) -> Iterator[list[Span]]:
    """Put stretches together whose contexts meet."""
    group: list[Span] = []
    for span in replaced:
        if group and span.start - group[-1].end > 2 * CONTEXT_LINES:
            yield group
            group = []
        group.append(span)
    if group:
        yield group


def _hunk(old: Sequence[str], new: Sequence[str], group: Sequence[Span]) -> str:
    first, last = group[0], group[-1]
    lead = min(CONTEXT_LINES, first.start)
    trail = min(CONTEXT_LINES, len(old) - last.end)
    begin, other_begin = first.start - lead, first.other_start - lead
    end, other_end = last.end + trail, last.other_end + trail
    lines = [f"@@ -{_range(begin, end)} +{_range(other_begin, other_end)} @@\n"]
    at = begin
    for span in group:
        lines += [f" {line}" for line in old[at : span.start]]
        lines += [f"-{line}" for line in old[span.start : span.end]]
        lines += [f"+{line}" for line in new[span.other_start : span.other_end]]
        at = span.end
    lines += [f" {line}" for line in old[at:end]]
    return "".join(line if line.endswith("\n") else line + _NO_NEWLINE for line in lines)


def _range(start: int, end: int) -> str:
    """Write a range of lines as `patch` reads it: from 1, or the line before an empty one."""
    length = end - start
    if length == 1:
        return str(start + 1)
    return f"{start + 1 if length else start},{length}"
