"""The commands of the page about rotating the master key, typed as they stand."""

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import httpx
import pytest

import migrations
from cli.embedded import EmbeddedServers
from tests.e2e.processes import BIN, ROOT, RUNLANE, Process, clean_env, run

pytestmark = pytest.mark.xdist_group("how-to-rotate")

PAGE = (ROOT / "docs/how-to/rotate-secrets.md").read_text()
MAKE, BEHIND, FRONT, ROTATE, REMOVE = re.findall(
    r"^```sh\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL
)
OLD_KEY = "old:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
SHELLS = ["bash"] if shutil.which("openssl") else []


@pytest.fixture
def env(servers: EmbeddedServers, empty_redis_url: str, tmp_path: Path) -> Iterator[dict[str, str]]:
    name = f"rotate_{uuid4().hex}"
    url = servers.postgres.create_database(name)
    migrations.upgrade(url)
    made = clean_env(
        tmp_path,
        DATABASE_URL=url,
        REDIS_URL=empty_redis_url,
        OLD_KEY=OLD_KEY,
        MASTER_KEY=OLD_KEY,
        API_PORT="0",
        COLUMNS="200",
    )
    yield made | {"PATH": f"{BIN}:{made['PATH']}"}
    servers.postgres.drop_database(name)


@pytest.mark.parametrize("shell", SHELLS)
def test_the_page_s_commands_rotate_the_master_key(
    shell: str, env: dict[str, str], tmp_path: Path
) -> None:
    _, workspace, _ = run(RUNLANE, "workspaces", "create", "one", env=env)
    _, key, _ = run(RUNLANE, "workspaces", "create-key", workspace.strip(), env=env)
    _set_variable(env, key.strip(), tmp_path)
    checks = "runlane doctor | grep secrets || true\n"
    kept = "echo kept by ${MASTER_KEY%%:*}"
    script = f"{MAKE}{BEHIND}{checks}{FRONT}{checks}{ROTATE}{REMOVE}{kept}"

    code, out, err = run(shell, "-euo", "pipefail", "-c", _lenient(script), env=env)

    assert (0, "") == (code, err), out
    told = [line for line in out.splitlines() if "secrets" in line]
    assert "all 1 are under the newest master key" in told[0]
    assert "old (1)" in told[1]
    assert "1 secrets sealed anew, 0 cannot be opened." in told[2]
    assert "all 1 are under the newest master key" in told[3]
    assert re.fullmatch(r"kept by k\d{8}", out.splitlines()[-1])


def _lenient(script: str) -> str:
    """Without a worker the doctor is not content; what it says of secrets is what counts here."""
    return script.replace("runlane doctor |", "{ runlane doctor || true; } |")


def _set_variable(env: dict[str, str], key: str, folder: Path) -> None:
    with Process([RUNLANE, "api"], env=env, cwd=folder) as api:
        found = re.search(r'"url": "(http://[^"]+)"', api.says("api_ready"))
        assert found
        answer = httpx.put(
            f"{found[1]}/api/v1/environments/production/variables/TOKEN",
            json={"value": "a secret"},
            headers={"Authorization": f"Bearer {key}"},
            timeout=10,
        )
        assert 200 == answer.status_code, answer.text


def test_the_page_promises_no_command_that_is_not_there(env: dict[str, str]) -> None:
    for words in set(re.findall(r"`runlane ([a-z ]+)`", PAGE)):
        code, out, _ = run(RUNLANE, *words.split(), "--help", env=env)
        assert (0, True) == (code, "Usage" in out), words


def test_a_secret_that_no_key_opens_ends_the_command_with_one(
    env: dict[str, str], tmp_path: Path
) -> None:
    _, workspace, _ = run(RUNLANE, "workspaces", "create", "one", env=env)
    _, key, _ = run(RUNLANE, "workspaces", "create-key", workspace.strip(), env=env)
    _set_variable(env, key.strip(), tmp_path)
    other = {"MASTER_KEY": OLD_KEY.replace("old:AAEC", "new:CCEC")}

    code, out, err = run(RUNLANE, "secrets", "rotate", env=env | other)

    assert 1 == code
    assert "0 secrets sealed anew, 1 cannot be opened." in out
    assert err.startswith("environment_variables.sealed ")
    assert "TOKEN: The secret was sealed with a master key that is not configured." in err
