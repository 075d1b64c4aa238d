"""A running testbed with the operator as its chart deploys it, and one full stack that the tests share."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from cos_testbed.images import BY_NAME, operator_values

sys.path.insert(0, str(Path(__file__).parent))

from harness import REGISTRY, ROOT, Cluster, run_testbed, wait_for

NAMESPACE = "e2e"
OPERATOR_NAMESPACE = "cos-system"


@pytest.fixture(scope="session")
def operator_image() -> str:
    """The operator's image in the testbed's registry."""
    return BY_NAME["cos-operator"].reference


@pytest.fixture(scope="session")
def cluster() -> Cluster:
    """The testbed, up, with every image in its registry."""
    run_testbed("up", timeout=3000)
    run_testbed("images", timeout=3000)
    return Cluster(run_testbed("kubeconfig"), run_testbed("path", "kubectl"), run_testbed("path", "helm"))


@pytest.fixture(scope="session")
def operator(cluster: Cluster) -> Cluster:
    """The cluster with the operator installed by Helm, for all namespaces."""
    cluster.helm(
        "upgrade",
        "--install",
        "cos-operator",
        str(ROOT / "charts/cos-operator"),
        "--namespace",
        OPERATOR_NAMESPACE,
        "--create-namespace",
        # The API tests have applied the CRD as it is.
        "--take-ownership",
        "--force-conflicts",
        "--wait",
        "--timeout=3m",
        "--set",
        f"{operator_values()},watch.clusterWide=true",
    )
    return cluster


def full_spec() -> dict[str, Any]:
    """The spec of the six-service sample, with the testbed's images."""
    objects = yaml.safe_load_all((ROOT / "manifests/samples/full.yaml").read_text())
    spec: dict[str, Any] = next(obj["spec"] for obj in objects if obj and obj["kind"] == "CosStack")
    return {**spec, "images": {"registry": REGISTRY}}


@pytest.fixture(scope="session")
def stack(operator: Cluster, operator_image: str) -> Iterator[Cluster]:
    """A Ready stack `cos` of six services in a restricted namespace, and a pod `client` with its app Secrets."""
    operator.fresh_namespace(NAMESPACE)
    manifest = {
        "apiVersion": "cos.dev/v1alpha1",
        "kind": "CosStack",
        "metadata": {"name": "cos", "namespace": NAMESPACE},
        "spec": full_spec(),
    }
    operator.apply(manifest)
    operator.wait_ready("cos", NAMESPACE)
    operator.apply(*client_objects(operator_image))
    operator.run("wait", "--for=condition=Ready", "pod/client", "-n", NAMESPACE, "--timeout=90s", timeout=100)
    operator.run("wait", "--for=condition=Ready", "pod/web", "-n", NAMESPACE, "--timeout=90s", timeout=100)
    yield operator
    operator.delete_namespace(NAMESPACE)


def client_objects(image: str) -> list[dict[str, Any]]:
    """A pod with the drivers and each app Secret as files, as an application has them; and an HTTP backend."""
    components = ("postgres-prod", "postgres-dev", "redis", "elasticsearch", "neo4j")
    hardened = {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "readOnlyRootFilesystem": True,
    }
    pod_security = {"runAsNonRoot": True, "runAsUser": 65532, "seccompProfile": {"type": "RuntimeDefault"}}

    def pod(name: str, command: list[str], volumes: list[dict[str, Any]]) -> dict[str, Any]:
        mounts = [
            {"name": v["name"], "mountPath": f"/bindings/{v['name']}", "readOnly": True} for v in volumes
        ]
        container = {
            "name": name,
            "image": image,
            "command": command,
            "securityContext": hardened,
            "volumeMounts": mounts,
        }
        return {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name, "namespace": NAMESPACE, "labels": {"app": name}},
            "spec": {
                "automountServiceAccountToken": False,
                "terminationGracePeriodSeconds": 1,
                "securityContext": pod_security,
                "containers": [container],
                "volumes": volumes,
            },
        }

    secrets = [{"name": c, "secret": {"secretName": f"cos-{c}-app"}} for c in components]
    serve = ["python", "-m", "http.server", "8000", "--directory", "/usr/share"]
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "web", "namespace": NAMESPACE},
        "spec": {"selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": 8000}]},
    }
    return [pod("client", ["sleep", "infinity"], secrets), pod("web", serve, []), service]


@pytest.fixture
def healthy(stack: Cluster) -> Iterator[Cluster]:
    """The shared stack, Ready before the test and again after it, also if the test fails halfway."""
    stack.wait_ready("cos", NAMESPACE)
    before = stack.stack("cos", NAMESPACE)["spec"]
    yield stack
    if stack.stack("cos", NAMESPACE)["spec"] != before:
        stack.replace_spec("cos", NAMESPACE, before)
    wait_for(
        "the stack is Ready again",
        lambda: stack.condition("cos", NAMESPACE, "Ready").get("status") == "True",
        240,
    )
