"""What a chaos run does and when: drawn from its seed before it begins."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from random import Random

PERIOD_S = 600.0


class What(StrEnum):
    """A kind of fault, named as the summary prints it."""

    KILL_WORKER = "SIGKILL of a worker"
    KILL_API = "SIGKILL of an API"
    STOP_WORKER = "SIGSTOP of a worker"
    STOP_API = "SIGSTOP of an API"
    DRAIN_WORKER = "SIGTERM of a worker"
    DRAIN_API = "SIGTERM of an API"
    CRASH_POSTGRES = "immediate restart of PostgreSQL"
    POSTGRES_AWAY = "PostgreSQL away"
    STOP_BACKEND = "SIGSTOP of a PostgreSQL backend"
    END_BACKENDS = "backends terminated"
    FLUSH = "FLUSHALL"
    KILL_VALKEY = "SIGKILL of Valkey"
    EMPTY_VALKEY = "SIGKILL of Valkey, folder emptied"
    STOP_VALKEY = "SIGSTOP of Valkey"
    FILL_VALKEY = "Valkey out of memory"
    NETWORK = "bad network"
    BAD_RECEIVER = "receiver answers errors"
    # Crash points are armed by chance when a process is started, so no plan counts them.
    KILL_AT_POINT = "SIGKILL at a crash point"
    STOP_AT_POINT = "SIGSTOP at a crash point"


RATES: Mapping[What, int] = {
    What.KILL_WORKER: 48,
    What.KILL_API: 18,
    What.STOP_WORKER: 34,
    What.STOP_API: 6,
    What.DRAIN_WORKER: 12,
    What.DRAIN_API: 5,
    What.CRASH_POSTGRES: 9,
    What.POSTGRES_AWAY: 4,
    What.STOP_BACKEND: 8,
    What.END_BACKENDS: 40,
    What.FLUSH: 30,
    What.KILL_VALKEY: 5,
    What.EMPTY_VALKEY: 5,
    What.STOP_VALKEY: 5,
    What.FILL_VALKEY: 5,
    What.NETWORK: 70,
    What.BAD_RECEIVER: 15,
}
"""How often each happens in ten minutes."""

MINIMA: Mapping[str, tuple[int, frozenset[What]]] = {
    "SIGKILLs": (50, frozenset({What.KILL_WORKER, What.KILL_API, What.KILL_AT_POINT})),
    "SIGSTOPs": (30, frozenset({What.STOP_WORKER, What.STOP_API, What.STOP_AT_POINT})),
    "immediate PostgreSQL restarts": (5, frozenset({What.CRASH_POSTGRES})),
    "FLUSHALLs": (20, frozenset({What.FLUSH})),
}
"""What ten minutes have to contain, whatever the seed."""
MIN_RUNS = 1000
RUNS = 1500


@dataclass(frozen=True)
class Fault:
    """One thing to do; `seed` decides on its details."""

    at_s: float
    what: What
    seed: str


@dataclass(frozen=True)
class Plan:
    """A chaos run before it begins."""

    seed: int
    length_s: float
    faults: Sequence[Fault]
    orders: int

    def least(self, in_ten_minutes: int) -> int:
        """What such a minimum means for this length."""
        return math.ceil(in_ten_minutes * self.length_s / PERIOD_S)


def draw(seed: int, minutes: float, rates: Mapping[What, int] = RATES) -> Plan:
    """Spread every kind evenly over the time, each at a moment of chance within its share."""
    length_s = minutes * 60
    chance = Random(f"{seed}:plan")
    faults = []
    for what, rate in rates.items():
        count = math.ceil(rate * length_s / PERIOD_S)
        share_s = length_s / count
        for number in range(count):
            at_s = (number + chance.random()) * share_s
            faults.append(Fault(at_s, what, f"{seed}:{what.name}:{number}"))
    faults.sort(key=lambda fault: fault.at_s)
    return Plan(seed, length_s, faults, math.ceil(RUNS * length_s / PERIOD_S))
