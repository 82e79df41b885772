"""What waiting for a flow costs: requests that hold on until their run of a second is over.

Each of the waiters asks again as soon as it is answered; they begin spread over a second, and
the vendor takes one, half of it more or less (were it always exactly as long, those answered
together would ask together for ever). What an answer takes beyond the vendor's own time is what
the platform adds: acceptance, queue, call, result, and finding out. Nobody is told by webhook:
who waits needs none. All processes may use every core here.
"""

import asyncio
import time

import msgspec

from bench import client, load, machine
from bench.client import Connection, Connections
from bench.errors import BenchError
from bench.report import Result, Shown, say
from bench.rig import Rig
from bench.system import System

WAITERS = 200
VENDOR_S = 1.0
VENDOR_SPREAD = 0.5
MUST_MS = 10
PATH = "/api/v1/flows/greeting/runs"


class _Run(msgspec.Struct):
    milliseconds: int


async def run(rig: Rig) -> Result:
    """Let waiters ask in turns, and take the vendor's time and the run's off each answer."""
    rounds = rig.pick(20, 5)
    with rig.servers.on_every_core(), rig.runlane.running(cores=()) as system:
        await load.outstanding(system, rig.peers, 50, 10)
        await _without_webhooks(system)
        say(f"flows: {WAITERS} waiters, {rounds} runs each")
        rig.peers.forget()
        rig.peers.delay_s, rig.peers.spread = VENDOR_S, VENDOR_SPREAD
        meter = load.Meter(system)
        try:
            added, over = await _asked(rig, system, rounds)
        finally:
            rig.peers.delay_s = rig.peers.spread = 0.0
        meter.stop_clock()
        cost = meter.cost(len(added))
    figures = {"added_ms": machine.quantiles(added), "over_run_ms": machine.quantiles(over)}
    shown = Shown(
        f"Milliseconds beyond a call of {VENDOR_S:g} s at {WAITERS} waiters; p50 may be {MUST_MS}",
        ("", "p50", "p99", "max"),
    )
    shown.add("added to the vendor's time", *figures["added_ms"].values())
    shown.add("added to the run's own time", *figures["over_run_ms"].values())
    shown.add("CPU ms a run", cost.cpu_ms_per_run, "", "")
    cpu_ms = {name: spent / cost.runs for name, spent in cost.cpu_ms.items()}
    counted = {"waiters": WAITERS, "runs": cost.runs, "runs_per_s": cost.runs_per_s}
    return Result({**figures, **counted, "cpu_ms_per_run": cpu_ms}, [shown])


async def _without_webhooks(system: System) -> None:
    async with client.connected(system.url) as api:
        listed = await api.ask(client.request("GET", "/api/v1/webhooks", system.key))
        for webhook in listed.json()["data"]:
            path = f"/api/v1/webhooks/{webhook['id']}"
            gone = await api.ask(client.request("DELETE", path, system.key))
            if gone.status != 204:
                raise BenchError(f"A webhook was not deleted: {gone.status} {gone.body[:300]!r}")


async def _asked(rig: Rig, system: System, rounds: int) -> tuple[list[float], list[float]]:
    added: list[float] = []
    over: list[float] = []

    async def wait(place: int, connection: Connection) -> None:
        await asyncio.sleep(VENDOR_S * place / WAITERS)
        for _ in range(rounds):
            token = rig.peers.token()
            body = {"parameters": {"name": f"#{token}#"}, "version": 1}
            began = time.monotonic()
            answer = await connection.ask(client.request("POST", PATH, system.key, body))
            took_s = time.monotonic() - began
            if answer.status != 200:
                raise BenchError(f"A flow was answered {answer.status}: {answer.body[:300]!r}")
            books, own = rig.peers.books, msgspec.json.decode(answer.body, type=_Run)
            added.append(1000 * (took_s - (books.answered[token] - books.called[token])))
            over.append(1000 * took_s - own.milliseconds)

    async with Connections(system.url, WAITERS) as opened, asyncio.TaskGroup() as group:
        for place, connection in enumerate(opened.all):
            group.create_task(wait(place, connection))
    return added, over
