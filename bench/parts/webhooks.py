"""Webhooks alone: what one costs a worker, and what endpoints that hang do to the others."""

import time
from typing import Any

import psycopg

from bench import client, history, load, machine
from bench.errors import BenchError
from bench.load import Meter
from bench.report import Result, Shown, say
from bench.rig import Rig
from bench.system import System

ENDPOINTS, HANGING = 50, 5
PER_S = 8.0
SETTLED_S = 120.0
_WORKER = "worker"

_ALL_DUE = """
UPDATE deliveries SET status = 'pending', finished_at = NULL, tries = 0, next_try_at = now()
"""


async def run(rig: Rig) -> Result:
    """Two measurements of their own."""
    single = await _backlog(rig, rig.pick(20_000, 3_000))
    many = await _among_hanging(rig, float(rig.pick(30, 6)))
    return Result({**single, **many}, [_cost_table(single), _wait_table(many)])


async def _backlog(rig: Rig, total: int) -> dict[str, float]:
    """Many due deliveries to one fast receiver; worker on one core, everything else on any."""
    say(f"webhooks: {total} deliveries to a fast receiver")
    with rig.runlane.database("runlane_hooks") as url:
        with rig.runlane.running(database_url=url) as system:
            await load.outstanding(system, rig.peers, 1, 1)
        made = sum(1 for _ in history.lengthen(url, total - 1))
        if not made:
            raise BenchError("No deliveries were made.")
        rig.peers.forget()
        with (
            rig.servers.on_every_core(),
            rig.runlane.running(database_url=url) as system,
            psycopg.connect(url, autocommit=True) as connection,
        ):
            connection.execute("DELETE FROM delivery_tries")
            meter = Meter(system)
            connection.execute(_ALL_DUE)
            await rig.peers.until(
                lambda books: len(books.delivered) + books.repeated_deliveries >= total,
                SETTLED_S,
                f"{total} webhooks",
            )
            meter.stop_clock()
            await _all_recorded(connection)
            cost = meter.cost(total)
    return {
        "deliveries": total,
        "deliveries_per_s": cost.runs_per_s,
        "worker_cpu_ms_per_delivery": cost.cpu_ms[_WORKER] / total,
        "postgres_cpu_ms_per_delivery": cost.cpu_ms["postgres"] / total,
        "deliveries_per_s_of_one_worker_core": 1000 * total / cost.cpu_ms[_WORKER],
    }


async def _all_recorded(connection: psycopg.Connection[Any]) -> None:
    deadline = time.monotonic() + SETTLED_S
    pending = "SELECT 1 FROM deliveries WHERE status <> 'succeeded' LIMIT 1"
    while connection.execute(pending).fetchone() is not None:
        if time.monotonic() > deadline:
            raise BenchError("Deliveries that arrived were not recorded.")


async def _among_hanging(rig: Rig, seconds: float) -> dict[str, float]:
    """Runs end at a steady rate; every endpoint wants every event, and a few never answer."""
    say(f"webhooks: {ENDPOINTS} endpoints, {HANGING} of which hang")
    rig.peers.forget()
    with rig.servers.on_every_core(), rig.runlane.running(cores=()) as system:
        await _register(system, rig)
        sent = await load.at_rate(system, rig.peers, "normal", per_s=PER_S, seconds=seconds)
        answering = ENDPOINTS - HANGING
        await rig.peers.until(
            lambda books: len(books.arrivals) >= len(sent) * (answering - 1),
            SETTLED_S,
            "the webhooks of those that answer",
        )
        books = rig.peers.books
        waits = [1000 * (at - books.answered[token]) for (_, token), at in books.arrivals.items()]
        rig.peers.hang_up()
    found = machine.quantiles(waits)
    return {
        "endpoints": ENDPOINTS,
        "hanging": HANGING,
        "events": len(sent),
        "event_to_delivery_ms_p50": found["p50"],
        "event_to_delivery_ms_p99": found["p99"],
        "event_to_delivery_ms_max": found["max"],
    }


async def _register(system: System, rig: Rig) -> None:
    """One endpoint is there already."""
    names = [f"hang{number}" for number in range(HANGING)]
    names += [f"other{number}" for number in range(ENDPOINTS - HANGING - 1)]
    async with client.connected(system.url) as connection:
        for name in names:
            body = {"url": f"{rig.peers.webhook_url}/{name}"}
            request = client.request("POST", "/api/v1/webhooks", system.key, body)
            answer = await connection.ask(request)
            if answer.status != 201:
                raise BenchError(f"POST /webhooks: {answer.status} {answer.body[:300]!r}")


def _cost_table(found: dict[str, float]) -> Shown:
    shown = Shown(f"{found['deliveries']:,.0f} due deliveries to one fast receiver", ("", ""))
    shown.add("deliveries a second", found["deliveries_per_s"])
    shown.add("CPU ms each: worker", f"{found['worker_cpu_ms_per_delivery']:.3f}")
    shown.add("CPU ms each: PostgreSQL", f"{found['postgres_cpu_ms_per_delivery']:.3f}")
    shown.add("a second, on one worker core", found["deliveries_per_s_of_one_worker_core"])
    return shown


def _wait_table(found: dict[str, float]) -> Shown:
    title = f"{ENDPOINTS} endpoints of which {HANGING} hang: provider's answer → webhook, ms"
    shown = Shown(title, ("events", "p50", "p99", "max"))
    shown.add(
        round(found["events"]),
        *(found[f"event_to_delivery_ms_{name}"] for name in ("p50", "p99", "max")),
    )
    return shown
