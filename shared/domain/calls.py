"""What a provider is asked: decided here once, for the worker's call and for a preview of it."""

from collections.abc import Sequence
from typing import Protocol

import msgspec

from shared.domain import flaws, parameters, simulated
from shared.domain.completions import Message, ModelParams
from shared.domain.formats import JsonSchemaFormat
from shared.domain.history import BYTES_PER_TOKEN, TOKENS_PER_MESSAGE
from shared.domain.models import ModelName
from shared.domain.routing import Route
from shared.domain.templates import byte_length
from shared.domain.versions import TemplateBody
from shared.errors import Flaw

ANTHROPIC_MAX_TOKENS = 8192  # its API wants a number; what every current model accepts
MISSED = "schema_mismatch"
"""The error code of an attempt whose answer is not what its `responseFormat` wants."""

_AGAIN = "Your answer cannot be used. Answer again: the whole JSON document, and nothing else."
_AGAIN_WITH_TOOLS = "Your answer cannot be used. Answer again, in full, with all calls of tools."


class Asked(Protocol):
    """What a caller may want otherwise than the template."""

    @property
    def model(self) -> str | None: ...
    @property
    def params(self) -> ModelParams | None: ...


def demand_parameters(template: TemplateBody, asked: Asked, route: Route) -> None:
    """Raise `UnacceptableError` for parameters that a model of the run's chain does not take.

    A version's own were checked with its models when it was saved; what an alias stands for, and
    what a caller names, comes to them here.
    """
    other = asked.model is not None or route.by_alias
    found: list[Flaw] = []
    if asked.params is not None:
        chain = (*route.models, *(() if other else template.fallbacks))
        found += parameters.flaws(asked.params, _names(chain), "/params")
    if other and not found:
        wanted = params_of(template, asked.params)
        found += parameters.flaws(wanted, _names(route.models), "/model", whole=True)
    flaws.refuse(*found)


def params_of(template: TemplateBody, overrides: ModelParams | None) -> ModelParams:
    """The template's parameters, those of the run before them."""
    if overrides is None:
        return template.model_params
    changes = {
        name: value
        for name in ModelParams.__struct_fields__
        if (value := getattr(overrides, name)) is not None
    }
    return msgspec.structs.replace(template.model_params, **changes)


def with_history(own: tuple[Message, ...], history: Sequence[Message]) -> tuple[Message, ...]:
    """The messages to send: what the thread held before goes behind the system text."""
    if not history:
        return own
    system = tuple(message for message in own if message.role == "system")
    return (*system, *history, *(message for message in own if message.role != "system"))


def correction(answer: str, why: str, *, with_tools: bool) -> tuple[Message, ...]:
    """What a vendor is told when its answer was not what the template wants."""
    told = Message("user", f"{why}\n{_AGAIN_WITH_TOOLS if with_tools else _AGAIN}")
    return (Message("assistant", answer), told) if answer.strip() else (told,)


def input_tokens(messages: Sequence[Message], template: TemplateBody) -> int:
    """Estimate the tokens of an input: four bytes of UTF-8 make one, each message takes four more.

    Close for English; vendors' tokenizers differ by a third in either direction.
    """
    texts = [message.content for message in messages]
    if isinstance(template.response_format, JsonSchemaFormat):
        texts.append(template.response_format.schema)
    for tool in template.tools:
        texts.extend((tool.name, tool.description or "", tool.params_schema))
    size = sum(map(byte_length, texts))
    return -(-size // BYTES_PER_TOKEN) + TOKENS_PER_MESSAGE * len(messages)


def sent_cap(model: ModelName, params: ModelParams) -> int | None:
    """The limit of an answer's tokens that goes along with a call."""
    if model.provider == "anthropic":
        return params.max_completion_tokens or ANTHROPIC_MAX_TOKENS
    return params.max_completion_tokens


def output_cap(model: ModelName, params: ModelParams) -> int | None:
    """How many tokens an answer may have at most, reasoning included; `None` is unknown."""
    cap = sent_cap(model, params)
    if model.provider == simulated.PROVIDER:
        told: int | None = (params.sim or {}).get("outputTokens")
        return min((one for one in (cap, told) if one is not None), default=None)
    return cap


def _names(models: Sequence[str]) -> tuple[ModelName, ...]:
    return tuple(ModelName(*name.split("/", 1)) for name in models)
