"""The documentation the API serves: complete, true, and without any outside host."""

import re
from collections.abc import AsyncIterator, Iterator
from html.parser import HTMLParser
from types import SimpleNamespace
from typing import Any, cast

import httpx
import msgspec
import pytest

from api import hook_shapes, openapi, shapes, wording
from api.app import create_app, create_litestar
from api.error_catalog import REQUEST_ERRORS
from api.run_error_catalog import RUN_ERRORS
from shared.deps import Deps
from shared.domain import versions
from shared.queue.lanes import Lanes
from shared.settings import Settings
from shared.store import run_json
from tests.factories import Tenant, a_prompt
from worker.main import WorkerProcess

NOTHING = cast("Deps", SimpleNamespace(settings=Settings()))


@pytest.fixture
async def visitor() -> AsyncIterator[httpx.AsyncClient]:
    """Somebody without a key, at the root of a server whose database nobody asks."""
    app: Any = create_app(NOTHING)
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://runlane.test") as visitor:
        yield visitor


@pytest.fixture
async def document(visitor: httpx.AsyncClient) -> Any:
    return (await visitor.get("/openapi.json")).json()


def operations(document: Any) -> Iterator[Any]:
    for item in document["paths"].values():
        yield from item.values()


async def test_the_document_is_the_same_at_both_addresses(visitor: httpx.AsyncClient) -> None:
    at_root = await visitor.get("/openapi.json")
    below = await visitor.get("/api/v1/openapi.json")

    assert 200 == at_root.status_code
    assert "3.1.0" == at_root.json()["openapi"]
    assert at_root.content == below.content


def test_every_reference_of_the_document_leads_somewhere(document: Any) -> None:
    references = set(re.findall(r'"\$ref":"#/([^"]+)"', msgspec.json.encode(document).decode()))

    for reference in references:
        place = document
        for step in reference.split("/"):
            place = place[step]

    assert references


def test_every_operation_is_described(document: Any) -> None:
    found = list(operations(document))

    assert len(found) == len({one["operationId"] for one in found})
    for one in found:
        assert one["summary"], one["operationId"]
        assert one["description"], one["operationId"]
        for parameter in one["parameters"]:
            assert parameter.get("description"), (one["operationId"], parameter["name"])


def test_every_answer_has_a_shape_and_an_example(document: Any) -> None:
    for one in operations(document):
        for status, answer in one["responses"].items():
            if status not in {"204", "304"} and "$ref" not in answer:
                content = answer.get("content", {}).get("application/json", {})
                assert {"schema", "example"} == content.keys(), (one["operationId"], status)


def test_examples_of_bodies_are_accepted(document: Any) -> None:
    examples = {
        one["operationId"]: one["requestBody"]["content"]["application/json"]["example"]
        for one in operations(document)
        if "requestBody" in one
    }

    for one in openapi.operations(create_litestar()):
        if one.id in {"addVersion", "replaceVersion"}:
            versions.parse(examples[one.id])
        else:
            for kind in one.takes:
                msgspec.convert(examples[one.id], kind)


def test_every_code_of_a_problem_has_an_example(document: Any) -> None:
    answers = document["components"]["responses"].values()
    shown = {
        code: (example["value"]["status"], example["value"]["code"])
        for answer in answers
        for code, example in answer["content"]["application/problem+json"]["examples"].items()
    }

    assert {error.code: (error.status, error.code) for error in REQUEST_ERRORS} == shown


def test_events_in_the_document_fit_their_shapes(document: Any) -> None:
    for name, hook in document["webhooks"].items():
        example = hook["post"]["requestBody"]["content"]["application/json"]["example"]
        of = {
            "promptrun.finished": hook_shapes.PromptRunFinished,
            "ping": hook_shapes.PingEvent,
        }

        msgspec.convert(example, of.get(name, hook_shapes.RunEvent))


def test_the_shape_of_a_run_has_the_fields_the_database_writes() -> None:
    fields = {field.encode_name for field in msgspec.structs.fields(shapes.Run)}

    assert set(run_json.FIELDS) == fields


def test_the_words_about_fields_are_about_fields_that_exist(document: Any) -> None:
    schemas = document["components"]["schemas"]

    for name, texts in wording.FIELDS.items():
        assert texts.keys() <= schemas[name]["properties"].keys(), name


