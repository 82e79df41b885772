"""`runlane prompts pull` and `push` against the real API."""

import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from cli import prompt_sync
from cli.client import Answer, Client, Server, UnreachableError, UsageError, path
from cli.prompt_sync import Outcome
from shared.deps import Deps
from tests.cli.served import Api
from tests.factories import Tenant, a_key
from tests.version_bodies import BODIES

HELLO: dict[str, Any] = {
    "model": "sim/echo",
    "systemInstruction": "Be kind.\r\n\f",
    "messages": [{"role": "user", "content": "Hello {{ name }}"}],
}
STORY: dict[str, Any] = {
    "entrypoint": "Main",
    "syntax": "brackets",
    "templates": {"Main": HELLO, "main": {"text": ""}, "con": {"text": "\n\n"}},
}


@asynccontextmanager
async def client_of(server: Api, key: str, kind: type[Client] = Client) -> AsyncIterator[Client]:
    """The client as a command has it."""
    headers = {"Authorization": f"Bearer {key}"}
    async with aiohttp.ClientSession(headers=headers) as session:
        yield kind(Server(server.url, key), session)


@pytest.fixture
async def server(deps: Deps) -> AsyncIterator[Api]:
    """The API of a workspace without a prompt."""
    server = Api(deps)
    await server.start()
    yield server
    await server.stop()


@pytest.fixture
async def api(server: Api, tenant: Tenant) -> AsyncIterator[Client]:
    async with client_of(server, tenant.key) as client:
        yield client


async def publish(api: Client, slug: str, body: dict[str, Any]) -> None:
    """Add a version, and the prompt where there is none."""
    if await prompt_sync.fetch(api, slug) is None:
        await api.post(path("prompts"), {"name": slug.title(), "slug": slug})
    await api.post(path("prompts", slug, "versions"), body)


async def pull(api: Client, root: Path, *slugs: str, force: bool = False) -> list[Outcome]:
    return [one async for one in prompt_sync.pull(api, root, slugs, force=force)]


async def push(
    api: Client, root: Path, *slugs: str, tag: str | None = None, dry_run: bool = False
) -> list[Outcome]:
    return [one async for one in prompt_sync.push(api, root, slugs, tag=tag, dry_run=dry_run)]


def done(outcomes: Sequence[Outcome]) -> dict[str, tuple[str, int | None]]:
    return {one.slug: (one.change, one.version) for one in outcomes}


def contents(root: Path) -> dict[str, bytes]:
    return {
        str(one.relative_to(root)): one.read_bytes() for one in root.rglob("*") if one.is_file()
    }


async def state(api: Client) -> list[Any]:
    """All that a push could change."""
    found: list[Any] = []
    async for page in api.pages(path("prompts"), {}, None):
        for prompt in page:
            slug = prompt["slug"]
            lists = [
                await api.get(path("prompts", slug, noun), {"limit": "100"})
                for noun in ("versions", "tags")
            ]
            found.append((prompt, lists))
    return found


async def test_a_push_of_what_was_pulled_changes_nothing(api: Client, tmp_path: Path) -> None:
    for slug, body in (("hello", HELLO), ("story", STORY), ("third", HELLO)):
        await publish(api, slug, body)
    before = await state(api)

    pulled = await pull(api, tmp_path)
    files = contents(tmp_path)
    pushed = await push(api, tmp_path)
    again = await pull(api, tmp_path)

    assert dict.fromkeys(("hello", "story", "third"), ("pulled", 1)) == done(pulled)
    assert dict.fromkeys(("hello", "story", "third"), ("unchanged", 1)) == done(pushed)
    assert done(pushed) == done(again)
    assert before == await state(api)
    assert files == contents(tmp_path)


