"""Runs over the real adapters: whatever a vendor sends, the run ends and nothing breaks."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import msgspec
import pytest

from shared.deps import Deps
from shared.domain.states import Memory
from shared.domain.submissions import Submission
from shared.ids import RunId, new_id
from shared.services import submissions
from shared.settings import Settings
from shared.store import ending, reading
from tests.factories import Tenant, a_prompt, a_tenant
from tests.shared.store.rig import Rig, a_rig
from tests.vendors import ANSWER, Step, VendorServer, answers, hangs, named
from tests.worker.execute_rig import VENDORS, Hands, hands, with_keys


@pytest.fixture(name="settings")
def settings_of_a_server_with_keys(settings: Settings, vendors: VendorServer) -> Settings:
    return with_keys(settings, vendors, response_max_bytes=2_000_000, breaker_failures=1000)


@pytest.fixture
async def rig(deps: Deps) -> Rig:
    return await a_rig(deps, server_credentials=True)


@pytest.fixture(name="worker")
async def hands_of_a_worker(deps: Deps) -> AsyncIterator[Hands]:
    async with hands(deps) as made:
        yield made


async def _carried(
    rig: Rig, worker: Hands, vendors: VendorServer, step: Step, model: str, **changes: Any
) -> dict[str, Any]:
    """The run as a client reads it, after one call that got this step."""
    run_id = await rig.queued(model=model, **changes)
    vendors.script(str(run_id), [step])
    await worker.carry(run_id)
    shown = await reading.run(rig.store, rig.tenant.workspace_id, run_id)
    assert shown is not None
    run: dict[str, Any] = msgspec.json.decode(shown)
    return run


@pytest.mark.parametrize("vendor", VENDORS)
async def test_a_vendors_answer_comes_home_with_tokens_and_its_request_id(
    rig: Rig, worker: Hands, vendors: VendorServer, vendor: str
) -> None:
    run = await _carried(rig, worker, vendors, answers(), f"{vendor}/some-model")

    (call,) = vendors.ledger
    (attempt,) = run["attempts"]
    assert ("succeeded", vendor, run["id"], 1) == (
        run["status"],
        call.vendor,
        call.run_id,
        call.attempt,
    )
    assert run["output"].endswith("You said: Hello Ada")
    assert run["tokenUsage"]["input"] > 0
    assert ("req_1", f"{vendor}/some-model", "yes") == (
        attempt["providerRequestId"],
        attempt["model"],
        attempt["billed"],
    )


@pytest.mark.parametrize("vendor", VENDORS)
@pytest.mark.parametrize(
    "junk",
    [
        "cut",
        "cut-body",
        "bad-json",
        "bad-utf8",
        "empty",
        "html",
        "wrong-schema",
        "bad-gzip",
        "504",
        "408",
    ],
)
async def test_under_fail_junk_ends_a_run_after_exactly_one_call(
    rig: Rig, worker: Hands, vendors: VendorServer, vendor: str, junk: str
) -> None:
    run = await _carried(
        rig, worker, vendors, named(junk), f"{vendor}/some-model", on_unknown_outcome="fail"
    )

    assert ("failed", "outcome_unknown", "unknown") == (
        run["status"],
        run["error"]["code"],
        run["attempts"][0]["billed"],
    )
    assert 1 == len(vendors.ledger)


@pytest.mark.parametrize("vendor", VENDORS)
async def test_a_nul_in_an_answer_is_written_visibly(
    rig: Rig, worker: Hands, vendors: VendorServer, vendor: str
) -> None:
    run = await _carried(rig, worker, vendors, named("nul"), f"{vendor}/some-model")

    assert ("succeeded", "before\\u0000after") == (run["status"], run["output"])


_NUL = "a\x00b"
_STRANGE_ANSWERS: dict[str, dict[str, Any]] = {
    "openai": {
        "id": _NUL,
        "object": _NUL,
        "model": _NUL,
        "service_tier": _NUL,
        "system_fingerprint": _NUL,
        "choices": [
            {
                "index": 0,
                "finish_reason": _NUL,
                "message": {"role": _NUL, "content": _NUL, "refusal": None},
            }
        ],
        "usage": {"prompt_tokens": 1, "completion_tokens": 1, "strange": _NUL},
    },
    "anthropic": {
        "id": _NUL,
        "type": "message",
        "role": "assistant",
        "model": _NUL,
        "content": [{"type": "text", "text": _NUL}],
        "stop_reason": _NUL,
        "stop_sequence": _NUL,
        "usage": {"input_tokens": 1, "output_tokens": 1, "service_tier": _NUL, "strange": _NUL},
    },
}


@pytest.mark.parametrize("vendor", VENDORS)
async def test_nuls_in_every_field_of_an_answer_break_nothing(
    rig: Rig, worker: Hands, vendors: VendorServer, vendor: str
) -> None:
    body = msgspec.json.encode(_STRANGE_ANSWERS[vendor])
    headers = {"content-type": "application/json", "x-request-id": "é" * 5000}
    step = Step(kind="raw", name="nuls", headers=headers, body=body)

    run = await _carried(
        rig, worker, vendors, step, f"{vendor}/some-model", on_unknown_outcome="fail"
    )

    assert run["status"] in {"succeeded", "incomplete", "failed"}
    assert (run["error"] or {}).get("code") != "internal_error"


@pytest.mark.parametrize("vendor", VENDORS)
@pytest.mark.parametrize("text", [b"a\\u0000b", b"\\ud800", b"\\udc00\\ud800", b"a\\nDETAIL: b"])
async def test_strange_words_of_a_refusal_break_nothing(
    rig: Rig, worker: Hands, vendors: VendorServer, vendor: str, text: bytes
) -> None:
    step = Step(
        kind="raw",
        name="refusal",
        status=400,
        headers={"content-type": "application/json"},
        body=b'{"type":"error","error":{"type":"x","code":"%b","message":"%b"}}' % (text, text),
    )

    run = await _carried(rig, worker, vendors, step, f"{vendor}/some-model")

    assert ("failed", "provider_refused") == (run["status"], run["error"]["code"])
    assert run["error"]["message"]


@pytest.mark.parametrize("vendor", VENDORS)
async def test_a_rate_limited_run_is_parked_as_long_as_it_was_told(
    rig: Rig, worker: Hands, vendors: VendorServer, vendor: str
) -> None:
    run = await _carried(rig, worker, vendors, named("429-after-30"), f"{vendor}/some-model")

    (row,) = await rig.rows(
        "SELECT extract(epoch FROM available_at - now())::float8 AS wait, calls FROM runs"
    )
    assert ("queued", "provider_rate_limit", 0) == (
        run["status"],
        run["statusReason"],
        row["calls"],
    )
    assert 25 < row["wait"] <= 30


async def test_stopping_a_run_closes_the_connection_to_the_vendor(
    rig: Rig, worker: Hands, vendors: VendorServer
) -> None:
    run_id = await rig.queued(model="openai/some-model")
    vendors.script(str(run_id), [hangs()])
    task = await worker.start(run_id)
    call = await vendors.called()
    await ending.cancel(rig.store, rig.tenant.workspace_id, run_id)

    worker.running.cancel(run_id)

    await task
    async with asyncio.timeout(5):
        await call.ended.wait()
    assert call.client_left
    assert "canceled" == await rig.status(run_id)


# Threads


async def _said(
    deps: Deps, worker: Hands, tenant: Tenant, slug: str, name: str, thread: UUID
) -> str:
    """Submit a turn and carry it to its end; answers the run's id."""
    body = Submission(inputs={"name": name}, thread=thread)
    ends_at = asyncio.get_running_loop().time() + 60
    wanted = submissions.Request(slug=slug, version="1", body=body, ends_at=ends_at)
    accepted = await submissions.submit(deps, tenant.principal, wanted)
    await worker.carry(accepted.id)
    return str(accepted.id)


