"""What a run is told of its thread: whole turns, the newest, within limits, of its environment."""

import msgspec
import pytest
from msgspec import Raw

from shared.deps import Deps
from shared.domain.history import HISTORY_BYTES, HISTORY_ROWS, NO_LIMITS, History
from shared.ids import RunId, new_id
from shared.store import history, sweeping
from tests.shared.store.rig import Rig, a_rig, outcome

_MANY = """
INSERT INTO messages (workspace_id, thread_id, channel, turn, position, run_id, environment_id,
  role, content)
SELECT %(workspace)s, %(thread)s, 'default', t, p, gen_random_uuid(), %(environment)s,
  CASE p WHEN 1 THEN 'user' ELSE 'assistant' END, repeat('x', %(size)s)
FROM generate_series(1, %(turns)s) AS t, generate_series(1, 2) AS p
"""


@pytest.fixture
async def rig(deps: Deps) -> Rig:
    return await a_rig(deps)


async def _said(rig: Rig, thread: str, *texts: str, **changes: object) -> RunId:
    """A turn that has ended with these messages."""
    run = await rig.called(thread_id=thread, turns=True, **changes)
    lines = [{"role": "user", "content": text} for text in texts]
    (moved,) = await rig.settle(outcome(run, turn=Raw(msgspec.json.encode(lines))))
    assert moved.applied
    return run.id


async def _asking(rig: Rig, thread: str, **changes: object) -> RunId:
    return await rig.queued(thread_id=thread, turns=True, history_read=True, **changes)


async def _told(rig: Rig, run_id: RunId, limits: History = NO_LIMITS) -> tuple[int, list[str]]:
    first, text = await history.before(rig.store, run_id, limits)
    return first, [line["content"] for line in msgspec.json.decode(text)]


async def _long(rig: Rig, turns: int, size: int) -> RunId:
    """A run behind so many turns of two messages of so many bytes."""
    thread = str(new_id())
    await rig.queued(thread_id=thread, turns=True)
    await rig.run(
        _MANY,
        workspace=rig.tenant.workspace_id,
        thread=thread,
        environment=rig.tenant.environment_id,
        size=size,
        turns=turns,
    )
    await rig.run("UPDATE turns SET last_turn = %(turns)s", turns=turns)
    return await _asking(rig, thread)


@pytest.mark.parametrize(
    ("limits", "told"),
    [
        (History(), (1, ["a", "b", "c1", "c2", "d"])),
        (History(max_turns=2), (3, ["c1", "c2", "d"])),
        (History(max_turns=1), (4, ["d"])),
        (History(max_tokens=5), (4, ["d"])),
        (History(max_tokens=14), (4, ["d"])),
        (History(max_tokens=15), (3, ["c1", "c2", "d"])),
        (History(max_turns=3, max_tokens=15), (3, ["c1", "c2", "d"])),
        (History(max_tokens=4), (5, [])),
    ],
)
async def test_limits_keep_the_newest_whole_turns(
    rig: Rig, limits: History, told: tuple[int, list[str]]
) -> None:
    thread = str(new_id())
    for texts in (("a",), ("b",), ("c1", "c2"), ("d",)):
        await _said(rig, thread, *texts)

    run_id = await _asking(rig, thread)

    assert told == await _told(rig, run_id, limits)


async def test_a_turn_that_does_not_fit_ends_the_history_though_an_older_one_would(
    rig: Rig,
) -> None:
    thread = str(new_id())
    for text in ("short", "long" * 100, "new"):
        await _said(rig, thread, text)

    assert (3, ["new"]) == await _told(rig, await _asking(rig, thread), History(max_tokens=50))


@pytest.mark.parametrize(("size", "kept"), [(HISTORY_BYTES // 8, 4), (HISTORY_BYTES // 8 + 1, 3)])
async def test_without_limits_a_history_ends_at_a_mebibyte(rig: Rig, size: int, kept: int) -> None:
    run_id = await _long(rig, turns=6, size=size)

    first, texts = await _told(rig, run_id)

    assert (7 - kept, 2 * kept) == (first, len(texts))


async def test_a_mebibyte_of_short_messages_is_read_up_to_the_limit_of_messages(rig: Rig) -> None:
    run_id = await _long(rig, turns=HISTORY_ROWS // 2 + 100, size=100)

    first, texts = await _told(rig, run_id)

    # The turn at the edge may have been cut apart: it is left out.
    assert (102, HISTORY_ROWS - 2) == (first, len(texts))


async def test_an_environment_remembers_nothing_of_another_s(rig: Rig) -> None:
    staging, thread = str(new_id()), str(new_id())
    await rig.run(
        "INSERT INTO environments (id, workspace_id, name, is_default)"
        " VALUES (%(id)s, %(workspace)s, 'staging', false)",
        id=staging,
        workspace=rig.tenant.workspace_id,
    )
    await _said(rig, thread, "production")
    await _said(rig, thread, "staging", environment_id=staging)

    there = await _asking(rig, thread, environment_id=staging)
    here = await _asking(rig, thread)

    assert (2, ["staging"]) == await _told(rig, there)
    assert (1, ["production"]) == await _told(rig, here)


async def test_messages_of_workers_that_do_not_say_the_environment_are_told_by_their_runs(
    rig: Rig,
) -> None:
    thread = str(new_id())
    await _said(rig, thread, "before")
    await rig.run("UPDATE messages SET environment_id = NULL")

    assert (1, ["before"]) == await _told(rig, await _asking(rig, thread))


@pytest.mark.parametrize("end", ["failed", "canceled", "expired"])
async def test_a_turn_that_ends_badly_is_not_remembered(rig: Rig, end: str) -> None:
    thread = str(new_id())
    bad = await rig.queued(thread_id=thread, turns=True)
    if end == "failed":
        run = await rig.claim(await rig.session(), bad)
        await rig.intend(run)
        turn = Raw(b'[{"role":"user","content":"half"}]')
        await rig.settle(
            outcome(run, status="failed", error_code="x", error_message="x", turn=turn)
        )
    elif end == "canceled":
        await rig.run(
            "UPDATE runs SET status = 'canceled', finished_at = now() WHERE id = %(id)s", id=bad
        )
    else:
        await rig.change(bad, "expires_at = now() - interval '1 s'")
        await sweeping.expire(rig.store)
    after = await _asking(rig, thread)

    assert end == await rig.status(bad)
    assert (2, []) == await _told(rig, after)
    assert after == (await rig.claim(await rig.session(), after)).id
