"""The format of API keys."""

from collections.abc import Callable
from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.domain import api_keys

ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"


def test_a_new_key_parses_to_its_own_id_and_digest() -> None:
    key = api_keys.make()

    assert api_keys.ParsedKey(key.lookup_id, key.digest) == api_keys.parse(key.text)


def test_the_digest_is_the_sha256_of_the_whole_text() -> None:
    key = api_keys.make()

    assert sha256(key.text.encode()).digest() == key.digest


def test_a_key_has_the_documented_shape() -> None:
    prefix, lookup_id, rest = api_keys.make().text.split("_")

    assert (prefix, len(lookup_id), len(rest)) == ("rl", 8, 49)
    assert set(lookup_id + rest) <= set(ALPHABET)


def test_a_known_key_goes_on_parsing() -> None:
    text = "rl_AAAAAAAA_" + "0" * 43 + "46tM6z"

    parsed = api_keys.parse(text)

    assert parsed is not None
    assert parsed.lookup_id == "AAAAAAAA"


def test_keys_do_not_repeat() -> None:
    assert len({api_keys.make().text for _ in range(200)}) == 200


@given(position=st.integers(0, 60), letter=st.sampled_from(ALPHABET + "_-. é\0"))
def test_a_key_with_one_wrong_character_is_refused(position: int, letter: str) -> None:
    text = api_keys.make().text
    changed = text[:position] + letter + text[position + 1 :]

    assert (changed == text) == (api_keys.parse(changed) is not None)


@given(st.text(max_size=80))
def test_arbitrary_text_is_refused_without_an_exception(text: str) -> None:
    assert api_keys.parse(text) is None


@pytest.mark.parametrize(
    "spoil",
    [
        lambda _: "",
        lambda text: text[:-1],
        lambda text: text + "0",
        lambda text: text + "\n",
        lambda text: " " + text,
        lambda text: text.replace("rl_", "sk_"),
        lambda text: text.swapcase(),
        lambda text: text[:-1] + "٣",
        lambda text: text[:-1] + "\ud800",
        lambda text: text[:-1] + "\0",
        lambda _: "rl_" + "x" * 10_000,
        lambda text: "rl_" + text[3:11] + "_" + text[12:55] + "000000",
    ],
)
def test_a_spoilt_key_is_refused(spoil: Callable[[str], str]) -> None:
    text = "rl_AAAAAAAA_" + "0" * 43 + "46tM6z"

    assert api_keys.parse(spoil(text)) is None
