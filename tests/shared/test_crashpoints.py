"""Crash points: they fire once, at the visit they were armed for, and cost nothing otherwise."""

import os
import signal
import subprocess
import sys
import time

import pytest

from shared import crashpoints

_PROGRAM = """
import sys
from shared import crashpoints
crashpoints.arm(sys.argv[1])
for visit in (1, 2, 3):
    crashpoints.reach("after_claim")
    crashpoints.reach("before_intent")
    print(visit, flush=True)
"""


def _visits(spec: str) -> tuple[int, list[str]]:
    ended = subprocess.run(
        [sys.executable, "-c", _PROGRAM, spec], capture_output=True, text=True, check=False
    )
    return ended.returncode, ended.stdout.split()


@pytest.mark.parametrize(
    ("spec", "visits"),
    [
        ("after_claim:kill", []),
        ("before_intent:kill:2", ["1"]),
        ("before_intent:kill:3", ["1", "2"]),
    ],
)
def test_a_process_dies_at_the_visit_it_was_told(spec: str, visits: list[str]) -> None:
    assert (-signal.SIGKILL, visits) == _visits(spec)


@pytest.mark.parametrize("spec", ["before_intent:kill:4", "reaper_mid_batch:kill"])
def test_a_place_that_is_not_reached_so_often_changes_nothing(spec: str) -> None:
    assert (0, ["1", "2", "3"]) == _visits(spec)


def test_a_stopped_process_goes_on_when_it_is_woken() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", _PROGRAM, "after_claim:stop:2"], stdout=subprocess.PIPE, text=True
    ) as process:
        _, status = os.waitpid(process.pid, os.WUNTRACED)
        process.send_signal(signal.SIGCONT)
        printed, _ = process.communicate(timeout=10)

    assert os.WIFSTOPPED(status)
    assert ("1\n2\n3\n", 0) == (printed, process.returncode)


def test_a_blocked_process_goes_on_by_itself() -> None:
    began = time.monotonic()

    assert (0, ["1", "2", "3"]) == _visits("before_intent:block=0.3:2")
    assert time.monotonic() - began > 0.3


@pytest.mark.parametrize(
    "spec",
    [
        "",
        "nowhere:kill",
        "after_claim",
        "after_claim:explode",
        "after_claim:kill:x",
        "after_claim:block=long",
    ],
)
def test_nonsense_is_refused_before_anything_is_armed(spec: str) -> None:
    with pytest.raises(ValueError, match=r"CRASH_POINT|invalid literal|could not convert"):
        crashpoints.arm(spec)

    crashpoints.reach("after_claim")
