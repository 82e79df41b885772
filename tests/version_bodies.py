"""Version bodies as clients write them, generated: short and long form, odd characters, odd names.

Every one is acceptable: tokens stand for inputs, so templates never include each other in a circle.
"""

from typing import Any

from hypothesis import strategies as st

Body = dict[str, Any]

_TOKENS = ("{{ input_a }}", "{{input_b}}", "[[ input_a ]]", "\\{{", "{{ a b }}", "{{", "\r\n", "\n")
# What an editor, a file system, git or a careless reader might change.
_FRAGILE = ("\r", "\f", "\x1b[31m", "\ufeff", "\u2028", "\x85", " ", "\t", "e\u0301")
_TEXT = st.lists(
    st.one_of(
        st.sampled_from(_TOKENS + _FRAGILE),
        st.text(st.characters(exclude_characters="\x00", exclude_categories=["Cs"]), max_size=12),
    ),
    max_size=6,
).map("".join)
_MESSAGES = st.lists(
    st.fixed_dictionaries({"role": st.sampled_from(["user", "assistant"]), "content": _TEXT}),
    min_size=1,
    max_size=11,
)
_MODEL = st.sampled_from(
    [
        {"model": "sim/echo"},
        {"model": "echo", "provider": "sim"},
        {"model": "openai/gpt-5-mini", "provider": None},
        {"model": "openai/openai/gpt-oss"},
        {"model": "openai/sim/echo", "provider": "openai"},
        {"model": "meta/llama-4", "provider": "openai"},
        {"model": "anthropic/claude-~1/x"},
    ]
)
_FORMAT = st.sampled_from(
    [
        {"type": "text"},
        {"type": "json_object"},
        {"type": "json_schema", "name": "answer", "schema": '{"type": "object"}'},
        {"type": "json_schema", "name": "b", "schema": ' {"a":\r\n"\\u00e9"}\r\n\n'},
        {"type": "json_schema", "name": "a", "schema": "{}", "strict": False, "description": "x"},
    ]
)
_OBJECT = '{"type": "object"}'
_PARAMS: st.SearchStrategy[Body] = st.fixed_dictionaries(
    {},
    optional={
        "temperature": st.one_of(st.floats(0, 2), st.sampled_from([0, 1, 2])),
        "topP": st.none() | st.floats(0, 1),
        "maxCompletionTokens": st.integers(1, 2**53 - 1),
        "verbosity": st.just("low"),
        "sim": st.sampled_from([{}, {"delaySeconds": 0.5, "outputTokens": 3}]),
    },
)
_SETTINGS: st.SearchStrategy[Body] = st.fixed_dictionaries(
    {"messages": _MESSAGES},
    optional={
        "systemInstruction": st.none() | _TEXT,
        "modelParams": _PARAMS,
        "responseFormat": _FORMAT,
        "memory": st.sampled_from(["stateless", "read_only", "read_write", "write_only"]),
        "fallbacks": st.sampled_from([[], ["anthropic/claude-x", "sim/echo"], ["openai/sim/echo"]]),
        "tools": st.sampled_from(
            [
                [],
                [{"type": "emit", "name": "a", "paramsSchema": ' {"type":\r\n"object"}\n'}],
                [
                    {"type": "emit", "name": "b", "paramsSchema": _OBJECT, "description": "x\ry"},
                    {"type": "emit", "name": "a", "paramsSchema": _OBJECT, "failFast": True},
                ],
            ]
        ),
        "timeoutSeconds": st.integers(5, 3600),
    },
)


def _template(model: Body, settings: Body) -> Body:
    """Leave out what Anthropic's models do not take, where one of them may be called."""
    body = {**model, **settings}
    names = [body["model"], *body.get("fallbacks", ())]
    if any(name.startswith("anthropic/") for name in names) and "modelParams" in body:
        params = dict(body["modelParams"])
        params.pop("verbosity", None)
        if params.get("temperature", 0) > 1:
            del params["temperature"]
        body["modelParams"] = params
    return body


_TEMPLATE = st.builds(_template, _MODEL, _SETTINGS)
# Names that differ in case only, that are devices on Windows, or that end as files do.
_ODD_NAMES = ("main", "Main", "MAIN", "con", "nul.x", "LPT1", "main.1.user", "main.system", "a.")
_NAME = st.sampled_from(_ODD_NAMES) | st.from_regex(
    r"[A-Za-z_][A-Za-z0-9_.-]{0,8}", fullmatch=True
).filter(lambda name: not name.startswith("input_"))
_SYNTAX = st.sampled_from([{}, {"syntax": None}, {"syntax": "braces"}, {"syntax": "brackets"}])


def _long(name: str, main: Body, others: dict[str, Body], syntax: Body) -> Body:
    return {"entrypoint": name, "templates": {**others, name: main}, **syntax}


SHORT: st.SearchStrategy[Body] = st.builds(
    lambda one, syntax: {**one, **syntax}, _TEMPLATE, _SYNTAX
)
LONG: st.SearchStrategy[Body] = st.builds(
    _long,
    _NAME,
    _TEMPLATE,
    st.dictionaries(_NAME, _TEMPLATE | _TEXT.map(lambda text: {"text": text}), max_size=3),
    _SYNTAX,
)
BODIES = SHORT | LONG
"""Any acceptable body."""
