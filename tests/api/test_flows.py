"""Flows as clients of the flows door manage them, and as the native door sees them."""

from typing import Any

import httpx
import pytest

from shared.deps import Deps
from tests.api.clients import client_with, problem

MAIN = {
    "name": "main",
    "description": "Greets",
    "template": "Be brief. [[style]]",
    "userTemplate": "Say hello to [[name]].",
    "llm": "sim/echo",
    "temperature": 0.5,
    "fallbacks": ["sim/slow"],
    "responseSchema": {"type": "object", "required": ["greeting"]},
}
STYLE = {"name": "style", "template": "Be kind to [[name]]."}
FLOW = "/flows/say-hello"
FIRST = f"{FLOW}/versions/1"


@pytest.fixture(autouse=True)
async def say_hello(client: httpx.AsyncClient) -> dict[str, Any]:
    """The flow `say-hello` with its empty first version."""
    made = await client.post("/flows", json={"title": "Say hello"})
    assert 201 == made.status_code, made.text
    return dict(made.json())


async def _edit(client: httpx.AsyncClient, *templates: dict[str, Any]) -> httpx.Response:
    return await client.put(FIRST, json={"templates": templates})


async def _pin(
    client: httpx.AsyncClient, version: str, environment: str = "production", comment: str = ""
) -> httpx.Response:
    body = {"environment": environment, "comment": comment}
    return await client.post(f"{FLOW}/versions/{version}/environments", json=body)


async def test_a_new_flow_has_a_slug_of_its_title_and_an_empty_editable_main(
    client: httpx.AsyncClient, say_hello: dict[str, Any]
) -> None:
    first = (await client.get(FIRST)).json()

    assert ("say-hello", "Say hello", "Direct", {}) == tuple(
        say_hello[name] for name in ("slug", "title", "mode", "activeVersions")
    )
    assert (1, False, "main", say_hello["id"]) == tuple(
        first[name] for name in ("number", "frozen", "entrypoint", "flowId")
    )
    (main,) = first["templates"]
    assert ("main", None, None, None) == tuple(
        main[name] for name in ("name", "template", "userTemplate", "llm")
    )
    assert say_hello == (await client.get(f"/flows/{say_hello['id']}")).json()
    assert [say_hello] == (await client.get("/flows")).json()["data"]
    again = await client.post("/flows", json={"title": "Say hello"})
    assert "say-hello-2" == again.json()["slug"]


async def test_templates_come_back_as_they_were_written(client: httpx.AsyncClient) -> None:
    edited = await _edit(client, MAIN, STYLE)

    shown = edited.json()["templates"]
    nothing: dict[str, Any] = {"toolIds": [], "maxToolCalls": None, "messages": None}
    absent = dict.fromkeys(("description", "userTemplate", "llm", "temperature", "responseSchema"))
    assert [MAIN | nothing, absent | STYLE | nothing | {"fallbacks": []}] == [
        one | ({"llm": "sim/echo"} if one["name"] == "main" else {}) for one in shown
    ]
    assert "sim/echo" == shown[0]["llm"]
    assert edited.json() == (await client.get(FIRST)).json()
    written = [{k: v for k, v in one.items() if k != "messages"} for one in shown]
    again = await _edit(client, *written)
    assert shown == again.json()["templates"]


async def test_a_flow_is_a_prompt_in_other_words(client: httpx.AsyncClient) -> None:
    await _edit(client, MAIN, STYLE)

    native = (await client.get("/prompts/say-hello/versions/1")).json()["body"]

    assert ("brackets", "main") == (native["syntax"], native["entrypoint"])
    main = native["templates"]["main"]
    assert "Be brief. [[style]]" == main["systemInstruction"]
    assert [{"role": "user", "content": "Say hello to [[name]]."}] == main["messages"]
    assert {"text": "Be kind to [[name]]."} == native["templates"]["style"]
    posted = await client.post("/prompts/say-hello/versions", json=native)
    assert native == (await client.get("/prompts/say-hello/versions/2")).json()["body"]
    assert 201 == posted.status_code
    run = {"inputs": {"name": "Ada"}}
    seen = (await client.post("/prompts/say-hello/2/preview", json=run)).json()["messages"]
    assert ["Be brief. Be kind to Ada.", "Say hello to Ada."] == [one["content"] for one in seen]


async def test_a_version_of_the_native_door_is_shown_and_forked(client: httpx.AsyncClient) -> None:
    said = [{"role": role, "content": f"{role} {{{{ x }}}}"} for role in ("user", "assistant")]
    body = {"model": "sim/echo", "systemInstruction": "Be brief.", "messages": said}
    await client.post("/prompts/say-hello/versions", json=body)

    forked = await client.post(f"{FLOW}/versions/2/fork")

    assert (201, 3, False) == (
        forked.status_code,
        forked.json()["number"],
        forked.json()["frozen"],
    )
    (main,) = forked.json()["templates"]
    assert ("Be brief.", None, said) == tuple(
        main[name] for name in ("template", "userTemplate", "messages")
    )
    bodies = [
        (await client.get(f"/prompts/say-hello/versions/{number}")).json()["body"]
        for number in (2, 3)
    ]
    assert bodies[0] == bodies[1]


