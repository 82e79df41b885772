"""The conditions of a measurement: machine, versions, and what one commit takes on this disk."""

import platform
import time
from importlib import metadata
from pathlib import Path

import psycopg

from bench import cpu
from bench.servers import Servers

_PACKAGES = ("arq", "litestar", "sqlmodel", "openai", "httpx", "uvicorn", "psycopg", "redis")
_COMMITS = 200


def conditions(servers: Servers) -> dict[str, object]:
    """What somebody else has to know to compare."""
    with psycopg.connect(servers.embedded.database_url) as connection:
        server = connection.info.parameter_status("server_version")
    return {
        "cpu": _cpu_model(),
        "cores": cpu.cores(),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "postgresql": server,
        "packages": {name: metadata.version(name) for name in _PACKAGES},
        "commit_ms": commit_ms(servers),
    }


def commit_ms(servers: Servers) -> dict[str, float]:
    """What a commit of one small row takes a client of this PostgreSQL, fsync included."""
    taken: list[float] = []
    with psycopg.connect(servers.embedded.database_url, autocommit=True) as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS commits (at timestamptz)")
        for _ in range(_COMMITS):
            began = time.perf_counter()
            connection.execute("INSERT INTO commits VALUES (now())")
            taken.append(1000 * (time.perf_counter() - began))
    return quantiles(taken)


def quantiles(values: list[float]) -> dict[str, float]:
    """The middle, the 99th percentile and the greatest, rounded for people."""
    ordered = sorted(values)
    if not ordered:
        return {"p50": 0.0, "p99": 0.0, "max": 0.0}
    last = len(ordered) - 1
    return {
        "p50": round(ordered[last // 2], 3),
        "p99": round(ordered[min(last, round(last * 0.99))], 3),
        "max": round(ordered[last], 3),
    }


def busy() -> float:
    """The load the machine had in the last minute: others' work makes figures worse."""
    return float(Path("/proc/loadavg").read_text().split()[0])


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()
