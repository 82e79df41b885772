"""Workers that die between a model and its fallback: the next one goes on where the run was."""

import pytest

from tests.faults.rig import Rig

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.xdist_group("faults")]

SLUG = "with-fallback"
FIRST, OTHER = "mock-404", "mock-answer"
BODY = {
    "model": f"openai/{FIRST}",
    "fallbacks": [f"openai/{OTHER}"],
    "messages": [{"role": "user", "content": "Do {{ case }}."}],
}


@pytest.mark.parametrize(
    ("point", "before", "policy"),
    [
        ("after_finish_commit", [FIRST], "fail"),
        ("before_finish_commit", [FIRST, FIRST], "retry"),
        ("after_intent", [FIRST], "retry"),
    ],
)
async def test_the_next_worker_calls_what_the_rows_say_is_left(
    rig: Rig, point: str, before: list[str], policy: str
) -> None:
    await rig.api()
    await rig.customer.post("/api/v1/prompts", {"slug": SLUG, "name": SLUG})
    await rig.customer.post(f"/api/v1/prompts/{SLUG}/versions", BODY)
    doomed = rig.launch_worker(crash_point=f"{point}:kill")
    run_id = await rig.customer.accepted(point, None, slug=SLUG, onUnknownOutcome=policy)
    await doomed.ended()

    await rig.worker()
    row = await rig.ended(run_id)

    assert ("succeeded", f"openai/{OTHER}") == (row["status"], row["model"])
    assert [*before, OTHER] == [call.model for call in rig.vendors.calls_of(run_id)]
    assert [] == await rig.verdict()


async def test_under_fail_a_death_in_the_first_models_call_keeps_the_fallback_uncalled(
    rig: Rig,
) -> None:
    await rig.api()
    await rig.customer.post("/api/v1/prompts", {"slug": SLUG, "name": SLUG})
    await rig.customer.post(f"/api/v1/prompts/{SLUG}/versions", BODY)
    doomed = rig.launch_worker(crash_point="after_response:kill")
    run_id = await rig.customer.accepted("doubt", None, slug=SLUG, onUnknownOutcome="fail")
    await doomed.ended()

    await rig.worker()
    row = await rig.ended(run_id)

    assert ("failed", "outcome_unknown") == (row["status"], row["error_code"])
    assert [FIRST] == [call.model for call in rig.vendors.calls_of(run_id)]
    assert [] == await rig.verdict()