async def test_pinning_freezes_and_shows_where_a_version_runs(client: httpx.AsyncClient) -> None:
    await client.post("/environments", json={"name": "staging"})
    seen = (await _edit(client, MAIN, STYLE)).json()

    pinned = await _pin(client, seen["id"], comment="First light")
    await _pin(client, "1", "STAGING")

    assert (200, {"production": seen["id"]}) == (
        pinned.status_code,
        pinned.json()["activeVersions"],
    )
    assert [{"production": seen["id"], "staging": seen["id"]}] == [
        one["activeVersions"] for one in (await client.get("/flows")).json()["data"]
    ]
    (version,) = (await client.get(f"{FLOW}/versions")).json()["data"]
    assert (True, ["production", "staging"]) == (version["frozen"], version["environments"])
    assert (409, "version_published", []) == problem(await _edit(client, MAIN))
    native = (await client.get("/environments/production/pins/say-hello")).json()
    assert (1, "First light") == (native["version"], native["comment"])
    run = await client.post("/prompts/say-hello/__pinned__/runs", json={"inputs": {"name": "Ada"}})
    assert 200 == run.status_code


async def test_rolling_back_is_pinning_the_older_version_again(client: httpx.AsyncClient) -> None:
    await _edit(client, MAIN)
    await client.post(f"{FLOW}/versions/1/fork")
    for version in "121":
        assert 200 == (await _pin(client, version)).status_code

    history = (await client.get("/environments/production/pins/say-hello/history")).json()["data"]

    assert [(2, 1), (1, 2), (None, 1)] == [(move["from"], move["to"]) for move in history]


@pytest.mark.parametrize(
    ("templates", "pointers"),
    [
        ([], ["/templates/main/model", "/templates/main/messages"]),
        ([{"name": "main", "template": "Hello"}], ["/templates/main/model"]),
        ([{"name": "main", "llm": "sim/echo"}], ["/templates/main/messages"]),
    ],
)
async def test_a_draft_may_be_unfinished_until_it_is_pinned_or_published(
    client: httpx.AsyncClient, templates: list[dict[str, Any]], pointers: list[str]
) -> None:
    assert 200 == (await _edit(client, *templates)).status_code

    refused = [await _pin(client, "1"), await client.post("/prompts/say-hello/versions/1/publish")]

    assert [(409, "version_unfinished", pointers)] * 2 == [problem(one) for one in refused]
    assert {} == (await client.get(FLOW)).json()["activeVersions"]


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"templates": [MAIN, MAIN]}, "/templates/1/name"),
        ({"templates": [STYLE]}, "/entrypoint"),
        ({"templates": [MAIN | {"toolIds": ["x"]}]}, "/templates/0/toolIds"),
        ({"templates": [MAIN | {"maxToolCalls": 3}]}, "/templates/0/maxToolCalls"),
        ({"templates": [MAIN], "mode": "Route"}, "/mode"),
        ({"templates": [MAIN], "mode": "Other"}, "/mode"),
        ({"templates": [STYLE, MAIN | {"llm": "gpt-5"}]}, "/templates/1/llm"),
        ({"templates": [MAIN | {"llm": "alias/gone"}]}, "/templates/0/llm"),
        ({"templates": [MAIN | {"fallbacks": ["sim/x", "a b"]}]}, "/templates/0/fallbacks/1"),
        ({"templates": [MAIN | {"temperature": 2.5}]}, "/templates/0/temperature"),
        ({"templates": [MAIN | {"responseSchema": {"type": 7}}]}, "/templates/0/responseSchema"),
        ({"templates": [MAIN | {"responseSchema": "x"}]}, "/templates/0/responseSchema"),
        ({"templates": [MAIN | {"name": "a b"}], "entrypoint": "a b"}, "/templates/0"),
        ({"templates": [MAIN, {"name": "style", "template": "[[main]]"}]}, "/templates/1"),
        ({"templates": [MAIN | {"key": "x"}]}, "/templates/0/key"),
        ({"templates": [{"template": "x"}]}, "/templates/0/name"),
    ],
)
async def test_what_cannot_be_a_version_is_refused_where_it_stands(
    client: httpx.AsyncClient, body: dict[str, Any], pointer: str
) -> None:
    before = (await client.get(FIRST)).json()

    for answer in (
        await client.put(FIRST, json=body),
        await client.post(f"{FLOW}/versions", json=body),
    ):
        assert (422, "invalid", [pointer]) == problem(answer)

    assert before == (await client.get(FIRST)).json()


async def test_a_circle_of_templates_is_refused_with_its_path(client: httpx.AsyncClient) -> None:
    circle: list[dict[str, Any]] = [
        MAIN | {"template": "[[a]]"},
        {"name": "a", "template": "[[b]]"},
        {"name": "b", "template": "x [[a]]"},
    ]

    refused = await _edit(client, *circle)

    assert (422, "invalid", ["/templates/2"]) == problem(refused)
    assert "main → a → b → a" in refused.json()["detail"]


async def test_only_the_draft_one_has_seen_is_replaced(client: httpx.AsyncClient) -> None:
    seen = (await client.get(FIRST)).headers["etag"]
    await _edit(client, MAIN)

    late = await client.put(FIRST, json={"templates": [MAIN]}, headers={"If-Match": seen})

    assert 412 == late.status_code


async def test_pinning_where_nothing_is_or_one_may_not_is_refused(
    client: httpx.AsyncClient, deps: Deps
) -> None:
    await _edit(client, MAIN)
    await client.post("/environments", json={"name": "staging"})
    made = await client.post(
        "/keys", json={"name": "s", "scopes": ["prompts:write"], "environments": ["staging"]}
    )

    async with client_with(deps, made.json()["key"]) as limited:
        refused = await _pin(limited, "1")
        await _pin(limited, "1", "staging")
        await _pin(client, "1")
        shown = (await limited.get(FLOW)).json()["activeVersions"]

    assert (403, "environment_forbidden", []) == problem(refused)
    assert {"staging"} == shown.keys()
    nowhere = await _pin(client, "1", "nowhere")
    assert (422, "unknown_environment", ["/environment"]) == problem(nowhere)
    assert 404 == (await _pin(client, "9")).status_code
