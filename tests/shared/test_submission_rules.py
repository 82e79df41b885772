"""What a submission may say: every limit, to the last character."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest

from shared.domain import submissions
from shared.domain.submissions import Submission
from shared.errors import UnacceptableError

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)


def _flaws(**fields: Any) -> list[str]:
    """The pointers of what is refused."""
    body = msgspec.json.encode({"inputs": {}, **fields})
    try:
        submissions.check(msgspec.json.decode(body, type=Submission), now=NOW)
    except UnacceptableError as error:
        return [flaw.pointer for flaw in error.flaws]
    return []


def _moment(**offset: float) -> str:
    return (NOW + timedelta(**offset)).isoformat()


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"envVars": {f"V{number}": "x" for number in range(50)}},
        {"envVars": {"OPENAI_API_KEY": "é" * ((65_536 - 14) // 2)}},
        {"metadata": {f"k{number}": "x" for number in range(50)}},
        {"metadata": {"k" * 64: "x" * 512}},
        {"metadata": {"k": ["x" * 512] * 20, "text": "a\fb\nc"}},
        {"tags": ["t" * 128] * 10},
        {"channel": "é" * 128},
        {"runAt": _moment(days=366)},
        {"runAt": _moment(days=-366)},
        {"deadline": _moment(seconds=1)},
        {"runAt": _moment(seconds=1), "deadline": _moment(seconds=2)},
        {"runAt": "0001-01-01T00:00:00Z"},
        {"runAt": "0001-01-01T00:00:00+23:59"},
        {"deadline": "9999-12-31T23:59:59.999999Z"},
        {"deadline": "9999-12-31T23:59:59+01:00"},
        {"params": {"temperature": 2, "topP": 0, "maxCompletionTokens": 1}},
        {"expiresIn": 14 * 86_400, "maxDuration": 1, "maxAttempts": 20},
    ],
)
def test_what_is_within_the_limits_is_accepted(fields: Mapping[str, Any]) -> None:
    assert [] == _flaws(**fields)


@pytest.mark.parametrize(
    ("fields", "pointers"),
    [
        ({"envVars": {f"V{number}": "x" for number in range(51)}}, ["/envVars"]),
        ({"envVars": {"A": "x" * 65_536}}, ["/envVars"]),
        ({"envVars": {"A": "é" * 32_768}}, ["/envVars"]),
        ({"envVars": {"lower": "x"}}, ["/envVars/lower"]),
        (
            {"envVars": {"": "x", "1A": "x", "A-B": "x"}},
            ["/envVars/", "/envVars/1A", "/envVars/A-B"],
        ),
        ({"envVars": {"A\n": "x"}}, ["/envVars/A\n"]),
        ({"envVars": {"a/b~c": "x"}}, ["/envVars/a~1b~0c"]),
        ({"metadata": {f"k{number}": "x" for number in range(51)}}, ["/metadata"]),
        ({"metadata": {"": "x"}}, ["/metadata/"]),
        ({"metadata": {"k" * 65: "x"}}, ["/metadata/" + "k" * 65]),
        ({"metadata": {"a\tb": "x"}}, ["/metadata/a\tb"]),
        ({"metadata": {"k": "x" * 513}}, ["/metadata/k"]),
        ({"metadata": {"k": ["x"] * 21}}, ["/metadata/k"]),
        ({"metadata": {"k": ["x", "x" * 513]}}, ["/metadata/k"]),
        ({"tags": ["t"] * 11}, ["/tags"]),
        ({"tags": ["", "t" * 129, "a\x7f"]}, ["/tags/0", "/tags/1", "/tags/2"]),
        ({"channel": ""}, ["/channel"]),
        ({"channel": "c" * 129}, ["/channel"]),
        ({"channel": "a\x1fb"}, ["/channel"]),
        ({"runAt": _moment(days=366, seconds=1)}, ["/runAt"]),
        ({"deadline": _moment()}, ["/deadline"]),
        ({"deadline": "0001-01-01T00:00:00Z"}, ["/deadline"]),
        ({"runAt": _moment(seconds=2), "deadline": _moment(seconds=2)}, ["/deadline"]),
        ({"deadline": "9999-12-31T23:59:59-00:01"}, ["/deadline"]),
        ({"runAt": "9999-12-31T23:59:59-14:00"}, ["/runAt"]),
        ({"deadline": "0001-01-01T00:00:00+23:59"}, ["/deadline"]),
        (
            {"runAt": "9999-12-31T23:59:59-14:00", "deadline": "0001-01-01T00:00:00+00:01"},
            ["/runAt", "/deadline"],
        ),
        (
            {"params": {"temperature": 2.01, "topP": -0.1, "maxCompletionTokens": 0}},
            ["/params/maxCompletionTokens", "/params/temperature", "/params/topP"],
        ),
        ({"params": {"sim": {"delaySeconds": -1}}}, ["/params/sim/delaySeconds"]),
        (
            {"channel": "", "tags": [""], "envVars": {"a": ""}},
            ["/envVars/a", "/tags/0", "/channel"],
        ),
    ],
)
def test_what_is_beyond_a_limit_is_refused_with_its_place(
    fields: Mapping[str, Any], pointers: list[str]
) -> None:
    assert pointers == _flaws(**fields)


@pytest.mark.parametrize(
    "fields",
    [
        {"inputs": None},
        {"inputs": {"a": 1}},
        {"inputs": {"a": None}},
        {"inputs": []},
        {"thread": "no uuid"},
        {"priority": "urgent"},
        {"metadata": {"k": 1}},
        {"metadata": {"k": [1]}},
        {"metadata": {"k": None}},
        {"runAt": "2026-11-22T12:00:00"},
        {"runAt": "tomorrow"},
        {"deadline": 1},
        {"expiresIn": 0},
        {"expiresIn": 14 * 86_400 + 1},
        {"expiresIn": 1.5},
        {"maxDuration": 14 * 86_400 + 1},
        {"maxAttempts": 21},
        {"maxAttempts": True},
        {"onUnknownOutcome": "maybe"},
        {"unknown": 1},
        {"params": {"unknown": 1}},
    ],
)
def test_other_types_are_no_submission(fields: Mapping[str, Any]) -> None:
    body = msgspec.json.encode({"inputs": {}, **fields})

    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(body, type=Submission)


def test_null_equals_absent() -> None:
    nothing = dict.fromkeys(
        field.encode_name for field in msgspec.structs.fields(Submission) if not field.required
    )

    body = msgspec.json.encode({"inputs": {"a": "b"}, **nothing})

    assert Submission(inputs={"a": "b"}) == msgspec.json.decode(body, type=Submission)
