"""Names of models, and the parameters they take."""

import re
from collections.abc import Collection, Iterator
from typing import Annotated, NamedTuple

import msgspec

from shared.domain import documents
from shared.domain.completions import ModelParams
from shared.errors import Flaw, UnacceptableError
from shared.settings import ALIAS, PROVIDERS

_MAX_TEMPERATURE = 2
_MODEL = re.compile(r"[!-~]{1,200}")
_WORD = re.compile(r"[A-Za-z0-9_.-]{1,64}")


class ModelName(NamedTuple):
    """A model and the provider that serves it; as text `openai/gpt-5-mini`."""

    provider: str
    model: str

    def __str__(self) -> str:
        return f"{self.provider}/{self.model}"


class SimParams(msgspec.Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    """What a template may tell the simulated provider, as `modelParams.sim`."""

    delay_seconds: Annotated[float, msgspec.Meta(ge=0, le=3600)] | None = None
    output_tokens: Annotated[int, msgspec.Meta(ge=1, le=10_000_000)] | None = None


def is_alias(text: str) -> bool:
    """Tell whether an alias could have this name: one word, so no model with its provider."""
    return _WORD.fullmatch(text) is not None


def parse_name(
    name: str,
    *,
    provider: str | None = None,
    default: str | None = None,
    pointer: str = "/model",
    known: Collection[str] | None = PROVIDERS,
    aliases: Collection[str] = (),
) -> ModelName:
    """Tell a model's provider from its name: `openai/gpt-5-mini`.

    `provider` was named beside it and must not be contradicted; `default` is taken when the name
    carries none. Only known providers count as such, so a compatible server's own names may hold
    slashes (`openai/meta/llama-4`). Who cannot know the server's providers says `None`: then the
    name's own word is taken for it. An alias goes before a model of that name, and is answered as
    one of the provider `alias`. Raises `UnacceptableError`.
    """
    prefix, slash, rest = name.partition("/")
    alias = rest if prefix == ALIAS else name
    if provider in {None, ALIAS} and (alias in aliases or (known is None and prefix == ALIAS)):
        return ModelName(ALIAS, alias)
    if known is None:
        known = {*PROVIDERS, provider or default or prefix}
    carried = prefix if slash and prefix in known else None
    bare = rest if carried else name
    found = carried or provider or default
    if ALIAS in {prefix, provider}:
        message = f"There is no alias '{alias}' that could stand here."
    elif not _MODEL.fullmatch(bare):
        message = "A model's name is 1 to 200 printable ASCII characters without spaces."
    elif found is None or found not in known:
        message = f"Name the model's provider, one of {', '.join(known)}: openai/…"
    elif provider is not None and provider != found:
        message = f"The model says {found}, the field provider says {provider}."
    else:
        return ModelName(found, bare)
    raise UnacceptableError(message, flaws=[Flaw(pointer, message)])


def params_flaws(params: ModelParams, pointer: str) -> Iterator[Flaw]:
    """Name the model parameters that are out of range."""
    if params.max_completion_tokens is not None and params.max_completion_tokens < 1:
        yield Flaw(f"{pointer}/maxCompletionTokens", "Must be at least 1.")
    if params.temperature is not None and not 0 <= params.temperature <= _MAX_TEMPERATURE:
        yield Flaw(f"{pointer}/temperature", "Must be from 0 to 2.")
    if params.top_p is not None and not 0 <= params.top_p <= 1:
        yield Flaw(f"{pointer}/topP", "Must be from 0 to 1.")
    words = {
        "verbosity": params.verbosity,
        "reasoningEffort": params.reasoning_effort,
        "reasoningSummary": params.reasoning_summary,
        "serviceTier": params.service_tier,
    }
    for field, word in words.items():
        if word is not None and not _WORD.fullmatch(word):
            yield Flaw(f"{pointer}/{field}", "Must be one word of at most 64 characters.")
    if params.sim is not None:
        flaws: list[Flaw] = []
        documents.convert(params.sim, SimParams, f"{pointer}/sim", flaws)
        yield from flaws
