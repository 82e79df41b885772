"""A rotation of the master key that dies between two batches, beside an API and a worker."""

import base64
from collections.abc import AsyncIterator

import httpx
import pytest
import pytest_asyncio

from tests.faults.rig import MASTER_KEY, Rig
from tests.faults.vendors import model_of

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.xdist_group("faults")]

NEW_KEY = "new1:" + base64.b64encode(bytes(range(32, 64))).decode()
BOTH = f"{NEW_KEY},{MASTER_KEY}"
VARIABLES = 130
KEY_IDS = """
SELECT split_part(encode(substring(sealed FROM 1 FOR 5), 'escape'), ':', 1) AS id, count(*)::int
FROM environment_variables GROUP BY 1 ORDER BY 1
"""


async def _set_variables(rig: Rig) -> None:
    path = f"{rig.customer.url}/api/v1/environments/production/variables"
    headers = {"Authorization": f"Bearer {rig.tenant.key}"}
    async with httpx.AsyncClient(headers=headers, trust_env=False) as client:
        for number in range(VARIABLES):
            answer = await client.put(f"{path}/KEY_{number}", json={"value": f"v{number}"})
            assert 200 == answer.status_code


@pytest_asyncio.fixture(name="rig", loop_scope="session")
async def rig_sealed_as_before(rig: Rig) -> AsyncIterator[Rig]:
    """The rig; what it keeps from test to test is sealed under its own key again afterwards."""
    yield rig
    await rig.kill_all()
    assert (0, 0) == tuple(
        code
        for code, _ in [
            await rig.command("secrets rotate", master_key=f"{MASTER_KEY},{NEW_KEY}"),
            await rig.command("secrets rotate", master_key=MASTER_KEY),
        ]
    )


async def test_a_rotation_that_died_in_the_middle_is_carried_on(rig: Rig) -> None:
    api = await rig.api()
    await _set_variables(rig)
    await api.kill()
    await rig.api(master_key=BOTH)
    await rig.worker(master_key=BOTH)

    died, _ = await rig.command(
        "secrets rotate", master_key=BOTH, crash_point="rotate_mid_batch:kill"
    )
    half = await rig.rows(KEY_IDS)
    between = await rig.ended(await rig.customer.accepted("between", model_of("answer")))
    code, said = await rig.command("secrets rotate", master_key=BOTH)
    whole = await rig.rows(KEY_IDS)
    await rig.kill_all()
    await rig.api(master_key=NEW_KEY)
    await rig.worker(master_key=NEW_KEY)
    after = await rig.ended(await rig.customer.accepted("after", model_of("answer")))
    await rig.quiet()

    assert 0 != died
    assert [("new1", 100), ("test", 30)] == [(row["id"], row["count"]) for row in half]
    assert (0, [("new1", VARIABLES)]) == (code, [(row["id"], row["count"]) for row in whole])
    assert "31 secrets sealed anew, 0 cannot be opened." in said
    assert ["succeeded"] * 2 == [run["status"] for run in (between, after)]
    assert 2 == len({hook.id for hook in rig.receiver.ledger if hook.status == 200})
    assert [] == await rig.verdict()