@settings(
    max_examples=12,
    deadline=None,
    phases=[Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(bodies=st.lists(BODIES, min_size=1, max_size=3))
async def test_whatever_a_server_holds_comes_back_unchanged(
    api: Client, tmp_path_factory: pytest.TempPathFactory, bodies: list[dict[str, Any]]
) -> None:
    root = tmp_path_factory.mktemp("prompts")
    for number, body in enumerate(bodies):
        await publish(api, f"p{number}", body)
    before = await state(api)

    pulled = await pull(api, root, *(f"p{number}" for number in range(len(bodies))))
    pushed = await push(api, root)

    assert {"pulled"} == {one.change for one in pulled}
    assert {"unchanged"} == {one.change for one in pushed}
    assert before == await state(api)


async def test_a_changed_text_becomes_a_version_and_takes_the_tag_along(
    api: Client, tmp_path: Path
) -> None:
    await publish(api, "hello", HELLO)
    await publish(api, "story", STORY)
    await push_tag(api, tmp_path, "production")
    (tmp_path / "hello/main.1.user.md").write_text("Good morning, {{ name }}\n")

    planned = await push(api, tmp_path, tag="production", dry_run=True)
    untouched = await state(api)
    first = await push(api, tmp_path, tag="production")
    second = await push(api, tmp_path, tag="production")

    assert ("would publish a version after 1", "would move production from 1 to that version") == (
        planned[0].said
    )
    assert [1, 1] == [lists[1]["data"][0]["version"] for _, lists in untouched]
    assert {"hello": ("published", 2), "story": ("unchanged", 1)} == done(first)
    assert {"hello": ("unchanged", 2), "story": ("unchanged", 1)} == done(second)
    assert {"production": 2} == await tags(api, "hello")
    assert {"production": 1} == await tags(api, "story")


async def push_tag(api: Client, root: Path, tag: str) -> None:
    await pull(api, root)
    await push(api, root, tag=tag)


async def tags(api: Client, slug: str) -> dict[str, int]:
    found = await prompt_sync.fetch(api, slug)
    assert found is not None
    return found.tags


async def test_a_prompt_that_is_only_in_files_is_created(api: Client, tmp_path: Path) -> None:
    (tmp_path / "new").mkdir()
    (tmp_path / "new/prompt.json").write_text(json.dumps({"description": "Fresh.", **HELLO}))

    planned = await push(api, tmp_path, tag="staging", dry_run=True)
    nothing = await state(api)
    made = await push(api, tmp_path, tag="staging")
    again = await push(api, tmp_path, tag="staging")

    assert [] == nothing
    assert {"new": ("created", None)} == done(planned)
    assert {"new": ("created", 1)} == done(made)
    assert {"new": ("unchanged", 1)} == done(again)
    found = await prompt_sync.fetch(api, "new")
    assert found is not None
    assert ("new", "Fresh.", {"staging": 1}) == (found.name, found.description, found.tags)


class DyingClient(Client):
    """A client whose process ends when a number of requests were made, their last unanswered."""

    left = 0

    async def call(self, *args: Any, **options: Any) -> Answer:
        answer = await super().call(*args, **options)
        self.left -= 1
        if self.left < 0:
            raise UnreachableError("The end.")
        return answer


async def test_a_push_that_ends_after_any_request_is_finished_by_the_next(
    server: Api, api: Client, tenant: Tenant, tmp_path: Path
) -> None:
    ends = 0
    for requests in range(100):
        root = tmp_path / str(requests)
        known, new = f"known-{requests}", f"new-{requests}"
        await publish(api, known, HELLO)
        await pull(api, root, known)
        (root / known / "main.1.user.md").write_text("Changed.\n")
        (root / new).mkdir()
        (root / new / "prompt.json").write_text(json.dumps(HELLO))
        async with client_of(server, tenant.key, DyingClient) as dying:
            assert isinstance(dying, DyingClient)
            dying.left = requests
            with suppress(UnreachableError):
                await push(dying, root, tag="production")
                break
        ends += 1

        await push(api, root, tag="production")

        assert [2, 1] == await numbers(api, known)
        assert [1] == await numbers(api, new)
        assert ({"production": 2}, {"production": 1}) == (
            await tags(api, known),
            await tags(api, new),
        )
        again = await push(api, root, tag="production")
        assert {"unchanged"} == {one.change for one in again}
    assert 9 <= ends < 50


async def numbers(api: Client, slug: str) -> list[int]:
    page = await api.get(path("prompts", slug, "versions"))
    return [one["number"] for one in page["data"]]


async def test_an_interrupted_push_is_finished_by_the_next(api: Client, tmp_path: Path) -> None:
    await publish(api, "hello", HELLO)
    await pull(api, tmp_path)
    (tmp_path / "other").mkdir()
    (tmp_path / "other/prompt.json").write_text(json.dumps(HELLO))
    await api.post(path("prompts"), {"name": "other", "slug": "other"})  # and then it ended

    finished = await push(api, tmp_path, tag="production")

    assert {"hello": ("changed", 1), "other": ("published", 1)} == done(finished)
    assert {"production": 1} == await tags(api, "other")


async def test_name_and_description_follow_the_files_without_a_new_version(
    api: Client, tmp_path: Path
) -> None:
    await publish(api, "hello", HELLO)
    await pull(api, tmp_path)
    settings_file = tmp_path / "hello/prompt.json"
    document = json.loads(settings_file.read_text())
    settings_file.write_text(json.dumps({**document, "name": "Größe", "description": "New."}))

    pushed = await push(api, tmp_path)

    assert {"hello": ("changed", 1)} == done(pushed)
    assert ("changed its name and description",) == pushed[0].said
    found = await prompt_sync.fetch(api, "hello")
    assert found is not None
    assert ("Größe", "New.", 1) == (found.name, found.description, found.number)


async def test_changes_that_were_not_pushed_are_never_overwritten(
    api: Client, tmp_path: Path
) -> None:
    await publish(api, "hello", HELLO)
    await pull(api, tmp_path)
    (tmp_path / "hello/main.1.user.md").write_text("Mine.\n")
    await publish(api, "hello", {**HELLO, "systemInstruction": "Theirs."})
    mine = contents(tmp_path)

    refused = await pull(api, tmp_path)
    kept = contents(tmp_path)
    forced = await pull(api, tmp_path, force=True)

    assert {"hello": ("failed", None)} == done(refused)
    assert "--force" in refused[0].said[0]
    assert mine == kept
    assert {"hello": ("pulled", 2)} == done(forced)
    assert b"Theirs.\n" == (tmp_path / "hello/main.system.md").read_bytes()


@pytest.mark.parametrize("lost", [".pulled.json", "no file"])
async def test_files_that_the_server_knows_are_brought_up_to_date(
    lost: str, api: Client, tmp_path: Path
) -> None:
    await publish(api, "hello", HELLO)
    await pull(api, tmp_path)
    (tmp_path / "hello" / lost).unlink(missing_ok=True)
    await publish(api, "hello", {**HELLO, "systemInstruction": None})

    pulled = await pull(api, tmp_path)

    assert {"hello": ("pulled", 2)} == done(pulled)
    assert not (tmp_path / "hello/main.system.md").exists()


async def test_files_pushed_from_elsewhere_are_no_local_changes(
    api: Client, tmp_path: Path
) -> None:
    await publish(api, "hello", HELLO)
    await pull(api, tmp_path)
    (tmp_path / "hello/main.1.user.md").write_text("From git.\n")
    await publish(
        api, "hello", {**HELLO, "messages": [{"role": "user", "content": "From git."}]}
    )  # as a push in CI does
    await publish(api, "hello", {**HELLO, "systemInstruction": "Later."})

    pulled = await pull(api, tmp_path)

    assert {"hello": ("pulled", 3)} == done(pulled)


async def test_one_bad_prompt_stops_no_other(api: Client, tmp_path: Path) -> None:
    for slug, text in (
        ("a-broken", "{"),
        ("b-good", json.dumps(HELLO)),
        ("c-bad-model", json.dumps({**HELLO, "model": "nobody/x"})),
        ("D", json.dumps(HELLO)),
        ("e-refused", json.dumps({"name": "", **HELLO})),
    ):
        (tmp_path / slug).mkdir()
        (tmp_path / slug / "prompt.json").write_text(text)

    pushed = {one.slug: one for one in await push(api, tmp_path)}

    assert "created" == pushed.pop("b-good").change
    assert {"failed"} == {one.change for one in pushed.values()}
    assert pushed["c-bad-model"].said[0].startswith("prompt.json: /model: Name the model's prov")
    assert pushed["e-refused"].said[0].startswith("prompt.json: /name: ")
    assert "The folder's name can be no slug" in pushed["D"].said[0]


async def test_a_renamed_prompt_is_never_pushed_by_its_old_folder(
    api: Client, tmp_path: Path
) -> None:
    await publish(api, "hello", HELLO)
    await pull(api, tmp_path)
    await api.call("PATCH", path("prompts", "hello"), body=b'{"slug": "welcome"}')

    pushed = await push(api, tmp_path)
    pulled = await pull(api, tmp_path)

    assert ("This prompt is called 'welcome' now: rename the folder.",) == pushed[0].said
    assert {"welcome": ("pulled", 1), "hello": ("skipped", None)} == done(pulled)
    assert "is called 'welcome' now" in pulled[1].said[0]


async def test_drafts_alone_and_folders_alone_are_named_and_left(
    api: Client, tmp_path: Path
) -> None:
    await publish(api, "draft", {**HELLO, "publish": False})
    (tmp_path / "local").mkdir()
    (tmp_path / "local/prompt.json").write_text(json.dumps(HELLO))

    pulled = await pull(api, tmp_path)

    assert {"draft": ("skipped", None), "local": ("skipped", None)} == done(pulled)
    assert ["local"] == prompt_sync.folders(tmp_path)


async def test_a_draft_beside_the_latest_version_is_no_difference(
    api: Client, tmp_path: Path
) -> None:
    await publish(api, "hello", HELLO)
    await publish(api, "hello", {**HELLO, "systemInstruction": "Draft.", "publish": False})

    await pull(api, tmp_path)
    pushed = await push(api, tmp_path)

    assert {"hello": ("unchanged", 1)} == done(pushed)


async def test_a_key_that_may_only_read_can_pull_and_look_but_not_push(
    deps: Deps, tenant: Tenant, server: Api, tmp_path: Path
) -> None:
    key, _ = await a_key(deps, tenant.workspace_id, ("prompts:read",))
    (tmp_path / "new").mkdir()
    (tmp_path / "new/prompt.json").write_text(json.dumps(HELLO))

    async with client_of(server, key) as reader:
        planned = await push(reader, tmp_path, dry_run=True)
        pushed = await push(reader, tmp_path)

    assert {"new": ("created", None)} == done(planned)
    assert {"new": ("failed", None)} == done(pushed)


async def test_unknown_prompts_and_tags_are_refused_by_name(api: Client, tmp_path: Path) -> None:
    pulled = await pull(api, tmp_path, "nobody", "No Slug")

    assert {"nobody": ("failed", None), "No Slug": ("failed", None)} == done(pulled)
    with pytest.raises(UsageError, match="'latest' can be no tag"):
        await push(api, tmp_path, tag="latest")
    with pytest.raises(UsageError, match="No folder in"):
        await push(api, tmp_path / "nowhere")
