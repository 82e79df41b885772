"""What holds for every flow: rendering ends, in linear time, expands no value, heeds no order."""

from collections.abc import Iterator, Mapping
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from shared.domain import flows, templates, versions
from shared.domain.flows import FlowTemplate, FlowVersion
from shared.domain.templates import Renderer, Template
from shared.domain.versions import CompiledVersion, Rules, VersionBody
from shared.errors import UnacceptableError

NAMES = ("main", "a", "b", "c", "d")
TOKENS = st.sampled_from(NAMES).map(lambda name: f"[[{name}]]")
TEXTS = st.lists(TOKENS | st.text(alphabet="ab[] \\\n", max_size=4), max_size=6).map("".join)
VALUES = st.dictionaries(st.sampled_from((*NAMES, "e")), TEXTS)


def _flow(texts: Mapping[str, str]) -> tuple[FlowTemplate, ...]:
    return tuple(FlowTemplate(name=name, template=text) for name, text in texts.items())


def _texts(*names: str) -> st.SearchStrategy[str]:
    """Texts that include these and no others, often more than once."""
    tokens = st.sampled_from((*names, "e")).map(lambda name: f"[[{name}]]")
    return st.lists(tokens | st.text(alphabet="xy[] \\\n", max_size=3), max_size=8).map("".join)


ANY = st.fixed_dictionaries({"main": TEXTS}, optional=dict.fromkeys(NAMES[1:], TEXTS)).map(_flow)
# Each includes only what comes behind it, so that none goes in circles.
FLOWS = st.fixed_dictionaries(
    {name: _texts(*NAMES[place:]) for place, name in enumerate(NAMES, start=1)}
).map(_flow)
RULES = Rules(unfinished=True)


class Counted(Mapping[str, str]):
    """Values that count how often they are asked for; rendering asks once for each token."""

    def __init__(self, values: Mapping[str, str]) -> None:
        self._values = values
        self.asked = 0

    def __getitem__(self, name: str) -> str:
        self.asked += 1
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)


def _saved(found: tuple[FlowTemplate, ...]) -> VersionBody | None:
    """The version as it would be stored; `None` where saving refuses a circle."""
    try:
        return flows.to_version(FlowVersion(found), RULES)
    except UnacceptableError as error:
        assert "include each other" in error.detail  # noqa: PT017 (the only refusal there may be)
        return None


def _version(found: tuple[FlowTemplate, ...]) -> VersionBody:
    return flows.to_version(FlowVersion(found), RULES)


def _rendered(version: VersionBody, values: Mapping[str, str]) -> list[str]:
    compiled = versions.compile_version(version)
    return [message.content for message in versions.render_messages(compiled, values)]


def _tokens(compiled: CompiledVersion) -> int:
    """How many tokens a version holds in all, its entrypoint's counted as an include, too."""
    own: list[Template] = [template for _, template in compiled.texts]
    return sum(len(one.tokens) for one in (*own, *compiled.includes.values()))


@given(ANY, VALUES)
def test_what_can_be_saved_ends_and_what_goes_in_circles_is_refused_with_its_path(
    found: tuple[FlowTemplate, ...], values: dict[str, str]
) -> None:
    version = _saved(found)

    if version is not None:
        _rendered(version, values)
        return
    compiled = {
        one.name: templates.compile_text(one.template or "", templates.Syntax.BRACKETS)
        for one in found
    }
    cycle = templates.find_cycle(compiled)
    assert cycle is not None
    assert cycle[-1] in cycle[:-1]


@given(FLOWS, VALUES)
def test_each_token_is_looked_at_once_however_often_its_template_is_included(
    found: tuple[FlowTemplate, ...], values: dict[str, str]
) -> None:
    version = _version(found)
    compiled, counted = versions.compile_version(version), Counted(values)

    renderer = Renderer(compiled.includes, counted)
    for _, template in compiled.texts:
        renderer.render(template)

    assert counted.asked <= _tokens(compiled)


@given(FLOWS, VALUES)
def test_a_value_is_never_expanded_wherever_its_token_stands(
    found: tuple[FlowTemplate, ...], values: dict[str, str]
) -> None:
    version = _version(found)
    marks = {name: f"<{number}>" for number, name in enumerate(values)}

    marked = _rendered(version, marks)

    for name, mark in marks.items():
        marked = [text.replace(mark, values[name]) for text in marked]
    # An empty system text is left out: what is compared is what is said.
    assert [text for text in marked if text] == _rendered(version, values)


@given(FLOWS, VALUES, st.randoms(use_true_random=False))
def test_neither_the_order_of_templates_nor_that_of_parameters_matters(
    found: tuple[FlowTemplate, ...], values: dict[str, str], random: Any
) -> None:
    shuffled, names = list(found), list(values)
    random.shuffle(shuffled)
    random.shuffle(names)

    one, other = _version(found), _version(tuple(shuffled))

    assert _rendered(one, values) == _rendered(other, {name: values[name] for name in names})
    asked, again = versions.compile_version(one), versions.compile_version(other)
    assert versions.missing(asked, values) == versions.missing(again, values)
    assert versions.unused(asked, values) == versions.unused(again, values)


@given(FLOWS, TEXTS)
def test_a_parameter_goes_before_the_template_of_its_name_and_cuts_what_that_includes(
    found: tuple[FlowTemplate, ...], value: str
) -> None:
    texts = {one.name: one.template or "" for one in found}
    version = _version(_flow(texts | {"main": "[[a]]"}))

    assert _rendered(version, {"a": value}) == ([value] if value else [])
    assert () == versions.missing(versions.compile_version(version), {"a": value})
