"""Accepting runs: stored once, rung after, refused with a reason, never a false answer."""

import asyncio
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from random import Random
from typing import Any

import msgspec
import psycopg
import pytest

from shared import deps as shared_deps
from shared.clock import SystemClock
from shared.deps import Deps
from shared.domain.states import Lane
from shared.domain.submissions import Submission
from shared.errors import (
    AppError,
    ConflictError,
    ForbiddenError,
    NotFoundError,
    OutcomeUnknownError,
    UnacceptableError,
    UnavailableError,
)
from shared.ids import EnvironmentId, new_id, parse
from shared.queue.connection import connect
from shared.queue.lanes import Lanes
from shared.services import batches, prompts, submissions
from shared.services.prompts import NewTag, PromptChange
from shared.services.submissions import Accepted, Request
from shared.vault import Vault
from tests.factories import Tenant, a_prompt, a_tenant
from tests.worker.execute_rig import CutStore
from tests.worker.lane_rig import until

SUBMIT = "INSERT INTO runs"
FAR_S = 30.0


@pytest.fixture(autouse=True)
async def prompt(deps: Deps, tenant: Tenant) -> None:
    """The prompt `greeting`."""
    await a_prompt(deps, tenant)


def _request(ends_in_s: float = FAR_S, **changes: Any) -> Request:
    fields: dict[str, Any] = {
        "slug": "greeting",
        "version": "1",
        "body": Submission(inputs={"name": "Ada"}),
        "ends_at": asyncio.get_running_loop().time() + ends_in_s,
    }
    return Request(**(fields | changes))


def _keyed(key: str, fingerprint: bytes = b"a" * 32, **changes: Any) -> Request:
    return _request(idempotency_key=key, fingerprint=fingerprint, **changes)


async def _submit(deps: Deps, tenant: Tenant, **body: Any) -> Accepted:
    return await submissions.submit(
        deps, tenant.principal, _request(body=Submission(**({"inputs": {"name": "Ada"}} | body)))
    )


async def _runs(deps: Deps) -> list[Mapping[str, Any]]:
    rows = await deps.store.fetch("SELECT to_jsonb(r)::text FROM runs r ORDER BY id", {})
    return [msgspec.json.decode(row[0]) for row in rows]


# Accepted


async def test_a_submission_is_stored_and_rung(deps: Deps, tenant: Tenant, lanes: Lanes) -> None:
    accepted = await _submit(deps, tenant, priority=Lane.LOW)

    (run,) = await _runs(deps)
    assert ("queued", False) == (accepted.status, accepted.replayed)
    assert (str(accepted.id), str(accepted.thread), "low") == (
        run["id"],
        run["thread_id"],
        run["priority"],
    )
    assert await lanes.zscore("rl:low", str(accepted.id)) is not None


async def test_defaults_are_those_of_the_settings(deps: Deps, tenant: Tenant) -> None:
    await _submit(deps, tenant)

    (run,) = await _runs(deps)
    assert ("normal", "default", 3, "retry", 86_400, "sim/echo", False, {}, []) == (
        run["priority"],
        run["channel"],
        run["max_attempts"],
        run["on_unknown_outcome"],
        run["max_duration_s"],
        run["model"],
        run["model_overridden"],
        run["metadata"],
        run["tags"],
    )


async def test_a_scheduled_run_is_stored_and_not_rung(
    deps: Deps, tenant: Tenant, lanes: Lanes
) -> None:
    later = deps.clock.now().replace(microsecond=0).replace(year=deps.clock.now().year + 1)

    accepted = await _submit(deps, tenant, run_at=later)

    assert "scheduled" == accepted.status
    assert 0 == sum((await lanes.waiting()).values())


@pytest.mark.parametrize("moment", ["2001-01-01T00:00:00Z", "0001-01-01T00:00:00+23:59"])
async def test_a_run_of_the_past_starts_now(
    deps: Deps, tenant: Tenant, lanes: Lanes, moment: str
) -> None:
    past = datetime.fromisoformat(moment)
    body = Submission(inputs={"name": "Ada"}, run_at=past)

    single = await _submit(deps, tenant, run_at=past)
    (one,) = await batches.submit(deps, tenant.principal, [_request(body=body)])

    assert ["queued"] * 2 == [single.status, one.status]
    assert 2 == (await lanes.waiting())[Lane.NORMAL]


