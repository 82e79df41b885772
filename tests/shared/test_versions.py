"""Version bodies: both forms, every refusal with its pointer, and what rendering makes of them."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.domain import models, versions
from shared.domain.completions import Message, ModelParams
from shared.domain.formats import JsonSchemaFormat
from shared.domain.models import ModelName
from shared.domain.states import Memory
from shared.domain.templates import Syntax, TemplateError
from shared.domain.versions import TemplateBody, VersionBody
from shared.errors import BadRequestError, UnacceptableError
from tests.version_bodies import BODIES

Json = dict[str, Any]


def a_body(**changes: object) -> Json:
    """Write a short form that is acceptable but for the changes."""
    user = {"role": "user", "content": "Hello {{ name }}"}
    return {"model": "sim/echo", "messages": [user], **changes}


def a_version(*contents: str, **texts: str) -> VersionBody:
    """Parse a long form: messages of `main` and text-only templates."""
    messages = [{"role": "user", "content": content} for content in contents]
    included = {name: {"text": text} for name, text in texts.items()}
    return versions.parse({"templates": {"main": a_body(messages=messages), **included}})


def pointers(body: object) -> list[str]:
    with pytest.raises(UnacceptableError) as refusal:
        versions.parse(body)
    return [flaw.pointer for flaw in refusal.value.flaws]


def test_the_short_form_becomes_the_long_one() -> None:
    short = a_body(systemInstruction="Be kind.", memory="read_write", syntax="brackets")

    version = versions.parse(short)

    template = {key: value for key, value in short.items() if key != "syntax"}
    assert version == versions.parse(
        {"entrypoint": "main", "syntax": "brackets", "templates": {"main": template}}
    )
    assert (version.syntax, version.entrypoint) == (Syntax.BRACKETS, "main")
    assert Memory.READ_WRITE is version.templates["main"].memory


@given(body=BODIES)
def test_a_version_as_written_is_read_as_the_same_version(body: Json) -> None:
    version = versions.parse(body)

    written = msgspec.json.encode(versions.as_written(version))

    assert version == versions.parse(written)
    assert versions.to_json(version) == versions.to_json(versions.parse(written))


def test_bytes_are_read_like_what_they_decode_to() -> None:
    assert versions.parse(a_body()) == versions.parse(msgspec.json.encode(a_body()))


def test_the_door_chooses_the_syntax_a_body_leaves_open() -> None:
    open_body, chosen = a_body(), a_body(syntax="braces")

    parsed = [versions.parse(b, default_syntax=Syntax.BRACKETS) for b in (open_body, chosen)]

    assert [version.syntax for version in parsed] == [Syntax.BRACKETS, Syntax.BRACES]


def test_null_equals_absent_at_every_depth() -> None:
    nulls = a_body(
        provider=None,
        systemInstruction=None,
        modelParams={"temperature": None, "sim": None},
        responseFormat=None,
        memory=None,
        syntax=None,
        fallbacks=None,
        timeoutSeconds=None,
    )

    assert versions.parse(a_body()) == versions.parse(nulls)


@pytest.mark.parametrize(
    ("changes", "provider", "model"),
    [
        ({"model": "openai/gpt-5-mini"}, "openai", "gpt-5-mini"),
        ({"model": "gpt-5-mini", "provider": "openai"}, "openai", "gpt-5-mini"),
        ({"model": "openai/gpt-5-mini", "provider": "openai"}, "openai", "gpt-5-mini"),
        ({"model": "anthropic/claude-sonnet-4-5"}, "anthropic", "claude-sonnet-4-5"),
        ({"model": "openai/meta/llama-4"}, "openai", "meta/llama-4"),
        ({"model": "meta/llama-4", "provider": "openai"}, "openai", "meta/llama-4"),
        ({"model": "sim/echo"}, "sim", "echo"),
    ],
)
def test_provider_and_bare_model_are_told_apart(changes: Json, provider: str, model: str) -> None:
    entry = versions.parse(a_body(**changes)).templates["main"]

    assert (provider, model) == (entry.provider, entry.model)


def test_fallbacks_are_kept_with_their_provider() -> None:
    body = a_body(model="openai/gpt-5", fallbacks=["gpt-5-mini", "anthropic/claude-haiku-4-5"])

    entry = versions.parse(body).templates["main"]

    assert entry.fallbacks == ("openai/gpt-5-mini", "anthropic/claude-haiku-4-5")


def test_an_override_may_be_bare_or_name_another_provider() -> None:
    assert ModelName("openai", "gpt-5") == models.parse_name("gpt-5", default="openai")
    assert ModelName("sim", "echo") == models.parse_name("sim/echo", default="openai")
    assert str(ModelName("sim", "echo")) == "sim/echo"


SCHEMA = {"type": "json_schema", "name": "answer", "schema": '{"type":"object"}'}


@pytest.mark.parametrize(
    "changes",
    [
        {"modelParams": {"temperature": 0, "topP": 1, "maxCompletionTokens": 1}},
        {"modelParams": {"temperature": 2, "verbosity": "low", "reasoningEffort": "x-high"}},
        {"modelParams": {"sim": {"delaySeconds": 0.5, "outputTokens": 7}}},
        {"modelParams": {"sim": {}}},
        {"responseFormat": {"type": "text"}},
        {"responseFormat": {"type": "json_object"}},
        {"responseFormat": SCHEMA},
        {"responseFormat": {**SCHEMA, "strict": True, "description": "What to say."}},
        {"timeoutSeconds": 5},
        {"timeoutSeconds": 3600},
        {"messages": [{"role": "assistant", "content": ""}]},
        {"systemInstruction": "{% for %} {{ a b }}"},
    ],
)
def test_what_the_contract_allows_is_accepted_and_survives_storing(changes: Json) -> None:
    version = versions.parse(a_body(**changes))

    assert version == versions.from_json(versions.to_json(version))


@pytest.mark.parametrize(
    ("changes", "pointer"),
    [
        ({"messages": []}, "/messages"),
        ({"messages": None}, "/messages"),
        ({"messages": "hello"}, "/messages"),
        ({"messages": [{"role": "user", "content": "x"}] * 1000}, "/messages"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "/messages/0/role"),
        ({"messages": [{"role": "User", "content": "x"}]}, "/messages/0/role"),
        (
            {"messages": [{"role": "user", "content": "x"}, {"role": "system", "content": "x"}]},
            "/messages/1/role",
        ),
        ({"messages": [{"role": "user"}]}, "/messages/0/content"),
        ({"messages": [{"role": "user", "content": None}]}, "/messages/0/content"),
        ({"messages": [{"role": "user", "content": ["x"]}]}, "/messages/0/content"),
        ({"messages": [{"role": "user", "content": "x", "name": "y"}]}, "/messages/0/name"),
        ({"model": None}, "/model"),
        ({"model": ""}, "/model"),
        ({"model": "gpt-5"}, "/model"),
        ({"model": "mistral/large"}, "/model"),
        ({"model": "openai/"}, "/model"),
        ({"model": "openai/gpt 5"}, "/model"),
        ({"model": "sim/" + "x" * 201}, "/model"),
        ({"model": "sim/\u00e9"}, "/model"),
        ({"model": "sim/echo", "provider": "openai"}, "/model"),
        ({"model": "large", "provider": "mistral"}, "/provider"),
        ({"model": 5}, "/model"),
        ({"base_url": "https://evil.example"}, "/base_url"),
        ({"status": "draft"}, "/status"),
        ({"Memory": "stateless"}, "/Memory"),
        ({"a/b~c": 1}, "/a~1b~0c"),
        ({"modelParams": {"base_url": "x"}}, "/modelParams/base_url"),
        ({"modelParams": {"api_key": "x"}}, "/modelParams/api_key"),
        ({"modelParams": {"extra_headers": {}}}, "/modelParams/extra_headers"),
        ({"modelParams": {"temperature": 2.1}}, "/modelParams/temperature"),
        ({"modelParams": {"temperature": -0.1}}, "/modelParams/temperature"),
        ({"modelParams": {"temperature": "1"}}, "/modelParams/temperature"),
        ({"modelParams": {"temperature": True}}, "/modelParams/temperature"),
        ({"modelParams": {"topP": 1.1}}, "/modelParams/topP"),
        ({"modelParams": {"maxCompletionTokens": 0}}, "/modelParams/maxCompletionTokens"),
        ({"modelParams": {"maxCompletionTokens": 1.0}}, "/modelParams/maxCompletionTokens"),
        ({"modelParams": {"serviceTier": ""}}, "/modelParams/serviceTier"),
        ({"modelParams": {"reasoningEffort": "very high"}}, "/modelParams/reasoningEffort"),
        ({"modelParams": []}, "/modelParams"),
        ({"modelParams": {"sim": "fast"}}, "/modelParams/sim"),
        ({"modelParams": {"sim": {"delaySeconds": -1}}}, "/modelParams/sim/delaySeconds"),
        ({"modelParams": {"sim": {"delaySeconds": 3601}}}, "/modelParams/sim/delaySeconds"),
        ({"modelParams": {"sim": {"outputTokens": 0}}}, "/modelParams/sim/outputTokens"),
        ({"modelParams": {"sim": {"delay": 1}}}, "/modelParams/sim/delay"),
        ({"responseFormat": {}}, "/responseFormat/type"),
        ({"responseFormat": {"type": "xml"}}, "/responseFormat/type"),
        ({"responseFormat": {"type": "text", "schema": "{}"}}, "/responseFormat/schema"),
        ({"responseFormat": {"type": "json_schema", "name": "a"}}, "/responseFormat/schema"),
        ({"responseFormat": {**SCHEMA, "schema": {}}}, "/responseFormat/schema"),
        ({"responseFormat": {**SCHEMA, "schema": "[]"}}, "/responseFormat/schema"),
        ({"responseFormat": {**SCHEMA, "schema": "{"}}, "/responseFormat/schema"),
        (
            {"responseFormat": {**SCHEMA, "schema": '{"a":' * 9000 + "1" + "}" * 9000}},
            "/responseFormat/schema",
        ),
        ({"responseFormat": {**SCHEMA, "name": "a b"}}, "/responseFormat/name"),
        ({"memory": "always"}, "/memory"),
        ({"syntax": "jinja"}, "/syntax"),
        ({"timeoutSeconds": 4}, "/timeoutSeconds"),
        ({"timeoutSeconds": 3601}, "/timeoutSeconds"),
        ({"timeoutSeconds": "60"}, "/timeoutSeconds"),
        ({"fallbacks": "sim/echo"}, "/fallbacks"),
        ({"fallbacks": ["sim/echo"] * 11}, "/fallbacks"),
        ({"fallbacks": ["sim/echo", "openai/"]}, "/fallbacks/1"),
        ({"text": "both"}, "/text"),
    ],
)
def test_what_is_not_acceptable_is_refused_with_its_pointer(changes: Json, pointer: str) -> None:
    nested = {"templates": {"main": a_body(**changes)}}

    assert [pointer] == pointers(a_body(**changes))
    if "syntax" not in changes:
        assert ["/templates/main" + pointer] == pointers(nested)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ([], [""]),
        (None, [""]),
        ("x", [""]),
        ({}, ["/messages", "/model"]),
        ({"text": "alone"}, ["/text"]),
        ({"templates": {}}, ["/entrypoint"]),
        ({"templates": []}, ["/templates"]),
        ({"entrypoint": "main"}, ["/templates"]),
        ({"entrypoint": "start", "templates": {"main": a_body()}}, ["/entrypoint"]),
        ({"entrypoint": 1, "templates": {"main": a_body()}}, ["/entrypoint"]),
        ({"templates": {"main": {"text": "alone"}}}, ["/templates/main/text"]),
        ({"templates": {"main": a_body()}, "model": "sim/echo"}, ["/model"]),
        ({"templates": {"main": a_body(), "a b": {"text": ""}}}, ["/templates/a b"]),
        ({"templates": {"main": a_body(), "1/2": {"text": ""}}}, ["/templates/1~12"]),
        ({"templates": {"main": a_body(), "n" * 65: {"text": ""}}}, [f"/templates/{'n' * 65}"]),
        ({"templates": {"main": a_body(), "a": "text"}}, ["/templates/a"]),
        ({"templates": {"main": a_body(), "a": {"text": "", "model": "m"}}}, ["/templates/a/text"]),
        (
            {"templates": {"main": a_body(memory=1), "a": {"text": 1}, "b": {}}},
            [
                "/templates/main/memory",
                "/templates/a/text",
                "/templates/b/messages",
                "/templates/b/model",
            ],
        ),
        (
            {"templates": {"main": a_body(), **{f"t{n}": {"text": ""} for n in range(200)}}},
            ["/templates"],
        ),
    ],
)
def test_a_body_of_the_wrong_shape_is_refused(body: object, expected: list[str]) -> None:
    assert expected == pointers(body)


@pytest.mark.parametrize("body", [b"", b"{", b'{"a":1}x', b"\xff", b"[" * 100_000])
def test_bytes_that_are_not_json_are_a_bad_request(body: bytes) -> None:
    with pytest.raises(BadRequestError):
        versions.parse(body)


def test_nesting_beyond_reason_is_a_bad_request() -> None:
    deep: object = 1
    for _ in range(5000):
        deep = {"a": deep}

    with pytest.raises(BadRequestError):
        versions.parse(deep)


@pytest.mark.parametrize(
    ("texts", "path"),
    [
        ({"a": "{{ b }}", "b": "{{ a }}"}, "main → a → b → a"),
        ({"a": "{{ a }}"}, "main → a → a"),
        ({"a": "{{ main }}"}, "main → a → main"),
    ],
)
def test_a_circle_of_includes_is_refused_with_its_path(texts: dict[str, str], path: str) -> None:
    with pytest.raises(UnacceptableError, match=path) as refusal:
        a_version("{{ a }}", **texts)

    assert refusal.value.flaws[0].pointer.startswith("/templates/")


def test_includes_may_be_sixteen_levels_deep() -> None:
    texts = {f"t{level}": f"{{{{ t{level + 1} }}}}" for level in range(1, 16)}

    assert versions.inputs(a_version("{{ t1 }}", **texts, t16="{{ x }}")) == ("x",)
    with pytest.raises(UnacceptableError, match="17 levels"):
        a_version("{{ t1 }}", **texts, t16="{{ t17 }}", t17="")


@pytest.mark.parametrize(
    ("first", "second", "fits"),
    [
        ("x" * 262_144, "", True),
        ("x" * 262_144, "x", False),
        ("x" * 131_072, "\u00e9" * 65_536, True),
        ("x" * 131_072, "\u00e9" * 65_537, False),
        ("{{ a }}" * 200, "", True),
        ("{{ a }}" * 200, "{{ a }}", False),
    ],
)
def test_the_limits_hold_for_the_texts_of_a_template_together(
    first: str, second: str, *, fits: bool
) -> None:
    body = {"templates": {"main": a_body(systemInstruction=first, messages=None)}}
    body["templates"]["main"]["messages"] = [{"role": "user", "content": second}]

    if fits:
        versions.parse(body)
    else:
        assert pointers(body) == ["/templates/main"]


def test_near_misses_are_listed_with_their_place() -> None:
    version = versions.parse(
        {
            "templates": {
                "main": a_body(systemInstruction="{{ a b }}"),
                "sub": {"text": "{% if %} {{x|y}}"},
            }
        }
    )

    assert versions.warnings(version) == (
        "main, system instruction: '{{ a b }}' at character 1 is not a token and stays as it is.",
        "sub, text: '{% if %}' at character 1 is not a token and stays as it is.",
        "sub, text: '{{x|y}}' at character 10 is not a token and stays as it is.",
    )
    assert versions.warnings(a_version("{{ fine }}")) == ()


def test_warnings_are_bounded() -> None:
    version = a_version(*["{{ a b }}" * 30] * 10)

    assert len(versions.warnings(version)) == versions.MAX_WARNINGS


def test_inputs_come_in_the_order_in_which_they_are_met() -> None:
    version = versions.parse(
        {
            "templates": {
                "main": a_body(systemInstruction="{{ tone }} {{ rules }}"),
                "rules": {"text": "{{ rule }}"},
                "unreached": {"text": "{{ nobody }}"},
            }
        }
    )

    assert versions.inputs(version) == ("tone", "rule", "name")


def test_missing_and_unused_inputs_know_what_a_value_cuts_off() -> None:
    compiled = versions.compile_version(a_version("{{ a }} {{ name }}", a="{{ deep }}"))

    assert versions.missing(compiled, {"extra": ""}) == ("deep", "name")
    assert versions.missing(compiled, {"a": "cut"}) == ("name",)
    assert versions.unused(compiled, {"a": "", "deep": "", "extra": ""}) == ("deep", "extra")


def test_messages_are_rendered_with_the_system_text_first() -> None:
    version = versions.parse(
        {
            "templates": {
                "main": {
                    "model": "sim/echo",
                    "systemInstruction": "You are {{ who }}. {{ signature }}",
                    "messages": [
                        {"role": "user", "content": "Hi"},
                        {"role": "assistant", "content": "Hello {{ name }}"},
                        {"role": "user", "content": "{{ question }}"},
                    ],
                },
                "signature": {"text": "Yours, {{ name }}"},
            }
        }
    )
    values = {"who": "kind", "name": "Ada", "question": "{{ name }}?"}

    rendered = versions.render_messages(versions.compile_version(version), values)

    assert (
        Message("system", "You are kind. Yours, Ada"),
        Message("user", "Hi"),
        Message("assistant", "Hello Ada"),
        Message("user", "{{ name }}?"),
    ) == rendered


def test_a_system_text_that_renders_to_nothing_is_left_out() -> None:
    version = versions.parse(a_body(systemInstruction="{{ s }}"))
    compiled = versions.compile_version(version)

    assert (Message("user", "Hello A"),) == versions.render_messages(
        compiled, {"s": "", "name": "A"}
    )


def test_another_template_with_messages_can_be_the_entrypoint() -> None:
    version = versions.parse(
        {
            "templates": {
                "main": a_body(),
                "other": a_body(
                    model="sim/slow", messages=[{"role": "user", "content": "{{ x }}"}]
                ),
                "text": {"text": "only"},
            }
        }
    )

    compiled = versions.compile_version(version, "other")

    assert (compiled.inputs, compiled.settings.model) == (("x",), "slow")
    for name in ("text", "nowhere"):
        with pytest.raises(UnacceptableError):
            versions.compile_version(version, name)


def test_an_included_template_with_messages_stands_for_all_its_texts() -> None:
    other = a_body(systemInstruction="One.", messages=[{"role": "user", "content": "Two."}])
    version = versions.parse(
        {
            "templates": {
                "main": a_body(messages=[{"role": "user", "content": "<{{ other }}>"}]),
                "other": other,
            }
        }
    )

    rendered = versions.render_messages(versions.compile_version(version), {})

    assert (Message("user", "<One.\n\nTwo.>"),) == rendered


def test_rendered_messages_share_one_limit() -> None:
    compiled = versions.compile_version(a_version("{{ a }}", "{{ a }}"))

    versions.render_messages(compiled, {"a": "x" * 524_288})
    with pytest.raises(TemplateError):
        versions.render_messages(compiled, {"a": "x" * 524_289})


def test_a_revision_shows_defaults_where_nothing_was_said() -> None:
    assert versions.revision_view(versions.parse(a_body())) == {
        "memory": "stateless",
        "provider": "sim",
        "model": "echo",
        "modelParams": {},
        "responseFormat": {"type": "text"},
        "systemInstruction": None,
        "messages": [{"role": "user", "content": "Hello {{ name }}"}],
        "tools": [],
        "inputs": ["name"],
    }


def test_a_revision_shows_all_that_was_said() -> None:
    changes = {
        "memory": "read_only",
        "modelParams": {"maxCompletionTokens": 5, "topP": 0.5, "sim": {"delaySeconds": 1}},
        "responseFormat": {**SCHEMA, "strict": False},
        "systemInstruction": "Be kind.",
    }

    view = versions.revision_view(versions.parse(a_body(**changes)))

    assert changes == {field: view[field] for field in changes}


def test_stored_and_sent_forms_keep_their_types() -> None:
    body = a_body(responseFormat=SCHEMA, modelParams={"topP": 1})

    entry = versions.from_json(versions.to_json(versions.parse(body))).templates["main"]

    assert isinstance(entry.response_format, JsonSchemaFormat)
    assert ModelParams(top_p=1) == entry.model_params


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=8,
)
FIELDS = st.sampled_from([*TemplateBody.__struct_encode_fields__, *VersionBody.__struct_fields__])


@given(st.dictionaries(FIELDS, JSON))
def test_no_document_is_anything_but_accepted_or_refused(changes: Json) -> None:
    try:
        version = versions.parse(a_body(**changes))
    except UnacceptableError as refusal:
        flaws = refusal.flaws
    else:
        flaws = ()
        versions.compile_version(version)

    assert all(not flaw.pointer or flaw.pointer.startswith("/") for flaw in flaws)
