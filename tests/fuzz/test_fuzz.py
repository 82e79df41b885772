"""The API as a real process, asked what its OpenAPI document allows, and what it does not.

A few seconds within the tests; `make fuzz MINUTES=5` goes on with other requests.
"""

import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from shared.deps import Deps
from shared.settings import Settings, environment
from tests.api.world import World, a_world, operations
from tests.e2e.processes import BIN, ROOT, RUNLANE, Process, clean_env
from tests.waiting import until

CONFIG = Path(__file__).with_name("schemathesis.toml")
MINUTES = float(environment().get("FUZZ_MINUTES", "0"))
SHORT = ("--max-examples", "5")
LONG = ("--max-examples", "1000", "--max-time", f"{max(1, MINUTES * 60):.0f}")
GRACE_S = 120


@pytest.fixture
async def world(deps: Deps) -> World:
    return await a_world(deps, "ours")


@pytest.fixture
def url(settings: Settings, world: World, tmp_path: Path) -> Iterator[str]:
    """The address of an API over the world's database."""
    env = clean_env(
        tmp_path,
        DATABASE_URL=settings.database_url.get_secret_value(),
        REDIS_URL=settings.redis_url.get_secret_value(),
        MASTER_KEY=settings.master_key.get_secret_value(),
        API_PORT="0",
        DEV_MODE="true",
        WAIT_MAX_S="1",
        FLOW_WAIT_S="0.1",
    )
    with Process([RUNLANE, "api"], env=env) as api:
        yield api.says("api_ready").partition('"url": "')[2].partition('"')[0]
        assert api.code is None, api.said()
        assert "request_failed" not in api.said(), api.said()


def test_whatever_is_asked_the_answer_is_one_that_is_documented(
    url: str, world: World, tmp_path: Path
) -> None:
    key = world.tenant.key
    env = clean_env(
        tmp_path,
        FUZZ_KEY=key,
        FUZZ_KEY_ID=str(world.tenant.principal.key_id),
        FUZZ_THINGS=json.dumps({name: values[0] for name, values in world.things.items()}),
        FUZZ_SEEN=str(tmp_path / "seen.json"),
        PYTHONPATH=str(ROOT),
    )
    argv = [str(BIN / "schemathesis"), "--config-file", str(CONFIG), "--no-color", "run",
            f"{url}/openapi.json", "--header", f"Authorization: Bearer {key}",
            *(LONG if MINUTES else SHORT)]  # fmt: skip

    with Process(argv, env=env, cwd=tmp_path) as fuzzer:
        until(lambda: fuzzer.code is not None, MINUTES * 60 + GRACE_S, otherwise=fuzzer.said)
        assert 0 == fuzzer.code, fuzzer.said()

    seen = json.loads((tmp_path / "seen.json").read_text())
    asked = {f"{one.method.upper()} {one.path}" for one in operations()}
    assert asked == seen.keys()
    in_vain = sorted(label for label, statuses in seen.items() if min(statuses) >= 400)
    assert len(in_vain) <= len(asked) / 4, in_vain
    answer = httpx.get(f"{url}/api/v1/keys", headers={"Authorization": f"Bearer {key}"})
    assert 200 == answer.status_code
