"""What an answer may have to look like: `responseFormat` of API.md §2."""

from typing import Annotated

import msgspec


class TextFormat(
    msgspec.Struct, frozen=True, tag_field="type", tag="text", forbid_unknown_fields=True
):
    """Plain text: the default."""


class JsonObjectFormat(
    msgspec.Struct, frozen=True, tag_field="type", tag="json_object", forbid_unknown_fields=True
):
    """Any JSON object."""


class JsonSchemaFormat(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    omit_defaults=True,
    tag_field="type",
    tag="json_schema",
    forbid_unknown_fields=True,
):
    """JSON after a schema, which is itself written as a string."""

    name: Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9_-]{1,64}\Z")]
    schema: str
    strict: bool | None = None
    description: str | None = None


ResponseFormat = TextFormat | JsonObjectFormat | JsonSchemaFormat
