"""The rules for names of prompts, environments and webhooks' headers and events."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.domain import environments, flaws, prompts, webhooks
from shared.errors import Flaw, UnacceptableError
from shared.ids import new_id


@given(st.text(max_size=300))
def test_slug_of_any_name_is_a_slug(name: str) -> None:
    assert prompts.is_slug(prompts.slug_of(name))


@given(st.text(max_size=300), st.integers(0, 12))
def test_free_slug_is_a_slug_and_not_taken(name: str, count: int) -> None:
    taken: set[str] = set()
    for _ in range(count):
        taken.add(prompts.free_slug(prompts.slug_of(name), taken))
    assert count == len(taken)
    assert all(prompts.is_slug(slug) for slug in taken)


@given(st.text(alphabet="abz019_-", max_size=40))
def test_no_tag_can_be_taken_for_a_number_an_id_or_a_word_of_a_path(text: str) -> None:
    if prompts.is_tag(text):
        assert ("tag", text) == prompts.selector(text)


@pytest.mark.parametrize(
    ("version", "selector"),
    [
        ("__latest__", ("latest", "")),
        ("__pinned__", ("pin", "__pinned__")),
        ("7", ("number", "7")),
        ("production", ("tag", "production")),
        ("019ABCDE-0000-7000-8000-000000000000", ("id", "019abcde-0000-7000-8000-000000000000")),
        ("0", None),
        ("-1", None),
        ("01", None),
        ("2147483648", None),
        ("\u0663", None),
        ("latest ", None),
        ("Production", None),
        ("", None),
    ],
)
def test_version_is_told_by_its_spelling(version: str, selector: tuple[str, str] | None) -> None:
    assert selector == prompts.selector(version)


def test_version_in_a_body_is_a_number_or_an_id() -> None:
    assert [] == prompts.version_flaws(3) == prompts.version_flaws(str(new_id()))
    assert ["/version"] == [flaw.pointer for flaw in prompts.version_flaws("3")]


@pytest.mark.parametrize(
    ("value", "shown"),
    [("", ""), ("x" * 11, ""), ("12345678wxyz", "wxyz"), ("ü" * 12, "üüüü")],
)
def test_end_of_a_value_is_shown_only_when_it_is_long(value: str, shown: str) -> None:
    assert shown == environments.last4(value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *((name, "x") for name in ("Host", "host", "CONTENT-LENGTH", "Transfer-Encoding")),
        *((name, "x") for name in ("webhook-id", "Webhook-Anything", "Proxy-Authorization")),
        *((name, "x") for name in ("Connection", "TE", "PromptJuggler-Signature", "traceparent")),
        *((name, "x") for name in ("", "a b", "a:b", "a\n", "ä", "a\x00", "x" * 129)),
        *(("X", value) for value in ("a\r\nb", "a\n", "\n", " a", "a ", "\t", "ä", "a\x7f")),
        ("X", "v" * 4_097),
    ],
)
def test_header_that_cannot_be_sent_is_refused(name: str, value: str) -> None:
    assert 1 == len(list(webhooks.header_flaws({name: value})))


def test_headers_differ_in_more_than_case() -> None:
    found = list(webhooks.header_flaws({"X-Token": "a", "x-token": "b"}))

    assert ["/headers/x-token"] == [flaw.pointer for flaw in found]


@given(
    st.dictionaries(
        st.from_regex(re.compile(r"X-[A-Za-z0-9!#$%&'*+.^_`|~-]{1,40}"), fullmatch=True).map(
            str.lower
        ),
        st.text(alphabet=[chr(code) for code in range(0x20, 0x7F)], max_size=50).map(str.strip),
        max_size=50,
    )
)
def test_ordinary_headers_are_accepted(headers: dict[str, str]) -> None:
    assert [] == list(webhooks.header_flaws(headers))


@given(st.lists(st.sampled_from([*webhooks.EVENTS, webhooks.PROMPTRUN_FINISHED])))
def test_event_filter_holds_our_words_once_in_their_order(names: list[str]) -> None:
    wanted = webhooks.wanted_events(names)

    assert [] == list(webhooks.event_flaws(names))
    assert [] == list(webhooks.event_flaws(wanted))
    assert sorted(set(wanted), key=webhooks.EVENTS.index) == list(wanted)
    assert bool(names) == bool(wanted)


def test_flaws_are_refused_together() -> None:
    found = [Flaw("/a", "one"), Flaw("/b", "two")]

    with pytest.raises(UnacceptableError) as caught:
        flaws.refuse(*found)

    assert tuple(found) == caught.value.flaws
    assert "one" == caught.value.detail
    flaws.refuse()
