"""A version of a prompt: its body as clients write it, as it is stored, and compiled to render.

Short and long form of API.md §3 become one `VersionBody`; `null` equals absent throughout.
"""

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import chain, islice
from typing import Annotated, Any, Literal

import msgspec

from shared.domain import (
    documents,
    models,
    parameters,
    schemas,
    templates,
    tools,
    version_forms,
)
from shared.domain.completions import Message, ModelParams
from shared.domain.formats import JsonSchemaFormat, ResponseFormat, TextFormat
from shared.domain.history import NO_LIMITS, TURN_ROWS, History
from shared.domain.states import READS_HISTORY, Memory
from shared.domain.templates import Syntax, Template, TemplateError, Values
from shared.domain.tools import EmitTool
from shared.errors import Flaw, UnacceptableError
from shared.settings import ALIAS, PROVIDERS

ENTRYPOINT = version_forms.ENTRYPOINT
MAX_TEMPLATES = version_forms.MAX_TEMPLATES
MAX_MESSAGES = TURN_ROWS - 1
MAX_FALLBACKS = 10
MAX_WARNINGS = 100


class MessageBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One message of a template. The system text has a field of its own."""

    role: Literal["user", "assistant"]
    content: str


class TemplateBody(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    rename="camel",
    omit_defaults=True,
    forbid_unknown_fields=True,
):
    """One template: `text` alone to be included by others, or messages with a model to run."""

    description: str | None = None
    text: str | None = None
    provider: str | None = None
    model: str = ""
    system_instruction: str | None = None
    messages: tuple[MessageBody, ...] = ()
    model_params: ModelParams = ModelParams()
    response_format: ResponseFormat = TextFormat()
    memory: Memory = Memory.STATELESS
    history: History = NO_LIMITS
    fallbacks: tuple[str, ...] = ()
    tools: tuple[EmitTool, ...] = ()
    timeout_seconds: Annotated[int, msgspec.Meta(ge=5, le=3600)] | None = None


class Rules(msgspec.Struct, frozen=True):
    """What a version is held against. `providers` are the server's; `None` takes any for one.

    `aliases` are the workspace's. An `unfinished` version may lack models and messages.
    """

    providers: Collection[str] | None = PROVIDERS
    aliases: Collection[str] = ()
    unfinished: bool = False


PLAIN = Rules()
"""The providers that are always there, no aliases."""


class VersionBody(msgspec.Struct, frozen=True, rename="camel"):
    """A version in its long form, checked; the entrypoint's template comes first."""

    entrypoint: str
    syntax: Syntax
    templates: dict[str, TemplateBody]


class CompiledVersion(msgspec.Struct, frozen=True):
    """A version ready to render from one entrypoint; worth keeping per version id."""

    settings: TemplateBody
    texts: tuple[tuple[str, Template], ...]
    includes: dict[str, Template]
    inputs: tuple[str, ...]


def parse(
    body: object, rules: Rules = PLAIN, *, default_syntax: Syntax = Syntax.BRACES
) -> VersionBody:
    """Read a version body: JSON bytes, or what they were decoded to.

    Raises `UnacceptableError` with every flaw found, `BadRequestError` for bytes that are no JSON.
    """
    outer, bases = version_forms.outer(version_forms.document(body))
    flaws: list[Flaw] = []
    found: dict[str, TemplateBody] = {}
    for name in sorted(outer.templates, key=lambda name: name != outer.entrypoint):
        template = _template(name, outer.templates[name], (bases[name], rules), flaws)
        if template is not None:
            found[name] = template
    if outer.entrypoint not in outer.templates:
        flaws.append(Flaw("/entrypoint", f"There is no template '{outer.entrypoint}'."))
    elif outer.entrypoint in found and found[outer.entrypoint].text is not None:
        base = bases[outer.entrypoint]
        flaws.append(Flaw(f"{base}/text", "An entrypoint needs messages, not a text."))
    if flaws:
        raise version_forms.refused(flaws)
    version = VersionBody(outer.entrypoint, outer.syntax or default_syntax, found)
    if flaws := _include_flaws(version, bases):
        raise version_forms.refused(flaws)
    return version


def to_json(version: VersionBody) -> bytes:
    """Write a version as it is stored."""
    return msgspec.json.encode(version)


def from_json(stored: bytes | str) -> VersionBody:
    """Read what `to_json` wrote; it was checked then."""
    return msgspec.json.decode(stored, type=VersionBody)


def as_written(version: VersionBody) -> VersionBody:
    """Bring a version into a form that `parse` reads as the same version: models by full name.

    Apart from its provider a model's own name may look as if it began with one.
    """
    templates = {
        name: template
        if template.provider is None
        else msgspec.structs.replace(
            template, provider=None, model=f"{template.provider}/{template.model}"
        )
        for name, template in version.templates.items()
    }
    return msgspec.structs.replace(version, templates=templates)


