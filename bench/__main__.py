"""`python -m bench [--quick] [part …]`: measure, show, keep in bench/results."""

import argparse
import asyncio
import importlib
import os
import sys
import time
import traceback
from collections.abc import Sequence

from bench import cpu, machine, report, rig
from bench.errors import BenchError, SkippedError
from cli.serve import new_event_loop

PARTS = (
    "end_to_end",
    "dispatch",
    "latency",
    "lanes",
    "flows",
    "scale",
    "bulk",
    "recovery",
    "webhooks",
    "pruning",
)
PART_S = 900.0


async def _measure(parts: Sequence[str], *, quick: bool) -> int:
    failures = 0
    async with rig.standing(quick=quick) as standing:
        conditions = machine.conditions(standing.servers) | {"quick": quick}
        report.say(", ".join(f"{name}: {value}" for name, value in conditions.items()))
        for part in parts:
            began = time.monotonic()
            report.say(f"{part}: begins")
            load = machine.busy()
            try:
                async with asyncio.timeout(PART_S):
                    result = await importlib.import_module(f"bench.parts.{part}").run(standing)
            except SkippedError as reason:
                report.console.print(f"{part}: skipped, {reason}")
                continue
            except (BenchError, TimeoutError, ExceptionGroup) as error:
                failures += 1
                report.console.print(f"[red]{part}: failed[/red]")
                traceback.print_exception(error, limit=-3)
                continue
            report.show(result)
            kept = report.keep(part, result.figures, conditions | {"load_average_before": load})
            report.say(f"{part}: {time.monotonic() - began:.0f} s, kept in {kept.name}")
    return failures


def main() -> int:
    options = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    options.add_argument("--quick", action="store_true", help="fewer runs, under two minutes")
    options.add_argument("parts", nargs="*", metavar="part", help=", ".join(PARTS))
    given = options.parse_args()
    unknown = set(given.parts) - set(PARTS)
    if unknown:
        options.error(f"unknown parts: {', '.join(sorted(unknown))}")
    os.sched_setaffinity(0, {cpu.DRIVER_CORE})
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        return runner.run(_measure(given.parts or PARTS, quick=given.quick))


if __name__ == "__main__":
    sys.exit(main())
