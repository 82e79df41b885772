"""The chaos run: everything at random for some minutes, then the referee's verdict.

`python -m tests.faults.chaos --minutes 10 --seed 7`. Ends with 1 when an invariant was broken,
something went wrong beside them, or less was done than a run of that length has to contain.
"""

import argparse
import asyncio
import json
import re
import secrets
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cli.embedded import EmbeddedServers
from tests import servers as private_servers
from tests.faults import books, facts, referee
from tests.faults.chaos_faults import Faults
from tests.faults.chaos_fleet import DRAIN_S, LEASE_S, Fleet, Tally
from tests.faults.chaos_plan import MIN_RUNS, MINIMA, Fault, Plan, draw
from tests.faults.chaos_traffic import Asked, Traffic
from tests.faults.processes import Launcher
from tests.faults.referee import Case, Figures, Ledgers, SeenCall, Violation
from tests.faults.rig import SCHEDULE_S, Rig
from tests.faults.waiting import pause, until

QUIET_WITHIN_S = 120.0
OVERRUN_S = 180.0
SLOW_S = 5.0
SETTINGS: Mapping[str, object] = {
    "lease_s": LEASE_S,
    "renew_s": 0.5,
    "self_fence_s": 2.2,
    "drain_s": DRAIN_S,
    "redis_away_s": 1.0,
    "slots": 40,
    "call_timeout_s": 4,
    "webhook_lease_s": LEASE_S,
    "breaker_failures": 5,
    "breaker_window_s": 10,
    "breaker_open_s": 1,
    "tally_s": 0.2,
    "tally_lag_s": 0.5,
    "tally_batch": 5,
    "tally_share": 1,
}
DATABASE_AWAY = re.compile(
    r"(PoolTimeout|OperationalError|AdminShutdown|CrashShutdown|CannotConnectNow|LockNotAvailable"
    r"|QueryCanceled|IdleSessionTimeout|IdleInTransactionSessionTimeout): .*$"
)
"""How the trace of an error ends that has its cause in what we do to the database."""

_LIVE = """
SELECT id::text, status, status_reason, available_at, claim_no, session_id::text, calls,
  cancel_requested_at, turn FROM runs WHERE finished_at IS NULL ORDER BY id LIMIT 20
"""
_PENDING = """
SELECT id::text, event_id::text, tries, next_try_at FROM deliveries
WHERE finished_at IS NULL ORDER BY id LIMIT 20
"""
_OUT_OF_TURN = """
SELECT r.id::text AS run, r.turn, e.id::text AS earlier, m.at AS started, e.finished_at
FROM runs r JOIN runs e ON e.workspace_id = r.workspace_id AND e.thread_id = r.thread_id
  AND e.channel = r.channel AND e.turn < r.turn
JOIN witness.moves m ON m.run_id = r.id AND m.was <> 'running' AND m.became = 'running'
WHERE m.at < e.finished_at
"""
_MISREMEMBERED = """
SELECT r.id::text AS run, r.status, count(m.position) AS lines FROM runs r
LEFT JOIN messages m ON m.run_id = r.id
WHERE r.turn IS NOT NULL GROUP BY r.id
HAVING count(m.position) <> CASE WHEN r.status IN ('succeeded', 'incomplete') THEN 2 ELSE 0 END
"""


