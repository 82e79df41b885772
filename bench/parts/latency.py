"""How long a run waits for us: submission to provider request, provider's answer to webhook.

One run at a time, first in silence, then while others are in flight. Beside it the time of a
commit on this disk: three stand between a submission and the provider (run, claim, intent).
All processes may use every core here.
"""

import asyncio
from collections.abc import Mapping

from bench import load, machine
from bench.peers import HELD, Books
from bench.report import Result, Shown, say
from bench.rig import Rig
from bench.system import System

COMMITS_BEFORE_CALL = 3
MUST_MS, GOAL_MS = 8, 4
SLOTS = 4000


async def run(rig: Rig) -> Result:
    """Measure idle and busy, with the commit time taken before and after."""
    samples, held = rig.pick(300, 60), rig.pick(2000, 300)
    with (
        rig.servers.on_every_core(),
        rig.runlane.running(cores=(), env={"SLOTS": str(SLOTS)}) as system,
    ):
        commits = [machine.commit_ms(rig.servers)]
        await load.outstanding(system, rig.peers, 50, 10)
        say(f"latency: {samples} runs, one at a time")
        idle = await _sample(rig, system, samples)
        commits.append(machine.commit_ms(rig.servers))
        say(f"latency: the same while {held} are in flight")
        busy = await _while_in_flight(rig, system, samples, held)
    commit_ms = sum(one["p50"] for one in commits) / len(commits)
    allowed = {
        "must_p50": COMMITS_BEFORE_CALL * commit_ms + MUST_MS,
        "goal_p50": COMMITS_BEFORE_CALL * commit_ms + GOAL_MS,
    }
    return Result(
        {
            "submit_to_provider_ms": idle["submit_to_provider_ms"] | allowed,
            "answer_to_webhook_ms": idle["answer_to_webhook_ms"],
            "in_flight": {"runs": held, **busy},
            "commit_ms": commit_ms,
        },
        [_table(idle, busy, held, commit_ms, allowed)],
    )


Times = dict[str, dict[str, float]]


async def _sample(rig: Rig, system: System, samples: int) -> Times:
    rig.peers.forget()
    sent = await load.one_by_one(system, rig.peers, samples)
    return _times(rig.peers.books, sent)


async def _while_in_flight(rig: Rig, system: System, samples: int, held: int) -> Times:
    rig.peers.forget()
    await load.submit(system, [rig.peers.token(HELD) for _ in range(held)])
    await rig.peers.until(
        lambda books: len(books.called) == held, load.STALLED_S, f"{held} provider calls"
    )
    await asyncio.sleep(1)
    sent = await load.one_by_one(system, rig.peers, samples)
    found = _times(rig.peers.books, sent)
    rig.peers.release()
    await rig.peers.until(
        lambda books: len(books.delivered) == held + samples, load.STALLED_S, "the held runs"
    )
    return found


def _times(books: Books, sent: Mapping[str, float]) -> Times:
    return {
        "submit_to_provider_ms": machine.quantiles(
            [1000 * (books.called[token] - at) for token, at in sent.items()]
        ),
        "answer_to_webhook_ms": machine.quantiles(
            [1000 * (books.delivered[token] - books.answered[token]) for token in sent]
        ),
    }


def _table(
    idle: Times, busy: Times, held: int, commit_ms: float, allowed: Mapping[str, float]
) -> Shown:
    title = (
        f"Latency in ms; a commit takes {commit_ms:.2f}, so submit to provider may take "
        f"{allowed['must_p50']:.1f} (goal {allowed['goal_p50']:.1f}) at p50"
    )
    shown = Shown(title, ("", "p50", "p99", "max"))
    for name, times in (("idle", idle), (f"{held} in flight", busy)):
        for what, values in times.items():
            words = what.removesuffix("_ms").replace("_", " ")
            shown.add(f"{words}, {name}", *values.values())
    return shown
