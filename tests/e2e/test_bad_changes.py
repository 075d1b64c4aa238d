"""A change that cannot serve takes itself back: on each real engine, whatever is wrong with it."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from applications import STORES, WRITTEN, read, write
from harness import REGISTRY, Cluster, pod_uids, wait_for

from conftest import NAMESPACE, OPERATOR_NAMESPACE

#: A JVM needs its time to find that its configuration is wrong.
DEADLINE_SECONDS = {("parameter", "elasticsearch"): 60, ("parameter", "neo4j"): 40}

BAD_PARAMETER: dict[str, dict[str, Any]] = {
    "postgres-prod": {"parameters": {"work_mem": "lots"}},
    "redis": {"parameters": {"appendfsync": "sometimes"}},
    "elasticsearch": {"settings": {"indices.memory.index_buffer_size": "lots"}},
    "neo4j": {"settings": {"db.transaction.timeout": "soon"}},
    # It has no free parameters: a limit under which Go's runtime cannot start.
    "traefik": {"resources": {"requests": {"memory": "6Mi"}, "limits": {"memory": "6Mi"}}},
}
#: What is wrong with a parameter each engine says itself. Whether an image is there, or a node has room, Kubernetes
#: says, the same of all: of a StatefulSet and of a Deployment, and of an engine that takes long to start.
TRIED = [("parameter", component) for component in BAD_PARAMETER]
TRIED += [("image", component) for component in ("elasticsearch", "traefik")]
TRIED += [("request", component) for component in ("redis", "traefik")]
#: The words of each engine, or of Kubernetes, that must reach the person who wrote the change.
SAID = {
    ("parameter", "postgres-prod"): "work_mem",
    ("parameter", "redis"): "appendfsync",
    ("parameter", "elasticsearch"): "index_buffer_size",
    ("parameter", "neo4j"): "db.transaction.timeout",
    ("parameter", "traefik"): "container traefik ended with exit code",
}


def bad_section(fault: str, component: str, section: dict[str, Any]) -> dict[str, Any]:
    wrong = copy.deepcopy(section)
    if fault == "image":
        return {**wrong, "image": f"{REGISTRY}/{component}:no-such-tag"}
    if fault == "request":
        resources = wrong.get("resources", {})
        return {
            **wrong,
            "resources": {**resources, "requests": {**resources.get("requests", {}), "cpu": "64"}},
        }
    return {**wrong, **BAD_PARAMETER[component]}


def said(fault: str, component: str) -> str:
    return {"image": "no-such-tag", "request": "Insufficient cpu"}.get(fault) or SAID[fault, component]


def replaced(spec: dict[str, Any], component: str, section: dict[str, Any]) -> dict[str, Any]:
    if component.startswith("postgres"):
        return {**spec, "postgres": [section, *spec["postgres"][1:]]}
    return {**spec, component: section}


def row(cluster: Cluster, component: str) -> dict[str, Any]:
    rows = cluster.stack("cos", NAMESPACE)["status"]["components"]
    return dict(next(row for row in rows if row["name"] == component))


def rolled_back(cluster: Cluster, component: str) -> dict[str, Any] | None:
    found = row(cluster, component)
    return found if found["reason"] == "RolledBack" else None


@pytest.mark.parametrize(("fault", "component"), TRIED)
def test_a_change_that_cannot_serve_takes_itself_back(healthy: Cluster, component: str, fault: str) -> None:
    wait_for("every component is known to be good", lambda: all_good(healthy), 60)
    spec = healthy.stack("cos", NAMESPACE)["spec"]
    before = pod_uids(healthy, NAMESPACE, "cos")
    good = row(healthy, component)["desiredRevision"]
    key = f"rollback_{fault}"
    if component in STORES:
        write(healthy, component, key)
    section = spec["postgres"][0] if component.startswith("postgres") else spec[component]
    wrong = replaced(spec, component, bad_section(fault, component, section))
    seconds = DEADLINE_SECONDS.get((fault, component), 15)
    healthy.replace_spec("cos", NAMESPACE, {**wrong, "progressDeadlineSeconds": seconds})

    found = wait_for(
        f"{component} is rolled back", lambda: rolled_back(healthy, component), seconds + 120, interval=1
    )
    assert found["effectiveRevision"] == found["lastGoodRevision"] == good
    assert found["failedRevision"] == found["desiredRevision"] != good
    assert said(fault, component) in found["message"], found["message"]
    stack = healthy.stack("cos", NAMESPACE)
    assert stack["spec"] == {**wrong, "progressDeadlineSeconds": seconds}, "the spec is the user's"
    assert {
        c["type"]: (c["status"], c["reason"])
        for c in stack["status"]["conditions"]
        if c["type"] != "GatesPassed"
    } == {
        "Ready": ("False", "RolledBack"),
        "Stalled": ("True", "RolledBack"),
        "Available": ("True", "Serving"),
        "Reconciling": ("False", "Serving"),
    }
    events = healthy.list("events", NAMESPACE)
    failed = found["failedRevision"]
    told = [e for e in events if e["reason"] == "RolledBack" and failed in e["message"]]
    assert len(told) == 1, [e["message"] for e in told]
    wait_for("only what ran runs", lambda: runs_as_before(healthy, component), 60)
    after = pod_uids(healthy, NAMESPACE, "cos")
    assert {name for name in after if after[name] != before[name]} <= {component} - {"traefik"}
    if component in STORES:
        assert read(healthy, component, key) == WRITTEN.get(component, "1")

    healthy.replace_spec("cos", NAMESPACE, spec)
    healthy.wait_ready("cos", NAMESPACE, 60)
    assert pod_uids(healthy, NAMESPACE, "cos") == after, "writing the old spec back restarts nothing"
    assert "failedRevision" not in row(healthy, component)


def runs_as_before(cluster: Cluster, component: str) -> bool:
    """Whether each pod names its image by the digest that ran; of a proxy, whose old pod serves on, whether it does."""
    pods = cluster.list("pods", NAMESPACE, f"cos.dev/stack=cos,cos.dev/component={component}")
    if component == "traefik":
        return len(pods) == 1
    return bool(pods) and all("@sha256:" in pod["spec"]["containers"][0]["image"] for pod in pods)


def all_good(cluster: Cluster) -> bool:
    status = cluster.stack("cos", NAMESPACE)["status"]
    return all(row.get("lastGoodRevision") == row["desiredRevision"] for row in status["components"])


def test_a_bad_change_is_not_tried_again_by_a_new_operator(healthy: Cluster) -> None:
    wait_for("every component is known to be good", lambda: all_good(healthy), 60)
    spec = healthy.stack("cos", NAMESPACE)["spec"]
    wrong = replaced(spec, "redis", bad_section("image", "redis", spec["redis"]))
    healthy.replace_spec("cos", NAMESPACE, {**wrong, "progressDeadlineSeconds": 10})
    wait_for("redis is rolled back", lambda: rolled_back(healthy, "redis"), 120)
    pods = pod_uids(healthy, NAMESPACE, "cos")
    healthy.run(
        "delete", "pods", "-n", OPERATOR_NAMESPACE, "-l", "app.kubernetes.io/name=cos-operator", timeout=90
    )
    healthy.run(
        "rollout", "status", "deployment/cos-operator", "-n", OPERATOR_NAMESPACE, "--timeout=60s", timeout=70
    )
    # The new process has reconciled once it has done something else that the spec asks for.
    claim = "cos-traefik"
    healthy.run("delete", "service", claim, "-n", NAMESPACE)
    wait_for("the new operator works", lambda: healthy.get("service", claim, NAMESPACE), 60)
    assert rolled_back(healthy, "redis")
    assert pod_uids(healthy, NAMESPACE, "cos") == pods
    healthy.replace_spec("cos", NAMESPACE, spec)
    healthy.wait_ready("cos", NAMESPACE, 60)
    assert pod_uids(healthy, NAMESPACE, "cos") == pods


def test_a_version_that_may_not_open_the_volume_is_refused_before_anything_is_touched(
    healthy: Cluster,
) -> None:
    spec = healthy.stack("cos", NAMESPACE)["spec"]
    pods = pod_uids(healthy, NAMESPACE, "cos")
    claim = healthy.get("pvc", "cos-elasticsearch-data-0", NAMESPACE)
    assert claim
    assert claim["metadata"]["annotations"]["cos.dev/data-version"] == spec["elasticsearch"]["version"]
    older = {**spec["elasticsearch"], "version": "8.18.0"}
    healthy.replace_spec("cos", NAMESPACE, {**spec, "elasticsearch": older})
    wait_for("it is refused", lambda: row(healthy, "elasticsearch")["reason"] == "VersionRefused", 30)
    assert "restore a snapshot" in row(healthy, "elasticsearch")["message"]
    assert healthy.condition("cos", NAMESPACE, "Available")["status"] == "True"
    healthy.replace_spec("cos", NAMESPACE, spec)
    healthy.wait_ready("cos", NAMESPACE, 60)
    assert pod_uids(healthy, NAMESPACE, "cos") == pods
