"""A new version of the operator, which renders every pod otherwise: no engine restarts, neither there nor back."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from harness import ROOT, Cluster, restarts, wait_for

from conftest import NAMESPACE, OPERATOR_NAMESPACE
from cos_testbed.images import BY_NAME, _ensure_pushed, operator_values, pushed_source
from cos_testbed.instance import instance_from
from cos_testbed.progress import Progress

#: One more second than the engines' own, in the template of every pod.
OLD = "termination_grace_period_seconds=blueprint.grace_seconds,"
NEW = "termination_grace_period_seconds=blueprint.grace_seconds + 1,"
WORKLOADS = ("statefulsets", "deployments")


@pytest.fixture(scope="module")
def next_version(tmp_path_factory: pytest.TempPathFactory, operator: Cluster) -> tuple[str, Path]:
    """Helm values and chart of an imagined next version: other pods, a field more in the CRD."""
    del operator
    ours = BY_NAME["cos-operator"]
    tree = tmp_path_factory.mktemp("next")
    for name in ours.sources:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, tree / name)
    source = tree / "controllers/cos_controllers/components/assemble.py"
    text = source.read_text()
    assert OLD in text
    source.write_text(text.replace(OLD, NEW))
    image = replace(ours, folder=str(tree), path="cos-operator:next")
    registry = instance_from().registry
    _ensure_pushed(image, registry, Progress(quiet=True))
    assert pushed_source(image, registry)
    chart = tree / "chart"
    shutil.copytree(ROOT / "charts/cos-operator", chart)
    path = chart / "files" / "crds" / "cos.dev_cosstacks.yaml"
    crd = yaml.load(path.read_text(), Loader=yaml.CSafeLoader)
    spec = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
    spec["properties"]["futureField"] = {"type": "boolean", "default": True}
    path.write_text(yaml.dump(crd, Dumper=yaml.CSafeDumper, sort_keys=False))
    return f"image.repository={image.reference.rpartition(':')[0]},image.tag=next", chart


def upgrade(cluster: Cluster, values: str, chart: Path) -> None:
    cluster.helm(
        "upgrade",
        "cos-operator",
        str(chart),
        f"--namespace={OPERATOR_NAMESPACE}",
        "--wait",
        "--timeout=3m",
        "--set",
        f"{values},watch.clusterWide=true",
    )


def grace(cluster: Cluster) -> dict[str, int]:
    """Seconds that each workload's template gives a pod to end."""
    return {
        item["metadata"]["name"]: item["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]
        for kind in WORKLOADS
        for item in cluster.list(kind, NAMESPACE, "cos.dev/stack=cos")
    }


def pods(cluster: Cluster) -> dict[str, tuple[str, int]]:
    """UID and restarts of each pod of the stack."""
    return {
        pod["metadata"]["name"]: (pod["metadata"]["uid"], restarts([pod]))
        for pod in cluster.list("pods", NAMESPACE, "cos.dev/stack=cos")
    }


def test_upgrading_the_operator_restarts_no_engine(healthy: Cluster, next_version: tuple[str, Path]) -> None:
    values, chart = next_version
    before, running = grace(healthy), pods(healthy)
    assert len(running) == 6
    upgrade(healthy, values, chart)
    try:
        later = {name: seconds + 1 for name, seconds in before.items()}
        wait_for("the new version has rendered every workload", lambda: grace(healthy) == later, 60)
        healthy.wait_ready("cos", NAMESPACE, 60)
        traefik = healthy.get("deployment", "cos-traefik", NAMESPACE)
        assert traefik
        assert traefik["spec"]["paused"] is True, "written, and not rolled out"
        assert pods(healthy) == running
        # Where it was rendered otherwise it is not known, but nobody is accused.
        rows = healthy.stack("cos", NAMESPACE)["status"]["components"]
        gates = [gate for row in rows for gate in row["gates"] if gate["name"] == "ConfigurationInForce"]
        assert not [gate for gate in gates if gate["verdict"] == "Failed"]
    finally:
        upgrade(healthy, operator_values(), ROOT / "charts/cos-operator")
    wait_for("the old version has rendered every workload", lambda: grace(healthy) == before, 60)
    healthy.wait_ready("cos", NAMESPACE, 60)
    traefik = healthy.get("deployment", "cos-traefik", NAMESPACE)
    assert traefik
    assert "paused" not in traefik["spec"]
    assert pods(healthy) == running