async def test_a_given_thread_is_kept_and_another_is_made_otherwise(
    deps: Deps, tenant: Tenant
) -> None:
    thread = new_id()

    given = await _submit(deps, tenant, thread=thread)
    made = [await _submit(deps, tenant) for _ in range(2)]

    assert thread == given.thread
    assert 3 == len({given.thread, *(accepted.thread for accepted in made)})


@pytest.mark.parametrize(
    ("model", "stored"),
    [("openai/gpt-x", "openai/gpt-x"), ("slow", "sim/slow"), ("sim/a/b", "sim/a/b")],
)
async def test_a_model_may_be_chosen_for_one_run(
    deps: Deps, tenant: Tenant, model: str, stored: str
) -> None:
    await _submit(deps, tenant, model=model)

    (run,) = await _runs(deps)
    assert (stored, True) == (run["model"], run["model_overridden"])


async def test_variables_are_sealed_for_this_very_run(deps: Deps, tenant: Tenant) -> None:
    accepted = await _submit(deps, tenant, env_vars={"OPENAI_API_KEY": "sk-secret"})

    (run,) = await _runs(deps)
    sealed = bytes.fromhex(run["env_vars"].removeprefix("\\x"))
    assert b"sk-secret" not in sealed
    place = ("runs", "env_vars", accepted.id, tenant.workspace_id)
    assert {"OPENAI_API_KEY": "sk-secret"} == msgspec.json.decode(deps.vault.open(sealed, *place))


async def test_without_redis_a_run_is_accepted_all_the_same(deps: Deps, tenant: Tenant) -> None:
    nowhere = connect("redis://127.0.0.1:1")
    alone = shared_deps.build(deps.settings, deps.clock, deps.random, deps.store, nowhere)
    began = asyncio.get_running_loop().time()

    accepted = await _submit(alone, tenant)

    assert asyncio.get_running_loop().time() - began < 1.5
    assert [str(accepted.id)] == [run["id"] for run in await _runs(deps)]
    await nowhere.aclose()


# Refused


async def _refusal(deps: Deps, tenant: Tenant, request: Request) -> AppError:
    with pytest.raises(AppError) as refused:
        await submissions.submit(deps, tenant.principal, request)
    assert [] == await _runs(deps)
    return refused.value


async def test_missing_inputs_are_named_each(deps: Deps, tenant: Tenant) -> None:
    error = await _refusal(deps, tenant, _request(body=Submission(inputs={"other": "x"})))

    assert ("missing_inputs", ["/inputs/name"]) == (
        error.code,
        [flaw.pointer for flaw in error.flaws],
    )


@pytest.mark.parametrize(
    ("slug", "version"),
    [
        ("nothing", "1"),
        ("greeting", "2"),
        ("greeting", "0"),
        ("greeting", "01"),
        ("greeting", "-1"),
        ("greeting", "\u0661"),
        ("greeting", "9" * 50),
        ("greeting", "live"),
        ("greeting", ""),
        ("greeting", "00000000-0000-7000-8000-000000000000"),
        ("greeting", "a\x00b"),
        ("gree\x00ting", "1"),
        ("Greeting", "1"),
    ],
)
async def test_what_is_not_there_is_not_found(
    deps: Deps, tenant: Tenant, slug: str, version: str
) -> None:
    error = await _refusal(deps, tenant, _request(slug=slug, version=version))

    assert isinstance(error, NotFoundError)


async def test_another_workspaces_prompt_is_not_found(deps: Deps, tenant: Tenant) -> None:
    stranger = await a_tenant(deps)

    error = await _refusal(deps, stranger, _request())

    assert isinstance(error, NotFoundError)


