"""What the engines' scripts share. Standard library only: their environments hold nothing of ours.

A script says `first` and `last` on its standard output, each with the CPU seconds it has used and
the moment; whoever started it reads the rest from the operating system, and ends it.
"""

import argparse
import asyncio
import sys
import time
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import Any

PRODUCERS = 100
CONCURRENCY = 2000


@dataclass(frozen=True)
class Given:
    """The script's command line."""

    role: str
    url: str
    jobs: int
    sleep_s: float


def given() -> Given:
    options = argparse.ArgumentParser()
    options.add_argument("role", choices=("produce", "work"))
    options.add_argument("url")
    options.add_argument("jobs", type=int)
    options.add_argument("--sleep", type=float, default=0.0)
    found = options.parse_args()
    return Given(found.role, found.url, found.jobs, found.sleep)


class Tally:
    """Counts the jobs that a worker has carried out, and is their whole content."""

    def __init__(self, asked: Given) -> None:
        self._asked = asked
        self._begun = self._done = 0

    async def job(self) -> None:
        self._begun += 1
        if self._begun == 1:
            say("first")
        if self._asked.sleep_s:
            await asyncio.sleep(self._asked.sleep_s)
        self._done += 1
        if self._done == self._asked.jobs:
            say("last")


async def produce(asked: Given, enqueue: Callable[[int], Awaitable[object]]) -> None:
    """Enqueue all jobs from a hundred tasks at once, as the requests of a web server would."""
    numbers = iter(range(asked.jobs - 1))

    async def some() -> None:
        for number in numbers:
            await enqueue(number)

    await enqueue(asked.jobs - 1)  # connects, and counts
    say("first")
    await asyncio.gather(*(some() for _ in range(PRODUCERS)))
    say("last")


def say(word: str) -> None:
    sys.stdout.write(f"{word} {time.process_time()} {time.monotonic()}\n")
    sys.stdout.flush()


def run(main: Callable[[Given], Coroutine[Any, Any, None]]) -> None:
    import uvloop  # noqa: PLC0415 (only the scripts need it, not who reads their words)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main(given()))