def compile_version(version: VersionBody, entrypoint: str | None = None) -> CompiledVersion:
    """Split a version's texts for rendering, from its own entrypoint or another of its templates.

    Raises `UnacceptableError` for an entrypoint that is not there or holds only a text.
    """
    name = entrypoint or version.entrypoint
    settings = version.templates.get(name)
    if settings is None or settings.text is not None:
        message = f"The version has no template '{name}' with messages."
        raise UnacceptableError(message, flaws=[Flaw("/entrypoint", message)])
    compiled = {
        included: _compiled_texts(template, version.syntax)
        for included, template in version.templates.items()
    }
    includes = {included: _include(texts) for included, texts in compiled.items()}
    entries = [template for _, template in compiled[name]]
    asked = templates.missing(includes, entries, {})
    return CompiledVersion(settings, compiled[name], includes, asked)


def lacks(version: VersionBody) -> list[Flaw]:
    """What an unfinished version still needs to be run from its own entrypoint."""
    name = version.entrypoint
    entry, base = version.templates[name], f"/templates{documents.step(name)}"
    flaws = []
    if not entry.model:
        flaws.append(Flaw(f"{base}/model", f"The entrypoint '{name}' has no model yet."))
    if not (entry.messages or entry.system_instruction):
        flaws.append(Flaw(f"{base}/messages", f"The entrypoint '{name}' says nothing yet."))
    return flaws


def inputs(version: VersionBody) -> tuple[str, ...]:
    """Names a caller has to give values for, in order of first appearance."""
    return compile_version(version).inputs


def missing(compiled: CompiledVersion, values: Values) -> tuple[str, ...]:
    """Names a caller should have given values for and did not."""
    if values.keys().isdisjoint(compiled.includes):
        return tuple(name for name in compiled.inputs if name not in values)
    return templates.missing(compiled.includes, _entries(compiled), values)


def unused(compiled: CompiledVersion, values: Values) -> tuple[str, ...]:
    """Names of values that nothing asks for, sorted."""
    return templates.unused(compiled.includes, _entries(compiled), values)


def render_messages(compiled: CompiledVersion, values: Values) -> tuple[Message, ...]:
    """Render what a provider is sent, the system text first; an empty one is left out.

    Raises `TemplateError` over 1 MiB in all. What is missing stays as it was written.
    """
    renderer = templates.Renderer(compiled.includes, values)
    rendered = (Message(role, renderer.render(template)) for role, template in compiled.texts)
    return tuple(message for message in rendered if message.content or message.role != "system")


def warnings(version: VersionBody) -> tuple[str, ...]:
    """Describe what looks like a token and is literal text, and what has no effect."""
    unread = (
        f"{name}: history is kept, but a {template.memory.value} template reads none"
        for name, template in version.templates.items()
        if template.history != NO_LIMITS and template.memory not in READS_HISTORY
    )
    misses = (
        f"{name}, {place}: {miss}"
        for name, template in version.templates.items()
        for _, place, text in _texts(template)
        for miss in templates.near_misses(text, version.syntax)
    )
    return tuple(islice(chain(unread, misses), MAX_WARNINGS))


def revision_view(version: VersionBody) -> dict[str, Any]:
    """Show the entrypoint as a PromptRevision of API.md §2, without what the database knows."""
    entry = version.templates[version.entrypoint]
    limits = {} if entry.history == NO_LIMITS else {"history": entry.history}
    return {
        "memory": entry.memory.value,
        "provider": entry.provider,
        "model": entry.model,
        "modelParams": msgspec.to_builtins(entry.model_params),
        "responseFormat": msgspec.to_builtins(entry.response_format),
        "systemInstruction": entry.system_instruction,
        "messages": msgspec.to_builtins(list(entry.messages)),
        "tools": msgspec.to_builtins(list(entry.tools)),
        "inputs": list(inputs(version)),
        **msgspec.to_builtins(limits),
    }


_NAME = re.compile(templates.NAME_PATTERN)


def _template(
    name: str, value: object, where: tuple[str, Rules], flaws: list[Flaw]
) -> TemplateBody | None:
    base, rules = where
    before = len(flaws)
    if not _NAME.fullmatch(name):
        flaws.append(Flaw(base, f"A template's name matches {templates.NAME_PATTERN}."))
    flaws += tools.unsupported(value, base)
    template = documents.convert(value, TemplateBody, base, flaws) if len(flaws) == before else None
    if template is not None:
        flaws += _template_flaws(template, base, rules)
        if template.text is None:
            template = _with_models(template, base, flaws, rules)
    return None if len(flaws) > before else template


