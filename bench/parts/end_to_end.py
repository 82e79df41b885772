"""The whole way, from the submission to the webhook: Runlane against the straightforward program.

Both get the same database server, the same mock, the same receiver and the same driver, take turns
on the same core, and start each turn with fresh processes and an empty history.
"""

from collections.abc import Sequence

from bench import load
from bench.load import Cost
from bench.report import Result, Shown, say
from bench.rig import Rig
from bench.straightforward.system import Straightforward

WARM_UP = 100
GROUPS = ("api", "worker", "postgres", "redis")


async def run(rig: Rig) -> Result:
    """Measure with a provider that answers at once, then with one that takes a second."""
    peer = Straightforward(rig.servers, rig.peers)
    peer.prepare(rig.peers)
    at_once = await _alternate(rig, peer, 0.0, rounds=rig.pick(3, 1))
    late = None if rig.quick else await _alternate(rig, peer, 1.0, rounds=2)
    accepted = await _submissions(rig, peer)
    figures = _figures(*at_once)
    return Result(
        {
            **figures,
            "submissions_per_s": accepted[0].runs_per_s,
            "straightforward_submissions_per_s": accepted[1].runs_per_s,
            "cpu_ms_per_submission": accepted[0].cpu_ms_per_run,
            "straightforward_cpu_ms_per_submission": accepted[1].cpu_ms_per_run,
            "provider_takes_1_s": late and _figures(*late),
        },
        [
            _table("Provider answers at once", *at_once),
            *([_table("Provider takes 1 s", *late)] if late else []),
            _submission_table(accepted),
        ],
    )


async def _alternate(
    rig: Rig, peer: Straightforward, delay_s: float, *, rounds: int
) -> tuple[list[Cost], list[Cost]]:
    window = rig.pick(1000, 200)
    ours: list[Cost] = []
    theirs: list[Cost] = []
    rig.peers.delay_s = delay_s
    for number in range(rounds):
        say(f"end_to_end: round {number + 1} of {rounds}, provider takes {delay_s:g} s")
        with rig.runlane.running() as system:
            await load.outstanding(system, rig.peers, WARM_UP, WARM_UP)
            ours.append(await load.outstanding(system, rig.peers, rig.pick(4000, 1000), window))
        with peer.running() as system:
            await load.outstanding(system, rig.peers, WARM_UP // 4, WARM_UP // 4)
            theirs.append(await load.outstanding(system, rig.peers, rig.pick(1000, 100), window))
    rig.peers.delay_s = 0.0
    return ours, theirs


async def _submissions(rig: Rig, peer: Straightforward) -> tuple[Cost, Cost]:
    total = rig.pick(6000, 1500)
    say(f"end_to_end: {total} submissions while nobody works")
    with rig.runlane.running(workers=0) as system:
        await load.submissions(system, rig.peers, 500)
        ours = await load.submissions(system, rig.peers, total)
    with peer.running(workers=0) as system:
        await load.submissions(system, rig.peers, 50)
        theirs = await load.submissions(system, rig.peers, total // 6)
    return ours, theirs


def _figures(ours: Sequence[Cost], theirs: Sequence[Cost]) -> dict[str, object]:
    mine, other = _cpu_ms_per_run(ours), _cpu_ms_per_run(theirs)
    return {
        "cpu_ms_per_run": mine,
        "straightforward_cpu_ms_per_run": other,
        "ratio": other / mine,
        "ratios": [b.cpu_ms_per_run / a.cpu_ms_per_run for a, b in zip(ours, theirs, strict=True)],
        "runs_per_s": _runs_per_s(ours),
        "straightforward_runs_per_s": _runs_per_s(theirs),
        "cpu_ms_per_run_by_process": _by_process(ours),
        "straightforward_cpu_ms_per_run_by_process": _by_process(theirs),
        "driver_busy": max(cost.driver_busy for cost in (*ours, *theirs)),
    }


def _table(title: str, ours: Sequence[Cost], theirs: Sequence[Cost]) -> Shown:
    shown = Shown(title, ("CPU ms per run", *GROUPS, "all", "runs/s", "driver busy"))
    for name, costs in (("Runlane", ours), ("straightforward", theirs)):
        parts = _by_process(costs)
        shown.add(
            name,
            *(parts[group] for group in GROUPS),
            _cpu_ms_per_run(costs),
            _runs_per_s(costs),
            f"{max(cost.driver_busy for cost in costs):.0%}",
        )
    ratio = _cpu_ms_per_run(theirs) / _cpu_ms_per_run(ours)
    shown.add("times less", "", "", "", "", ratio, _runs_per_s(ours) / _runs_per_s(theirs), "")
    return shown


def _submission_table(accepted: tuple[Cost, Cost]) -> Shown:
    shown = Shown("Submissions, nobody works", ("", "submissions/s", "CPU ms each", "driver busy"))
    for name, cost in zip(("Runlane", "straightforward"), accepted, strict=True):
        shown.add(name, cost.runs_per_s, cost.cpu_ms_per_run, f"{cost.driver_busy:.0%}")
    return shown


def _cpu_ms_per_run(costs: Sequence[Cost]) -> float:
    return sum(sum(cost.cpu_ms.values()) for cost in costs) / sum(cost.runs for cost in costs)


def _runs_per_s(costs: Sequence[Cost]) -> float:
    return sum(cost.runs for cost in costs) / sum(cost.wall_s for cost in costs)


def _by_process(costs: Sequence[Cost]) -> dict[str, float]:
    runs = sum(cost.runs for cost in costs)
    return {group: sum(cost.cpu_ms[group] for cost in costs) / runs for group in GROUPS}
