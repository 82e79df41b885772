"""Diffs of versions: every difference at its place, and of texts a diff that gives them back."""

import difflib
import re
from collections.abc import Sequence
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.domain import version_diff, versions
from shared.domain.text_diff import unified
from shared.domain.version_diff import Change
from tests.version_bodies import BODIES, SHORT, Body

SIZE = 256 * 1024
DIFF = """--- 1/templates/main/messages/0/content
+++ 2/templates/main/messages/0/content
@@ -1,2 +1,2 @@
 Hello
-{{ name }}
+{{ you }}
"""
MAIN: Body = {"model": "sim/echo", "messages": [{"role": "user", "content": "Hello\n{{ name }}\n"}]}

_HUNK = re.compile(r"@@ -(\d+)(?:,(\d+))? \+(\d+)(?:,(\d+))? @@\n")
_LINES = st.lists(
    st.sampled_from(["a\n", "b\n", "c\n", "\n", "d\r\n", "+e\n", "-- f\n"]), max_size=30
)
_TEXT = st.builds(
    lambda lines, end: "".join(lines) + end, _LINES, st.sampled_from(["", "end", "\f"])
)


def applied(before: str, diff: str) -> str:
    """What `patch` makes of a text; fails where the diff does not fit it."""
    old = re.findall(r"[^\n]*\n|[^\n]+", before)
    new: list[str] = []
    at = 0
    rest = re.sub(r"\n\\ No newline at end of file\n", "\0", diff)
    for line in re.findall(r"[^\n\0]*[\n\0]", rest)[2:]:
        text = line[1:].replace("\0", "")
        if hunk := _HUNK.fullmatch(line):
            start = int(hunk[1]) - (0 if hunk[2] == "0" else 1)
            new += old[at:start]
            at = start
            assert int(hunk[3]) - (0 if hunk[4] == "0" else 1) == len(new)
        elif line[0] == "+":
            new.append(text)
        else:
            assert old[at] == text
            new += [text] if line[0] == " " else []
            at += 1
    return "".join(new + old[at:])


@given(before=_TEXT, after=_TEXT)
def test_diff_applied_to_the_text_before_gives_the_text_after(before: str, after: str) -> None:
    diff = unified(before, after, "1", "2")

    assert ("" == diff) == (before == after)
    assert after == (applied(before, diff) if diff else before)


@pytest.mark.parametrize("changed", [[0], [19], [4, 5], [3, 9], [3, 15], [0, 7, 19]])
def test_diff_of_a_few_lines_is_written_as_everybody_writes_it(changed: Sequence[int]) -> None:
    old = [f"line {number}\n" for number in range(20)]
    new = [f"other {at}\n" if at in changed else line for at, line in enumerate(old)]

    diff = unified("".join(old), "".join(new), "1", "2")

    assert "".join(difflib.unified_diff(old, new, "1", "2")) == diff


def test_moved_and_repeated_lines_leave_the_rest_alone() -> None:
    before = "# Rules\n\n- be kind\n\n- be brief\n\n# End\n"
    after = "# Rules\n\n- be brief\n\n- be kind\n\n- be sure\n\n# End\n"

    diff = unified(before, after, "1", "2")

    kept = [line for line in diff.splitlines() if line.startswith(" ")]
    assert {" # Rules", " # End"} <= set(kept)
    assert after == applied(before, diff)


