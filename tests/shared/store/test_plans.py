"""Plans of hot statements, as they are made once a connection, on tables that are still empty."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

import psycopg
import pytest

import migrations
from cli.embedded import EmbeddedServers
from shared.store import (
    charging,
    claiming,
    closing,
    database,
    deliveries,
    ending,
    history,
    listing,
    sweeping,
)

GROWING = {"runs", "attempts", "events", "deliveries", "delivery_tries", "holds"}
HOT = {
    "claim": claiming._CLAIM,  # noqa: SLF001 (the statements are what is tested)
    "intend": claiming._INTENT,  # noqa: SLF001
    "settle": ending._SETTLE,  # noqa: SLF001
    "intend what is paid for": charging._INTEND,  # noqa: SLF001
    "settle what is paid for": charging._SETTLE,  # noqa: SLF001
    "record": deliveries._RECORD_NO_FAILURE,  # noqa: SLF001
}
# Of an environment whatever is live, be it ever so little beside what has ended.
LIVE = {
    "count": closing._LIVE,  # noqa: SLF001
    "cancel": closing._CANCEL_WAITING,  # noqa: SLF001
    "stop": closing._STOP_RUNNING,  # noqa: SLF001
}
OF_LIVE_RUNS = {
    "ix_runs_due",
    "ix_runs_expiring",
    "ix_runs_overdue",
    "ix_runs_session",
    "uq_runs_turn",
}
_PARAMETER = re.compile(r"%\((\w+)\)s")


@pytest.fixture(scope="module")
def young_url(servers: EmbeddedServers) -> str:
    url = servers.postgres.create_database("young")
    migrations.upgrade(url)
    return url


@pytest.mark.parametrize("name", HOT)
def test_a_hot_statement_looks_rows_up_by_id_however_small_its_tables_were(
    name: str, young_url: str
) -> None:
    scans = list(_scans(_plan(young_url, HOT[name])))

    read = {scan["Relation Name"] for scan in scans} & GROWING
    assert read
    for scan in scans:
        if scan["Relation Name"] in GROWING:
            assert re.search(r"\b(id|run_id|thread_id|delivery_id) = ", _condition(scan)), str(scan)
            assert "_due" not in str(scan)


@pytest.mark.parametrize("name", LIVE)
def test_a_closing_environment_s_runs_are_found_without_reading_those_that_ended(
    name: str, young_url: str
) -> None:
    scans = [
        scan
        for scan in _scans(_plan(young_url, LIVE[name]))
        if scan.get("Relation Name") == "runs" and not re.search(r"\bid = ", _condition(scan))
    ]

    assert scans
    for scan in scans:
        assert OF_LIVE_RUNS.intersection(re.findall(r"\w+", str(scan))), str(scan)


def test_who_waits_ahead_is_read_in_the_order_of_the_lane_and_no_further(young_url: str) -> None:
    plan = _plan(young_url, listing._AHEAD)  # noqa: SLF001

    (scan,) = _scans(plan)
    assert ("ix_runs_due", False) == (scan["Index Name"], "Sort" in str(plan))


def test_a_sweep_walks_a_lane_in_its_order_and_looks_earlier_turns_up(young_url: str) -> None:
    plan = _plan(young_url, sweeping._DUE)  # noqa: SLF001

    earlier, lane = sorted(_scans(plan), key=lambda scan: scan["Alias"], reverse=True)
    assert ("ix_runs_due", "uq_runs_turn") == (lane["Index Name"], earlier["Index Name"])
    assert re.search(r"\bthread_id = .*\bturn < ", _condition(earlier))
    assert 1 >= str(plan).count("'Sort'")  # of a batch, never of a lane


@pytest.mark.parametrize("name", ["_BEFORE_RUN", "_IN_THREAD"])
def test_a_thread_s_history_is_read_from_its_end(name: str, young_url: str) -> None:
    scans = list(_scans(_plan(young_url, getattr(history, name))))

    of_messages = [scan for scan in scans if scan["Relation Name"] == "messages"]
    assert ["pk_messages"] * 2 == [scan["Index Name"] for scan in of_messages]
    assert "Backward" in [scan["Scan Direction"] for scan in of_messages]
    for scan in of_messages:
        assert re.search(r"\bchannel = .*\bturn < ", _condition(scan)), str(scan)
    for scan in scans:
        if scan["Relation Name"] == "runs":
            assert re.search(r"\bid = ", _condition(scan)), str(scan)


def test_the_oldest_due_run_of_a_lane_is_the_first_of_an_index(young_url: str) -> None:
    plan = _plan(young_url, sweeping._OLDEST)  # noqa: SLF001

    scans = [scan for scan in _scans(plan) if scan["Alias"] == "d"]
    assert ["ix_runs_due"] == [scan["Index Name"] for scan in scans]
    assert "Sort" not in str(plan)


def _plan(url: str, statement: str) -> Mapping[str, Any]:
    numbers: dict[str, int] = {}

    def numbered(found: "re.Match[str]") -> str:
        return f"${numbers.setdefault(found[1], len(numbers) + 1)}"

    options = database._options(30, 5)  # noqa: SLF001
    with psycopg.connect(url, options=options) as connection:
        text = _PARAMETER.sub(numbered, statement).replace("%%", "%")
        row = connection.execute(f"EXPLAIN (GENERIC_PLAN, FORMAT JSON) {text}").fetchone()
    assert row is not None
    plan: Mapping[str, Any] = row[0][0]["Plan"]
    return plan


def _scans(node: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    if "Scan" in node["Node Type"] and "Relation Name" in node:
        yield node
    for below in node.get("Plans", ()):
        yield from _scans(below)


def _condition(scan: Mapping[str, Any]) -> str:
    below = "".join(_condition(one) for one in scan.get("Plans", ()))
    return str(scan.get("Index Cond", "")) + below
