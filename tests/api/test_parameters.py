"""Parameters that a model does not take are refused wherever somebody names them."""

from typing import Any

import httpx
import msgspec
import pytest

from shared.deps import Deps
from shared.domain import versions
from tests.factories import Tenant, a_prompt

MESSAGES = [{"role": "user", "content": "Hello"}]
GOOD: dict[str, Any] = {
    "model": "openai/gpt-5",
    "fallbacks": ["anthropic/claude-x"],
    "messages": MESSAGES,
}
BAD = {**GOOD, "modelParams": {"verbosity": "low"}}
FALLBACK = "The fallback anthropic/claude-x takes no verbosity: every model of a template has to."


def _said(answer: httpx.Response) -> tuple[int, list[str], list[str]]:
    errors = answer.json().get("errors", [])
    return (
        answer.status_code,
        [error["pointer"] for error in errors],
        [error["message"] for error in errors],
    )


@pytest.fixture(autouse=True)
async def _prompt(deps: Deps, tenant: Tenant) -> None:
    await a_prompt(deps, tenant, body=GOOD)


async def test_a_version_is_refused_when_it_is_added_and_when_a_draft_is_replaced(
    client: httpx.AsyncClient,
) -> None:
    draft = await client.post("/prompts/greeting/versions", json={**GOOD, "publish": False})

    added = await client.post("/prompts/greeting/versions", json=BAD)
    replaced = await client.put(f"/prompts/greeting/versions/{draft.json()['number']}", json=BAD)

    expected = (422, ["/modelParams/verbosity"], [FALLBACK])
    assert [expected, expected] == [_said(added), _said(replaced)]


async def test_a_draft_of_before_the_rule_is_refused_when_it_is_published(
    client: httpx.AsyncClient, deps: Deps
) -> None:
    made = await client.post("/prompts/greeting/versions", json={**GOOD, "publish": False})
    number = made.json()["number"]
    body = versions.to_json(versions.parse(GOOD)).decode()
    old = body.replace('"fallbacks"', '"modelParams":{"verbosity":"low"},"fallbacks"')
    await deps.store.fetch(
        "UPDATE prompt_versions SET body = %(body)s::jsonb WHERE id = %(id)s RETURNING id",
        {"body": old, "id": made.json()["id"]},
    )

    answer = await client.post(f"/prompts/greeting/versions/{number}/publish")

    assert (422, ["/templates/main/modelParams/verbosity"], [FALLBACK]) == _said(answer)
    shown = await client.get(f"/prompts/greeting/versions/{number}")
    assert not shown.json()["published"]


@pytest.mark.parametrize("door", ["runs", "preview"])
@pytest.mark.parametrize(
    ("asked", "pointer"),
    [
        ({"params": {"verbosity": "low"}}, "/params/verbosity"),
        ({"params": {"temperature": 1.5}}, "/params/temperature"),
        ({"params": {"serviceTier": "flex"}}, "/params/serviceTier"),
        ({"params": {"reasoningSummary": "auto"}, "model": "gpt-5"}, "/params/reasoningSummary"),
    ],
)
async def test_a_run_or_a_preview_of_it_is_refused_what_no_model_of_the_chain_may_lack(
    client: httpx.AsyncClient, door: str, asked: dict[str, Any], pointer: str
) -> None:
    answer = await client.post(f"/prompts/greeting/1/{door}", json={"inputs": {}, **asked})

    assert (422, [pointer]) == _said(answer)[:2]


async def test_one_bad_run_of_a_batch_is_named_and_nothing_is_stored(
    client: httpx.AsyncClient,
) -> None:
    good = {"prompt": "greeting", "version": 1, "inputs": {}}
    bad = {**good, "params": {"verbosity": "low"}}

    answer = await client.post("/runs/batch", json={"runs": [good, bad]})

    assert (422, ["/runs/1/params/verbosity"]) == _said(answer)[:2]
    listed = await client.get("/runs")
    assert [] == msgspec.json.decode(listed.content)["data"]