async def test_a_draft_is_not_found_until_it_is_published(deps: Deps, tenant: Tenant) -> None:
    body = {"model": "sim/echo", "messages": [{"role": "user", "content": "Hi"}], "publish": False}
    await prompts.add_version(deps, tenant.principal, "greeting", body)
    error = await _refusal(deps, tenant, _request(version="2"))

    await prompts.publish(deps, tenant.principal, "greeting", "2")

    assert isinstance(error, NotFoundError)
    accepted = await submissions.submit(deps, tenant.principal, _request(version="2"))
    assert "queued" == accepted.status


async def test_an_unknown_environment_is_named(deps: Deps, tenant: Tenant) -> None:
    body = Submission(inputs={"name": "Ada"}, environment="staging")

    error = await _refusal(deps, tenant, _request(body=body))

    assert ("unknown_environment", 422) == (error.code, error.status)


async def test_a_key_limited_to_environments_reaches_no_other(deps: Deps, tenant: Tenant) -> None:
    elsewhere = msgspec.structs.replace(
        tenant.principal, environment_ids=frozenset({EnvironmentId(new_id())})
    )

    with pytest.raises(ForbiddenError) as refused:
        await submissions.submit(deps, elsewhere, _request())

    assert "environment_forbidden" == refused.value.code


async def test_a_model_of_nobody_is_refused(deps: Deps, tenant: Tenant) -> None:
    body = Submission(inputs={"name": "Ada"}, model="two words")

    error = await _refusal(deps, tenant, _request(body=body))

    assert isinstance(error, UnacceptableError)


async def test_without_a_master_key_no_variables_are_kept(deps: Deps, tenant: Tenant) -> None:
    body = Submission(inputs={"name": "Ada"}, env_vars={"A": "b"})

    error = await _refusal(replace(deps, vault=Vault({})), tenant, _request(body=body))

    assert "no_master_key" == error.code


# Idempotency


async def test_the_same_request_again_is_answered_with_the_same_run(
    deps: Deps, tenant: Tenant
) -> None:
    first = await submissions.submit(deps, tenant.principal, _keyed("k"))
    second = await submissions.submit(deps, tenant.principal, _keyed("k"))

    assert (first.id, first.thread, True) == (second.id, second.thread, second.replayed)
    assert 1 == len(await _runs(deps))


async def test_fifty_at_once_in_batches_of_two_processes_make_one_run(
    deps: Deps, tenant: Tenant
) -> None:
    other = shared_deps.build(deps.settings, SystemClock(), Random(8), deps.store, deps.lanes)

    answers = await asyncio.gather(
        *(
            submissions.submit(which, tenant.principal, _keyed("k"))
            for which in (deps, other)
            for _ in range(25)
        )
    )

    assert 1 == len({(answer.id, answer.thread) for answer in answers})
    assert {True: 49, False: 1} == Counter(answer.replayed for answer in answers)
    assert 1 == len(await _runs(deps))


async def test_another_request_under_the_same_key_is_never_executed(
    deps: Deps, tenant: Tenant
) -> None:
    await submissions.submit(deps, tenant.principal, _keyed("k"))

    answers = await asyncio.gather(
        *(
            submissions.submit(deps, tenant.principal, _keyed("k", bytes([number]) * 32))
            for number in range(20)
        ),
        return_exceptions=True,
    )

    codes = {answer.code for answer in answers if isinstance(answer, UnacceptableError)}
    assert ({"idempotency_key_reused"}, 20) == (codes, len(answers))
    assert 1 == len(await _runs(deps))


async def test_a_refused_submission_uses_up_no_key(deps: Deps, tenant: Tenant) -> None:
    with pytest.raises(UnacceptableError):
        await submissions.submit(deps, tenant.principal, _keyed("k", body=Submission(inputs={})))

    accepted = await submissions.submit(deps, tenant.principal, _keyed("k", b"b" * 32))

    assert not accepted.replayed


