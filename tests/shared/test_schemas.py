"""Schemas of answers: what is refused when it is saved, and what an answer is told."""

import json
from typing import Any

import pytest

from shared.domain import schemas
from shared.domain.schemas import Checker

ELSEWHERE = "A schema may refer to parts of itself only, as '#/$defs/…'."
PERSON = {
    "type": "object",
    "properties": {"name": {"type": "string", "pattern": "^[A-Z]"}, "age": {"type": "integer"}},
    "required": ["name"],
    "additionalProperties": False,
}
TREE = {"properties": {"name": {"type": "string"}, "children": {"items": {"$ref": "#"}}}}
PAIR = {"properties": {"left": {"$ref": "#"}, "right": {"$ref": "#"}}}


def _nested(levels: int) -> dict[str, Any]:
    schema: dict[str, Any] = {}
    for _ in range(levels):
        schema = {"properties": {"a": schema}}
    return schema


def _doubling(levels: int) -> dict[str, Any]:
    parts: dict[str, Any] = {
        f"d{level}": {"allOf": [{"$ref": f"#/$defs/d{level + 1}"}] * 2} for level in range(levels)
    }
    return {"$ref": "#/$defs/d0", "$defs": {**parts, f"d{levels}": {}}}


def _checker(schema: dict[str, Any]) -> Checker:
    return Checker(json.dumps(schema))


@pytest.mark.parametrize(
    "schema",
    [
        {},
        PERSON,
        TREE,
        PAIR,
        {"$schema": "http://json-schema.org/draft-07/schema#", "type": "object"},
        {"$defs": {"name": {"type": "string"}}, "items": {"$ref": "#/$defs/name"}},
        {"properties": {"$ref": {"type": "string"}, "pattern": {"type": "string"}}},
        {"enum": [f"word {number}" for number in range(1000)]},
        _nested(30),
    ],
)
def test_a_schema_of_the_usual_kind_is_accepted(schema: dict[str, Any]) -> None:
    assert schemas.flaw(json.dumps(schema)) is None


@pytest.mark.parametrize(
    ("schema", "flaw"),
    [
        ({"$ref": "http://127.0.0.1:1/schema"}, ELSEWHERE),
        ({"$ref": "file:///etc/passwd"}, ELSEWHERE),
        ({"properties": {"a": {"$id": "http://x/", "$ref": "#/b"}}}, ELSEWHERE),
        ({"$dynamicRef": "#a"}, ELSEWHERE),
        ({"$ref": "#/$defs/none"}, "#/$defs/none leads nowhere."),
        ({"$ref": "#"}, "# refers to itself without a step down."),
        ({"pattern": "((a{1000}){1000}){10}"}, "Not a JSON Schema: "),
        ({"pattern": "(?=a)b"}, "(patterns are matched without look-around and back-references)"),
        ({"pattern": "("}, "Not a JSON Schema: "),
        ({"type": "strin"}, "Not a JSON Schema: "),
        ({"$schema": "http://127.0.0.1:1/schema"}, "Not a JSON Schema: "),
        ({"description": "x" * 65_536}, "A schema may hold 65,536 bytes."),
        ({"enum": list(range(5000))}, "A schema may have 5,000 parts, references followed."),
        (_doubling(12), "A schema may have 5,000 parts, references followed."),
        (_doubling(40), "A schema may be 32 levels deep."),
        (_nested(33), "A schema may be 32 levels deep."),
        ({"anyOf": [PAIR, PAIR]}, "# is applied to the same value twice when it repeats"),
        (
            {"anyOf": [PAIR, {"properties": {"left": {"properties": {"left": {"$ref": "#"}}}}}]},
            "# is applied to the same value twice when it repeats",
        ),
        (
            {"patternProperties": {"^a": {"$ref": "#"}, "a$": {"$ref": "#"}}},
            "# is applied to the same value twice when it repeats",
        ),
    ],
)
def test_a_schema_that_fetches_or_explodes_is_refused(schema: dict[str, Any], flaw: str) -> None:
    assert flaw in (schemas.flaw(json.dumps(schema)) or "")


@pytest.mark.parametrize("schema", ["", "{", "[]", "7", '{"a":' * 9000 + "1" + "}" * 9000])
def test_what_is_no_json_object_is_no_schema(schema: str) -> None:
    assert "Must be a string that holds a JSON object." == schemas.flaw(schema)


@pytest.mark.parametrize(
    ("answer", "miss"),
    [
        ('{"name":"Ada","age":36}', None),
        (' {"name": "Ada"}\n', None),
        ('{"name":"Ada","age":"old"}', '/age: "old" is not of type "integer"'),
        ('{"name":"ada"}', '/name: "ada" does not match "^[A-Z]"'),
        ("{}", 'The answer: "name" is a required property'),
        ("[]", 'The answer: [] is not of type "object"'),
        ('```json\n{"name":"Ada"}\n```', "The answer is not JSON: "),
        ('{"name":"Ada"', "The answer is not JSON: "),
        ("", "The answer is not JSON: "),
        ("[" * 9000 + "]" * 9000, "The answer is not JSON: "),
        ("\ud800", "The answer is not JSON: "),
    ],
)
def test_an_answer_is_told_what_is_wrong_with_it(answer: str, miss: str | None) -> None:
    found = _checker(PERSON).miss(answer)

    assert found == miss if miss is None else (found or "").startswith(miss)


@pytest.mark.parametrize(
    ("answer", "miss"),
    [
        ('{"a":1}', None),
        ("[1]", "The answer is not a JSON object."),
        ("so", "The answer is not JSON"),
    ],
)
def test_where_any_object_is_wanted_any_object_will_do(answer: str, miss: str | None) -> None:
    found = Checker(None).miss(answer)

    assert found == miss if miss is None else (found or "").startswith(miss)


def test_a_pattern_that_makes_others_backtrack_is_matched_in_linear_time() -> None:
    bomb = _checker({"pattern": "^(a+)+$"})

    assert "does not match" in (bomb.miss(f'"{"a" * 100_000}b"') or "")


@pytest.mark.parametrize(
    ("schema", "answer"),
    [
        ({"items": {"allOf": [{"type": "integer"}] * 1000}}, f"[{'1,' * 30_000}1]"),
        ({"pattern": "[ab]*a[ab]{400}c"}, f'"{"ab" * 300_000}"'),
    ],
)
def test_an_answer_that_would_take_too_long_is_not_checked(
    schema: dict[str, Any], answer: str
) -> None:
    assert "The answer is too large to be checked against its schema." == _checker(schema).miss(
        answer
    )
