"""What a run would do, without doing it: nothing is called, charged or stored."""

from uuid import UUID

import msgspec
from msgspec import Raw

from shared.deps import Deps
from shared.domain import calls, money, pricing, simulated, submissions, versions
from shared.domain.completions import Message, ModelParams, Usage
from shared.domain.models import ModelName
from shared.domain.pricing import Prices
from shared.domain.states import READS_HISTORY, Lane
from shared.domain.submissions import Submission
from shared.domain.versions import TemplateBody
from shared.services import models, routes, targets
from shared.services.keys import Principal
from shared.services.targets import Located
from shared.store import aliases, database, history, listing

_messages = msgspec.json.Decoder(tuple[Message, ...])


class PreviewedPrompt(msgspec.Struct, frozen=True, rename="camel"):
    """The version that was resolved; `tag` is the one it was asked for by."""

    slug: str
    version: int
    version_id: UUID
    tag: str | None
    published: bool


class TokenEstimate(msgspec.Struct, frozen=True, rename="camel"):
    """Tokens of one call: the input estimated, the output at most."""

    input: int
    max_output: int | None


class Preview(msgspec.Struct, frozen=True, rename="camel"):
    """What the outside is shown; `cost_ceiling` are dollars, as of an attempt."""

    prompt: PreviewedPrompt
    environment: str
    priority: Lane
    model: str
    params: ModelParams
    messages: tuple[Message, ...]
    missing_inputs: tuple[str, ...]
    unused_inputs: tuple[str, ...]
    warnings: tuple[str, ...]
    token_estimate: TokenEstimate
    cost_ceiling: Raw | None
    waiting_ahead: int


async def preview(
    deps: Deps, principal: Principal, slug: str, version: str, body: Submission
) -> Preview:
    """Say what a submission would lead to; what it misses is part of the answer.

    Raises what a submission raises but for missing inputs. A draft, by its number or id, needs
    `prompts:write`; the history of a thread needs `runs:write`, as only a run would show it.
    """
    submissions.check(body, now=deps.clock.now())
    with database.nothing_written():
        found = await targets.locate(
            deps, principal.workspace_id, slug, version, body.environment, drafts=True
        )
        targets.demand_reach(principal, found.environment_id)
        if not found.published:
            principal.demand("prompts:write")
        return await _shown(deps, principal, found, body)


async def _shown(deps: Deps, principal: Principal, found: Located, body: Submission) -> Preview:
    whole = versions.from_json(found.body)
    compiled = versions.compile_version(whole)
    known = aliases.read(found.aliases)
    route = routes.foresee(deps, compiled.settings, body.model, known)
    calls.demand_parameters(compiled.settings, body, route)
    model = route.model
    params = calls.params_of(compiled.settings, body.params)
    own = versions.render_messages(compiled, body.inputs)
    said = await _history(deps, principal, compiled.settings, found.environment_id, body)
    messages = calls.with_history(own, said)
    tokens = TokenEstimate(
        calls.input_tokens(messages, compiled.settings), calls.output_cap(model, params)
    )
    lane = body.priority or Lane.NORMAL
    return Preview(
        prompt=PreviewedPrompt(
            found.slug, found.number, found.version_id, found.tag, found.published
        ),
        environment=found.environment,
        priority=lane,
        model=str(model),
        params=params,
        messages=messages,
        missing_inputs=versions.missing(compiled, body.inputs),
        unused_inputs=versions.unused(compiled, body.inputs),
        warnings=(*versions.warnings(whole), *await _lacks(deps, principal, found, body, model)),
        token_estimate=tokens,
        cost_ceiling=await _ceiling(deps, model, params, tokens),
        waiting_ahead=await listing.ahead(
            deps.store, principal.workspace_id, lane, principal.environment_ids
        ),
    )


async def _history(
    deps: Deps,
    principal: Principal,
    template: TemplateBody,
    environment_id: UUID,
    body: Submission,
) -> tuple[Message, ...]:
    """What a run would read of its thread, as it is now: turns under way are not in it yet."""
    if body.thread is None or template.memory not in READS_HISTORY:
        return ()
    principal.demand("runs:write")
    channel = body.channel or submissions.DEFAULT_CHANNEL
    thread = (principal.workspace_id, body.thread, channel)
    return _messages.decode(await history.now(deps.store, thread, environment_id, template.history))


async def _lacks(
    deps: Deps, principal: Principal, found: Located, body: Submission, model: ModelName
) -> list[str]:
    """What would keep the run from being accepted, or from being called."""
    lacks: list[str] = []
    if body.env_vars and deps.vault.current is None:
        lacks.append("This server has no master key: it would refuse the envVars.")
    if model.provider == simulated.PROVIDER:
        if model.model not in simulated.MODELS:
            lacks.append(f"There is no model {model}: the run would fail.")
        return lacks
    name = deps.settings.key_variable(model.provider)
    if name is not None and not (body.env_vars or {}).get(name):
        environments = {found.environment_id}
        usable = await models.usable_providers(deps, principal.workspace_id, environments)
        if model.provider not in usable:
            lacks.append(f"There is no {name} for this environment: the run would fail.")
    return lacks


async def _ceiling(
    deps: Deps, model: ModelName, params: ModelParams, tokens: TokenEstimate
) -> Raw | None:
    """What one call would cost whose answer is as long as it may be."""
    if tokens.max_output is None:
        return None
    prices: Prices | None
    if model.provider == simulated.PROVIDER:
        prices = simulated.prices_of(model.model)
    else:
        book = await deps.prices.get()
        prices = book.prices_of(*model, params.service_tier, deps.clock.now())
    if prices is None:
        return None
    usage = Usage(input=tokens.input, output=tokens.max_output)
    return money.cost_json(pricing.cost_of(usage, prices))
