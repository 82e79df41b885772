"""Which tools a version may have."""

from typing import Any

import msgspec
import pytest

from shared.domain import versions
from shared.errors import UnacceptableError

Json = dict[str, Any]
TOOL: Json = {"type": "emit", "name": "a", "paramsSchema": '{"type":"object"}'}
ONLY_EMIT = "A tool's type can only be 'emit' yet."


def a_body(*tools: Any) -> Json:
    message = {"role": "user", "content": "Hello"}
    return {"model": "sim/emit", "messages": [message], "tools": list(tools)}


def _flaws(*tools: Any) -> list[tuple[str, str]]:
    try:
        versions.parse(a_body(*tools))
    except UnacceptableError as error:
        return [(flaw.pointer, flaw.message) for flaw in error.flaws]
    return []


def test_emit_tools_are_kept_and_shown_as_they_were_written() -> None:
    described = {**TOOL, "name": "b", "description": "Says it.", "failFast": True}

    version = versions.parse(a_body(TOOL, described))

    assert version == versions.from_json(versions.to_json(version))
    assert [TOOL, described] == versions.revision_view(version)["tools"]


@pytest.mark.parametrize("kind", ["http_call", "mcp", "web_search", "function", "", 7, None])
def test_other_types_are_refused_by_name_of_what_there_is(kind: Any) -> None:
    other = {"type": kind, "name": "x", "url": "https://example.com"}

    assert [("/tools/1/type", ONLY_EMIT)] == _flaws(TOOL, other)


@pytest.mark.parametrize(
    ("tools", "pointers"),
    [
        ([{**TOOL, "name": ""}], ["/tools/0/name"]),
        ([{**TOOL, "name": "a b"}], ["/tools/0/name"]),
        ([{**TOOL, "name": "a" * 65}], ["/tools/0/name"]),
        ([TOOL, TOOL], ["/tools/1/name"]),
        ([{"type": "emit", "name": "a"}], ["/tools/0/paramsSchema"]),
        ([{**TOOL, "paramsSchema": {"type": "object"}}], ["/tools/0/paramsSchema"]),
        ([{**TOOL, "paramsSchema": "{"}], ["/tools/0/paramsSchema"]),
        ([{**TOOL, "paramsSchema": '{"type":"string"}'}], ["/tools/0/paramsSchema"]),
        ([{**TOOL, "paramsSchema": "{}"}], ["/tools/0/paramsSchema"]),
        (
            [{**TOOL, "paramsSchema": '{"type":"object","$ref":"https://example.com/a"}'}],
            ["/tools/0/paramsSchema"],
        ),
        ([{**TOOL, "url": "x"}], ["/tools/0/url"]),
        ([{**TOOL, "name": f"a{number}"} for number in range(33)], ["/tools"]),
        (["emit"], ["/tools/0"]),
    ],
)
def test_a_tool_that_cannot_be_used_is_refused_with_its_place(
    tools: list[Any], pointers: list[str]
) -> None:
    assert pointers == [pointer for pointer, _ in _flaws(*tools)]


def test_a_version_of_a_newer_server_is_refused_and_not_run_as_something_else() -> None:
    stored = versions.to_json(versions.parse(a_body(TOOL)))
    newer = stored.replace(b'"tools"', b'"gadgets"')

    with pytest.raises(msgspec.ValidationError, match="gadgets"):
        versions.from_json(newer)
