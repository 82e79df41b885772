"""Previews: what a run would do, as its author sees it before anything is called."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from typing import Any

import httpx
import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from api import shapes
from shared.clock import rfc3339
from shared.deps import Deps
from shared.ids import new_id
from shared.queue.connection import connect
from shared.queue.lanes import Lanes
from shared.vault import Vault
from tests.api.clients import client_with, problem, without_request_id
from tests.factories import Tenant, a_key, a_prompt, a_tenant
from worker.main import WorkerProcess

PREVIEW = "/prompts/greeting/1/preview"
ADA = {"inputs": {"name": "Ada"}}
BODY: dict[str, Any] = {
    "model": "sim/echo",
    "systemInstruction": "Be kind to {{ name }}.",
    "messages": [{"role": "user", "content": "Hello {{ name }}, it is {{ day }}. {{ a b }}"}],
    "modelParams": {"temperature": 1, "maxCompletionTokens": 1000},
}


@asynccontextmanager
async def a_worker(deps: Deps, lanes: Lanes) -> AsyncIterator[None]:
    worker = WorkerProcess(deps, lanes)
    await worker.start()
    try:
        yield
    finally:
        await worker.stop()


async def previewed(
    client: httpx.AsyncClient, body: dict[str, Any] = ADA, path: str = PREVIEW
) -> shapes.Preview:
    answer = await client.post(path, json=body)
    assert 200 == answer.status_code, answer.text
    return msgspec.json.decode(answer.content, type=shapes.Preview)


async def test_a_preview_shows_what_a_run_would_do(
    client: httpx.AsyncClient, deps: Deps, tenant: Tenant
) -> None:
    await a_prompt(deps, tenant, body=BODY)
    await client.put("/prompts/greeting/tags/production", json={"version": 1})

    seen = await previewed(
        client,
        {
            "inputs": {"name": "Ada", "colour": "red"},
            "priority": "low",
            "params": {"maxCompletionTokens": 50},
        },
        "/prompts/greeting/production/preview",
    )

    assert [
        ("system", "Be kind to Ada."),
        ("user", "Hello Ada, it is {{ day }}. {{ a b }}"),
    ] == [(message.role, message.content) for message in seen.messages]
    assert (["day"], ["colour"]) == (seen.missing_inputs, seen.unused_inputs)
    assert ["{{ a b }}" in warning for warning in seen.warnings] == [True]
    assert ("greeting", 1, "production", True) == (
        seen.prompt.slug,
        seen.prompt.version,
        seen.prompt.tag,
        seen.prompt.published,
    )
    assert ("production", "low", "sim/echo") == (seen.environment, seen.priority, seen.model)
    assert (1, 50) == (seen.params.temperature, seen.params.max_completion_tokens)


async def test_a_preview_counts_four_bytes_as_a_token_and_prices_the_longest_answer(
    client: httpx.AsyncClient, deps: Deps, tenant: Tenant
) -> None:
    await a_prompt(deps, tenant)

    seen = await previewed(
        client, {"inputs": {"name": "日本日本"}, "params": {"maxCompletionTokens": 200}}
    )

    assert (9, 200) == (seen.token_estimate.input, seen.token_estimate.max_output)
    assert seen.cost_ceiling is not None
    assert (9e-6, 8e-4, 8.09e-4) == (
        seen.cost_ceiling.input,
        seen.cost_ceiling.output,
        seen.cost_ceiling.total,
    )


@pytest.mark.parametrize(
    ("model", "params", "max_output", "total"),
    [
        ("sim/echo", None, None, None),
        ("sim/echo", {"sim": {"outputTokens": 10}}, 10, 0.000047),
        ("sim/echo", {"sim": {"outputTokens": 10}, "maxCompletionTokens": 5}, 5, 0.000027),
        ("openai/gpt-5-mini", None, None, None),
        ("openai/gpt-5-mini", {"maxCompletionTokens": 1000}, 1000, 0.00200175),
        (
            "openai/gpt-5-mini",
            {"maxCompletionTokens": 1000, "serviceTier": "flex"},
            1000,
            0.001000875,
        ),
        ("anthropic/claude-sonnet-4-5", None, 8192, 0.122901),
        ("openai/nobody-knows-it", {"maxCompletionTokens": 1000}, 1000, None),
    ],
)
async def test_a_cost_ceiling_needs_a_price_and_a_limit(  # noqa: PLR0913, PLR0917 (a row of the table)
    client: httpx.AsyncClient,
    deps: Deps,
    tenant: Tenant,
    model: str,
    params: dict[str, Any] | None,
    max_output: int | None,
    total: float | None,
) -> None:
    await a_prompt(deps, tenant)

    seen = await previewed(client, {**ADA, "model": model, "params": params})

    assert (model, 7, max_output) == (
        seen.model,
        seen.token_estimate.input,
        seen.token_estimate.max_output,
    )
    assert total == (seen.cost_ceiling and seen.cost_ceiling.total)


async def test_a_run_of_a_simulated_model_costs_no_more_than_its_ceiling(
    client: httpx.AsyncClient, deps: Deps, lanes: Lanes, tenant: Tenant
) -> None:
    await a_prompt(deps, tenant)
    body = {"inputs": {"name": "Ada" * 500}, "params": {"maxCompletionTokens": 20}}
    seen = await previewed(client, body)

    async with a_worker(deps, lanes):
        run = await done(client, "/prompts/greeting/1/runs", body)

    assert seen.cost_ceiling is not None
    assert 20 == run["tokenUsage"]["output"]
    assert 0 < run["cost"]["total"] <= seen.cost_ceiling.total


async def test_nothing_is_called_charged_or_stored(
    client: httpx.AsyncClient, deps: Deps, lanes: Lanes, tenant: Tenant
) -> None:
    await a_prompt(deps, tenant)
    body = {**ADA, "thread": str(new_id()), "envVars": {"OPENAI_API_KEY": "sk-secret"}}
    headers = {"Idempotency-Key": "one"}

    async with a_worker(deps, lanes):
        answers = [await client.post(PREVIEW, json=body, headers=headers) for _ in range(3)]

    assert [200] * 3 == [answer.status_code for answer in answers]
    assert "sk-secret" not in answers[0].text
    for table in ("runs", "threads", "idempotency_keys", "events", "attempts"):
        assert [(0,)] == list(await deps.store.fetch(f"SELECT count(*) FROM {table}", {})), table
    assert {0} == set((await lanes.waiting()).values())


TEXTS = st.text(st.characters(exclude_characters="\0", codec="utf-8"), max_size=40)
PIECES = st.lists(
    st.sampled_from(["{{ a }}", "{{b}}", "{{ aside }}", "\\{{ a }}", "{{ a b }}", " ", "\n"])
    | TEXTS,
    max_size=6,
).map("".join)


@given(
    system=st.none() | PIECES,
    contents=st.lists(PIECES, min_size=1, max_size=3),
    aside=PIECES.filter(lambda text: "aside" not in text),
    values=st.fixed_dictionaries({"a": TEXTS, "b": TEXTS}, optional={"aside": TEXTS, "c": TEXTS}),
    brackets=st.booleans(),
)
@settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
async def test_the_previewed_messages_are_those_a_run_then_sends(
    customer: httpx.AsyncClient,
    system: str | None,
    contents: list[str],
    aside: str,
    values: dict[str, str],
    *,
    brackets: bool,
) -> None:
    def written(text: str) -> str:
        return text.replace("{{", "[[").replace("}}", "]]") if brackets else text

    main = {
        "model": "sim/echo",
        "systemInstruction": system and written(system),
        "messages": [
            {"role": ("user", "assistant")[n % 2], "content": written(text)}
            for n, text in enumerate(contents)
        ],
    }
    version = {
        "syntax": "brackets" if brackets else "braces",
        "templates": {"main": main, "aside": {"text": written(aside)}},
    }
    made = await customer.post("/prompts/greeting/versions", json=version)
    assert 201 == made.status_code, made.text
    number = made.json()["number"]

    answer = await customer.post(f"/prompts/greeting/{number}/preview", json={"inputs": values})
    run = await done(customer, f"/prompts/greeting/{number}/runs", {"inputs": values})

    assert run["messages"] == answer.json()["messages"]
    assert run["prompt"] | {"published": True} == answer.json()["prompt"]
    assert (run["model"], run["environment"]) == (answer.json()["model"], "production")


@pytest.mark.parametrize("memory", ["read_write", "read_only", "write_only", "stateless"])
async def test_a_preview_in_a_thread_shows_the_history_that_the_run_then_sends(
    customer: httpx.AsyncClient, memory: str
) -> None:
    thread = str(new_id())
    for kept in ("read_write", memory):
        await customer.post("/prompts/greeting/versions", json={**BODY, "memory": kept})
    said = {"inputs": {"name": "Ada", "day": "Monday"}, "thread": thread, "channel": "loud"}
    await done(customer, "/prompts/greeting/1/runs", said)
    asked = {**said, "inputs": {"name": "Bo", "day": "Tuesday"}}

    answer = await customer.post("/prompts/greeting/2/preview", json=asked)
    elsewhere = await customer.post(
        "/prompts/greeting/2/preview", json={**asked, "channel": "quiet"}
    )
    run = await done(customer, "/prompts/greeting/2/runs", asked)

    reads = memory in {"read_write", "read_only"}
    assert (4 if reads else 2) == len(answer.json()["messages"])
    assert 2 == len(elsewhere.json()["messages"])
    assert run["messages"] == answer.json()["messages"]


async def test_a_threads_history_is_shown_only_to_who_could_run_in_it(
    customer: httpx.AsyncClient, deps: Deps, tenant: Tenant
) -> None:
    await customer.post("/prompts/greeting/versions", json={**BODY, "memory": "read_only"})
    body = {**ADA, "thread": str(new_id())}
    reader, _ = await a_key(deps, tenant.workspace_id, ("prompts:read", "runs:read"))
    runner, _ = await a_key(deps, tenant.workspace_id, ("prompts:read", "runs:write"))

    async with client_with(deps, reader) as holder:
        refused = await holder.post(PREVIEW, json=body)
        without = await holder.post(PREVIEW, json=ADA)
    async with client_with(deps, runner) as holder:
        shown = await holder.post(PREVIEW, json=body)

    assert (403, "missing_scope", []) == problem(refused)
    assert (200, 200) == (without.status_code, shown.status_code)


async def test_a_draft_can_be_previewed_by_its_author_but_not_run(
    client: httpx.AsyncClient, deps: Deps, tenant: Tenant
) -> None:
    await client.post("/prompts", json={"slug": "greeting", "name": "Greeting"})
    made = await client.post("/prompts/greeting/versions", json={**BODY, "publish": False})
    draft = made.json()["id"]
    reader, _ = await a_key(deps, tenant.workspace_id, ("prompts:read", "runs:write"))

    for name in ("1", draft):
        seen = await previewed(client, path=f"/prompts/greeting/{name}/preview")
        assert (1, False) == (seen.prompt.version, seen.prompt.published)
    latest = await client.post("/prompts/greeting/__latest__/preview", json=ADA)
    run = await client.post("/prompts/greeting/1/runs", json=ADA)
    async with client_with(deps, reader) as holder:
        refused = await holder.post(PREVIEW, json=ADA)

    assert (404, 404) == (latest.status_code, run.status_code)
    assert (403, "missing_scope", []) == problem(refused)


async def test_a_published_version_is_previewed_with_the_scope_to_read_prompts(
    deps: Deps, tenant: Tenant
) -> None:
    await a_prompt(deps, tenant)
    reader, _ = await a_key(deps, tenant.workspace_id, ("prompts:read",))
    runner, _ = await a_key(deps, tenant.workspace_id, ("runs:write",))

    async with client_with(deps, reader) as holder:
        shown = await holder.post(PREVIEW, json=ADA)
    async with client_with(deps, runner) as holder:
        refused = await holder.post(PREVIEW, json=ADA)

    assert 200 == shown.status_code
    assert (403, "missing_scope", []) == problem(refused)


async def test_a_key_limited_to_an_environment_previews_runs_of_that_one(
    client: httpx.AsyncClient, deps: Deps, tenant: Tenant
) -> None:
    await a_prompt(deps, tenant)
    await client.post("/environments", json={"name": "staging"})
    wanted = {"name": "a key", "scopes": ["prompts:read"], "environments": ["staging"]}
    made = await client.post("/keys", json=wanted)

    async with client_with(deps, made.json()["key"]) as limited:
        seen = await previewed(limited, {**ADA, "environment": "STAGING"})
        beyond = [
            await limited.post(PREVIEW, json=ADA),
            await limited.post(PREVIEW, json={**ADA, "environment": "production"}),
        ]

    assert "staging" == seen.environment
    assert {(403, "environment_forbidden")} == {problem(answer)[:2] for answer in beyond}


async def test_a_foreign_prompt_is_as_unknown_as_one_that_is_not_there(
    client: httpx.AsyncClient, deps: Deps
) -> None:
    other = await a_tenant(deps)
    await a_prompt(deps, other, "theirs")
    await a_prompt(deps, other, "greeting")

    foreign = await client.post("/prompts/theirs/1/preview", json=ADA)
    unknown = await client.post("/prompts/nobodys/1/preview", json=ADA)

    assert (404, "not_found", []) == problem(foreign)
    assert without_request_id(foreign) == without_request_id(unknown)


@pytest.mark.parametrize(
    "version",
    ["0", "2", "-1", "latest", "live", "latest ", "01", "019abcde-0000-7000-8000-000000000000"],
)
async def test_an_unknown_version_cannot_be_previewed(
    client: httpx.AsyncClient, deps: Deps, tenant: Tenant, version: str
) -> None:
    await a_prompt(deps, tenant)

    answer = await client.post(f"/prompts/greeting/{version}/preview", json=ADA)

    assert (404, "not_found", []) == problem(answer)


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"inputs": ["a"]},
        {"inputs": {"name": 1}},
        {**ADA, "status": "queued"},
        {**ADA, "priority": "urgent"},
        {**ADA, "environment": "nowhere"},
        {**ADA, "thread": "no uuid"},
        {**ADA, "model": "nobody knows"},
        {**ADA, "params": {"base_url": "http://x"}},
        {**ADA, "params": {"temperature": 3}},
        {**ADA, "maxAttempts": 0},
        {**ADA, "runAt": "2126-01-01T00:00:00Z"},
        {**ADA, "envVars": {"lower": "x"}},
        {**ADA, "metadata": {"a": 1}},
        {**ADA, "channel": ""},
        {"inputs": {"name": "a\0b"}},
        {"inputs": {"name": "x" * 524_289}},
    ],
)
async def test_what_cannot_be_submitted_is_refused_alike_by_a_preview(
    client: httpx.AsyncClient, deps: Deps, tenant: Tenant, body: dict[str, Any]
) -> None:
    await a_prompt(deps, tenant)

    answer = await client.post(PREVIEW, json=body)
    run = await client.post("/prompts/greeting/1/runs", json=body)

    assert 422 == answer.status_code
    assert without_request_id(run) == without_request_id(answer)


async def test_a_preview_may_be_as_large_as_a_submission(
    client: httpx.AsyncClient, deps: Deps, tenant: Tenant
) -> None:
    await a_prompt(deps, tenant)
    large = {"inputs": {f"name{number}": "x" * 100_000 for number in range(10)}}

    seen = await previewed(client, large)
    too_large = await client.post(
        PREVIEW, json={"inputs": {f"name{number}": "x" * 100_000 for number in range(11)}}
    )

    assert (["name"], 10) == (seen.missing_inputs, len(seen.unused_inputs))
    assert 413 == too_large.status_code


async def test_what_renders_too_long_to_be_sent_is_refused(
    client: httpx.AsyncClient, deps: Deps, tenant: Tenant
) -> None:
    await a_prompt(
        deps,
        tenant,
        body={"model": "sim/echo", "messages": [{"role": "user", "content": "{{ name }}" * 3}]},
    )

    answer = await client.post(PREVIEW, json={"inputs": {"name": "x" * 400_000}})

    assert (422, "template_limit", []) == problem(answer)


async def test_a_preview_counts_what_waits_of_its_own_and_tells_nothing_of_others(
    client: httpx.AsyncClient, deps: Deps, tenant: Tenant
) -> None:
    await a_prompt(deps, tenant)
    await client.post("/environments", json={"name": "staging"})
    scopes = ["runs:write", "prompts:read"]
    key = await client.post(
        "/keys", json={"name": "x", "scopes": scopes, "environments": ["staging"]}
    )
    other = await a_tenant(deps)
    await a_prompt(deps, other)
    path = "/prompts/greeting/1/runs"
    later = rfc3339(deps.clock.now() + timedelta(days=1))
    async with client_with(deps, other.key) as neighbour:
        for _ in range(3):
            await neighbour.post(path, json={**ADA, "priority": "low"})
    for lane, environment in (("low", "production"), ("low", "staging"), ("onsite", "production")):
        await client.post(path, json={**ADA, "priority": lane, "environment": environment})
    await client.post(path, json={**ADA, "priority": "low", "runAt": later})

    seen = {
        lane: (await previewed(client, {**ADA, "priority": lane})).waiting_ahead
        for lane in ("onsite", "normal", "low")
    }
    async with client_with(deps, key.json()["key"]) as limited:
        body = {**ADA, "priority": "low", "environment": "staging"}
        within = (await previewed(limited, body)).waiting_ahead

    assert {"onsite": 1, "normal": 0, "low": 2} == seen
    assert 1 == within


async def test_a_preview_does_without_redis(deps: Deps, tenant: Tenant) -> None:
    await a_prompt(deps, tenant)
    nobody = connect("redis://127.0.0.1:1/0")
    async with client_with(replace(deps, lanes=nobody), tenant.key) as client:
        seen = await previewed(client)
    await nobody.aclose()

    assert 0 == seen.waiting_ahead
    assert ["Hello Ada"] == [message.content for message in seen.messages]


async def test_a_preview_says_when_nobody_could_pay_for_the_call(
    client: httpx.AsyncClient, deps: Deps, tenant: Tenant
) -> None:
    await a_prompt(deps, tenant)
    await client.post("/environments", json={"name": "staging"})
    await client.put("/environments/staging/variables/OPENAI_API_KEY", json={"value": "sk-1"})
    openai = {**ADA, "model": "openai/gpt-5-mini"}

    without = await previewed(client, openai)
    given = await previewed(client, {**openai, "envVars": {"OPENAI_API_KEY": "sk-2"}})
    kept = await previewed(client, {**openai, "environment": "staging"})
    unknown = await previewed(client, {**ADA, "model": "sim/nobody"})

    assert ["There is no OPENAI_API_KEY for this environment: the run would fail."] == (
        without.warnings
    )
    assert ([], []) == (given.warnings, kept.warnings)
    assert ["There is no model sim/nobody: the run would fail."] == unknown.warnings


async def test_a_preview_says_when_the_server_could_not_keep_variables(
    deps: Deps, tenant: Tenant
) -> None:
    await a_prompt(deps, tenant)
    body = {**ADA, "envVars": {"SOME_KEY": "x"}}

    async with client_with(replace(deps, vault=Vault.parse("")), tenant.key) as client:
        seen = await previewed(client, body)

    assert ["This server has no master key: it would refuse the envVars."] == seen.warnings


@pytest.fixture
async def customer(
    client: httpx.AsyncClient, deps: Deps, lanes: Lanes
) -> AsyncIterator[httpx.AsyncClient]:
    """The tenant's admin with the prompt `greeting`, without a version, and a worker at work."""
    await client.post("/prompts", json={"slug": "greeting", "name": "Greeting"})
    async with a_worker(deps, lanes):
        yield client


async def done(client: httpx.AsyncClient, path: str, body: dict[str, Any]) -> dict[str, Any]:
    """Submit a run and wait until it has succeeded."""
    accepted = await client.post(path, json=body, headers={"Prefer": "wait=20"})
    assert 200 == accepted.status_code, accepted.text
    run: dict[str, Any] = (await client.get(f"/runs/{accepted.json()['id']}")).json()
    assert "succeeded" == run["status"], run
    return run
