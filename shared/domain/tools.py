"""Tools of a template: so far the kind whose arguments are the result, `emit`."""

import json
from collections.abc import Iterator, Sequence
from typing import Annotated

import msgspec

from shared.domain import schemas
from shared.errors import Flaw

MAX_TOOLS = 32
TYPES = ("emit",)


class EmitTool(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    rename="camel",
    omit_defaults=True,
    tag_field="type",
    tag="emit",
    forbid_unknown_fields=True,
):
    """Lets the model hand over a payload: the arguments of its call, which keep to a schema.

    The schema is written as a string. With `fail_fast` a call that misses it is not corrected.
    """

    name: Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9_-]{1,64}\Z")]
    params_schema: str
    description: str | None = None
    fail_fast: bool = False


def unsupported(template: object, base: str) -> Iterator[Flaw]:
    """Name the tools of a decoded template whose type is not one of ours."""
    tools = template.get("tools") if isinstance(template, dict) else None
    for number, tool in enumerate(tools if isinstance(tools, list) else ()):
        if isinstance(tool, dict) and tool.get("type") not in TYPES:
            supported = " or ".join(f"'{one}'" for one in TYPES)
            yield Flaw(f"{base}/tools/{number}/type", f"A tool's type can only be {supported} yet.")


def flaws(tools: Sequence[EmitTool], base: str) -> Iterator[Flaw]:
    """Say what is wrong with a template's tools beyond their types."""
    if len(tools) > MAX_TOOLS:
        yield Flaw(f"{base}/tools", f"At most {MAX_TOOLS} tools are accepted.")
        return
    names: set[str] = set()
    for number, tool in enumerate(tools):
        if tool.name in names:
            yield Flaw(f"{base}/tools/{number}/name", f"There are two tools '{tool.name}'.")
        names.add(tool.name)
        why = schemas.flaw(tool.params_schema)
        if why is None and json.loads(tool.params_schema).get("type") != "object":
            why = "What a tool is called with is an object: its schema says 'type': 'object'."
        if why is not None:
            yield Flaw(f"{base}/tools/{number}/paramsSchema", why)
