"""Receivers that fail in every way: tried again as promised, bounded, and nobody else waits."""

from collections.abc import AsyncIterator
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from tests.faults.bad_receivers import ALWAYS, ONCE, TOLD_S, BadReceivers
from tests.faults.rig import SCHEDULE_S, Rig
from tests.faults.vendors import model_of
from tests.vendors import gzip_bomb
from tests.worker.test_http import a_certificate

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.xdist_group("faults")]

TRIES = 4
TIMEOUT_S = 0.8
READ_MIB = 16

_ALL_TRIES = """
SELECT regexp_replace(w.url, '.*/', '') AS name, y.status, t.outcome, t.status_code, t.duration_ms,
  extract(epoch FROM t.started_at - v.created_at)::float8 AS after_s
FROM delivery_tries t JOIN deliveries y ON y.id = t.delivery_id JOIN events v ON v.id = y.event_id
  JOIN webhook_endpoints w ON w.id = y.endpoint_id
WHERE v.run_id = %s ORDER BY name, t.number
"""


@pytest_asyncio.fixture(loop_scope="session")
async def bad(rig: Rig, tmp_path: Path) -> AsyncIterator[BadReceivers]:
    """Receivers of each kind, all of which want every event, and a worker warm from a run."""
    gzip_bomb()
    await rig.api()
    schedule = ",".join(map(str, SCHEDULE_S[:TRIES]))
    await rig.worker(webhook_timeout_s=TIMEOUT_S, webhook_schedule_s=schedule)
    await rig.hooked(await rig.customer.accepted("f50 before", model_of("answer")))
    places = []
    async with BadReceivers(a_certificate("receiver.example", tmp_path)[0]) as bad:
        urls = dict.fromkeys((*ONCE, *ALWAYS), f"http://127.0.0.1:{bad.port}")
        urls |= {"own-tls": f"https://127.0.0.1:{bad.tls_port}"}
        urls |= {"no-tls": f"https://127.0.0.1:{bad.port}"}
        for name, url in urls.items():
            made = await rig.customer.post("/api/v1/webhooks", {"url": f"{url}/hooks/{name}"})
            bad.secrets[name] = made.document["secret"]
            places.append(f"/api/v1/webhooks/{made.document['id']}")
        yield bad
        for place in places:
            await rig.customer.delete(place)


async def tries_by_name(rig: Rig, run_id: str) -> dict[str, list[dict[str, Any]]]:
    rows = await rig.rows(_ALL_TRIES, run_id)
    return {name: list(tries) for name, tries in groupby(rows, key=lambda row: row["name"])}


async def test_each_bad_receiver_gets_what_is_promised_and_delays_no_other(
    rig: Rig, bad: BadReceivers
) -> None:
    worker = rig.children[-1]
    before_mib = worker.memory_mib("VmRSS")

    run_id = await rig.customer.accepted("f50", model_of("answer"))
    await rig.ended(run_id)
    await rig.quiet()
    grown_mib = worker.memory_mib("VmHWM") - before_mib
    tries = await tries_by_name(rig, run_id)
    rig.receiver.ledger.extend(bad.ledger)

    assert {
        "error": ["answered 500", "answered 200"],
        "moved": ["answered 302", "answered 200"],
        "told": ["answered 429", "answered 200"],
        "dated": ["answered 503", "answered 200"],
        "silent": ["timeout", "answered 200"],
        "slow-head": ["timeout", "answered 200"],
        "reset": ["reset", "answered 200"],
        "ssh": ["protocol", "answered 200"],
        "gone": ["answered 410"],
        "slow-body": ["answered 200"],
        "long": ["answered 200"],
        "bomb": ["answered 200"],
        "own-tls": ["tls"] * TRIES,
        "no-tls": ["tls"] * TRIES,
        "main": ["answered 200"],
    } == {name: [_said(one) for one in made] for name, made in tries.items()}
    ends = {name: made[-1]["status"] for name, made in tries.items()}
    assert {"exhausted", "canceled"} >= {ends.pop("gone")}
    assert ["exhausted"] * 2 == [ends.pop("own-tls"), ends.pop("no-tls")]
    assert {"succeeded"} == set(ends.values())
    assert 0 == bad.visits("elsewhere")
    assert 1 > tries["main"][0]["after_s"]
    for name, told_s in (("told", TOLD_S), ("dated", TOLD_S - 1)):
        first, second = (hook for hook in bad.ledger if hook.endpoint == name)
        assert told_s <= (second.received_at - first.received_at).total_seconds(), name
    longest_ms = max(one["duration_ms"] for made in tries.values() for one in made)
    assert longest_ms < 1000 * (TIMEOUT_S + 0.5)
    assert grown_mib < READ_MIB
    assert [] == await rig.judged()


def _said(one: dict[str, Any]) -> str:
    return f"{one['outcome']} {one['status_code'] or ''}".strip()
