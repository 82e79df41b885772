"""CPU time, memory and cores of process trees, as the operating system accounts for them (Linux).

A process that ended stands in the children's times of the parent that waited for it. So the sum of
own and children's times over a living tree misses nothing, backends that came and went included.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

_PROC = Path("/proc")
_TICK_MS = 1000 / os.sysconf("SC_CLK_TCK")
_PARENT, _TIMES = 1, slice(11, 15)  # of /proc/<pid>/stat behind the name: user, system, children's

_CORES = sorted(os.sched_getaffinity(0))
SYSTEM_CORE = _CORES[0]
DRIVER_CORE = _CORES[-1]

Groups = Mapping[str, Sequence[int]]
"""Processes by what they are: `api`, `worker`, `postgres`, `redis`."""


def cores() -> int:
    """How many cores this machine lets us use."""
    return len(_CORES)


@contextmanager
def on_cores(*numbers: int) -> Iterator[None]:
    """Start processes inside the block: they inherit these cores. None given: all of them."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, numbers or _CORES)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def move_tree(pid: int, *numbers: int) -> None:
    """Put a process and all below it on these cores. None given: all of them."""
    for one in _trees([pid])[pid]:
        with suppress(FileNotFoundError, ProcessLookupError):  # a backend that ended meanwhile
            for thread in _PROC.joinpath(str(one), "task").iterdir():
                os.sched_setaffinity(int(thread.name), numbers or _CORES)


def cpu_ms(groups: Groups) -> dict[str, float]:
    """CPU time that each group has used so far, with everything below its processes."""
    trees = _trees([pid for pids in groups.values() for pid in pids])
    return {
        name: sum(_used_ms(one) for pid in pids for one in trees[pid])
        for name, pids in groups.items()
    }


def memory_kb(pid: int) -> int:
    """Memory of one process; what it shares counts in proportion (PSS)."""
    for line in _PROC.joinpath(str(pid), "smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1])
    return 0


def _trees(roots: Sequence[int]) -> dict[int, list[int]]:
    children: dict[int, list[int]] = {}
    for entry in _PROC.iterdir():
        if entry.name.isdigit() and (stat := _stat(int(entry.name))):
            children.setdefault(int(stat[_PARENT]), []).append(int(entry.name))
    trees: dict[int, list[int]] = {}
    for root in roots:
        trees[root] = tree = [root]
        for pid in tree:
            tree.extend(children.get(pid, ()))
    return trees


def _used_ms(pid: int) -> float:
    return sum(int(ticks) for ticks in _stat(pid)[_TIMES]) * _TICK_MS


def _stat(pid: int) -> list[str]:
    """The fields behind the program's name; nothing for a process that is gone."""
    try:
        text = _PROC.joinpath(str(pid), "stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return []
    return text.rpartition(")")[2].split()
