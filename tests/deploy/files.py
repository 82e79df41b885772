"""What `deploy/` holds, read the way Docker, Compose, Kubernetes and systemd read it."""

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from shared.settings import Settings
from tests.e2e.processes import ROOT

DEPLOY = ROOT / "deploy"
KUBERNETES = DEPLOY / "kubernetes"
SETTINGS = frozenset(name.upper() for name in Settings.model_fields)
_INSTRUCTION = re.compile(r"^([A-Z]+) (.*)$")


def instructions() -> list[tuple[str, str]]:
    """The Dockerfile's instructions, continued lines joined."""
    text = (DEPLOY / "Dockerfile").read_text().replace("\\\n", " ")
    found = (_INSTRUCTION.match(line) for line in text.splitlines())
    return [(one[1], " ".join(one[2].split())) for one in found if one]


def last(instruction: str) -> str:
    """What an instruction of the final stage says."""
    return next(text for name, text in reversed(instructions()) if name == instruction)


def image_environment() -> dict[str, str]:
    pairs = (pair.partition("=") for pair in last("ENV").split())
    return {name: value for name, _, value in pairs}


def entry_point() -> list[str]:
    found: list[str] = json.loads(last("ENTRYPOINT"))
    return found


def compose() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    return found


def manifests() -> Iterator[tuple[str, dict[str, Any]]]:
    """Every document of a Kubernetes file, with its place."""
    for path in sorted(KUBERNETES.rglob("*.yaml")):
        for document in yaml.safe_load_all(path.read_text()):
            yield f"{path.relative_to(KUBERNETES)} {document['kind']}", document


def manifest(kind: str, name: str) -> dict[str, Any]:
    return next(
        one
        for _, one in manifests()
        if (one["kind"], one.get("metadata", {}).get("name")) == (kind, name)
    )


def container(kind: str, name: str) -> dict[str, Any]:
    found: dict[str, Any] = manifest(kind, name)["spec"]["template"]["spec"]["containers"][0]
    return found


def units() -> list[Path]:
    return sorted((DEPLOY / "systemd").glob("*.service"))


def unit(path: Path) -> Mapping[str, list[str]]:
    """A unit's directives, each with everything it was given."""
    found: dict[str, list[str]] = {}
    for line in path.read_text().splitlines():
        name, equals, value = line.partition("=")
        if equals and not line.startswith("#"):
            found.setdefault(name, []).append(value)
    return found
