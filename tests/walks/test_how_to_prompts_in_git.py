"""The how-to page about prompts in git, executed from top to bottom."""

import asyncio
import re
from pathlib import Path

import httpx

from cli.first_start import DEMO
from shared.deps import Deps
from tests.cli.served import Api
from tests.e2e.processes import BIN, ROOT, clean_env
from tests.factories import Tenant

PAGE = (ROOT / "docs/how-to/prompts-in-git.md").read_text()


def blocks(kind: str) -> list[str]:
    """The page's code blocks of a kind."""
    return re.findall(rf"^```{kind}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


async def run(script: str, folder: Path, url: str, key: str) -> tuple[int, str]:
    """Run a block as a person would paste it; its exit code, and what it said."""
    env = clean_env(folder, RUNLANE_URL=url, RUNLANE_API_KEY=key)
    process = await asyncio.create_subprocess_exec(
        *("bash", "-e", "-c", script),
        env=env | {"PATH": f"{BIN}:{env['PATH']}"},
        cwd=folder,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    out, _ = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out.decode()


async def test_every_command_of_the_page_does_what_the_page_says(
    deps: Deps, tenant: Tenant, client: httpx.AsyncClient, tmp_path: Path
) -> None:
    await client.post("/prompts", json={"name": "Greeting", "slug": "greeting"})
    await client.post("/prompts/greeting/versions", json=DEMO["greeting"])
    (settings,), (diff,) = blocks("json"), blocks("diff")
    commands, (proposed, merged, nightly) = blocks("sh"), blocks("sh ci")

    server = Api(deps)
    await server.start()
    said = [await run(one, tmp_path, server.url, tenant.key) for one in commands]
    (tmp_path / "prompts/greeting/main.system.md").write_text("Greet.\n")
    before = (await client.get("/prompts/greeting/versions")).json()
    pipeline = [
        await run(one, tmp_path, server.url, tenant.key)
        for one in (proposed, nightly, merged, nightly)
    ]
    await server.stop()

    assert [0] * 4 == [code for code, _ in said], said
    _, (_, planned), (_, pushed), (_, new) = said
    assert diff == planned
    assert "greeting: published version 2 after 1\ngreeting: moved staging to 2\n" == pushed
    assert "farewell: published version 1" in new
    assert 2 == len(before["data"])
    assert [0, 1, 0, 0] == [code for code, _ in pipeline], pipeline
    production = (await client.get("/prompts/greeting/production")).json()
    assert (3, "Greet.") == (production["number"], production["systemInstruction"])
    assert settings == (tmp_path / "prompts/greeting/prompt.json").read_text()


def test_the_pages_workflow_runs_commands_that_the_page_explains() -> None:
    (workflow,) = blocks("yaml")

    commands = {command.strip() for command in blocks("sh ci")}

    assert set(re.findall(r"run: (.+)", workflow)) <= commands
    assert 2 == len(re.findall(r"run: ", workflow))
