"""The files of `deploy/` that need no engine to be judged: names, numbers, and what fits what."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from api.addresses import client_address
from cli import reference
from shared.settings import Settings
from tests.deploy import files
from tests.e2e.processes import RUNLANE

FOREIGN = frozenset({"PATH", "PYTHONDONTWRITEBYTECODE"})
OF_COMPOSE = frozenset({"POSTGRES_PASSWORD", "RUNLANE_IMAGE", "RUNLANE_SITE"})
ANALYZERS = [path for path in [shutil.which("systemd-analyze")] if path]
GRACE_S = 30


def test_the_example_of_an_environment_is_current() -> None:
    assert reference.env_example() == reference.ENV_EXAMPLE.read_text(), "run `make docs`"


def test_the_example_sets_nothing_but_what_has_to_be_set() -> None:
    text = reference.ENV_EXAMPLE.read_text()

    named = set(re.findall(r"^#?([A-Z][A-Z0-9_]*)=", text, re.MULTILINE))
    of_tests = {"CLOCK_SKEW_S", "CRASH_POINT"}
    assert files.SETTINGS - of_tests == named
    assert ["DATABASE_URL", "REDIS_URL", "MASTER_KEY"] == re.findall(
        r"^([A-Z]\w*)=$", text, re.MULTILINE
    )


def test_every_setting_that_a_file_names_is_one() -> None:
    in_image = set(files.image_environment())
    in_kubernetes = set(files.manifest("ConfigMap", "runlane")["data"])
    in_compose = {
        name
        for service in files.compose()["services"].values()
        if service.get("image", "").endswith("runlane}")
        for name in service["environment"]
    }
    in_units = {
        pair.partition("=")[0]
        for path in files.units()
        for line in files.unit(path).get("Environment", [])
        for pair in line.split()
    }

    assert set() == (in_image | in_kubernetes | in_compose | in_units) - files.SETTINGS - FOREIGN
    assert {"DATABASE_URL", "REDIS_URL", "MASTER_KEY", "TRUSTED_PROXIES"} == in_compose


def test_compose_asks_for_nothing_that_its_page_does_not_make() -> None:
    asked = set(re.findall(r"\$\{(\w+)", (files.DEPLOY / "compose.yaml").read_text()))

    assert OF_COMPOSE | {"MASTER_KEY"} == asked


def test_compose_runs_two_of_each_behind_one_door() -> None:
    services = files.compose()["services"]
    commands = [service["command"] for service in services.values() if "build" in service]
    door = (files.DEPLOY / "Caddyfile").read_text()
    port = files.image_environment()["API_PORT"]

    assert [["api"]] * 2 + [["worker"]] * 2 + [["migrate"]] == commands
    assert f"reverse_proxy api-1:{port} api-2:{port}" in door
    assert "health_uri /readyz" in door
    assert ["80:80", "443:443"] == services["caddy"]["ports"]
    assert ["caddy"] == [name for name, one in services.items() if "ports" in one]


def test_what_compose_runs_of_ours_may_write_nothing_and_has_time_to_end() -> None:
    services = files.compose()["services"]
    ours = {name: service for name, service in services.items() if "build" in service}

    for service in ours.values():
        assert service["read_only"]
        assert ["ALL"] == service["cap_drop"]
        assert files.image_environment()["ALIVE_FILE"].startswith(f"{service['tmpfs']}/")
    drain_s = Settings.model_fields["drain_s"].default
    assert f"{drain_s + GRACE_S:g}s" == ours["worker-1"]["stop_grace_period"]
    assert ["results:/data"] == ours["worker-1"]["volumes"]
    assert files.image_environment()["DATA_DIR"] == files.last("VOLUME")


def test_nothing_of_ours_starts_before_the_schema_is_there() -> None:
    services = files.compose()["services"]

    for name in ("api-1", "api-2", "worker-1", "worker-2"):
        waits_for = services[name]["depends_on"]
        assert "service_completed_successfully" == waits_for["migrate"]["condition"]
    assert "service_healthy" == services["migrate"]["depends_on"]["postgres"]["condition"]
    assert "no" == services["migrate"]["restart"]


@pytest.mark.parametrize("door", ["Compose", "Kubernetes"])
def test_who_sends_bad_keys_through_the_door_is_not_taken_for_everybody(door: str) -> None:
    given = {
        "Compose": files.compose()["services"]["api-1"]["environment"],
        "Kubernetes": files.manifest("ConfigMap", "runlane")["data"],
    }[door]["TRUSTED_PROXIES"]
    trusted = Settings.model_validate({"trusted_proxies": given}).trusted_proxies

    peers = ("10.42.0.7", "172.20.0.5", "fd00::7", "203.0.113.1")
    scopes = [
        {"client": (peer, 4711), "headers": [(b"x-forwarded-for", b"198.51.100.1")]}
        for peer in peers
    ]

    assert ["198.51.100.1"] * 3 + ["203.0.113.1"] == [
        client_address(scope, trusted) for scope in scopes
    ]


def test_the_image_is_built_from_the_locks_and_names_no_index() -> None:
    text = (files.DEPLOY / "Dockerfile").read_text()

    assert 2 == text.count("--require-hashes -r requirements")
    assert not re.search(r"https?://|--index|--extra-index|--find-links|--trusted-host", text)
    assert "10001:10001" == files.last("USER")


def test_a_unit_leaves_a_process_the_time_it_needs() -> None:
    drain_s = Settings.model_fields["drain_s"].default
    worker = files.unit(files.DEPLOY / "systemd/runlane-worker@.service")
    api = files.unit(files.DEPLOY / "systemd/runlane-api@.service")

    assert [f"{drain_s + GRACE_S:g}"] == worker["TimeoutStopSec"]
    assert ["notify"] == api["Type"] == worker["Type"]
    assert [["runlane-api@", "runlane-worker@"]] == [
        [path.stem for path in files.units() if "WatchdogSec" in files.unit(path)]
    ]


@pytest.mark.parametrize("analyzer", ANALYZERS)
@pytest.mark.parametrize("path", files.units(), ids=lambda path: path.stem)
def test_systemd_finds_nothing_wrong_with_a_unit(path: Path, analyzer: str, tmp_path: Path) -> None:
    here = tmp_path / path.name.replace("@", "@1")
    here.write_text(path.read_text().replace("/opt/runlane/bin/runlane", RUNLANE))

    done = subprocess.run(
        [analyzer, "verify", "--man=no", here], capture_output=True, text=True, check=False
    )
    exposed = subprocess.run(
        [analyzer, "security", "--offline=yes", "--no-pager", "--threshold=20", here],
        capture_output=True,
        text=True,
        check=False,
    )

    ours = [line for line in done.stderr.splitlines() if path.stem.rstrip("@") in line]
    assert [] == ours
    assert 0 == exposed.returncode, exposed.stdout
