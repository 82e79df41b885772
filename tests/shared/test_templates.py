"""Templates: what a token is, what resolves it, and that nothing runs away."""

import pickle
import sys
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.domain import templates
from shared.domain.templates import Syntax, Template, TemplateError

BRACES, BRACKETS = Syntax.BRACES, Syntax.BRACKETS

NAMES = st.sampled_from(["a", "b", "c", "d", "e"])
SYNTAXES = st.sampled_from(list(Syntax))
# Texts made of what templates are made of, so that tokens, near misses and escapes are frequent.
TEXTS = st.lists(
    st.one_of(
        st.sampled_from(["{{", "}}", "[[", "]]", "{", "}", "[", "]", "\\", " ", "{%", "é", "\n"]),
        NAMES.map(lambda name: "{{" + name + "}}"),
        NAMES.map(lambda name: "[[ " + name + " ]]"),
        st.text(max_size=5),
    ),
    max_size=12,
).map("".join)
VALUES = st.dictionaries(NAMES, TEXTS)
SETS = st.dictionaries(NAMES, TEXTS.map(lambda text: templates.compile_text(text, BRACES)))


def a_set(**texts: str) -> dict[str, Template]:
    return {name: templates.compile_text(text, BRACES) for name, text in texts.items()}


def rendered(text: str, values: dict[str, str], **texts: str) -> str:
    return templates.render(templates.compile_text(text, BRACES), a_set(**texts), values)


def tokens_of(text: str, syntax: Syntax = BRACES) -> list[str]:
    return [token.name for token in templates.compile_text(text, syntax).tokens]


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("Hello {{ name }}!", ["name"]),
        ("{{name}}{{name}}", ["name", "name"]),
        ("{{   a.b-c_1   }}", ["a.b-c_1"]),
        ("{{{name}}}", ["name"]),
        ("{{ a {{ b }}", ["b"]),
        ("{{" + "n" * 64 + "}}", ["n" * 64]),
        ("{{" + "n" * 65 + "}}", []),
        ("{{1a}} {{-a}} {{.a}} {{é}}", []),
        ("{{ a b }} {{x|y}} {{}} {{ }} {{ a", []),
        ("{{\ta}} {{a\n}} {{a\u00a0}}", []),
        ("{ {a} } {a} }}a{{", []),
        ("[[a]]", []),
        (r"\{{a}}", []),
        (r"\\{{a}}", []),
    ],
)
def test_a_token_is_opener_spaces_name_spaces_closer(text: str, names: list[str]) -> None:
    assert names == tokens_of(text)


def test_brackets_are_tokens_only_in_their_own_syntax() -> None:
    assert tokens_of("[[ a ]] {{ b }}", BRACKETS) == ["a"]
    assert tokens_of("[[ a ]] {{ b }}", BRACES) == ["b"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Hello {{ name }}!", "Hello Ada!"),
        ("{{{name}}}", "{Ada}"),
        (r"\{{name}}", "{{name}}"),
        (r"\\{{name}}", r"\{{name}}"),
        (r"\{{{name}}", "{{{name}}"),
        (r"\[[name]] \n {% for %}", r"\[[name]] \n {% for %}"),
        ("{{ unknown  }}", "{{ unknown  }}"),
    ],
)
def test_a_text_renders_its_tokens_and_nothing_else(text: str, expected: str) -> None:
    assert expected == rendered(text, {"name": "Ada"})


def test_a_value_beats_the_template_of_its_name_which_beats_nothing() -> None:
    assert rendered("{{ a }}.", {"a": "value"}, a="default") == "value."
    assert rendered("{{ a }}.", {}, a="default") == "default."
    assert rendered("{{ a }}.", {}, a="an {{ b }}") == "an {{ b }}."
    assert rendered("{{ a }}.", {"c": "include"}, a="an {{ b }}", b="{{ c }}") == "an include."


@pytest.mark.parametrize("value", ["{{ other }}", "{% x %}", "${x}", "%s", r"\{{", "[[other]]"])
def test_a_value_is_rendered_literally_and_once(value: str) -> None:
    assert f"<{value}>" == rendered("<{{ a }}>", {"a": value, "other": "expanded"}, other="too")


def test_missing_names_come_in_order_of_first_appearance() -> None:
    entries = [
        templates.compile_text("{{ z }} {{ inc }} {{ a }}", BRACES),
        templates.compile_text("{{ last }} {{ z }}", BRACES),
    ]
    included = a_set(inc="{{ deep }} {{ z }}", unreached="{{ nobody }}")

    assert templates.missing(included, entries, {}) == ("z", "deep", "a", "last")
    assert templates.missing(included, entries, {"inc": "cut", "last": ""}) == ("z", "a")