@dataclass(frozen=True)
class Result:
    """What a chaos run has to say."""

    plan: Plan
    tally: Tally
    runs: Mapping[str, int]
    asked: Sequence[Asked]
    violations: Sequence[Violation]
    figures: Mapping[str, object]

    @property
    def missed(self) -> list[str]:
        """Minima that were not reached."""
        done = {name: sum(self.tally.done[what] for what in kinds) for name, kinds in _minima()}
        done["runs"] = sum(self.runs.values())
        least = {name: number for name, (number, _) in MINIMA.items()} | {"runs": MIN_RUNS}
        return [
            f"{done[name]} {name}, at least {self.plan.least(number)} wanted"
            for name, number in least.items()
            if done[name] < self.plan.least(number)
        ]

    @property
    def good(self) -> bool:
        return not (self.violations or self.tally.wrongs or self.missed)

    def lines(self) -> Iterator[str]:
        """The summary, a line at a time."""
        yield f"seed {self.plan.seed}, {self.plan.length_s / 60:g} minutes"
        yield f"runs: {sum(self.runs.values())} {dict(sorted(self.runs.items()))}"
        yield f"answers: {dict(sorted(Counter(one.status for one in self.asked).items()))}"
        for name, value in self.figures.items():
            yield f"{name}: {value}"
        yield "faults:"
        for what, count in sorted(self.tally.done.items()):
            yield f"  {count:4} {what}"
        for detail, count in sorted(self.tally.details.items()):
            yield f"       {count:4} {detail}"
        for name, kinds in _minima():
            yield f"  {sum(self.tally.done[what] for what in kinds):4} {name} in all"
        yield from (f"TOO FEW: {line}" for line in self.missed)
        yield from (f"WRONG: {line}" for line in self.tally.wrongs)
        for one in self.violations:
            yield f"BROKEN {one.invariant}: {one.what} {dict(one.evidence)}"
        yield f"verdict: {len(self.violations)} broken invariants"


async def run(rig: Rig, plan: Plan, folder: Path) -> Result:
    """Carry a plan out on an empty rig and judge what came of it."""
    tally = Tally()
    fleet = Fleet(rig, plan.seed, tally)
    traffic = Traffic(rig, fleet, plan.seed)
    faults = Faults(rig, fleet, tally)
    settings = {**SETTINGS, "data_dir": folder / "data"}
    await rig.meter()
    await asyncio.gather(*(slot.start(settings, safe=True) for slot in fleet.slots))
    await traffic.prepare()
    watching = [asyncio.create_task(slot.watch()) for slot in fleet.slots]
    try:
        async with asyncio.timeout(plan.length_s + OVERRUN_S):
            await asyncio.gather(
                traffic.run(plan.orders, plan.length_s),
                *(_in_time(faults, fault) for fault in plan.faults),
            )
        loop = asyncio.get_running_loop()
        ended_at = loop.time()
        await _quiet(rig, folder, tally)
        took_s = loop.time() - ended_at
        for task in watching:
            if task.done():
                task.result()
    finally:
        for task in watching:
            task.cancel()
    return await _result(rig, plan, tally, traffic, {"quiet after": f"{took_s:.1f} s"})


async def _in_time(faults: Faults, fault: Fault) -> None:
    await pause(fault.at_s)
    await faults.inject(fault)


async def _quiet(rig: Rig, folder: Path, tally: Tally) -> None:
    """Wait until every run is over, every delivery settled, every kept result brought in."""

    async def left() -> list[object]:
        return [*await rig.rows(_LIVE), *await rig.rows(_PENDING), *_kept(folder)]

    async def look() -> bool:
        return not await left()

    try:
        await until(look, "everything comes to its end", within_s=QUIET_WITHIN_S)
    except AssertionError as error:
        tally.wrongs.append(str(error))
        tally.wrongs += [f"left: {thing}" for thing in await left()]


def _kept(folder: Path) -> list[str]:
    return [path.name for path in folder.glob("data/spill/*.json")]


