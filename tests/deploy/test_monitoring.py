"""Alerts and dashboard ask for metrics and labels that processes have."""

import json
import re
from typing import Any

import pytest
import yaml

from tests.deploy import files
from tests.e2e.processes import ROOT

PAGE = (ROOT / "docs/reference/metrics.md").read_text()
ROW = re.compile(r"^\| `(runlane_\w+)` \| (\w+) \| ([^|]*) \|", re.MULTILINE)
KINDS = {name: kind for name, kind, _ in ROW.findall(PAGE)}
LABELS = {name: set(re.findall(r"`(\w+)`", labels)) for name, _, labels in ROW.findall(PAGE)}
PARTS = ("_bucket", "_sum", "_count")
EVERYWHERE = frozenset({"le", "instance", "job"})
WATCHED = (
    "runlane_lane_oldest_due_seconds",
    "runlane_sweeper_rescues_total",
    "runlane_lease_losses_total",
    "runlane_delivery_tries_total",
    "runlane_breakers_open",
)


def alerts() -> dict[str, dict[str, Any]]:
    (group,) = yaml.safe_load((files.DEPLOY / "monitoring/alerts.yaml").read_text())["groups"]
    return {rule["alert"]: rule for rule in group["rules"]}


def panels() -> list[dict[str, Any]]:
    document = json.loads((files.DEPLOY / "monitoring/dashboard.json").read_text())
    found: list[dict[str, Any]] = document["panels"]
    return found


def expressions() -> dict[str, str]:
    asked = {name: rule["expr"] for name, rule in alerts().items()}
    return asked | {
        f"{panel['title']} {target['refId']}": target["expr"]
        for panel in panels()
        for target in panel.get("targets", ())
    }


def metric_of(series: str) -> str:
    """A histogram's series carry its name and a part."""
    for part in PARTS:
        if KINDS.get(series.removesuffix(part)) == "histogram":
            return series.removesuffix(part)
    return series


EXPRESSIONS = expressions()


@pytest.mark.parametrize("name", EXPRESSIONS)
def test_an_expression_asks_for_what_is_there(name: str) -> None:
    expression = EXPRESSIONS[name]
    asked = re.findall(r"(runlane_\w+)(?:\{([^}]*)\})?", expression)
    together = {
        label
        for labels in re.findall(r"by \(([^)]*)\)", expression)
        for label in labels.split(", ")
    }

    assert asked
    for series, matchers in asked:
        metric = metric_of(series)
        assert metric in KINDS
        assert (series != metric) == (KINDS[metric] == "histogram")
        assert set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", matchers)) <= LABELS[metric]
        assert together <= LABELS[metric] | EVERYWHERE
        counted = re.search(rf"(?:rate|increase)\({series}(?:\{{[^}}]*\}})?\[", expression)
        assert bool(counted) == (KINDS[metric] != "gauge")
    assert expression.count("(") == expression.count(")")


def test_what_must_be_watched_has_an_alert() -> None:
    watched = " ".join(rule["expr"] for rule in alerts().values())

    assert [] == [metric for metric in WATCHED if metric not in watched]


def test_an_alert_says_how_urgent_it_is_and_names_only_labels_it_has() -> None:
    for rule in alerts().values():
        kept = {
            part
            for labels in re.findall(r"by \(([^)]*)\)", rule["expr"])
            for part in labels.split(", ")
        }
        named = set(re.findall(r"\$labels\.(\w+)", str(rule["annotations"])))
        assert rule["labels"]["severity"] in {"page", "ticket"}
        assert named <= kept


def test_the_panels_of_the_dashboard_do_not_cover_each_other() -> None:
    places = [
        (panel["gridPos"]["x"] + x, panel["gridPos"]["y"] + y)
        for panel in panels()
        for x in range(panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["h"])
    ]

    assert len(set(places)) == len(places)
    assert max(x for x, _ in places) < 24
    assert len({panel["id"] for panel in panels()}) == len(panels())