def _told(vendors: VendorServer, run_id: str) -> list[str]:
    """What a call brought of the conversation, the system text aside."""
    (call,) = vendors.calls_of(run_id)
    return [
        f"{message['role']}: {message['content']}"
        for message in call.body["messages"]
        if message["role"] != "system"
    ]


@pytest.mark.parametrize("vendor", VENDORS)
@pytest.mark.parametrize("memory", list(Memory))
async def test_a_memory_mode_decides_what_a_vendor_is_told_and_what_stays(
    deps: Deps,
    worker: Hands,
    vendors: VendorServer,
    vendor: str,
    memory: Memory,
) -> None:
    tenant, thread = await a_tenant(deps, server_credentials=True), new_id()
    for slug in {"read_write", memory}:
        body = {
            "model": f"{vendor}/some-model",
            "memory": slug,
            "systemInstruction": "Be brief.",
            "messages": [{"role": "user", "content": "I am {{ name }}"}],
        }
        await a_prompt(deps, tenant, slug, body)

    turns = (("read_write", "a"), (memory, "b"), ("read_write", "c"))
    runs = [await _said(deps, worker, tenant, slug, name, thread) for slug, name in turns]

    turn = {
        name: [f"user: I am {name}", f"assistant: {ANSWER} You said: I am {name}"] for name in "ab"
    }
    assert [
        ["user: I am a"],
        [*(turn["a"] if memory in {"read_only", "read_write"} else ()), "user: I am b"],
        [
            *turn["a"],
            *(turn["b"] if memory in {"write_only", "read_write"} else ()),
            "user: I am c",
        ],
    ] == [_told(vendors, run_id) for run_id in runs]


@pytest.mark.parametrize("vendor", VENDORS)
async def test_an_answer_without_text_is_not_put_into_the_mouth_of_a_later_turn(
    deps: Deps, worker: Hands, vendors: VendorServer, vendor: str
) -> None:
    tenant, thread = await a_tenant(deps, server_credentials=True), new_id()
    messages = [{"role": "user", "content": "I am {{ name }}"}]
    for slug in ("mock-filtered", "some-model"):
        body = {"model": f"{vendor}/{slug}", "memory": "read_write", "messages": messages}
        await a_prompt(deps, tenant, slug, body)

    first = await _said(deps, worker, tenant, "mock-filtered", "a", thread)
    second = await _said(deps, worker, tenant, "some-model", "b", thread)

    shown = await reading.run(deps.store, tenant.workspace_id, RunId(UUID(first)))
    assert "incomplete" == msgspec.json.decode(shown or "")["status"]
    assert ["user: I am b"] == _told(vendors, second)
