"""What a flow wants to be told: the tokens that its entrypoint reaches."""

from datetime import UTC, datetime
from uuid import UUID, uuid5

import msgspec

from shared.clock import rfc3339
from shared.deps import Deps
from shared.domain import templates, versions
from shared.domain.prompts import PINNED
from shared.domain.versions import TemplateBody
from shared.services import targets
from shared.services.keys import Principal
from shared.services.targets import Located


class ParameterTemplate(msgspec.Struct, frozen=True, rename="camel"):
    """A template of a flow's version. `language` is always null: nothing here has one."""

    id: UUID
    id_created: str
    key: str
    name: str
    template: str
    language: str | None
    llm: str | None


class FlowParameter(msgspec.Struct, frozen=True, rename="camel"):
    """A token, and the template of its name, which is the default where there is one."""

    token: str
    prompt_template: ParameterTemplate | None


class Wanted(msgspec.Struct, frozen=True):
    """Which version of a flow, and from where."""

    version: str | None
    environment: str | None
    entrypoint: str | None


async def listed(
    deps: Deps, principal: Principal, flow: str, wanted: Wanted
) -> list[FlowParameter]:
    """The tokens that are reachable from the entrypoint, in the order in which they are met.

    Raises `NotFoundError`, `ConflictError` for a flow without a pin, and `UnacceptableError` for
    an unknown environment or entrypoint.
    """
    version = wanted.version or PINNED
    found = await targets.locate(
        deps, principal.workspace_id, flow, version, wanted.environment, drafts=True
    )
    if wanted.environment is not None or version == PINNED:
        targets.demand_reach(principal, found.environment_id)
    if not found.published:
        principal.demand("prompts:write")
    body = versions.from_json(found.body)
    compiled = versions.compile_version(body, wanted.entrypoint)
    names = templates.asked(compiled.includes, [text for _, text in compiled.texts])
    return [FlowParameter(name, _shown(found, name, body.templates.get(name))) for name in names]


def _shown(found: Located, name: str, template: TemplateBody | None) -> ParameterTemplate | None:
    if template is None:
        return None
    model = None if template.text is not None else f"{template.provider}/{template.model}"
    return ParameterTemplate(
        id=uuid5(found.version_id, name),
        id_created=_made_at(found.version_id),
        key=name,
        name=name,
        template=_text(template),
        language=None,
        llm=model,
    )


def _text(template: TemplateBody) -> str:
    """What another template includes by this one's name."""
    if template.text is not None:
        return template.text
    said = [message.content for message in template.messages]
    return "\n\n".join([template.system_instruction or "", *said]).strip()


def _made_at(version_id: UUID) -> str:
    """When a version was made: the first 48 bits of its id are milliseconds (RFC 9562)."""
    return rfc3339(datetime.fromtimestamp((version_id.int >> 80) / 1000, UTC))
