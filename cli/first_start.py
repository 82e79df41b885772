"""What a newcomer finds: a workspace, a key, two environments, prompts to run, lines to try."""

import shlex
from pathlib import Path
from typing import Any

from shared.deps import Deps
from shared.errors import UnauthorizedError
from shared.ids import KeyId, new_id
from shared.services import key_management, keys, prompts, workspaces
from shared.services.keys import Principal

WORKSPACE = "dev"
ENVIRONMENTS = ("production", "staging")

_GREETING = {
    "model": "sim/echo",
    "systemInstruction": "You greet people in one short sentence.",
    "messages": [{"role": "user", "content": "Say hello to {{ name }}."}],
}
_STORY = {
    "entrypoint": "main",
    "templates": {
        "main": {
            "model": "sim/echo",
            "systemInstruction": "{{ style }}",
            "messages": [{"role": "user", "content": "Tell a story about {{ topic }}."}],
        },
        "style": {"text": "Write for children, in {{ sentences }} sentences."},
    },
}
_SLOW = {
    "model": "sim/slow",
    "messages": [{"role": "user", "content": "Think about {{ question }}."}],
}
DEMO: dict[str, dict[str, Any]] = {"greeting": _GREETING, "story": _STORY, "slow": _SLOW}
TAG = "production"


async def prepare(deps: Deps, key: str | None) -> tuple[str, bool]:
    """Make sure that there is a key that works; answers it and whether everything is new.

    A key from an earlier start is kept. Where it does not fit the database, a workspace with demo
    prompts is made, and a key for it.
    """
    if key is not None:
        try:
            await keys.authenticate(deps, key)
        except UnauthorizedError:
            pass
        else:
            return key, False
    workspace = await workspaces.create_workspace(deps, WORKSPACE, environments=ENVIRONMENTS)
    owner = Principal(workspace.id, KeyId(new_id()), frozenset({"admin"}), frozenset())
    for slug, body in DEMO.items():
        await prompts.create(deps, owner, prompts.NewPrompt(name=slug.capitalize(), slug=slug))
        version = await prompts.add_version(deps, owner, slug, body)
        await prompts.set_tag(deps, owner, slug, TAG, prompts.NewTag(version=version.number))
    made = await key_management.create_for(deps, workspace.id, "runlane dev", ("admin",))
    return made.key, True


def greeting(url: str, env_file: Path, *, new: bool) -> str:
    """The text of a start: where things are and what to type."""
    made = "Made a workspace, an API key and three demo prompts. " if new else ""
    env, run = (shlex.quote(str(path)) for path in (env_file, env_file.with_name("run.json")))
    return f"""
Runlane is ready at {url}  (API reference: {url}/docs)
{made}Stop it with Ctrl-C; everything is kept in {env_file.parent}.

In a second terminal:

  source {env}

  # submit a run; the answer holds its id
  curl -s "$RUNLANE_URL/api/v1/prompts/greeting/production/runs" \\
    -H "Authorization: Bearer $RUNLANE_API_KEY" -H "Content-Type: application/json" \\
    -d '{{"inputs": {{"name": "Ada"}}}}' | tee {run}

  # read it, until its status is completed
  curl -s "$RUNLANE_URL/api/v1/promptruns/$(grep -o '"id":"[^"]*' {run} | cut -c7-)" \\
    -H "Authorization: Bearer $RUNLANE_API_KEY"

  # in a third terminal: receive signed webhooks, then submit again
  .venv/bin/runlane receive
"""
