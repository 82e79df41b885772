"""Passing jobs alone: our lanes against stock ARQ, SAQ and taskiq, with a job that does nothing.

First a producer enqueues everything, then one worker carries it out; producer, worker and Valkey
share one core. A second round has jobs that last a second, two thousand at once.
"""

import asyncio
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from bench import cpu, processes
from bench.errors import BenchError
from bench.report import Result, Shown, say
from bench.rig import Rig

ENGINES = ("runlane", "arq", "saq", "taskiq")
REDIS = 2
SAYS_S = 120.0
_ROOT = Path(__file__).parent.parent.parent
_VENVS = _ROOT / "bench" / ".venvs"


@dataclass(frozen=True)
class Phase:
    """What enqueuing, or carrying out, some jobs took."""

    jobs: int
    wall_s: float
    own_cpu_ms: float
    redis_cpu_ms: float

    @property
    def jobs_per_s(self) -> float:
        return self.jobs / self.wall_s

    @property
    def cpu_ms_per_job(self) -> float:
        return (self.own_cpu_ms + self.redis_cpu_ms) / self.jobs


Pair = tuple[Phase, Phase]


async def run(rig: Rig) -> Result:
    """Measure every engine in turn, several times."""
    engines = [name for name in ENGINES if _python(name).exists()]
    for name in set(ENGINES) - set(engines):
        say(f"dispatch: {name} left out, `make bench` installs it")
    nothing = await _rounds(rig, engines, jobs=rig.pick(20_000, 2_000), rounds=rig.pick(3, 1))
    lasting = {} if rig.quick else await _rounds(rig, engines, jobs=6_000, rounds=1, sleep_s=1.0)
    return Result(
        {
            "jobs_per_s": {name: _rate(pairs) for name, pairs in nothing.items()},
            "cpu_ms_per_job": {name: _cost(pairs) for name, pairs in nothing.items()},
            "enqueued_per_s": {
                name: max(produced.jobs_per_s for produced, _ in pairs)
                for name, pairs in nothing.items()
            },
            "jobs_of_1_s": {
                "jobs_per_s": {name: _rate(pairs) for name, pairs in lasting.items()},
                "cpu_ms_per_job": {name: _cost(pairs) for name, pairs in lasting.items()},
            },
        },
        [
            _table("Jobs that do nothing", nothing),
            *([_table("Jobs that last 1 s", lasting)] if lasting else []),
        ],
    )


async def _rounds(
    rig: Rig, engines: Sequence[str], *, jobs: int, rounds: int, sleep_s: float = 0.0
) -> dict[str, list[Pair]]:
    found: dict[str, list[Pair]] = {name: [] for name in engines}
    for number in range(rounds):
        for name in engines:
            say(f"dispatch: {name}, {jobs} jobs of {sleep_s:g} s, round {number + 1} of {rounds}")
            rig.servers.flush_redis()
            produced = await _phase(rig, name, "produce", jobs, sleep_s)
            try:
                worked = await _phase(rig, name, "work", jobs, sleep_s)
            except BenchError as error:
                say(f"dispatch: {error}")
                continue
            found[name].append((produced, worked))
    return {name: pairs for name, pairs in found.items() if pairs}


async def _phase(rig: Rig, engine: str, role: str, jobs: int, sleep_s: float) -> Phase:
    """Run one script from its `first` to its `last`."""
    words = ("-m", f"bench.engines.{engine}_engine", role, rig.servers.redis_url(REDIS), str(jobs))
    log_path = rig.servers.folder / f"{engine}-{role}.log"
    with cpu.on_cores(cpu.SYSTEM_CORE), log_path.open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            str(_python(engine)),
            *words,
            f"--sleep={sleep_s}",
            cwd=_ROOT,
            env=processes.kept_environment() | {"PYTHONPATH": str(_ROOT)},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=log,
        )
    groups = {"redis": rig.servers.groups["redis"]}
    try:
        async with asyncio.timeout(SAYS_S):
            first = await _hear(process, "first")
            before = cpu.cpu_ms(groups)["redis"]
            last = await _hear(process, "last")
            after = cpu.cpu_ms(groups)["redis"]
    except (TimeoutError, EOFError) as error:
        said = log_path.read_text(errors="replace")[-1500:]
        raise BenchError(f"{engine} did not {role} {jobs} jobs in {SAYS_S:g} s: {said}") from error
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()
    return Phase(jobs, last[1] - first[1], 1000 * (last[0] - first[0]), after - before)


async def _hear(process: asyncio.subprocess.Process, word: str) -> tuple[float, float]:
    if process.stdout is None:
        raise BenchError("the engine's output was not asked for")
    while line := (await process.stdout.readline()).decode():
        said, *rest = line.split()
        if said == word:
            return float(rest[0]), float(rest[1])
    raise EOFError(f"the engine ended before it said {word!r}")


def _python(engine: str) -> Path:
    own = _VENVS / engine / "bin" / "python"
    return own if engine in {"saq", "taskiq"} else Path(sys.executable)


def _rate(pairs: Sequence[Pair]) -> float:
    return max(worked.jobs_per_s for _, worked in pairs)


def _cost(pairs: Sequence[Pair]) -> float:
    """Of several rounds the least: others on the machine only ever add."""
    return min(produced.cpu_ms_per_job + worked.cpu_ms_per_job for produced, worked in pairs)


def _table(title: str, found: dict[str, list[Pair]]) -> Shown:
    shown = Shown(
        title, ("engine", "enqueued/s", "jobs/s", "CPU ms per job", "producer", "worker", "redis")
    )
    for name, pairs in found.items():
        produced, worked = min(pairs, key=lambda pair: sum(one.cpu_ms_per_job for one in pair))
        shown.add(
            name,
            produced.jobs_per_s,
            worked.jobs_per_s,
            f"{produced.cpu_ms_per_job + worked.cpu_ms_per_job:.3f}",
            f"{produced.own_cpu_ms / produced.jobs:.3f}",
            f"{worked.own_cpu_ms / worked.jobs:.3f}",
            f"{(produced.redis_cpu_ms + worked.redis_cpu_ms) / worked.jobs:.3f}",
        )
    return shown