def _hostile(random: Random) -> dict[str, tuple[str, str]]:
    numbers = [f"{number}\n" for number in range(SIZE // 7)]
    shuffled = random.sample(numbers, len(numbers))

    def letters(choices: str) -> str:
        return "".join(f"{random.choice(choices)}\n" for _ in range(SIZE // 2))

    return {
        "nothing in common": ("a\n" * (SIZE // 2), "b\n" * (SIZE // 2)),
        "two lines over and over": (letters("ab"), letters("ab")),
        "few lines over and over": (letters("abcdefgh"), letters("abcdefgh")),
        "each line some hundred times": (
            "".join(random.choices(numbers[:150], k=SIZE // 4)),
            "".join(random.choices(numbers[:150], k=SIZE // 4)),
        ),
        "shuffled": ("".join(numbers), "".join(shuffled)),
        "backwards": ("".join(numbers), "".join(numbers[::-1])),
        "one line": ("x" * SIZE, "x" * (SIZE - 1) + "y"),
        "empty lines": ("\n" * SIZE, "\n" * (SIZE - 1)),
    }


@pytest.mark.parametrize("name", _hostile(Random(1)))
def test_texts_made_to_be_slow_are_compared_like_others(name: str) -> None:
    before, after = _hostile(Random(1))[name]

    diff = unified(before, after, "1", "2")

    assert after == applied(before, diff)


@given(body=BODIES)
def test_version_does_not_differ_from_itself(body: Body) -> None:
    assert [] == version_diff.changes(versions.parse(body), versions.parse(body))


@given(body=SHORT)
def test_short_form_does_not_differ_from_the_long_form_that_says_the_same(body: Body) -> None:
    template = {name: value for name, value in body.items() if name != "syntax"}
    outside = {name: value for name, value in body.items() if name == "syntax"}
    long = {"templates": {"main": template}, "entrypoint": "main", **outside}

    assert [] == version_diff.changes(versions.parse(body), versions.parse(long))


@given(before=BODIES, after=BODIES)
def test_changes_made_at_their_pointers_turn_one_version_into_the_other(
    before: Body, after: Body
) -> None:
    old, new = versions.parse(before), versions.parse(after)
    document, wanted = (version_diff._document(version) for version in (old, new))  # noqa: SLF001 (what pointers point into)

    changes = version_diff.changes(old, new)
    gone = [change for change in changes if change.after is None]
    # what is added to a list goes behind what is there; what goes away counts from the end
    for change in [*(one for one in changes if one not in gone), *reversed(gone)]:
        _make(document, change)

    assert wanted == document


def _make(document: Any, change: Change) -> None:
    *steps, last = (
        step.replace("~1", "/").replace("~0", "~") for step in change.pointer.split("/")[1:]
    )
    place = document
    for step in steps:
        place = place[int(step) if isinstance(place, list) else step]
    if isinstance(place, list):
        place[int(last) : int(last) + 1] = [] if change.after is None else [change.after]
    elif change.after is None:
        del place[last]
    else:
        place[last] = change.after


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"model": "openai/gpt-5"}, ("/templates/main/model", "sim/echo", "openai/gpt-5", None)),
        (
            {"modelParams": {"temperature": 1}},
            ("/templates/main/modelParams", None, {"temperature": 1.0}, None),
        ),
        ({"syntax": "brackets"}, ("/syntax", "braces", "brackets", None)),
        ({"fallbacks": ["sim/a"]}, ("/templates/main/fallbacks", None, ["sim/a"], None)),
        (
            {"systemInstruction": "Be\nkind"},
            ("/templates/main/systemInstruction", None, "Be\nkind", None),
        ),
        (
            {"messages": [{"role": "user", "content": "Hello\n{{ you }}\n"}]},
            (
                "/templates/main/messages/0/content",
                "Hello\n{{ name }}\n",
                "Hello\n{{ you }}\n",
                DIFF,
            ),
        ),
        (
            {"messages": [*MAIN["messages"], {"role": "assistant", "content": "Hi"}]},
            ("/templates/main/messages/1", None, {"role": "assistant", "content": "Hi"}, None),
        ),
    ],
)
def test_change_is_named_by_its_place_in_the_long_form(
    changed: Body, expected: tuple[str, Any, Any, str | None]
) -> None:
    before, after = versions.parse(MAIN), versions.parse({**MAIN, **changed})

    assert [Change(*expected)] == version_diff.changes(before, after, ("1", "2"))
