"""JSON as it is accepted: the table of nonsense, and what is like it."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api import strict_json
from api.strict_json import Limits
from shared.errors import BadRequestError, UnacceptableError

NOT_JSON = {
    "nothing": b"",
    "an unclosed object": b"{",
    "trailing data": b'{"a":1} x',
    "two documents": b"{}{}",
    "a line comment": b'{"a":1} // why',
    "a block comment": b'{/* why */"a":1}',
    "single quotes": b"{'a':1}",
    "a bare key": b"{a:1}",
    "a trailing comma": b'{"a":1,}',
    "a byte order mark": b"\xef\xbb\xbf{}",
    "UTF-16": '{"a":1}'.encode("utf-16"),
    "invalid UTF-8": b'{"a":"\xff"}',
    "an overlong slash": b'{"a":"\xc0\xaf"}',
    "a surrogate in UTF-8": b'{"a":"\xed\xa0\x80"}',
    "a raw control character": b'{"a":"\x01"}',
    "a raw NUL": b'{"a":"\x00"}',
    "an unknown escape": rb'{"a":"\x41"}',
    "a short escape": rb'{"a":"\u12"}',
    "half a surrogate pair": rb'{"a":"\ud800"}',
    "half a surrogate pair in a key": rb'{"\udfff":1}',
    "half a surrogate pair at the top": rb'"\ud800"',
    "surrogates the wrong way round": rb'{"a":"\udc00\ud800"}',
    "NaN": b'{"a":NaN}',
    "Infinity": b'{"a":Infinity}',
    "-Infinity": b'{"a":-Infinity}',
    "1e400": b'{"a":1e400}',
    "-1e400": b'{"a":-1e400}',
    "a number of 5,000 digits": b'{"a":' + b"9" * 5000 + b"}",
    "a fraction of 5,000 digits": b'{"a":0.' + b"1" * 5000 + b"}",
    "a leading zero": b'{"a":01}',
    "a leading plus": b'{"a":+1}',
    "a hexadecimal number": b'{"a":0x10}',
    "a duplicate key before an error": b'{"a":1,"a":2,}',
    "nesting 1,000": b'{"a":' + b"[" * 999 + b"]" * 999 + b"}",
    "nesting 100,000": b"[" * 100_000 + b"]" * 100_000,
    "100,000 open brackets": b"[" * 100_000,
    "100,000 open objects": b'{"a":' * 100_000,
}

NOT_ACCEPTABLE = {
    "an array at the top": (b"[]", ""),
    "null at the top": (b"null", ""),
    "a string at the top": (b'"x"', ""),
    "a number at the top": (b"1", ""),
    "nesting 33": (b'{"a":' + b"[" * 32 + b"]" * 32 + b"}", ""),
    "10,001 values": (b'{"a":[' + b"0," * 9_998 + b"0]}", ""),
    "far too many values": (b'{"a":[' + b"0," * 99_998 + b"0]}", ""),
    "a string over 512 KiB": (b'{"a":["' + b"x" * 524_289 + b'"]}', "/a/0"),
    "a string over 512 KiB of UTF-8": (b'{"a":"' + "é".encode() * 262_145 + b'"}', "/a"),
    "a key over 512 KiB": (b'{"' + b"x" * 524_289 + b'":1}', ""),
    "2^53 + 1": (b'{"a":{"b":9007199254740993}}', "/a/b"),
    "2^63": (b'{"a":9223372036854775808}', "/a"),
    "-2^63 - 1": (b'{"a":[1,-9223372036854775809]}', "/a/1"),
    "an escaped U+0000": (rb'{"a":{"b":["x","\u0000"]}}', "/a/b/1"),
    "an escaped U+0000 in a key": (rb'{"a":{"\u0000":1}}', "/a"),
    "U+0001 in a key": (rb'{"a":{"\u0001":1}}', "/a"),
    "a line feed in a key": (rb'{"a":{"x\n":1}}', "/a"),
    "DEL in a key": (b'{"a":{"\x7f":1}}', "/a"),
    "U+0085 in a key": (b'{"a":{"\xc2\x85":1}}', "/a"),
}

ACCEPTED = {
    "an empty object": (b"{}", {}),
    "white space around": (b' \r\n\t{"a" : 1}\n', {"a": 1}),
    "minus zero": (b'{"a":-0}', {"a": 0}),
    "2^53": (b'{"a":[9007199254740992,-9007199254740992]}', {"a": [2**53, -(2**53)]}),
    "a large float": (b'{"a":1e308}', {"a": 1e308}),
    "nesting 32": (b'{"a":' + b"[" * 31 + b"]" * 31 + b"}", None),
    "10,000 values": (b'{"a":[' + b"0," * 9_997 + b"0]}", None),
    "many commas in a string": (b'{"a":"' + b',\\"[{' * 20_000 + b'"}', None),
    "a string of 512 KiB": (b'{"a":"' + b"x" * 524_288 + b'"}', None),
    "form feed and escape in a value": (rb'{"a":"\f\u001b"}', {"a": "\f\x1b"}),
    "a surrogate pair": (rb'{"a":"\ud83d\ude00"}', {"a": "😀"}),
    "an escaped backslash before u0000": (rb'{"a":"\\u0000"}', {"a": "\\u0000"}),
    "keys that mean something elsewhere": (
        b'{"__proto__":1,"constructor":2,"$ref":3,"{{x}}":4}',
        {"__proto__": 1, "constructor": 2, "$ref": 3, "{{x}}": 4},
    ),
    "a key with joiners": ('{"👩\u200d🔬":1}'.encode(), {"👩\u200d🔬": 1}),
    "equal keys in different objects": (b'{"a":{"b":1},"b":1}', {"a": {"b": 1}, "b": 1}),
    "keys differing in case": (b'{"a":1,"A":2}', {"a": 1, "A": 2}),
}


@pytest.mark.parametrize("body", NOT_JSON.values(), ids=NOT_JSON.keys())
def test_what_is_not_json_is_a_bad_request(body: bytes) -> None:
    with pytest.raises(BadRequestError) as caught:
        strict_json.read(body)

    assert (caught.value.status, caught.value.code) == (400, "invalid_json")


@pytest.mark.parametrize(("body", "place"), NOT_ACCEPTABLE.values(), ids=NOT_ACCEPTABLE.keys())
def test_json_beyond_the_limits_is_not_acceptable_and_says_where(body: bytes, place: str) -> None:
    with pytest.raises(UnacceptableError) as caught:
        strict_json.read(body)

    assert [flaw.pointer for flaw in caught.value.flaws] == [place]


@pytest.mark.parametrize(("body", "expected"), ACCEPTED.values(), ids=ACCEPTED.keys())
def test_ordinary_json_is_read_unchanged(body: bytes, expected: dict[str, Any] | None) -> None:
    document = strict_json.read(body)

    assert document == (json.loads(body) if expected is None else expected)


@pytest.mark.parametrize(
    ("body", "place"),
    [
        (b'{"a":1,"a":1}', "/a"),
        (b'{"x":[{},{"b/c":{"~":1,"~":2}}]}', "/x/1/b~1c/~0"),
        (rb'{"a":1,"\u0061":2}', "/a"),
        (b'{"__proto__":1,"__proto__":2}', "/__proto__"),
        (b'{"a":{"":1,"":2}}', "/a/"),
    ],
)
def test_a_duplicate_key_is_refused_by_its_own_code_and_place(body: bytes, place: str) -> None:
    with pytest.raises(UnacceptableError) as caught:
        strict_json.read(body)

    assert (caught.value.code, caught.value.flaws[0].pointer) == ("duplicate_key", place)


def test_limits_are_those_that_are_given() -> None:
    body = b'{"a":[' + b"0," * 20_000 + b"0]}"

    assert len(strict_json.read(body, Limits(nodes=50_000))["a"]) == 20_001


@given(st.binary(max_size=60))
def test_arbitrary_bytes_are_read_or_refused_and_nothing_else(body: bytes) -> None:
    try:
        document = strict_json.read(body)
    except (BadRequestError, UnacceptableError):
        return

    assert document == json.loads(body)


_KEYS = st.text(st.characters(exclude_categories=["Cs", "Cc"]))
_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_KEYS, inner, max_size=4),
    max_leaves=12,
)


@given(document=st.dictionaries(_KEYS, _VALUES, max_size=5), escaped=st.booleans())
def test_every_document_of_plain_values_is_read_as_written(
    *, document: dict[str, Any], escaped: bool
) -> None:
    body = json.dumps(document, ensure_ascii=escaped).encode()

    assert strict_json.read(body) == document