async def test_a_repeated_request_is_answered_as_at_first_after_its_deadline(
    deps: Deps, tenant: Tenant
) -> None:
    soon = deps.clock.now() + timedelta(seconds=0.3)
    body = Submission(inputs={"name": "Ada"}, deadline=soon)
    first = await submissions.submit(deps, tenant.principal, _keyed("k", body=body))
    await until(lambda: deps.clock.now() > soon)

    again = await submissions.submit(deps, tenant.principal, _keyed("k", body=body))

    assert (first.id, True) == (again.id, again.replayed)
    with pytest.raises(UnacceptableError):
        await submissions.submit(deps, tenant.principal, _keyed("another", body=body))
    with pytest.raises(UnacceptableError, match="another request"):
        await submissions.submit(deps, tenant.principal, _keyed("k", b"b" * 32, body=body))


async def test_a_repeated_request_is_answered_as_at_first_after_its_prompt_is_gone(
    deps: Deps, tenant: Tenant
) -> None:
    first = await submissions.submit(deps, tenant.principal, _keyed("k"))
    await deps.store.execute("UPDATE prompts SET deleted_at = now()", {})
    deps.targets.discard(tenant.workspace_id)

    again = await submissions.submit(deps, tenant.principal, _keyed("k"))

    assert (first.id, True) == (again.id, again.replayed)
    elsewhere = msgspec.structs.replace(
        tenant.principal, environment_ids=frozenset({EnvironmentId(new_id())})
    )
    with pytest.raises(ForbiddenError):
        await submissions.submit(deps, elsewhere, _keyed("k"))


async def test_an_expired_key_may_be_used_for_something_else(deps: Deps, tenant: Tenant) -> None:
    first = await submissions.submit(deps, tenant.principal, _keyed("k"))
    await deps.store.execute("UPDATE idempotency_keys SET expires_at = now() - interval '1 s'", {})

    second = await submissions.submit(deps, tenant.principal, _keyed("k", b"b" * 32))

    assert first.id != second.id
    assert not second.replayed


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (("POST", "/a", {"x": 1, "y": [1, 2]}), ("POST", "/a", {"y": [1, 2], "x": 1}), True),
        (("POST", "/a", {"x": 1}), ("POST", "/a", {"x": 2}), False),
        (("POST", "/a", {"y": [1, 2]}), ("POST", "/a", {"y": [2, 1]}), False),
        (("POST", "/a", {}), ("POST", "/b", {}), False),
        (("POST", "/a", {}), ("PUT", "/a", {}), False),
        (("POST", "/a", {"x": {"b": 1, "a": 2}}), ("POST", "/a", {"x": {"a": 2, "b": 1}}), True),
    ],
)
def test_a_fingerprint_is_of_method_path_and_meaning(
    one: tuple[str, str, object], other: tuple[str, str, object], *, same: bool
) -> None:
    assert same == (submissions.fingerprint(*one) == submissions.fingerprint(*other))


# Moving targets


def _version(text: str) -> dict[str, Any]:
    return {"model": "sim/echo", "messages": [{"role": "user", "content": text}]}


async def test_a_moved_tag_counts_for_the_next_submission_of_every_process(
    deps: Deps, tenant: Tenant
) -> None:
    warm = shared_deps.build(deps.settings, SystemClock(), Random(8), deps.store, deps.lanes)
    await prompts.set_tag(deps, tenant.principal, "greeting", "live", NewTag(version=1))
    for process in (deps, warm):
        await submissions.submit(process, tenant.principal, _request(version="live"))
    await prompts.add_version(deps, tenant.principal, "greeting", _version("Hi {{ name }}"))

    await prompts.set_tag(deps, tenant.principal, "greeting", "live", NewTag(version=2))
    for process in (deps, warm):
        await submissions.submit(process, tenant.principal, _request(version="live"))

    rows = await deps.store.fetch(
        "SELECT v.number, r.tag FROM runs r JOIN prompt_versions v ON v.id = r.version_id"
        " ORDER BY r.id",
        {},
    )
    assert [(1, "live"), (1, "live"), (2, "live"), (2, "live")] == list(rows)


