"""What models emit through tools: validated, kept where it was said, and corrected once."""

from typing import Any

import msgspec
import pytest

from shared.deps import Deps
from shared.ids import RunId, new_id
from shared.settings import Settings
from shared.store import reading
from tests.shared.store.rig import Rig, a_rig
from tests.vendors import VendorServer, answers, calls_tools
from tests.worker.execute_rig import hands, with_keys

SCHEMA = '{"type":"object","properties":{"age":{"type":"integer"}},"required":["age"]}'
TOOL: dict[str, Any] = {"type": "emit", "name": "person", "paramsSchema": SCHEMA}
GOOD, OLDER, BAD = '{"age": 36}', '{"age": 37}', '{"age": "old"}'
BODY: dict[str, Any] = {
    "memory": "read_write",
    "messages": [{"role": "user", "content": "Who is {{ name }}?"}],
    "tools": [{**TOOL, "description": "Tell who it is."}, {**TOOL, "name": "pet"}],
}
WRONG = f'The call of person cannot be used: /age: "old" is not of type "integer" It was: {BAD}'


@pytest.fixture(name="settings")
def settings_of_a_server_with_keys(settings: Settings, vendors: VendorServer) -> Settings:
    return with_keys(settings, vendors)


async def _rig(deps: Deps, vendor: str, **changes: Any) -> Rig:
    body = {**BODY, "model": f"{vendor}/some-model", **changes}
    return await a_rig(deps, body, server_credentials=True)


async def _queued(rig: Rig, vendors: VendorServer, *steps: Any, **changes: Any) -> RunId:
    template = rig.target.compiled.settings
    run_id = await rig.queued(model=f"{template.provider}/{template.model}", **changes)
    vendors.script(str(run_id), list(steps))
    return run_id