async def test_real_answers_fit_the_documented_shapes(
    deps: Deps, lanes: Lanes, tenant: Tenant, client: httpx.AsyncClient
) -> None:
    await a_prompt(deps, tenant)
    worker = WorkerProcess(deps, lanes)
    await worker.start()

    accepted = await client.post("/prompts/greeting/1/runs", json={"inputs": {"name": "Ada"}})
    run_id = accepted.json()["id"]

    run = await client.get(f"/runs/{run_id}", params={"wait": 20})
    prompt_run = await client.get(f"/promptruns/{run_id}")
    waited = await client.post(
        "/prompts/greeting/1/runs", json={"inputs": {"name": "Bo"}}, headers={"Prefer": "wait=20"}
    )
    canceled = await client.post(f"/runs/{run_id}/cancel")
    listed = await client.get("/runs")
    delivered = await client.get(f"/runs/{run_id}/deliveries")
    event, _ = await deps.store.fetch("SELECT body FROM events ORDER BY id", {})
    await worker.stop()

    assert run_id == str(msgspec.json.decode(accepted.content, type=shapes.AcceptedRun).id)
    assert isinstance(
        msgspec.json.decode(waited.content, type=shapes.AcceptedRun).prompt_run, shapes.PromptRun
    )
    assert 1 == len(msgspec.json.decode(run.content, type=shapes.Run).attempts)
    assert "completed" == msgspec.json.decode(prompt_run.content, type=shapes.PromptRun).status
    assert "succeeded" == msgspec.json.decode(canceled.content, type=shapes.Run).status
    assert 2 == len(msgspec.json.decode(listed.content, type=shapes.RunList).data)
    assert [] == msgspec.json.decode(delivered.content, type=hook_shapes.DeliveryList).data
    assert "run.succeeded" == msgspec.json.decode(event[0], type=hook_shapes.RunEvent).type


class Links(HTMLParser):
    """Collects what a page loads and where it points, its anchors, and scripts within it."""

    def __init__(self, page: httpx.Response) -> None:
        super().__init__()
        self.targets: set[str] = set()
        self.anchors: set[str] = set()
        self.inline = False
        self.feed(page.text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.targets |= {value for name in ("src", "href") if (value := given.get(name))}
        self.anchors |= {value} if (value := given.get("id")) else set()
        self.inline |= tag == "style" or (tag == "script" and "src" not in given)
        self.inline |= "style" in given or any(name.startswith("on") for name in given)


@pytest.mark.parametrize("path", ["/docs", "/docs/errors"])
async def test_a_page_needs_nothing_but_this_server(visitor: httpx.AsyncClient, path: str) -> None:
    page = await visitor.get(path)
    links = Links(page)

    assert "text/html; charset=utf-8" == page.headers["content-type"]
    assert page.headers["content-security-policy"].startswith("default-src 'none';")
    assert not links.inline
    wanted = [target.partition("#") for target in links.targets if target != "data:,"]
    found = {where: await visitor.get(where or path) for where in {where for where, _, _ in wanted}}
    assert {200} == {answer.status_code for answer in found.values()}, found
    anchors = {where: Links(answer).anchors for where, answer in found.items()}
    for where, _, anchor in wanted:
        assert not anchor or anchor in anchors[where], (where, anchor)


async def test_the_reference_shows_every_operation_and_event(
    visitor: httpx.AsyncClient, document: Any
) -> None:
    anchors = Links(await visitor.get("/docs")).anchors

    assert {one["operationId"] for one in operations(document)} <= anchors
    assert {hook["post"]["operationId"] for hook in document["webhooks"].values()} <= anchors


async def test_the_error_page_has_an_anchor_for_every_code(visitor: httpx.AsyncClient) -> None:
    anchors = Links(await visitor.get("/docs/errors")).anchors

    assert {error.code for error in REQUEST_ERRORS} <= anchors
    assert {f"run-{error.code}" for error in RUN_ERRORS} <= anchors


async def test_a_problem_points_at_its_place_on_the_error_page(visitor: httpx.AsyncClient) -> None:
    refused = await visitor.get("/docs/nothing.css")

    assert 404 == refused.status_code
    assert "/docs/errors#not_found" == refused.json()["type"]
