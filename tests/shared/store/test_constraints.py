"""Rows that make no sense are refused by the database itself."""

import psycopg
import pytest

from tests.shared.store.rig import Rig

NOWHERE = "'00000000-0000-7000-8000-000000000000'"


@pytest.mark.parametrize(
    ("columns", "constraint"),
    [
        ("status = 'paused'", "ck_runs_status_known"),
        ("priority = 'urgent'", "ck_runs_priority_known"),
        ("status = 'succeeded'", "ck_runs_finished_at_iff_terminal"),
        ("finished_at = now()", "ck_runs_finished_at_iff_terminal"),
        ("status = 'running'", "ck_runs_session_iff_running"),
        (f"session_id = {NOWHERE}", "ck_runs_session_iff_running"),
        ("status = 'failed', finished_at = now()", "ck_runs_failed_has_error"),
        ("status = 'incomplete', finished_at = now()", "ck_runs_reason_iff_incomplete"),
        ("incomplete_reason = 'schema'", "ck_runs_reason_iff_incomplete"),
        (
            "status = 'incomplete', finished_at = now(), incomplete_reason = 'x'",
            "ck_runs_incomplete_reason_known",
        ),
        ("cancel_requested_at = now()", "ck_runs_canceled_waits_no_more"),
        ("calls = 4", "ck_runs_calls_bounded"),
        ("calls = -1", "ck_runs_calls_bounded"),
        ("max_attempts = 0", "ck_runs_max_attempts_range"),
        ("max_attempts = 21", "ck_runs_max_attempts_range"),
        ("on_unknown_outcome = 'maybe'", "ck_runs_on_unknown_outcome_known"),
        ("error_origin = 'weather'", "ck_runs_error_origin_known"),
        (
            "status = 'canceled', finished_at = now(), env_vars = '\\x00'",
            "ck_runs_env_vars_erased",
        ),
        (f"environment_id = {NOWHERE}", "fk_runs_workspace_id_environment_id"),
        (f"version_id = {NOWHERE}", "fk_runs_workspace_id_prompt_id_version_id"),
    ],
)
async def test_a_run_that_makes_no_sense_is_refused(
    rig: Rig, columns: str, constraint: str
) -> None:
    run_id = await rig.queued()

    with pytest.raises(psycopg.IntegrityError) as refused:
        await rig.change(run_id, columns)

    assert constraint == refused.value.diag.constraint_name


@pytest.mark.parametrize("column", ["environment_id", "version_id"])
async def test_a_run_cannot_point_into_another_workspace(rig: Rig, other: Rig, column: str) -> None:
    run_id = await rig.queued()

    with pytest.raises(psycopg.errors.ForeignKeyViolation):
        await rig.change(run_id, f"{column} = '{getattr(other.target, column)}'")


@pytest.mark.parametrize(
    ("columns", "constraint"),
    [
        ("outcome = 'fine', finished_at = now()", "ck_attempts_outcome_known"),
        ("outcome = 'succeeded'", "ck_attempts_closed_iff_outcome"),
        ("finished_at = now()", "ck_attempts_closed_iff_outcome"),
        ("billed = 'perhaps'", "ck_attempts_billed_known"),
        ("number = 0", "ck_attempts_numbered_from_one"),
    ],
)
async def test_an_attempt_that_makes_no_sense_is_refused(
    rig: Rig, columns: str, constraint: str
) -> None:
    await rig.called()

    with pytest.raises(psycopg.IntegrityError) as refused:
        await rig.run(f"UPDATE attempts SET {columns}")

    assert constraint == refused.value.diag.constraint_name


async def test_a_run_has_one_event_and_an_event_one_delivery_an_endpoint(rig: Rig) -> None:
    await rig.delivery()
    copies = {
        "uq_events_run_id": "INSERT INTO events (id, workspace_id, run_id, type, body)"
        " SELECT gen_random_uuid(), workspace_id, run_id, type, body FROM events",
        "uq_deliveries_event_id_endpoint_id": "INSERT INTO deliveries"
        " (id, workspace_id, event_id, endpoint_id, status, next_try_at)"
        " SELECT gen_random_uuid(), workspace_id, event_id, endpoint_id, status, now()"
        " FROM deliveries",
    }

    for constraint, copy in copies.items():
        with pytest.raises(psycopg.errors.UniqueViolation) as refused:
            await rig.run(copy)
        assert constraint == refused.value.diag.constraint_name


@pytest.mark.parametrize(
    ("columns", "constraint"),
    [
        ("status = 'lost', finished_at = now()", "ck_deliveries_status_known"),
        ("status = 'succeeded'", "ck_deliveries_finished_iff_over"),
        ("finished_at = now()", "ck_deliveries_finished_iff_over"),
    ],
)
async def test_a_delivery_that_makes_no_sense_is_refused(
    rig: Rig, columns: str, constraint: str
) -> None:
    await rig.delivery()

    with pytest.raises(psycopg.IntegrityError) as refused:
        await rig.run(f"UPDATE deliveries SET {columns}")

    assert constraint == refused.value.diag.constraint_name


async def test_two_live_runs_never_hold_the_same_turn(rig: Rig) -> None:
    thread = "01a203ee-a133-777b-b2a6-4ae3a76d2d5a"
    await rig.queued(thread_id=thread, turns=True)
    second = await rig.queued(thread_id=thread, turns=True)

    with pytest.raises(psycopg.errors.UniqueViolation) as refused:
        await rig.change(second, "turn = 1")

    assert "uq_runs_turn" == refused.value.diag.constraint_name


async def test_a_workspace_has_one_default_environment_and_no_name_twice(rig: Rig) -> None:
    for name, is_default in (("staging", "true"), ("Production", "false")):
        with pytest.raises(psycopg.errors.UniqueViolation):
            await rig.run(
                "INSERT INTO environments (id, workspace_id, name, is_default)"
                f" VALUES (gen_random_uuid(), %(workspace)s, '{name}', {is_default})",
                workspace=rig.tenant.workspace_id,
            )


async def test_a_short_digest_or_fingerprint_is_refused(rig: Rig) -> None:
    with pytest.raises(psycopg.errors.CheckViolation):
        await rig.run("UPDATE api_keys SET digest = '\\x00'")
    with pytest.raises(psycopg.errors.CheckViolation):
        await rig.queued(
            operation="runs.submit", idempotency_key="k", fingerprint="ab", key_kept_s=60
        )
    assert [] == await rig.rows("SELECT 1 FROM runs")