def test_values_nobody_reaches_are_unused() -> None:
    entries = [templates.compile_text("{{ inc }}", BRACES)]
    included = a_set(inc="{{ deep }}")

    assert templates.unused(included, entries, {"extra": "", "deep": ""}) == ("extra",)
    assert templates.unused(included, entries, {"inc": "", "deep": ""}) == ("deep",)


@pytest.mark.parametrize(
    ("texts", "path"),
    [
        ({"main": "{{ a }}", "a": "{{ b }}", "b": "{{ a }}"}, ("main", "a", "b", "a")),
        ({"main": "{{ main }}"}, ("main", "main")),
        ({"main": "{{ x }}", "a": "{{ b }}", "b": "{{ a }}"}, ("a", "b", "a")),
        ({"main": "{{ a }} {{ b }}", "a": "{{ c }}", "b": "{{ c }}", "c": "{{ x }}"}, None),
        ({}, None),
    ],
)
def test_a_cycle_is_found_with_the_way_into_it(
    texts: dict[str, str], path: tuple[str, ...] | None
) -> None:
    assert path == templates.find_cycle(a_set(**texts))


def test_a_cycle_through_thousands_of_templates_is_found() -> None:
    count = sys.getrecursionlimit() * 3
    texts = {f"t{number}": f"{{{{ t{(number + 1) % count} }}}}" for number in range(count)}

    path = templates.find_cycle(a_set(**texts))

    assert path is not None
    assert (count + 1, "t0", "t0") == (len(path), path[0], path[-1])


def test_the_deepest_path_is_the_longest_chain() -> None:
    texts = a_set(main="{{ d }} {{ a }}", a="{{ b }}", b="{{ d }}", d="{{ x }}", other="")

    assert templates.deepest_path(texts) == ("main", "a", "b", "d")
    assert templates.deepest_path({}) == ()


def test_includes_go_sixteen_levels_deep_and_no_further() -> None:
    texts = {f"t{level}": f"{{{{ t{level + 1} }}}}" for level in range(1, 17)}

    assert rendered("{{ t2 }}", {"t17": "end"}, **texts) == "end"
    assert rendered("{{ t1 }}", {}, **texts) == "{{ t17 }}"
    with pytest.raises(TemplateError, match="16 levels"):
        rendered("{{ t1 }}", {}, **texts, t17="too deep")


def test_a_set_with_a_cycle_still_renders_to_an_error() -> None:
    with pytest.raises(TemplateError):
        rendered("{{ a }}", {}, a="{{ b }}", b="{{ a }}")


def test_includes_that_multiply_at_each_level_end_at_the_limit() -> None:
    texts = {f"t{level}": f"{{{{ t{level + 1} }}}}" * 200 for level in range(1, 15)}
    started = time.perf_counter()

    with pytest.raises(TemplateError, match="1,048,576 bytes"):
        rendered("{{ t1 }}", {}, **texts, t15="boom")

    assert time.perf_counter() - started < 1


def test_the_limit_counts_bytes_over_all_texts_of_a_run() -> None:
    renderer = templates.Renderer({}, {}, max_bytes=10)

    renderer.render(Template("éé"))
    renderer.render(Template("123456"))
    with pytest.raises(TemplateError):
        renderer.render(Template("x"))


def test_a_value_of_exactly_the_limit_fits() -> None:
    whole = "x" * templates.MAX_RENDERED_BYTES

    assert whole == rendered("{{ a }}", {"a": whole})
    with pytest.raises(TemplateError):
        rendered("{{ a }}.", {"a": whole})


def test_a_template_holds_at_most_256_kib_and_200_tokens() -> None:
    templates.compile_text("x" * templates.MAX_SOURCE_BYTES, BRACES)
    templates.compile_text("{{ a }}" * 200, BRACES)

    with pytest.raises(TemplateError, match="262,144 bytes"):
        templates.compile_text("x" * templates.MAX_SOURCE_BYTES + "x", BRACES)
    with pytest.raises(TemplateError, match="262,144 bytes"):
        templates.compile_text("é" * (templates.MAX_SOURCE_BYTES // 2) + "x", BRACES)
    with pytest.raises(TemplateError, match="201"):
        templates.compile_text("{{ a }}" * 201, BRACES)


@pytest.mark.parametrize(
    "piece", ["{", "{{", "{{ ", "{{ a", "{{ a b }}", "\\", "\\{{", "{{a{", "{%", "[", "[[a", "\\[["]
)
@pytest.mark.parametrize("syntax", Syntax)
def test_hostile_text_of_full_size_is_read_quickly(piece: str, syntax: Syntax) -> None:
    text = (piece * templates.MAX_SOURCE_BYTES)[: templates.MAX_SOURCE_BYTES]
    started = time.perf_counter()

    templates.compile_text(text, syntax)
    templates.near_misses(text, syntax)

    assert time.perf_counter() - started < 1


def test_one_opener_before_a_wall_of_spaces_is_read_quickly() -> None:
    started = time.perf_counter()

    templates.compile_text("{{" + " " * 200_000 + "{{ a" + " " * 60_000, BRACES)

    assert time.perf_counter() - started < 1


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("{{ a b }} and more", ["'{{ a b }}'"]),
        ("{{x|y}}", ["'{{x|y}}'"]),
        ("say {{ unclosed", ["'{{ unclosed' at character 5"]),
        ("{% for x in y %}", ["'{% for x in y %}'"]),
        ("{{ a {{ b }}", ["'{{ a {{ b }}'"]),
        ("{{\nname }}", ["'{{'"]),
        ("{{{{{{", ["'{{' at character 5"]),
        (r"{{ fine }} \{{ a b }} { { [[ x y ]]", []),
    ],
)
def test_near_misses_are_described(text: str, shown: list[str]) -> None:
    warnings = templates.near_misses(text, BRACES)

    assert len(shown) == len(warnings)
    assert all(part in warning for part, warning in zip(shown, warnings, strict=True))