def _template_flaws(template: TemplateBody, base: str, rules: Rules) -> Iterator[Flaw]:
    if template.text is not None:
        if template != TemplateBody(text=template.text, description=template.description):
            yield Flaw(f"{base}/text", "A template has either a text or messages and a model.")
        return
    if not (template.messages or template.system_instruction or rules.unfinished):
        yield Flaw(f"{base}/messages", "At least one message is needed.")
    if len(template.messages) > MAX_MESSAGES:
        yield Flaw(f"{base}/messages", f"At most {MAX_MESSAGES} messages are accepted.")
    if len(template.fallbacks) > MAX_FALLBACKS:
        yield Flaw(f"{base}/fallbacks", f"At most {MAX_FALLBACKS} models are accepted.")
    yield from models.params_flaws(template.model_params, f"{base}/modelParams")
    yield from tools.flaws(template.tools, base)
    if isinstance(template.response_format, JsonSchemaFormat):
        flaw = schemas.flaw(template.response_format.schema)
        if flaw is not None:
            yield Flaw(f"{base}/responseFormat/schema", flaw)


def _with_models(
    template: TemplateBody, base: str, flaws: list[Flaw], rules: Rules
) -> TemplateBody:
    """Tell provider and model apart; write fallbacks with their provider."""
    provider, known = template.provider, rules.providers
    if rules.unfinished and not (template.model or template.fallbacks):
        return template
    if provider is not None and known is not None and provider not in {*known, ALIAS}:
        flaws.append(Flaw(f"{base}/provider", f"Known providers: {', '.join(known)}."))
        return template
    try:
        model = models.parse_name(
            template.model,
            provider=provider,
            pointer=f"{base}/model",
            known=known,
            aliases=rules.aliases,
        )
        default = None if model.provider == ALIAS else model.provider
        fallbacks = tuple(
            models.parse_name(
                name, default=default, pointer=f"{base}/fallbacks/{number}", known=known
            )
            for number, name in enumerate(template.fallbacks)
        )
    except UnacceptableError as error:
        flaws += error.flaws
        return template
    # What an alias stands for is looked at when a run is submitted: it may be set anew until then.
    chain = fallbacks if model.provider == ALIAS else (model, *fallbacks)
    flaws += parameters.flaws(template.model_params, chain, f"{base}/modelParams")
    return msgspec.structs.replace(
        template, provider=model.provider, model=model.model, fallbacks=tuple(map(str, fallbacks))
    )


def _include_flaws(version: VersionBody, bases: Mapping[str, str]) -> list[Flaw]:
    """Find templates over a limit; where there are none, a cycle or a chain too deep."""
    flaws: list[Flaw] = []
    includes: dict[str, Template] = {}
    for name, template in version.templates.items():
        try:
            includes[name] = _include(_compiled_texts(template, version.syntax))
        except TemplateError as error:
            flaws.append(Flaw(bases[name], error.detail))
    if flaws:
        return flaws
    cycle = templates.find_cycle(includes)
    if cycle is not None:
        return [Flaw(bases[cycle[-2]], f"Templates include each other: {' → '.join(cycle)}.")]
    deepest = templates.deepest_path(includes)
    if len(deepest) > templates.MAX_DEPTH + 1:
        shown = " → ".join(deepest)
        return [Flaw(bases[deepest[0]], f"Includes go {len(deepest) - 1} levels deep: {shown}.")]
    return []


def _texts(template: TemplateBody) -> Iterator[tuple[str, str, str]]:
    """Name each text's role and place, in the order in which they are sent."""
    if template.text is not None:
        yield "", "text", template.text
    if template.system_instruction is not None:
        yield "system", "system instruction", template.system_instruction
    for number, message in enumerate(template.messages, start=1):
        yield message.role, f"message {number}", message.content


def _compiled_texts(template: TemplateBody, syntax: Syntax) -> tuple[tuple[str, Template], ...]:
    """Compile each text with its role. The limits hold for a template's texts together."""
    size = sum(templates.byte_length(text) for _, _, text in _texts(template))
    if size > templates.MAX_SOURCE_BYTES:
        raise TemplateError(f"A template may hold {templates.MAX_SOURCE_BYTES:,} bytes.")
    compiled = tuple(
        (role, templates.compile_text(text, syntax)) for role, _, text in _texts(template)
    )
    if sum(len(text.tokens) for _, text in compiled) > templates.MAX_TOKENS:
        raise TemplateError(f"A template may hold {templates.MAX_TOKENS} tokens.")
    return compiled


def _include(texts: Sequence[tuple[str, Template]]) -> Template:
    """Make what others include: a template's text, or all its texts with blank lines between."""
    return templates.join([template for _, template in texts], "\n\n")


def _entries(compiled: CompiledVersion) -> list[Template]:
    return [template for _, template in compiled.texts]
