"""The reference pages say what the code says."""

import re

import pytest
from litestar.routes import HTTPRoute

from api.app import create_litestar
from cli import reference
from cli.main import app as command_line
from shared import metrics
from shared.domain.webhooks import EVENTS
from shared.settings import Settings
from shared.store.tables import METADATA
from tests.architecture.source import ROOT
from tests.architecture.test_error_codes import request_codes, run_codes

MADE = reference.pages()


@pytest.mark.parametrize("name", MADE)
def test_a_made_page_is_current(name: str) -> None:
    assert MADE[name] == (reference.FOLDER / name).read_text(), "run `make docs`"


def test_every_setting_is_described() -> None:
    named = set(re.findall(r"^\| `([A-Z0-9_]+)` \|", MADE["settings.md"], re.MULTILINE))

    assert {name.upper() for name in Settings.model_fields} == named
    assert all(field.description for field in Settings.model_fields.values())


def test_every_error_code_is_described() -> None:
    named = set(re.findall(r"^\| `(\w+)` \|", MADE["errors.md"], re.MULTILINE))

    assert request_codes().keys() | run_codes() == named


def test_every_metric_is_described_by_the_name_it_is_queried_by() -> None:
    named = set(re.findall(r"^\| `(runlane_\w+)` \|", MADE["metrics.md"], re.MULTILINE))
    made = {
        f"{family.name}_total" if family.type == "counter" else family.name
        for family in metrics.REGISTRY.collect()
        if family.name.startswith("runlane_")
    }

    assert made == named


def test_every_event_is_described() -> None:
    for event in EVENTS:
        assert f"`{event}`" in MADE["events.md"]


def test_every_route_is_ours_and_described() -> None:
    routes = [
        (f"`{method} {route.path_format}`", handler.fn.__module__)
        for route in create_litestar().routes
        if isinstance(route, HTTPRoute)
        for handler in route.route_handlers
        for method in handler.http_methods - {"OPTIONS"}
    ]

    assert [] == [route for route, module in routes if not module.startswith("api.")]
    for route, _ in routes:
        assert route in MADE["routes.md"]


def test_every_make_target_is_described() -> None:
    makefile = (ROOT / "Makefile").read_text()
    phony = set(" ".join(re.findall(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)).split())
    described = dict(re.findall(r"^([a-z0-9-]+):([^#\n]*)## .+$", makefile, re.MULTILINE))
    parts = {part for needed in described.values() for part in needed.split()}

    assert set() == phony - described.keys() - parts
    assert set() == described.keys() - phony
    for target in described:
        assert f"`make {target}`" in MADE["make.md"]


def test_every_command_is_described() -> None:
    for command in command_line.registered_commands:
        name = command.name or (command.callback.__name__ if command.callback else "")
        assert f"`runlane {name}`" in MADE["cli.md"]


def test_every_table_is_described() -> None:
    for name in METADATA.tables:
        assert f"\n## {name}\n" in MADE["database.md"]