async def _carried(
    rig: Rig, deps: Deps, run_id: RunId, claims: int = 1
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The run as clients of both doors read it; each claim is another worker's."""
    for _ in range(claims):
        await rig.change(run_id, "available_at = now()")
        async with hands(deps) as worker:
            await worker.carry(run_id)
    workspace_id = rig.tenant.workspace_id
    native = await reading.run(rig.store, workspace_id, run_id)
    prompts = await reading.prompt_run(rig.store, workspace_id, run_id)
    assert native is not None
    assert prompts is not None
    return msgspec.json.decode(native), msgspec.json.decode(prompts)


def _text(content: str) -> dict[str, Any]:
    return {"type": "text", "content": content, "citations": []}


def _data(payload: Any, tool: str = "person") -> dict[str, Any]:
    return {"type": "data", "tool": tool, "payload": payload}


async def test_payloads_are_kept_in_their_place_and_the_model_is_not_called_again(
    deps: Deps, vendors: VendorServer, vendor: str
) -> None:
    rig = await _rig(deps, vendor)
    said = ("Let me see. ", ("person", GOOD), "And ", ("pet", OLDER))
    run_id = await _queued(rig, vendors, calls_tools(*said))

    native, prompts = await _carried(rig, deps, run_id)

    expected = {
        "openai": [_text("Let me see. And "), _data({"age": 36}), _data({"age": 37}, "pet")],
        "anthropic": [
            _text("Let me see. "),
            _data({"age": 36}),
            _text("And "),
            _data({"age": 37}, "pet"),
        ],
    }
    emitted = [
        {"tool": "person", "payload": {"age": 36}},
        {"tool": "pet", "payload": {"age": 37}},
    ]
    assert ("succeeded", "Let me see. And ", emitted) == (
        native["status"],
        native["output"],
        native["emitted"],
    )
    assert (expected[vendor], emitted) == (prompts["transcript"], prompts["emitted"])
    assert 1 == len(vendors.ledger)


async def test_each_vendor_is_told_of_the_tools_in_its_own_way(
    deps: Deps, vendors: VendorServer, vendor: str
) -> None:
    rig = await _rig(deps, vendor)
    await _carried(rig, deps, await _queued(rig, vendors, answers("Nobody.")))

    (call,) = vendors.ledger

    schema = msgspec.json.decode(SCHEMA)
    told = {"name": "person", "description": "Tell who it is."}
    expected = {
        "openai": {"type": "function", "function": {**told, "parameters": schema}},
        "anthropic": {**told, "input_schema": schema},
    }
    assert expected[vendor] == call.body["tools"][0]
    assert 2 == len(call.body["tools"])


async def test_a_model_that_calls_no_tool_answers_as_ever(
    deps: Deps, vendors: VendorServer, vendor: str
) -> None:
    rig = await _rig(deps, vendor)

    native, prompts = await _carried(rig, deps, await _queued(rig, vendors, answers("Nobody.")))

    assert ("succeeded", []) == (native["status"], native["emitted"])
    assert [_text("Nobody.")] == prompts["transcript"]


async def test_a_payload_that_misses_its_schema_is_corrected_once(
    deps: Deps, vendors: VendorServer, vendor: str
) -> None:
    rig = await _rig(deps, vendor)
    run_id = await _queued(
        rig,
        vendors,
        calls_tools("See:", ("pet", GOOD), ("person", BAD)),
        calls_tools("Now:", ("person", GOOD)),
    )

    native, _ = await _carried(rig, deps, run_id, 2)

    first, second = native["attempts"]
    assert ("succeeded", "Now:") == (native["status"], native["output"])
    assert [{"tool": "person", "payload": {"age": 36}}] == native["emitted"]
    assert ("incomplete", "schema_mismatch", WRONG) == (
        first["outcome"],
        first["error"]["code"],
        first["error"]["message"],
    )
    assert "succeeded" == second["outcome"]
    answer, correction = vendors.ledger[1].body["messages"][-2:]
    assert ("assistant", "See:") == (answer["role"], answer["content"])
    assert correction["content"].startswith(WRONG)


@pytest.mark.parametrize(("fail_fast", "claims"), [(False, 2), (True, 1)])
async def test_a_payload_that_stays_wrong_ends_the_run_as_incomplete(
    deps: Deps, vendors: VendorServer, vendor: str, *, fail_fast: bool, claims: int
) -> None:
    rig = await _rig(deps, vendor, tools=[{**TOOL, "failFast": fail_fast}])
    wrong = calls_tools("See:", ("person", GOOD), ("person", BAD))
    run_id = await _queued(rig, vendors, wrong, wrong)

    native, prompts = await _carried(rig, deps, run_id, claims)

    assert ("incomplete", "schema", claims) == (
        native["status"],
        native["incompleteReason"],
        len(native["attempts"]),
    )
    assert [_text("See:"), _data({"age": 36})] == prompts["transcript"]


async def test_an_answer_of_calls_alone_needs_no_text_and_is_remembered_as_what_it_emitted(
    deps: Deps, vendors: VendorServer, vendor: str
) -> None:
    rig = await _rig(deps, vendor, responseFormat={"type": "json_object"})
    thread = str(new_id())
    turns = {"thread_id": thread, "turns": True, "history_read": True}
    first = await _queued(rig, vendors, calls_tools(("person", GOOD)), **turns)
    second = await _queued(rig, vendors, calls_tools(("pet", GOOD)), **turns)

    native, prompts = await _carried(rig, deps, first)
    await _carried(rig, deps, second)

    assert ("succeeded", "", [_data({"age": 36})]) == (
        native["status"],
        native["output"],
        prompts["transcript"],
    )
    said = [m["content"] for m in vendors.ledger[1].body["messages"] if m["role"] != "system"]
    assert ["Who is Ada?", 'person {"age":36}', "Who is Ada?"] == said


async def test_strange_payloads_break_nothing(
    deps: Deps, vendors: VendorServer, vendor: str
) -> None:
    anything = {"type": "emit", "name": "any", "paramsSchema": '{"type":"object"}'}
    rig = await _rig(deps, vendor, tools=[anything])
    deep = '{"a":' * 700 + "1" + "}" * 700
    odd = ('{"a\\u0000":["\\u0000",1.0,1e300]}', deep, "{}")
    run_id = await _queued(
        rig,
        vendors,
        calls_tools(*(("any", payload) for payload in odd), ("none", "{}")),
        calls_tools(("any", odd[0])),
    )

    native, _ = await _carried(rig, deps, run_id, 2)

    assert "succeeded" == native["status"]
    assert [{"a\\u0000": ["\\u0000", 1.0, 1e300]}] == [one["payload"] for one in native["emitted"]]


async def test_a_call_that_was_cut_is_left_out_of_an_incomplete_answer(
    deps: Deps, vendors: VendorServer
) -> None:
    rig = await _rig(deps, "openai")
    cut = calls_tools("See:", ("pet", GOOD), ("person", '{"ag'))
    step = type(cut)(name="cut-call", said=cut.said, text=cut.text, finish="max_tokens")

    native, prompts = await _carried(rig, deps, await _queued(rig, vendors, step))

    assert ("incomplete", "max_tokens") == (native["status"], native["incompleteReason"])
    assert [_text("See:"), _data({"age": 36}, "pet")] == prompts["transcript"]
