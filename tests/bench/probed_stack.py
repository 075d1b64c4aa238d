"""A stack of six services on real engines, and the operator that looks after it, for measurements of its probes."""

from __future__ import annotations

import asyncio
import base64
import json
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from bench_cluster import NAMESPACE, ROOT, BenchCluster, run_testbed
from processes import Measured

from cos_controllers.api.stack import CosStackSpec
from cos_controllers.credentials import Login
from cos_controllers.parsing import parse_stack
from cos_testbed.images import BY_NAME
from cos_testbed.progress import Progress

NAME = "cos"
HOME = "default"
_READY_SECONDS = 300
_PROBE_SECONDS = 180.0
_IMAGES = ("postgres", "redis", "elasticsearch", "neo4j", "traefik", "cos-operator")


@dataclass(frozen=True)
class ProbedStack:
    """The stack, and how to reach its engines from this machine."""

    cluster: BenchCluster
    spec: CosStackSpec

    def get(self, kind: str, name: str) -> Any:
        """An object."""
        return json.loads(self.cluster.kubectl("get", kind, name, "-o", "json"))

    def components(self) -> list[str]:
        """Names of the components."""
        return [row["name"] for row in self.get("cosstack", NAME)["status"]["components"]]

    def host(self, component: str) -> str:
        """Address of a component's Service."""
        return str(self.get("service", f"{NAME}-{component}")["spec"]["clusterIP"])

    def secret(self, component: str, account: str = "app") -> dict[str, str]:
        """What one of the component's Secrets holds."""
        data = self.get("secret", f"{NAME}-{component}-{account}")["data"]
        return {key: base64.b64decode(value).decode() for key, value in data.items()}

    def login(self, component: str, account: str = "app") -> Login:
        """One of the component's logins."""
        found = self.secret(component, account)
        return Login(found["username"], found["password"])

    def start_probe(self, name: str, **spec: Any) -> None:
        """Create a probe of the stack."""
        body = {
            "apiVersion": "cos.dev/v1alpha1",
            "kind": "StackProbe",
            "metadata": {"name": name, "namespace": HOME},
            "spec": {"stackRef": {"name": NAME}, **spec},
        }
        self.cluster.kubectl("apply", "-f", "-", data=yaml.safe_dump(body))

    def ended_probe(self, name: str) -> dict[str, Any]:
        """The status of a probe, once it has ended."""
        complete, limit = "--for=condition=Complete", f"--timeout={_PROBE_SECONDS:g}s"
        self.cluster.kubectl("wait", f"stackprobe/{name}", complete, limit, seconds=_PROBE_SECONDS + 10)
        return dict(self.get("stackprobe", name)["status"])


@asynccontextmanager
async def probed_stack(
    cluster: BenchCluster, progress: Progress, folder: Path, spec: Mapping[str, Any] | None = None
) -> AsyncIterator[ProbedStack]:
    """A Ready stack on a new cluster: of the sample, or of another `spec`."""
    with progress.step("cluster with a node"):
        await asyncio.to_thread(run_testbed, cluster.instance, "up")
        await asyncio.to_thread(run_testbed, cluster.instance, "load", *_IMAGES)
        await asyncio.to_thread(cluster.install)
    environment = {
        "COS_KUBECONFIG": str(cluster.operator_kubeconfig),
        "COS_LEASE_NAMESPACE": NAMESPACE,
        "COS_HTTP_HOST": "127.0.0.1",
        "COS_HTTP_PORT": "0",
        "COS_PROBE_IMAGE": BY_NAME["cos-operator"].reference,
    }
    command = [str(Path(sys.executable).with_name("cos-operator")), "run"]
    with Measured.start(command, environment, folder / "operator.log"):
        with progress.step("the stack"):
            stack = await asyncio.to_thread(_create, cluster, spec)
        yield stack


def _create(cluster: BenchCluster, spec: Mapping[str, Any] | None) -> ProbedStack:
    sample = yaml.safe_load_all((ROOT / "manifests/samples/full.yaml").read_text())
    (stack,) = [obj for obj in sample if obj and obj["kind"] == "CosStack"]
    stack["metadata"] = {"name": NAME, "namespace": HOME}
    stack["spec"] = dict(spec or stack["spec"])
    stack["spec"]["images"] = {"registry": "testbed.local:5000"}
    cluster.kubectl("apply", "-f", "-", data=yaml.safe_dump(stack))
    ready = "--for=condition=Ready=True"
    cluster.kubectl(
        "wait", f"cosstack/{NAME}", ready, f"--timeout={_READY_SECONDS}s", seconds=_READY_SECONDS + 10
    )
    return ProbedStack(cluster, parse_stack(stack).spec)
