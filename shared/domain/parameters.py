"""Which model parameters each kind of provider takes, and in which words: the one table of it.

Versions and submissions are refused after it, and requests to the vendors are written after it.
"""

from collections.abc import Iterator, Mapping, Sequence
from enum import StrEnum
from typing import Any, NamedTuple

from shared.domain import simulated
from shared.domain.completions import ModelParams
from shared.domain.models import ModelName
from shared.errors import Flaw


class Kind(StrEnum):
    """Whose words a provider understands; servers by name speak OpenAI's."""

    OPENAI = "openai"
    ANTHROPIC = "anthropic"
    SIM = simulated.PROVIDER


class Taken(NamedTuple):
    """How a vendor calls a parameter, what it calls the words for it, and how high it goes.

    Without `words` any is passed on, for the vendor to judge.
    """

    name: str
    words: Mapping[str, str] | None = None
    most: float | None = None


# Chat Completions know no summary of the reasoning, and nobody else does.
_OPENAI = {
    "max_completion_tokens": Taken("max_completion_tokens"),
    "temperature": Taken("temperature"),
    "top_p": Taken("top_p"),
    "verbosity": Taken("verbosity"),
    "reasoning_effort": Taken("reasoning_effort"),
    "service_tier": Taken("service_tier"),
}
_EFFORTS = {"none": "none", "minimal": "low"} | {
    word: word for word in ("low", "medium", "high", "xhigh", "max")
}
_TIERS = {
    "auto": "auto",
    "default": "standard_only",
    "priority": "auto",
    "standard_only": "standard_only",
}
_ANTHROPIC = {
    "max_completion_tokens": Taken("max_tokens"),
    "temperature": Taken("temperature", most=1),
    "top_p": Taken("top_p"),
    "reasoning_effort": Taken("effort", _EFFORTS),
    "service_tier": Taken("service_tier", _TIERS),
}
TAKEN: Mapping[Kind, Mapping[str, Taken]] = {
    Kind.OPENAI: _OPENAI,
    Kind.ANTHROPIC: _ANTHROPIC,
    Kind.SIM: _OPENAI,  # it calls nobody, and stands for whomever the prompt is meant for
}
OUTSIDE = {
    field: name
    for field, name in zip(
        ModelParams.__struct_fields__, ModelParams.__struct_encode_fields__, strict=True
    )
    if field != "sim"
}
"""The parameters of API.md: our name for each, and the outside's."""


def kind_of(provider: str) -> Kind:
    """Whose words the provider of this name understands."""
    return Kind(provider) if provider in set(Kind) else Kind.OPENAI


def said(kind: Kind, params: ModelParams) -> dict[str, Any]:
    """Say parameters in a vendor's words."""
    words: dict[str, Any] = {}
    for field, taken in TAKEN[kind].items():
        value = getattr(params, field)
        if value is not None:
            words[taken.name] = value if taken.words is None else taken.words.get(value, value)
    return words


def flaws(
    params: ModelParams, chain: Sequence[ModelName], pointer: str, *, whole: bool = False
) -> Iterator[Flaw]:
    """Name the parameters that a model of a chain does not take: its first, then its fallbacks.

    `whole` says that the pointer is the place of all of them.
    """
    for field, name in OUTSIDE.items():
        value = getattr(params, field)
        if value is None:
            continue
        for number, model in enumerate(chain):
            lack = _lack(TAKEN[kind_of(model.provider)].get(field), name, value)
            if lack is not None:
                place = pointer if whole else f"{pointer}/{name}"
                yield Flaw(place, _message(model, lack, is_fallback=number > 0))
                break


def _lack(taken: Taken | None, name: str, value: Any) -> str | None:
    if taken is None:
        return f"no {name}"
    if taken.most is not None and value > taken.most:
        return f"no {name} above {taken.most:g}"
    if taken.words is not None and value not in taken.words:
        return f"no {name} '{value}', only {', '.join(taken.words)}"
    return None


def _message(model: ModelName, lack: str, *, is_fallback: bool) -> str:
    if is_fallback:
        return f"The fallback {model} takes {lack}: every model of a template has to."
    return f"{model} takes {lack}."