async def test_what_was_removed_is_gone_for_a_process_that_knew_it(
    deps: Deps, tenant: Tenant
) -> None:
    warm = shared_deps.build(deps.settings, SystemClock(), Random(8), deps.store, deps.lanes)
    await prompts.set_tag(deps, tenant.principal, "greeting", "live", NewTag(version=1))
    await submissions.submit(warm, tenant.principal, _request(version="live"))

    await prompts.remove_tag(deps, tenant.principal, "greeting", "live")
    with pytest.raises(NotFoundError):
        await submissions.submit(warm, tenant.principal, _request(version="live"))
    await prompts.delete(deps, tenant.principal, "greeting")
    with pytest.raises(NotFoundError):
        await submissions.submit(warm, tenant.principal, _request())


async def test_the_latest_version_is_the_one_published_last(deps: Deps, tenant: Tenant) -> None:
    await submissions.submit(deps, tenant.principal, _request(version="__latest__"))
    await prompts.add_version(deps, tenant.principal, "greeting", _version("Hi"))

    await submissions.submit(deps, tenant.principal, _request(version="__latest__"))

    rows = await deps.store.fetch(
        "SELECT v.number FROM runs r JOIN prompt_versions v ON v.id = r.version_id ORDER BY r.id",
        {},
    )
    assert [(1,), (2,)] == list(rows)


async def test_a_renamed_prompts_old_name_goes_on_working(deps: Deps, tenant: Tenant) -> None:
    await submissions.submit(deps, tenant.principal, _request())
    await prompts.change(deps, tenant.principal, "greeting", PromptChange(slug="hello"))

    for slug in ("greeting", "hello"):
        accepted = await submissions.submit(deps, tenant.principal, _request(slug=slug))
        assert "queued" == accepted.status


async def test_submissions_while_everything_moves_are_all_accepted(
    deps: Deps, tenant: Tenant
) -> None:
    await prompts.add_version(deps, tenant.principal, "greeting", _version("Hi"))
    await prompts.set_tag(deps, tenant.principal, "greeting", "live", NewTag(version=1))

    async def move() -> None:
        for number in range(10):
            await prompts.set_tag(
                deps, tenant.principal, "greeting", "live", NewTag(version=1 + number % 2)
            )

    moving = asyncio.create_task(move())
    accepted = []
    while not moving.done():
        accepted += await asyncio.gather(
            *(
                submissions.submit(deps, tenant.principal, _request(version="live"))
                for _ in range(5)
            )
        )
    await moving

    assert len(accepted) == len(await _runs(deps))


# The database goes away


@pytest.mark.parametrize("carried_out", [True, False])
@pytest.mark.parametrize("key", [None, "k"])
async def test_a_lost_answer_is_made_good_under_the_same_id(
    deps: Deps, tenant: Tenant, store: CutStore, key: str | None, *, carried_out: bool
) -> None:
    store.cut_at(SUBMIT, carried_out=carried_out, times=2)
    fingerprint = None if key is None else b"a" * 32

    accepted = await submissions.submit(
        deps, tenant.principal, _request(idempotency_key=key, fingerprint=fingerprint)
    )

    assert [str(accepted.id)] == [run["id"] for run in await _runs(deps)]
    assert not accepted.replayed


@pytest.mark.parametrize("carried_out", [True, False])
async def test_an_answer_that_stays_lost_is_unknown_and_names_the_run(
    deps: Deps, tenant: Tenant, store: CutStore, *, carried_out: bool
) -> None:
    store.cut_at(SUBMIT, carried_out=carried_out, times=1000)

    with pytest.raises(OutcomeUnknownError) as unknown:
        await submissions.submit(deps, tenant.principal, _request(ends_in_s=0.3))

    stored = [run["id"] for run in await _runs(deps)]
    assert [unknown.value.run_id] * carried_out == stored
    assert parse(unknown.value.run_id) is not None


async def test_when_certainly_nothing_was_stored_it_is_safe_to_try_again(
    deps: Deps, tenant: Tenant, store: CutStore
) -> None:
    store.fail_at(SUBMIT, psycopg.errors.TooManyConnections("no"))

    with pytest.raises(UnavailableError) as refused:
        await submissions.submit(deps, tenant.principal, _request())

    assert "2" == refused.value.headers["Retry-After"]
    assert [] == await _runs(deps)


