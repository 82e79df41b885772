"""Aliases: what may stand behind a name, and which model a run gets for it."""

from collections import Counter
from itertools import count
from random import Random
from typing import Any

import msgspec
import pytest

from shared.domain import aliases, models, routing
from shared.domain.aliases import Alias, Strategy
from shared.domain.routing import Known
from shared.domain.versions import TemplateBody
from shared.errors import UnacceptableError
from shared.settings import PROVIDERS

MODELS = ("sim/echo", "sim/slow", "openai/gpt-5-mini")
KNOWN = Known(PROVIDERS, {"quick": Alias(MODELS)})


def _first(_: str, alias: Alias) -> tuple[str, ...]:
    return aliases.chain(alias, 0.0, lambda: 0)


def _routed(override: str | None = None, **template: Any) -> tuple[tuple[str, ...], bool]:
    found = routing.route(TemplateBody(**template), override, KNOWN, _first)
    return found.models, found.by_alias


def _runs(alias: Alias, number: int) -> Counter[tuple[str, ...]]:
    random, turns = Random(7), count()
    return Counter(
        aliases.chain(alias, random.random(), lambda: next(turns)) for _ in range(number)
    )


def test_models_one_after_the_other_are_all_kept_in_their_order() -> None:
    assert {MODELS: 100} == _runs(Alias(MODELS), 100)


def test_models_in_turn_get_the_same_number_of_runs() -> None:
    alias = Alias(MODELS, Strategy.ROUND_ROBIN)

    assert dict.fromkeys(((model,) for model in MODELS), 100) == _runs(alias, 300)


def test_a_model_by_chance_gets_its_share() -> None:
    shares = _runs(Alias(MODELS, Strategy.RANDOM), 3_000)

    assert {(model,) for model in MODELS} == shares.keys()
    assert all(900 < share < 1_100 for share in shares.values())


def test_a_weight_is_a_share_and_none_is_never() -> None:
    shares = _runs(Alias(MODELS, Strategy.WEIGHTED_RANDOM, weights=(9, 0, 1)), 1_000)

    assert {("sim/echo",), ("openai/gpt-5-mini",)} == shares.keys()
    assert 870 < shares["sim/echo",] < 930
    last = Alias(MODELS, Strategy.WEIGHTED_RANDOM, weights=(1, 1, 0))
    assert ("sim/slow",) == aliases.chain(last, 1 - 2**-53, lambda: 0)


@pytest.mark.parametrize(
    ("name", "changes", "pointers"),
    [
        ("a/b", {}, ["/alias"]),
        ("", {}, ["/alias"]),
        ("x" * 65, {}, ["/alias"]),
        ("quick", {"models": ()}, ["/models"]),
        ("quick", {"models": ("sim/echo",) * 2}, ["/models"]),
        ("quick", {"models": tuple(f"sim/{n}" for n in range(11))}, ["/models"]),
        ("quick", {"models": ("sim/echo", "slower", "alias/slower")}, ["/models/1", "/models/2"]),
        ("quick", {"weights": (1, 1, 1)}, ["/weights"]),
        ("quick", {"strategy": Strategy.WEIGHTED_RANDOM}, ["/weights"]),
        ("quick", {"strategy": Strategy.WEIGHTED_RANDOM, "weights": (1, 1)}, ["/weights"]),
        ("quick", {"strategy": Strategy.WEIGHTED_RANDOM, "weights": (0, 0, 0)}, ["/weights"]),
        ("quick", {"description": "x" * 2_001}, ["/description"]),
    ],
)
def test_what_cannot_be_an_alias_is_refused_at_its_field(
    name: str, changes: dict[str, Any], pointers: list[str]
) -> None:
    alias = msgspec.structs.replace(Alias(MODELS), **changes)

    with pytest.raises(UnacceptableError) as refused:
        aliases.check(name, alias, PROVIDERS)

    assert pointers == [flaw.pointer for flaw in refused.value.flaws]


def test_the_request_goes_before_the_alias_and_the_alias_before_the_fallbacks() -> None:
    named = {"provider": "alias", "model": "quick", "fallbacks": ("sim/echo", "sim/500")}
    plain = {"provider": "sim", "model": "echo", "fallbacks": ("sim/500",)}

    assert (("sim/429",), False) == _routed("sim/429", **named)
    assert (MODELS, True) == _routed("quick", **plain)
    assert (MODELS, True) == _routed("alias/quick", **plain)
    assert ((*MODELS, "sim/500"), True) == _routed(None, **named)
    assert (("sim/echo",), False) == _routed(None, **plain)
    assert (("sim/slow",), False) == _routed("slow", **plain)


@pytest.mark.parametrize(
    ("override", "template", "code"),
    [
        (None, {"provider": "alias", "model": "gone"}, "unknown_alias"),
        (None, {"system_instruction": "no model yet"}, "invalid"),
        ("alias/gone", {"provider": "sim", "model": "echo"}, "invalid"),
        ("gone", {"provider": "alias", "model": "quick"}, "invalid"),
    ],
)
def test_what_leads_to_no_model_is_refused(
    override: str | None, template: dict[str, Any], code: str
) -> None:
    with pytest.raises(UnacceptableError) as refused:
        _routed(override, **template)

    assert code == refused.value.code


def test_an_alias_is_no_provider_of_models() -> None:
    assert ("alias", "quick") == models.parse_name("quick", aliases={"quick"})
    assert ("sim", "quick") == models.parse_name("quick", provider="sim", aliases={"quick"})
    assert ("sim", "quick") == models.parse_name("sim/quick", aliases={"quick"})
