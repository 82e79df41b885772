"""Workers that die around an answer that misses its schema: the next asks for the correction."""

import pytest

from tests.faults.rig import Rig
from tests.vendors import answers

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.xdist_group("faults")]

SLUG = "with-schema"
GOOD, BAD = '{"age": 36}', '{"age": "old"}'
BODY = {
    "model": "openai/some-model",
    "messages": [{"role": "user", "content": "Do {{ case }}."}],
    "responseFormat": {
        "type": "json_schema",
        "name": "person",
        "schema": '{"properties":{"age":{"type":"integer"}}}',
    },
}


@pytest.mark.parametrize(
    ("point", "steps", "lengths"),
    [("after_finish_commit", [BAD, GOOD], [1, 3]), ("after_response", [BAD, BAD, GOOD], [1, 1, 3])],
)
async def test_the_next_worker_asks_for_what_the_rows_say_is_missing(
    rig: Rig, point: str, steps: list[str], lengths: list[int]
) -> None:
    await rig.api()
    await rig.customer.post("/api/v1/prompts", {"slug": SLUG, "name": SLUG})
    await rig.customer.post(f"/api/v1/prompts/{SLUG}/versions", BODY)
    run_id = await rig.customer.accepted(point, None, slug=SLUG)
    rig.vendors.script(run_id, [answers(text) for text in steps])
    doomed = rig.launch_worker(crash_point=f"{point}:kill")
    await doomed.ended()

    await rig.worker()
    row = await rig.ended(run_id)

    assert ("succeeded", GOOD) == (row["status"], row["output"])
    assert lengths == [len(call.body["messages"]) for call in rig.vendors.calls_of(run_id)]
    assert [] == await rig.verdict()
