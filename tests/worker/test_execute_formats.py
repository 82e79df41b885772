"""Answers that are to be JSON: asked for in each vendor's way, checked, and corrected once."""

from typing import Any

import msgspec
import pytest

from shared.deps import Deps
from shared.ids import RunId
from shared.settings import Settings
from shared.store import reading
from tests.shared.store.rig import Rig, a_rig
from tests.vendors import VendorServer, answers, named
from tests.worker.execute_rig import hands, with_keys

SCHEMA = '{"type":"object","properties":{"age":{"type":"integer"}},"required":["age"]}'
FORMATS: dict[str, dict[str, Any]] = {
    "object": {"type": "json_object"},
    "schema": {"type": "json_schema", "name": "person", "schema": SCHEMA, "strict": True},
}
GOOD, BAD = '{"age": 36}', {"object": "[36]", "schema": '{"age": "old"}'}
WRONG = {
    "object": "The answer is not a JSON object.",
    "schema": '/age: "old" is not of type "integer"',
}


@pytest.fixture(name="settings")
def settings_of_a_server_with_keys(settings: Settings, vendors: VendorServer) -> Settings:
    return with_keys(settings, vendors)


@pytest.fixture(name="kind", params=FORMATS)
def kind_of_format(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
async def rig(deps: Deps, vendor: str, kind: str) -> Rig:
    body = {
        "model": f"{vendor}/some-model",
        "responseFormat": FORMATS[kind],
        "messages": [{"role": "user", "content": "How old is {{ name }}?"}],
    }
    return await a_rig(deps, body, server_credentials=True)


@pytest.fixture
async def run_id(rig: Rig, vendor: str) -> RunId:
    return await rig.queued(model=f"{vendor}/some-model")


async def _carried(rig: Rig, deps: Deps, run_id: RunId, claims: int) -> dict[str, Any]:
    """The run as a client reads it; each claim is another worker's, which knows only the rows."""
    for _ in range(claims):
        await rig.change(run_id, "available_at = now()")
        async with hands(deps) as worker:
            await worker.carry(run_id)
    shown = await reading.run(rig.store, rig.tenant.workspace_id, run_id)
    assert shown is not None
    run: dict[str, Any] = msgspec.json.decode(shown)
    return run


async def test_an_answer_that_keeps_to_its_format_succeeds_as_the_text_it_is(
    rig: Rig, deps: Deps, vendors: VendorServer, run_id: RunId
) -> None:
    vendors.script(str(run_id), [answers(GOOD)])

    run = await _carried(rig, deps, run_id, 1)

    assert ("succeeded", GOOD, None) == (run["status"], run["output"], run["attempts"][0]["error"])


async def test_each_vendor_is_asked_in_its_own_way(
    rig: Rig, deps: Deps, vendors: VendorServer, run_id: RunId, vendor: str, kind: str
) -> None:
    vendors.script(str(run_id), [answers(GOOD)])
    await _carried(rig, deps, run_id, 1)

    (call,) = vendors.ledger

    schema = msgspec.json.decode(SCHEMA)
    named_schema = {"name": "person", "schema": schema, "strict": True}
    expected: dict[tuple[str, str], Any] = {
        ("openai", "object"): {"type": "json_object"},
        ("openai", "schema"): {"type": "json_schema", "json_schema": named_schema},
        ("anthropic", "object"): "Answer with one JSON object and nothing else.",
        ("anthropic", "schema"): {"format": {"type": "json_schema", "schema": schema}},
    }
    found = {
        ("openai", "object"): "response_format",
        ("openai", "schema"): "response_format",
        ("anthropic", "object"): "system",
        ("anthropic", "schema"): "output_config",
    }
    assert expected[vendor, kind] == call.body[found[vendor, kind]]


async def test_an_answer_that_misses_its_format_is_corrected_once(
    rig: Rig, deps: Deps, vendors: VendorServer, run_id: RunId, kind: str
) -> None:
    vendors.script(str(run_id), [answers(BAD[kind]), answers(GOOD)])
    waiting = await _carried(rig, deps, run_id, 1)

    run = await _carried(rig, deps, run_id, 1)

    assert ("queued", None, None) == (waiting["status"], waiting["output"], waiting["tokenUsage"])
    assert ("succeeded", GOOD) == (run["status"], run["output"])
    first, second = run["attempts"]
    assert ("incomplete", "yes", {"code": "schema_mismatch", "message": WRONG[kind]}) == (
        first["outcome"],
        first["billed"],
        first["error"],
    )
    assert ("succeeded", None) == (second["outcome"], second["error"])
    assert run["tokenUsage"] == second["usage"]
    question, answer, correction = vendors.ledger[1].body["messages"][-3:]
    assert ("How old is Ada?", BAD[kind]) == (question["content"], answer["content"])
    assert correction["content"].startswith(WRONG[kind])
    assert [{"role": "user", "content": "How old is Ada?"}] == run["messages"]


async def test_an_answer_that_misses_twice_is_handed_on_as_incomplete(
    rig: Rig, deps: Deps, vendors: VendorServer, run_id: RunId, kind: str
) -> None:
    await rig.change(run_id, "max_attempts = 9")
    vendors.script(str(run_id), [answers(BAD[kind]), answers(BAD[kind])])

    run = await _carried(rig, deps, run_id, 2)

    assert ("incomplete", "schema", BAD[kind], None) == (
        run["status"],
        run["incompleteReason"],
        run["output"],
        run["error"],
    )
    assert ["incomplete", "incomplete"] == [attempt["outcome"] for attempt in run["attempts"]]
    (row,) = await rig.rows("SELECT last_error FROM runs")
    assert WRONG[kind] == row["last_error"]


async def test_with_no_call_left_there_is_no_correction(
    rig: Rig, deps: Deps, vendors: VendorServer, run_id: RunId, kind: str
) -> None:
    await rig.change(run_id, "max_attempts = 1")
    vendors.script(str(run_id), [answers(BAD[kind])])

    run = await _carried(rig, deps, run_id, 1)

    assert ("incomplete", "schema") == (run["status"], run["incompleteReason"])


async def test_a_correction_survives_a_failure_in_between(
    rig: Rig, deps: Deps, vendors: VendorServer, run_id: RunId, kind: str
) -> None:
    vendors.script(str(run_id), [answers(BAD[kind]), named("500"), answers(GOOD)])

    run = await _carried(rig, deps, run_id, 3)

    assert ("succeeded", GOOD) == (run["status"], run["output"])
    assert vendors.ledger[1].body == vendors.ledger[2].body


async def test_an_answer_that_was_cut_is_incomplete_for_that(
    rig: Rig, deps: Deps, vendors: VendorServer, run_id: RunId
) -> None:
    vendors.script(str(run_id), [answers('{"age": 3', finish="max_tokens")])

    run = await _carried(rig, deps, run_id, 1)

    assert ("incomplete", "max_tokens", 1) == (
        run["status"],
        run["incompleteReason"],
        len(run["attempts"]),
    )