async def test_a_connection_lost_while_reading_leaves_no_doubt(
    deps: Deps, tenant: Tenant, store: CutStore
) -> None:
    store.cut_at("FROM workspaces w", carried_out=True)

    with pytest.raises(UnavailableError):
        await submissions.submit(deps, tenant.principal, _request())

    assert [] == await _runs(deps)


async def test_what_was_given_up_while_reading_is_not_stored_later(
    deps: Deps, tenant: Tenant, store: CutStore
) -> None:
    given_up = asyncio.Event()
    store.hold_at("FROM workspaces w", given_up)
    asking = asyncio.create_task(
        submissions.submit(deps, tenant.principal, _request(ends_in_s=0.05))
    )
    loop = asyncio.get_running_loop()
    late = loop.time() + 0.1
    await until(lambda: loop.time() > late)

    given_up.set()

    with pytest.raises(UnavailableError):
        await asking
    assert [] == await _runs(deps)


async def test_after_a_lost_answer_a_refusal_does_not_pass_for_nothing_stored(
    deps: Deps, tenant: Tenant, store: CutStore
) -> None:
    store.cut_at(SUBMIT, carried_out=True)
    store.fail_at(SUBMIT, psycopg.errors.TooManyConnections("no"), times=1000)

    with pytest.raises(OutcomeUnknownError) as unknown:
        await submissions.submit(deps, tenant.principal, _request(ends_in_s=0.3))

    assert [unknown.value.run_id] == [run["id"] for run in await _runs(deps)]


async def test_after_a_lost_answer_a_lock_does_not_pass_for_a_key_in_use(
    deps: Deps, tenant: Tenant, store: CutStore
) -> None:
    store.cut_at(SUBMIT, carried_out=True)
    store.fail_at(SUBMIT, psycopg.errors.LockNotAvailable("no"))

    accepted = await submissions.submit(deps, tenant.principal, _request())

    assert [str(accepted.id)] == [run["id"] for run in await _runs(deps)]


async def test_a_key_that_another_request_holds_is_in_use(
    deps: Deps, tenant: Tenant, store: CutStore
) -> None:
    store.fail_at(SUBMIT, psycopg.errors.LockNotAvailable("no"))

    with pytest.raises(ConflictError) as refused:
        await submissions.submit(deps, tenant.principal, _keyed("k"))

    assert ("idempotency_key_in_use", "1") == (
        refused.value.code,
        refused.value.headers["Retry-After"],
    )


async def test_a_database_that_hangs_is_told_apart_by_what_was_sent(
    deps: Deps, tenant: Tenant, store: CutStore
) -> None:
    """Two flushes hang with what they took; what waits behind them is certainly not stored."""
    hanging = asyncio.Event()
    store.cut_at(SUBMIT, carried_out=False, times=2, until=hanging)

    async def submit() -> Accepted:
        return await submissions.submit(deps, tenant.principal, _request(ends_in_s=0.3))

    taken = []
    for count in (1, 2):
        taken.append(asyncio.create_task(submit()))
        await until(lambda count=count: store.cuts[0].times == 2 - count)
    waiting = asyncio.create_task(submit())
    answers = await asyncio.gather(*taken, waiting, return_exceptions=True)

    hanging.set()
    await deps.submissions.drain()
    assert [OutcomeUnknownError, OutcomeUnknownError, UnavailableError] == [
        type(answer) for answer in answers
    ]
    assert [] == await _runs(deps)


async def test_a_client_that_leaves_does_not_take_its_run_along(
    deps: Deps, tenant: Tenant, store: CutStore
) -> None:
    arriving = asyncio.Event()
    store.hold_at(SUBMIT, arriving)
    submitting = asyncio.create_task(submissions.submit(deps, tenant.principal, _request()))
    await store.cut.wait()
    submitting.cancel()

    arriving.set()
    await deps.submissions.drain()

    assert 1 == len(await _runs(deps))
