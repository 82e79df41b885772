"""The Kubernetes files: valid for the API server, and what Runlane needs to be rolled safely."""

from typing import Any

import kubernetes_validate
import pytest

from shared.queue.lanes import QUEUES
from shared.settings import Settings
from tests.deploy import files

MANIFESTS = dict(files.manifests())
VERSIONS = ("1.31", "1.37")
OWN_SCHEMAS = ("kustomize.config.k8s.io/", "keda.sh/")
BUILT_IN = [
    name
    for name, document in MANIFESTS.items()
    if not document["apiVersion"].startswith(OWN_SCHEMAS)
]
POD_OWNERS = [
    ("Deployment", "runlane-api"),
    ("Deployment", "runlane-worker"),
    ("Job", "runlane-migrate"),
]
END_S = 30


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("name", BUILT_IN)
def test_a_manifest_is_one_that_kubernetes_takes(name: str, version: str) -> None:
    kubernetes_validate.validate(MANIFESTS[name], version, strict=True)


def test_every_file_is_part_of_a_kustomization() -> None:
    kustomizations = sorted(files.KUBERNETES.rglob("kustomization.yaml"))
    listed = {
        place.parent / name
        for place in kustomizations
        for name in MANIFESTS[_name(place)].get("resources", [])
    }

    assert listed | set(kustomizations) == set(files.KUBERNETES.rglob("*.yaml"))


def _name(place: Any) -> str:
    return next(
        name for name in MANIFESTS if name.startswith(f"{place.relative_to(files.KUBERNETES)} ")
    )


@pytest.mark.parametrize(("kind", "name"), POD_OWNERS)
def test_a_container_may_write_nothing_but_its_volumes_and_is_nobody(kind: str, name: str) -> None:
    pod = files.manifest(kind, name)["spec"]["template"]["spec"]
    (container,) = pod["containers"]

    assert pod["securityContext"]["runAsNonRoot"]
    assert pod["securityContext"]["runAsUser"] == int(files.last("USER").partition(":")[0])
    assert {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    } == container["securityContext"]
    assert "limits" in container["resources"]


def test_a_worker_has_the_time_to_drain() -> None:
    for _, name in POD_OWNERS[:2]:
        pod = files.manifest("Deployment", name)["spec"]["template"]["spec"]
        assert pod["terminationGracePeriodSeconds"] >= 150

    drain_s = float(files.manifest("ConfigMap", "runlane")["data"]["DRAIN_S"])
    assert drain_s + END_S <= 150
    assert drain_s == Settings.model_fields["drain_s"].default


@pytest.mark.parametrize("name", ["runlane-api", "runlane-worker"])
def test_a_roll_out_and_a_drained_node_leave_enough_of_them(name: str) -> None:
    deployment = files.manifest("Deployment", name)["spec"]
    budget = files.manifest("PodDisruptionBudget", name)["spec"]

    labels = deployment["template"]["metadata"]["labels"]
    assert {"maxUnavailable": 0, "maxSurge": 1} == deployment["strategy"]["rollingUpdate"]
    assert {"maxUnavailable": 1, "selector": {"matchLabels": labels}} == budget
    assert {"matchLabels": labels} == deployment["selector"]


def test_the_service_leads_to_the_api() -> None:
    service = files.manifest("Service", "runlane-api")["spec"]
    deployment = files.manifest("Deployment", "runlane-api")["spec"]

    (port,) = service["ports"]
    listening, _ = files.container("Deployment", "runlane-api")["ports"]
    assert deployment["template"]["metadata"]["labels"] == service["selector"]
    assert listening["name"] == port["targetPort"]
    assert int(files.image_environment()["API_PORT"]) == listening["containerPort"]


def test_one_says_how_many_there_are_of_each() -> None:
    scaled = files.manifest("HorizontalPodAutoscaler", "runlane-api")["spec"]["scaleTargetRef"]
    followed = files.manifest("ScaledObject", "runlane-worker")["spec"]["scaleTargetRef"]
    (patch,) = MANIFESTS["keda/kustomization.yaml Component"]["patches"]

    assert {"apiVersion": "apps/v1", "kind": "Deployment", "name": "runlane-api"} == scaled
    assert "replicas" not in files.manifest("Deployment", "runlane-api")["spec"]
    assert {"name": "runlane-worker"} == followed
    assert {"kind": "Deployment", "name": "runlane-worker"} == patch["target"]
    assert "path: /spec/replicas" in patch["patch"]


def test_keda_looks_at_every_lane_there_is() -> None:
    scaling = files.manifest("ScaledObject", "runlane-worker")["spec"]
    authentication = files.manifest("TriggerAuthentication", "runlane-lanes")["spec"]

    looked_at = [trigger["metadata"]["listName"] for trigger in scaling["triggers"]]
    assert sorted(QUEUES.values()) == sorted(looked_at)
    assert {"redis"} == {trigger["type"] for trigger in scaling["triggers"]}
    assert {"runlane-lanes"} == {one["authenticationRef"]["name"] for one in scaling["triggers"]}
    assert ["address", "password"] == [
        one["parameter"] for one in authentication["secretTargetRef"]
    ]


@pytest.mark.parametrize("name", ["runlane-api", "runlane-worker"])
def test_metrics_are_where_the_annotations_say(name: str) -> None:
    template = files.manifest("Deployment", name)["spec"]["template"]
    ports = {
        one["name"]: one["containerPort"] for one in files.container("Deployment", name)["ports"]
    }

    port = files.image_environment()["METRICS_PORT"]
    told = {"prometheus.io/scrape": "true", "prometheus.io/port": port}
    assert told == template["metadata"]["annotations"]
    assert int(port) == ports["metrics"]
