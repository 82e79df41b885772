"""What claims cost while a million finished runs are being pruned, against while they are not.

Over one database, in turns: runs are submitted and claimed batch by batch, as workers do it, with
the pruner of one worker beside them or without. What is measured is the time of a claim's
statement. The pruner erases contents in half of its rounds and deletes runs in the other half.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from random import SystemRandom
from uuid import UUID

from bench import history, load, machine
from bench.report import Result, Shown, say
from bench.rig import Rig
from shared import deps as shared_deps
from shared.clock import SystemClock
from shared.ids import RunId, SessionId, new_id
from shared.queue.connection import connect
from shared.settings import Settings
from shared.store import claiming, sessions
from shared.store.database import Store
from shared.tasks import end
from worker.prune import Pruner

CLAIM_BATCH = 20
LEASE_S = 600
_COPY = """
INSERT INTO runs (id, workspace_id, environment_id, prompt_id, version_id, status, priority,
  available_at, expires_at, max_duration_s, max_attempts, on_unknown_outcome, thread_id, channel,
  inputs, metadata, model)
SELECT gen_random_uuid(), workspace_id, environment_id, prompt_id, version_id, 'queued', priority,
  now(), now() + interval '1 day', max_duration_s, max_attempts, on_unknown_outcome,
  gen_random_uuid(), channel, '{"name":"Ada"}', metadata, model
FROM (SELECT * FROM runs WHERE finished_at IS NOT NULL LIMIT 1) AS r,
  generate_series(1, %(n)s::int) RETURNING id
"""


async def run(rig: Rig) -> Result:
    """Claims with the pruner off and on, in turns; of each the whole distribution."""
    size, rounds = rig.pick(1_000_000, 20_000), rig.pick(6, 2)
    claims = rig.pick(400, 50)
    taken: dict[str, list[float]] = {"off": [], "erasing": [], "deleting": []}
    pruned = 0
    with rig.runlane.database("runlane_pruned") as url:
        with rig.runlane.running(database_url=url) as system:
            await load.outstanding(system, rig.peers, 1, 1)
        for so_far in history.lengthen(url, size):
            if so_far % 200_000 == 0:
                say(f"pruning: {so_far:,} of {size:,} finished runs made")
        store = Store(url, size=4, statement_timeout_s=30)
        await store.open(wait_s=10)
        await _claims(store, claims // 4)
        before = await _left(store)
        for number in range(rounds):
            say(f"pruning: round {number + 1} of {rounds}")
            kept = {"erasing": {"retain_contents_days": 1}, "deleting": {"retain_runs_days": 1}}
            order = list(taken) if number % 2 == 0 else list(reversed(taken))
            for name in order:
                async with _pruning(rig, store, url, kept.get(name)):
                    taken[name] += await _claims(store, claims)
        pruned = before - await _left(store)
        await store.close()
    found = {name: machine.quantiles(times) for name, times in taken.items()}
    off, on = taken["off"], taken["erasing"] + taken["deleting"]
    ratio = machine.quantiles(on)["p99"] / machine.quantiles(off)["p99"]
    shown = Shown("A claim of 20 runs while a million are pruned", ("ms", "p50", "p99"))
    for name, quantiles in found.items():
        shown.add(name, f"{quantiles['p50']:.2f}", f"{quantiles['p99']:.2f}")
    shown.add("p99, on against off", "", f"{ratio:.2f}")
    figures = {"claim_p99_ratio": ratio, "claim_ms": found, "pruned": pruned, "finished": size}
    return Result(figures, [shown])


@asynccontextmanager
async def _pruning(
    rig: Rig, store: Store, url: str, kept: dict[str, int] | None
) -> AsyncIterator[None]:
    """With a pruner beside the block, unless nothing is to be pruned."""
    if kept is None:
        yield
        return
    settings = Settings(database_url=url, redis_url=rig.servers.redis_url(0)).model_copy(
        update=kept
    )
    lanes = connect(rig.servers.redis_url(0))
    state = shared_deps.build(settings, SystemClock(), SystemRandom(), store, lanes)
    pruner = Pruner(state)
    task = asyncio.create_task(pruner.run_forever())
    try:
        yield
    finally:
        await end([task])
        await pruner.close()
        await lanes.aclose()


async def _claims(store: Store, count: int) -> list[float]:
    """The milliseconds of so many claims, one after the other, as fast as they come."""
    session = SessionId(new_id())
    await sessions.open_session(store, session, host="bench", pid=0, lease_s=LEASE_S)
    rows = await store.fetch(_COPY, {"n": count * CLAIM_BATCH})
    ids = [RunId(UUID(str(row[0]))) for row in rows]
    taken: list[float] = []
    for first in range(0, len(ids), CLAIM_BATCH):
        began = time.perf_counter()
        await claiming.claim(store, session, ids[first : first + CLAIM_BATCH])
        taken.append(1000 * (time.perf_counter() - began))
    await store.execute("DELETE FROM runs WHERE session_id = %(id)s", {"id": session})
    return taken


async def _left(store: Store) -> int:
    """How many ended runs have all their contents."""
    rows = await store.fetch(
        "SELECT count(*) FROM runs WHERE finished_at IS NOT NULL AND contents_erased_at IS NULL", {}
    )
    return int(rows[0][0])