async def _result(
    rig: Rig, plan: Plan, tally: Tally, traffic: Traffic, measured: Mapping[str, object]
) -> Result:
    found = await facts.read(rig.servers.database_url)
    ledgers = Ledgers(
        orders=tuple(rig.customer.orders.values()),
        calls=[
            SeenCall(call.run_id, call.attempt, call.model, call.received_at)
            for call in rig.vendors.ledger
        ],
        hooks=tuple(rig.receiver.ledger),
    )
    figures = Figures(lease_s=LEASE_S, slack_s=60, webhook_schedule_s=SCHEDULE_S)
    violations = [
        *referee.judge(Case(found, ledgers, figures)),
        *await books.usage_violations(rig),
        *_answers_are_right(traffic.asked),
        *[Violation(2, "a run started out of turn", row) for row in await rig.rows(_OUT_OF_TURN)],
        *[
            Violation(13, "a thread does not remember what was said once", row)
            for row in await rig.rows(_MISREMEMBERED)
        ],
    ]
    complaints = Counter(
        complaint
        for complaint in map(_complaint, rig.complaints())
        if not DATABASE_AWAY.search(complaint)
    )
    tally.wrongs += [f"{count} times in the logs: {what}" for what, count in complaints.items()]
    well = [one.took_s for one in traffic.asked if not one.harmed]
    outcomes = Counter(str(attempt.outcome) for attempt in found.attempts)
    return Result(
        plan=plan,
        tally=tally,
        runs=Counter(fact.status for fact in found.runs),
        asked=traffic.asked,
        violations=violations,
        figures={
            **measured,
            "calls": len(ledgers.calls),
            "attempts": dict(sorted(outcomes.items())),
            "late results": sum(attempt.late for attempt in found.attempts),
            "calls added up": (await rig.rows(books.ADDED_UP))[0]["calls"],
            "webhooks": len(ledgers.hooks),
            "deliveries": dict(Counter(one.status for one in found.deliveries)),
            "slowest answer of an API left alone": f"{max(well, default=0):.2f} s",
        },
    )


def _answers_are_right(asked: Sequence[Asked]) -> Iterator[Violation]:
    """Whatever breaks behind it, an API answers in time and truly, or is itself broken."""
    for one in asked:
        found: dict[str, Any] = {
            "what": one.what,
            "api": one.api,
            "status": one.status,
            "code": one.code,
            "text": one.text,
            "harmed": one.harmed,
            "took_s": round(one.took_s, 2),
        }
        unknown = one.status == 500 and one.code == "outcome_unknown"
        if one.status == 503 and not one.retry_after:
            yield Violation(25, "a 503 does not say when to come back", found)
        if one.text or not (200 <= one.status < 300 or one.status in {0, 409, 503} or unknown):
            yield Violation(25, "an unexpected answer", found)
        if one.harmed:
            continue
        if one.status == 0:
            yield Violation(25, "an API left alone did not answer", found)
        elif one.took_s > SLOW_S:
            yield Violation(25, "an API left alone took long to answer", found)


def _minima() -> Iterator[tuple[str, Any]]:
    return ((name, kinds) for name, (_, kinds) in MINIMA.items())


def _complaint(line: str) -> str:
    """The event, and the error that its trace ends with."""
    _, _, text = line.partition(": ")
    if not text.startswith("{"):
        return line
    told = json.loads(text)
    raised = re.findall(r"^[\w.]+: .*", str(told.get("exception", "")), re.MULTILINE)
    return " ".join([told["event"], *raised[-1:]])


async def _chaos(plan: Plan, servers: EmbeddedServers, folder: Path) -> Result:
    async with AsyncExitStack() as stack:
        launcher = Launcher()
        stack.callback(launcher.close)
        rig = await stack.enter_async_context(Rig(servers, launcher, folder))
        await rig.clear()
        result = await run(rig, plan, folder)
        await rig.kill_all()
    return result


def _main() -> int:
    options = argparse.ArgumentParser(description="Everything at random, then a verdict.")
    options.add_argument("--minutes", type=float, default=10.0)
    options.add_argument("--seed", type=int, default=None)
    given = options.parse_args()
    seed = secrets.randbelow(1_000_000) if given.seed is None else given.seed
    plan = draw(seed, given.minutes)
    sys.stdout.write(f"chaos for {given.minutes:g} minutes with seed {seed}\n")
    sys.stdout.flush()
    folder = Path(tempfile.mkdtemp(prefix="runlane-chaos-"))
    good = False
    try:
        with private_servers.running(durable=True) as servers:
            try:
                result = asyncio.run(_chaos(plan, servers, folder))
            finally:
                for server in (servers.postgres, servers.valkey):
                    shutil.copy(server.log_path, folder)
        sys.stdout.write("".join(f"{line}\n" for line in result.lines()))
        good = result.good
    finally:
        if good:
            shutil.rmtree(folder)
        else:
            sys.stdout.write(f"logs: {folder}\n")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(_main())
