"""`runlane prompts`, `pins`, `webhooks`, `keys` and `env` as they are typed, against a real API."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from aiohttp import web

from shared.deps import Deps
from tests.cli.served import Shell, Typed
from tests.e2e.processes import RUNLANE, clean_env
from tests.factories import Tenant, a_key
from worker.main import WorkerProcess

NOBODY = "00000000-0000-7000-8000-000000000000"
BROKEN = {"model": "sim/echo", "messages": [{"role": "user", "content": {"file": "gone.md"}}]}


async def piped(shell: Shell, text: bytes, *args: str) -> Typed:
    """Run a command with standard input."""
    env = clean_env(shell.folder, RUNLANE_URL=shell.url, RUNLANE_API_KEY=shell.key)
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        RUNLANE, *args, env=env, stdin=pipe, stdout=pipe, stderr=pipe
    )
    out, err = await process.communicate(text)
    return Typed(process.returncode or 0, out.decode(), err.decode())


@pytest.fixture
async def receiver() -> AsyncIterator[str]:
    """The URL of an endpoint that takes `/ok` and nothing else."""
    app = web.Application()

    async def take(request: web.Request) -> web.Response:
        return web.Response(status=204 if request.path == "/ok" else 500)

    app.router.add_post("/{rest:.*}", take)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    await runner.cleanup()


async def test_prompts_go_into_files_and_back_by_two_commands(
    shell: Shell, client: httpx.AsyncClient, tmp_path: Path
) -> None:
    root = tmp_path / "prompts"
    pulled = await shell.type("prompts", "pull", str(root))
    checked = await shell.type("prompts", "push", str(root), "--check")
    (root / "greeting/main.1.user.md").write_text("Good day, {{ name }}\x1b[2J\n")
    planned = await shell.type("prompts", "push", str(root), "--dry-run")
    differing = await shell.type("prompts", "push", str(root), "--check")
    pushed = await shell.type("prompts", "push", str(root), "--tag", "staging", "--json")

    assert (0, "greeting: wrote version 1\n", "") == (pulled.code, pulled.out, pulled.err)
    assert (0, "greeting: unchanged (version 1)\n") == (checked.code, checked.out)
    assert (0, 1) == (planned.code, differing.code)
    assert planned.out == differing.out
    assert "+Good day, {{ name }}\\x1b[2J\n" in planned.out
    assert "--- greeting/main.1.user.md\n+++ greeting/main.1.user.md\n" in planned.out
    assert {
        "slug": "greeting",
        "change": "published",
        "version": 2,
        "said": ["published version 2 after 1", "moved staging to 2"],
    } == json.loads(pushed.out)
    revision = (await client.get("/prompts/greeting/staging")).json()
    assert "Good day, {{ name }}\x1b[2J" == revision["messages"][0]["content"]


async def test_a_push_with_one_bad_prompt_pushes_the_others_and_ends_with_one(
    shell: Shell, tmp_path: Path
) -> None:
    for slug, document in (("bad", BROKEN), ("good", {**BROKEN, "messages": [a_message("Hi.")]})):
        (tmp_path / "prompts" / slug).mkdir(parents=True)
        (tmp_path / "prompts" / slug / "prompt.json").write_text(json.dumps(document))

    pushed = await shell.type("prompts", "push", str(tmp_path / "prompts"))

    assert 1 == pushed.code
    assert "good: created the prompt\ngood: published version 1\n" == pushed.out
    place = "bad: prompt.json: /messages/0/content: "
    assert f"{place}There is no file 'gone.md' in the prompt's folder.\n" == pushed.err


def a_message(content: str) -> dict[str, Any]:
    return {"role": "user", "content": content}


async def test_prompts_are_listed_and_shown(shell: Shell) -> None:
    listed = await shell.type("prompts", "list")
    shown = await shell.type("prompts", "show", "greeting")
    whole = await shell.type("prompts", "show", "greeting", "1", "--json")
    absent = await shell.type("prompts", "show", "nobody")

    assert "greeting" == listed.out.split("\t")[0]
    assert "version\t1\n" in shown.out
    assert "── main.1.user.md\nHello {{ name }}" in shown.out
    assert 1 == json.loads(whole.out)["version"]["number"]
    assert (1, "") == (absent.code, absent.out)
    assert "not_found" in absent.err


async def test_pins_are_set_promoted_and_taken_away(
    shell: Shell, client: httpx.AsyncClient
) -> None:
    await client.post("/environments", json={"name": "preview"})

    done = await shell.type("pins", "set", "preview", "greeting", "1", "-m", "First light")
    listed = await shell.type("pins", "list", "preview")
    promoted = await shell.type("pins", "promote", "preview", "production", "-m", "Release 42")
    gone = await shell.type("pins", "unset", "preview", "greeting")

    assert (0, 0, 0, 0) == (done.code, listed.code, promoted.code, gone.code)
    assert ["greeting", "1"] == listed.out.split("\t")[:2]
    assert "First light" in listed.out
    assert "greeting\t\t1\n" == promoted.out
    assert "1 moved, 0 were there already." in promoted.err
    (pin,) = (await client.get("/prompts/greeting/pins")).json()["data"]
    assert ("production", "Release 42") == (pin["environment"], pin["comment"])


async def test_a_variable_comes_through_standard_input_and_is_never_shown(
    shell: Shell, client: httpx.AsyncClient
) -> None:
    made = await shell.type("env", "create", "preview")
    done = await piped(shell, b"sk-secret-1234\n", "env", "set", "preview", "OPENAI_API_KEY")
    nothing = await piped(shell, b"\n", "env", "set", "preview", "OPENAI_API_KEY")
    shown = await shell.type("env", "show", "preview")
    await shell.type("env", "unset", "preview", "OPENAI_API_KEY")

    assert (0, 0, 2) == (made.code, done.code, nothing.code)
    assert "OPENAI_API_KEY\t…1234\t" in shown.out
    assert "secret" not in done.out + done.err + shown.out
    variables = (await client.get("/environments/preview/variables")).json()
    assert [] == variables["data"]


async def test_an_environment_is_deleted_only_when_somebody_is_sure(
    shell: Shell, client: httpx.AsyncClient
) -> None:
    await client.post("/environments", json={"name": "preview"})

    asked = await shell.type("env", "delete", "preview")
    there = await shell.type("env", "list", "--json")
    gone = await shell.type("env", "delete", "preview", "--yes")

    assert 2 == asked.code
    assert "--yes" in asked.err
    assert "preview" in {json.loads(line)["name"] for line in there.out.splitlines()}
    assert 0 == gone.code
    assert 404 == (await client.get("/environments/preview")).status_code


async def test_a_key_is_printed_once_works_and_is_revoked(
    shell: Shell, client: httpx.AsyncClient
) -> None:
    made = await shell.type("keys", "create", "ci", "-s", "prompts:read", "--expires", "90d")
    with_it = Shell(shell.launcher, shell.folder, shell.url, made.out.strip())
    allowed = await with_it.type("prompts", "list")
    refused = await with_it.type("env", "list")
    listed = await shell.type("keys", "list", "--json")
    (found,) = (one for one in map(json.loads, listed.out.splitlines()) if one["name"] == "ci")
    revoked = await shell.type("keys", "revoke", found["id"], "--yes")

    assert made.out.startswith("rl_")
    assert 1 == made.out.count("\n")
    assert (0, 1, 0) == (allowed.code, refused.code, revoked.code)
    assert made.out.strip() not in listed.out
    assert found["expiresAt"] is not None
    names = {key["name"] for key in (await client.get("/keys")).json()["data"]}
    assert "ci" not in names


async def test_the_operators_habit_is_told_where_its_command_is_now(
    shell: Shell, tenant: Tenant, client: httpx.AsyncClient
) -> None:
    before = (await client.get("/keys")).json()

    typed = await shell.type("keys", "create", str(tenant.workspace_id), "-s", "admin")

    assert 2 == typed.code
    assert "runlane workspaces create-key" in " ".join(typed.err.split())
    assert len(before["data"]) == len((await client.get("/keys")).json()["data"])


async def test_no_key_gives_more_than_it_has(deps: Deps, tenant: Tenant, shell: Shell) -> None:
    text, _ = await a_key(deps, tenant.workspace_id, ("keys:write",))
    limited = Shell(shell.launcher, shell.folder, shell.url, text)

    typed = await limited.type("keys", "create", "more", "-s", "admin")

    assert (1, "") == (typed.code, typed.out)


async def test_an_endpoint_that_is_not_there_is_said_to_be_so(
    shell: Shell, worker: WorkerProcess
) -> None:
    made = await shell.type("webhooks", "create", "http://127.0.0.1:1/hook", "--json")

    tested = await shell.type("webhooks", "test", json.loads(made.out)["id"])

    said = (
        "http://127.0.0.1:1/hook did not take the ping: Connecting failed: Connection refused, in"
    )
    assert (1, said) == (tested.code, tested.err.rsplit(" ", 2)[0])


async def test_a_webhook_is_made_tried_and_looked_at(
    shell: Shell, worker: WorkerProcess, receiver: str
) -> None:
    made = await shell.type(
        *("webhooks", "create", f"{receiver}/ok", "-e", "production", "--event", "run.failed"),
        *("--header", "X-Team=a", "--no-output", "--json"),
    )
    webhook = json.loads(made.out)
    shown = await shell.type("webhooks", "show", webhook["id"])
    tested = await shell.type("webhooks", "test", webhook["id"])
    listed = await shell.type("webhooks", "deliveries", webhook["id"])
    delivery_id, status, event, attempt = listed.out.split("\t")[:4]
    again = await shell.type("webhooks", "resend", delivery_id)

    assert (["production"], ["run.failed"], ["X-Team"], False) == (
        webhook["environments"],
        webhook["events"],
        webhook["headers"],
        webhook["includeOutput"],
    )
    assert webhook["secret"] not in shown.out
    assert (0, "") == (tested.code, tested.err)
    assert tested.out.startswith(f"{receiver}/ok: 204 in ")
    assert ("succeeded", "ping", "204 in") == (status, event, attempt[:6])
    assert 0 == again.code


async def test_a_test_that_fails_says_what_the_endpoint_answered(
    shell: Shell, worker: WorkerProcess, receiver: str
) -> None:
    made = json.loads((await shell.type("webhooks", "create", f"{receiver}/bad", "--json")).out)

    tested = await shell.type("webhooks", "test", made["id"])

    assert (1, "") == (tested.code, tested.out)
    assert f"{receiver}/bad did not take the ping: 500 in " in tested.err


async def test_a_secret_rotates_and_an_endpoint_is_enabled_and_deleted(
    shell: Shell, client: httpx.AsyncClient
) -> None:
    made = await shell.type("webhooks", "create", "http://127.0.0.1:9/hook")
    fields = dict(line.split("\t") for line in made.out.splitlines())

    rotated = await shell.type("webhooks", "rotate-secret", fields["id"], "--overlap", "60")
    enabled = await shell.type("webhooks", "enable", fields["id"])
    listed = await shell.type("webhooks", "list")
    deleted = await shell.type("webhooks", "delete", fields["id"], "--yes")

    assert rotated.out.startswith("whsec_")
    assert fields["secret"] != rotated.out.strip()
    assert "The old secret signs until" in rotated.err
    assert (0, 0) == (enabled.code, deleted.code)
    assert [fields["id"], "on", fields["url"], "all", "all"] == listed.out.rstrip().split("\t")
    assert 404 == (await client.get(f"/webhooks/{fields['id']}")).status_code


@pytest.mark.parametrize(
    "args",
    [
        ("webhooks", "show", NOBODY),
        ("webhooks", "deliveries", NOBODY),
        ("webhooks", "resend", NOBODY),
        ("webhooks", "delete", NOBODY, "--yes"),
        ("keys", "revoke", NOBODY, "--yes"),
        ("env", "show", "nowhere"),
        ("env", "unset", "nowhere", "KEY"),
    ],
)
async def test_what_is_not_there_is_said_in_a_sentence(shell: Shell, args: tuple[str, ...]) -> None:
    typed = await shell.type(*args)

    assert (1, "") == (typed.code, typed.out)
    assert "not_found" in typed.err
