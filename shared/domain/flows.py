"""Flows: prompts in the words of the other product, over one and the same stored version.

A flow's `template` is our system message, its `userTemplate` the user's. A template without a
model, settings or a user's message is one that others include.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import msgspec

from shared.domain import documents, flaws, versions
from shared.domain.completions import ModelParams
from shared.domain.formats import JsonSchemaFormat
from shared.domain.templates import Syntax
from shared.domain.versions import MessageBody, Rules, TemplateBody, VersionBody
from shared.errors import Flaw, UnacceptableError

SCHEMA_NAME = "response"

Schema = dict[str, Any]


class FlowTemplate(
    msgspec.Struct, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True
):
    """One template of a flow as clients write it."""

    name: str
    description: str | None = None
    template: str | None = None
    user_template: str | None = None
    llm: str | None = None
    temperature: Annotated[float, msgspec.Meta(ge=0, le=2)] | None = None
    fallbacks: tuple[str, ...] | None = None
    response_schema: Schema | None = None
    tool_ids: tuple[str, ...] | None = None
    max_tool_calls: int | None = None


class FlowTemplateView(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """One template of a flow as it is shown. `messages` are there where two texts cannot say it."""

    name: str
    description: str | None
    template: str | None
    user_template: str | None
    llm: str | None
    temperature: float | None
    fallbacks: tuple[str, ...]
    response_schema: Schema | None
    tool_ids: tuple[str, ...] = ()
    max_tool_calls: int | None = None
    messages: tuple[MessageBody, ...] | None = None


class FlowVersion(msgspec.Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    """The body of a flow's version; without templates it has an empty entrypoint."""

    templates: tuple[FlowTemplate, ...] | None = None
    entrypoint: str = versions.ENTRYPOINT
    mode: Literal["Direct", "Route"] = "Direct"


def to_version(flow: FlowVersion, rules: Rules) -> VersionBody:
    """Write a flow's version as it is stored; it may be unfinished.

    Raises `UnacceptableError` with pointers into what the client wrote.
    """
    templates = flow.templates or (FlowTemplate(name=flow.entrypoint),)
    names = [template.name for template in templates]
    flaws.refuse(
        *_unbuilt(flow),
        *(
            Flaw(f"/templates/{place}/name", "Another template has this name.")
            for place, name in enumerate(names)
            if name in names[:place]
        ),
        *(
            flaw
            for place, template in enumerate(templates)
            for flaw in flaws.of_text(template.description, f"/templates/{place}/description")
        ),
    )
    written = {one.name: _template(one, one.name == flow.entrypoint) for one in templates}
    body = {"entrypoint": flow.entrypoint, "syntax": Syntax.BRACKETS.value, "templates": written}
    try:
        return versions.parse(body, msgspec.structs.replace(rules, unfinished=True))
    except UnacceptableError as error:
        places = {f"/templates{documents.step(name)}": n for n, name in enumerate(names)}
        found = [Flaw(_pointer(flaw.pointer, places), flaw.message) for flaw in error.flaws]
        raise UnacceptableError(error.detail, flaws=found, code=error.code) from error


def templates_of(version: VersionBody) -> list[FlowTemplateView]:
    """Show a version's templates, those that were written through another door too."""
    written = versions.as_written(version).templates
    return [_view(name, template) for name, template in written.items()]


def _unbuilt(flow: FlowVersion) -> list[Flaw]:
    message = "Flows that choose a template by themselves are not built: give Direct."
    found = [] if flow.mode == "Direct" else [Flaw("/mode", message)]
    for place, template in enumerate(flow.templates or ()):
        base = f"/templates/{place}"
        if template.tool_ids:
            found.append(Flaw(f"{base}/toolIds", "Tools are not built: leave this out."))
        if template.max_tool_calls is not None:
            found.append(Flaw(f"{base}/maxToolCalls", "Tools are not built: leave this out."))
    return found


def _template(one: FlowTemplate, is_entrypoint: bool) -> dict[str, Any]:  # noqa: FBT001 (private)
    about = {} if one.description is None else {"description": one.description}
    runs = (one.user_template, one.llm, one.temperature, one.fallbacks, one.response_schema)
    if not is_entrypoint and not any(value is not None for value in runs):
        return {**about, "text": one.template or ""}
    schema = one.response_schema
    params = ModelParams(temperature=one.temperature)
    template = TemplateBody(
        model=one.llm or "",
        system_instruction=one.template,
        messages=() if one.user_template is None else (MessageBody("user", one.user_template),),
        model_params=params,
        fallbacks=one.fallbacks or (),
    )
    wanted = {}
    if schema is not None:
        text = msgspec.json.encode(schema).decode()
        wanted = {"responseFormat": {"type": "json_schema", "name": SCHEMA_NAME, "schema": text}}
    return {**about, **msgspec.to_builtins(template), **wanted}


def _view(name: str, template: TemplateBody) -> FlowTemplateView:
    spoken = template.messages
    plain = not spoken or [message.role for message in spoken] == ["user"]
    wanted = template.response_format
    schema = wanted.schema if isinstance(wanted, JsonSchemaFormat) else None
    return FlowTemplateView(
        name=name,
        description=template.description,
        template=template.system_instruction if template.text is None else template.text,
        user_template=spoken[0].content if spoken and plain else None,
        llm=template.model or None,
        temperature=template.model_params.temperature,
        fallbacks=template.fallbacks,
        response_schema=None if schema is None else msgspec.json.decode(schema),
        messages=None if plain else spoken,
    )


_FIELDS = (
    ("systemInstruction", "template"),
    ("text", "template"),
    ("messages", "userTemplate"),
    ("modelParams/temperature", "temperature"),
    ("model", "llm"),
    ("responseFormat", "responseSchema"),
)


def _pointer(pointer: str, places: Mapping[str, int]) -> str:
    """Say where a flaw of the stored form stands in what the client wrote."""
    base = next((one for one in places if pointer == one or pointer.startswith(f"{one}/")), None)
    if base is None:
        return pointer
    rest = pointer[len(base) + 1 :]
    for ours, theirs in _FIELDS:
        if rest == ours or rest.startswith(f"{ours}/"):
            rest = theirs
            break
    return f"/templates/{places[base]}" + (f"/{rest}" if rest else "")
