"""Which parameters a version and a caller may name, by what every model of the chain takes."""

from typing import Any

import msgspec
import pytest

from shared.domain import calls, parameters, routing, versions
from shared.domain.aliases import Alias
from shared.domain.completions import ModelParams
from shared.domain.models import ModelName
from shared.domain.routing import Known
from shared.domain.submissions import Submission
from shared.domain.versions import Rules
from shared.errors import UnacceptableError
from shared.settings import PROVIDERS

Json = dict[str, Any]
KNOWN = (*PROVIDERS, "groq")
ALIASES = {"quick": Alias(models=("openai/gpt-5-mini", "anthropic/claude-x"))}


def a_body(model: str, params: Json, *fallbacks: str) -> Json:
    return {
        "model": model,
        "fallbacks": list(fallbacks),
        "modelParams": params,
        "messages": [{"role": "user", "content": "Hello"}],
    }


def _flaws(body: Json) -> list[tuple[str, str]]:
    """Where a version is refused, and why."""
    try:
        versions.parse(body, Rules(KNOWN))
    except UnacceptableError as error:
        return [(flaw.pointer, flaw.message) for flaw in error.flaws]
    return []


ALL: Json = {
    "maxCompletionTokens": 5,
    "temperature": 1.5,
    "topP": 0.5,
    "verbosity": "low",
    "reasoningEffort": "minimal",
    "serviceTier": "flex",
}


@pytest.mark.parametrize("model", ["openai/gpt-5-mini", "groq/llama", "sim/echo"])
def test_whoever_speaks_openais_words_takes_all_but_a_summary_of_the_reasoning(model: str) -> None:
    assert [] == _flaws(a_body(model, ALL))

    summary = {"reasoningSummary": "auto"}
    assert [("/modelParams/reasoningSummary", f"{model} takes no reasoningSummary.")] == _flaws(
        a_body(model, summary)
    )


def test_anthropic_is_refused_what_it_lacks_each_with_its_place() -> None:
    claude = "anthropic/claude-sonnet-4-5"

    found = _flaws(a_body(claude, ALL))

    assert [
        ("/modelParams/temperature", f"{claude} takes no temperature above 1."),
        ("/modelParams/verbosity", f"{claude} takes no verbosity."),
        (
            "/modelParams/serviceTier",
            f"{claude} takes no serviceTier 'flex', only auto, default, priority, standard_only.",
        ),
    ] == found


@pytest.mark.parametrize(
    "params",
    [
        {"temperature": 1, "topP": 1, "maxCompletionTokens": 1},
        *({"reasoningEffort": word} for word in ("none", "minimal", "low", "high", "xhigh", "max")),
        *({"serviceTier": word} for word in ("auto", "default", "priority", "standard_only")),
        {"sim": {"outputTokens": 3}},
    ],
)
def test_anthropic_takes_what_has_a_word_there(params: Json) -> None:
    assert [] == _flaws(a_body("anthropic/claude-x", params))


def test_every_model_of_a_chain_has_to_take_the_parameters() -> None:
    body = a_body("openai/gpt-5", {"verbosity": "low"}, "groq/llama", "anthropic/claude-x")

    assert [
        (
            "/modelParams/verbosity",
            "The fallback anthropic/claude-x takes no verbosity: every model of a template has to.",
        )
    ] == _flaws(body)


def test_in_the_long_form_the_pointer_names_the_template() -> None:
    body = {
        "entrypoint": "main",
        "templates": {"main": a_body("anthropic/claude-x", {"verbosity": "low"})},
    }

    assert ["/templates/main/modelParams/verbosity"] == [place for place, _ in _flaws(body)]


def _refused(template: Json, **asked: Any) -> list[str]:
    """The pointers at which a caller's own wishes are refused."""
    compiled = versions.compile_version(versions.parse(template, Rules(KNOWN, ALIASES)))
    submission = msgspec.convert({"inputs": {}, **asked}, Submission)
    try:
        known = Known(KNOWN, ALIASES)
        route = routing.route(compiled.settings, submission.model, known, lambda _, one: one.models)
        calls.demand_parameters(compiled.settings, submission, route)
    except UnacceptableError as error:
        return [flaw.pointer for flaw in error.flaws]
    return []


OPENAI = a_body("openai/gpt-5", {"verbosity": "low"})
CHAIN = a_body("openai/gpt-5", {}, "anthropic/claude-x")


@pytest.mark.parametrize(
    ("template", "asked", "expected"),
    [
        (CHAIN, {}, []),
        (a_body("quick", {"verbosity": "low"}), {}, ["/model"]),
        (a_body("quick", {}), {"params": {"verbosity": "low"}}, ["/params/verbosity"]),
        (a_body("quick", {}), {"params": {"temperature": 1}}, []),
        (OPENAI, {"model": "quick"}, ["/model"]),
        (CHAIN, {"params": {"temperature": 1}}, []),
        (CHAIN, {"params": {"temperature": 1.1}}, ["/params/temperature"]),
        (CHAIN, {"params": {"temperature": 1.1}, "model": "openai/gpt-5"}, []),
        (CHAIN, {"params": {"verbosity": "low"}, "model": "claude-x"}, []),
        (OPENAI, {"model": "anthropic/claude-x"}, ["/model"]),
        (OPENAI, {"model": "anthropic/claude-x", "params": {"temperature": 1}}, ["/model"]),
        (
            OPENAI,
            {"model": "anthropic/claude-x", "params": {"serviceTier": "flex"}},
            ["/params/serviceTier"],
        ),
        (OPENAI, {"params": {"reasoningSummary": "auto"}}, ["/params/reasoningSummary"]),
        (OPENAI, {"model": "sim/echo"}, []),
    ],
)
def test_a_caller_s_own_model_and_parameters_have_to_fit_together(
    template: Json, asked: Json, expected: list[str]
) -> None:
    assert expected == _refused(template, **asked)


def test_the_table_speaks_of_parameters_that_there_are() -> None:
    for taken in parameters.TAKEN.values():
        assert taken.keys() <= set(ModelParams.__struct_fields__)
    assert ModelName("groq", "x").provider not in set(parameters.Kind)