def test_near_misses_of_brackets_are_described_and_bounded() -> None:
    assert len(templates.near_misses("[[ a b ]] {{ a b }}", BRACKETS)) == 1
    assert len(templates.near_misses("[[ a b ]]" * 500, BRACKETS)) == templates.MAX_WARNINGS


def test_joined_templates_render_as_their_texts_one_after_the_other() -> None:
    parts = [templates.compile_text(text, BRACES) for text in ("{", "{{ a }}", "{", "{ a }}", "")]

    joined = templates.join(parts, "|")

    assert templates.render(joined, {}, {"a": "A"}) == "{|A|{|{ a }}|"
    assert Template("") == templates.join([], "|")


def test_a_compiled_template_survives_pickling() -> None:
    template = templates.compile_text("Hello {{ name }}!", BRACES)

    assert template == pickle.loads(pickle.dumps(template))  # noqa: S301 (our own bytes)


@given(TEXTS, SETS, VALUES)
def test_every_set_of_templates_terminates(
    text: str, texts: dict[str, Template], values: dict[str, str]
) -> None:
    entry = templates.compile_text(text, BRACES)
    cycle = templates.find_cycle(texts)

    templates.missing(texts, [entry], values)
    templates.unused(texts, [entry], values)
    try:
        templates.render(entry, texts, values)
    except TemplateError:
        assert cycle is not None
    if cycle is None:
        assert len(templates.deepest_path(texts)) <= len(texts)
    else:
        assert cycle[-1] in cycle[:-1]


@given(TEXTS, SYNTAXES)
def test_escaped_text_renders_to_itself(text: str, syntax: Syntax) -> None:
    template = templates.compile_text(templates.escape(text, syntax), syntax)

    assert Template(text) == template


@given(st.text().filter(lambda text: "{{" not in text), VALUES)
def test_text_without_openers_is_left_alone(text: str, values: dict[str, str]) -> None:
    assert text == rendered(text, values)
    assert templates.near_misses(text.replace("{%", ""), BRACES) == ()


@given(TEXTS, SYNTAXES)
def test_without_values_only_escapes_are_taken_away(text: str, syntax: Syntax) -> None:
    opener = {BRACES: "{{", BRACKETS: "[["}[syntax]

    template = templates.compile_text(text, syntax)

    assert text.replace("\\" + opener, opener) == templates.render(template, {}, {})


@given(st.text(), st.text(), TEXTS, VALUES)
def test_values_are_never_expanded(
    before: str, after: str, value: str, others: dict[str, str]
) -> None:
    text = templates.escape(before + " ", BRACES) + "{{v}}" + templates.escape(after, BRACES)

    assert before + " " + value + after == rendered(text, {**others, "v": value})


@given(TEXTS, SETS, VALUES)
def test_the_order_of_inputs_is_irrelevant(
    text: str, texts: dict[str, Template], values: dict[str, str]
) -> None:
    entry = templates.compile_text(text, BRACES)
    backwards = dict(reversed(values.items()))

    assert templates.missing(texts, [entry], values) == templates.missing(texts, [entry], backwards)
    assert templates.unused(texts, [entry], values) == templates.unused(texts, [entry], backwards)
    if templates.find_cycle(texts) is None:
        assert templates.render(entry, texts, values) == templates.render(entry, texts, backwards)


@given(TEXTS, SETS, VALUES)
def test_nothing_is_missing_once_all_that_was_missing_is_given(
    text: str, texts: dict[str, Template], values: dict[str, str]
) -> None:
    entry = templates.compile_text(text, BRACES)
    complete = {**dict.fromkeys(templates.missing(texts, [entry], values), ""), **values}

    assert templates.missing(texts, [entry], complete) == ()
