"""From `kubectl apply` to Ready on real pods: a CosStack of one Redis against its rendered children, in turns."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
from http import HTTPStatus
from pathlib import Path
from typing import Any

import yaml
from apiclient import ApiClient, ApiError, Manifest
from bench_cluster import NAMESPACE, BenchCluster, run_testbed, until
from processes import Measured
from subject import load

from cos_controllers.names import API_VERSION, LABEL_STACK
from cos_testbed.progress import Progress

_STACK = "cos"
_REGISTRY = "testbed.local:5000"
_READY_SECONDS = 120.0
_GONE_SECONDS = 120.0
#: What a stack of one Redis renders, in the order of application. Pods follow from it.
_CHILDREN = (
    "v1/secrets",
    "v1/configmaps",
    "v1/persistentvolumeclaims",
    "v1/services",
    "apps/v1/statefulsets",
)
#: What the API server adds to an object, by which it would refuse it as new.
_OF_THE_SERVER = (
    "uid",
    "resourceVersion",
    "generation",
    "creationTimestamp",
    "managedFields",
    "ownerReferences",
)


async def measure_pairs(
    cluster: BenchCluster, pairs: int, progress: Progress, folder: Path
) -> dict[str, Any]:
    """Seconds of each apply, in the order of the pairs; which goes first alternates."""
    figures: dict[str, Any] = {"load_before": load(), "stack": [], "pod_of_stack": [], "children": []}
    with progress.step("cluster with a node"):
        await asyncio.to_thread(run_testbed, cluster.instance, "up")
        await asyncio.to_thread(run_testbed, cluster.instance, "load", "redis")
        await asyncio.to_thread(cluster.install)
    environment = {
        "COS_KUBECONFIG": str(cluster.operator_kubeconfig),
        "COS_LEASE_NAMESPACE": NAMESPACE,
        "COS_HTTP_HOST": "127.0.0.1",
        "COS_HTTP_PORT": "0",
    }
    command = [str(Path(sys.executable).with_name("cos-operator")), "run"]
    with Measured.start(command, environment, folder / "operator.log") as operator:
        async with ApiClient(cluster.kubeconfig) as client:
            bench = _Bench(cluster, client, folder, operator)
            with progress.step("export the children of a stack"):
                children = await bench.export()
            for number in range(pairs):
                with progress.step(f"pair {number + 1} of {pairs}") as step:
                    for kind in ("stack", "children") if number % 2 else ("children", "stack"):
                        if kind == "stack":
                            ready, pod = await bench.apply_stack(f"stack-{number}")
                            figures["pod_of_stack"].append(pod)
                        else:
                            ready = await bench.apply_children(f"children-{number}", children)
                        figures[kind].append(ready)
                    step.note(f"stack {figures['stack'][-1]:.2f} s, children {figures['children'][-1]:.2f} s")
    figures["load_after"] = load()
    return figures


class _Bench:
    """One way to apply for both, in a namespace of its own each time."""

    def __init__(self, cluster: BenchCluster, client: ApiClient, folder: Path, operator: Measured) -> None:
        self._cluster = cluster
        self._client = client
        self._file = folder / "apply.yaml"
        self._operator = operator

    async def export(self) -> list[Manifest]:
        """The children of a Ready stack, as a person would write them down."""
        namespace = "export"
        await self.apply_stack(namespace, keep=True)
        found: list[Manifest] = []
        for place in _CHILDREN:
            version, _, plural = place.rpartition("/")
            path = f"/{'apis' if '/' in version else 'api'}/{version}/namespaces/{namespace}/{plural}"
            objects = await self._client.request(
                "GET", path, query=(("labelSelector", f"{LABEL_STACK}={_STACK}"),)
            )
            kind = objects["kind"].removesuffix("List")
            found += [{"apiVersion": version, "kind": kind, **obj} for obj in objects["items"]]
        await self._remove(namespace)
        return [_as_new(obj) for obj in found]

    async def apply_stack(self, namespace: str, *, keep: bool = False) -> tuple[float, float]:
        """Seconds until the stack is Ready, and until its pod is."""
        stack = {
            "apiVersion": API_VERSION,
            "kind": "CosStack",
            "metadata": {"name": _STACK, "namespace": namespace},
            "spec": {"redis": {}, "images": {"registry": _REGISTRY}},
        }
        path = f"/apis/{API_VERSION}/namespaces/{namespace}/cosstacks"
        return await self._timed(namespace, [stack], path, keep=keep)

    async def apply_children(self, namespace: str, children: list[Manifest]) -> float:
        """Seconds until the pod is Ready."""
        objects = [{**obj, "metadata": {**obj["metadata"], "namespace": namespace}} for obj in children]
        return (await self._timed(namespace, objects, None))[0]

    async def _timed(
        self, namespace: str, objects: list[Manifest], stacks: str | None, *, keep: bool = False
    ) -> tuple[float, float]:
        """Apply, and watch what is to become Ready: the stack if there is one, and the pod."""
        self._operator.require_alive()
        await self._client.request("POST", "/api/v1/namespaces", body={"metadata": {"name": namespace}})
        self._file.write_text(yaml.safe_dump_all(objects))
        paths = [path for path in (stacks, f"/api/v1/namespaces/{namespace}/pods") if path]
        async with asyncio.timeout(_READY_SECONDS), asyncio.TaskGroup() as group:
            watching = [group.create_task(self._ready_at(path, await self._version(path))) for path in paths]
            began = time.monotonic()
            await asyncio.to_thread(self._cluster.kubectl, "apply", "-f", str(self._file))
        seconds = [task.result() - began for task in watching]
        if not keep:
            await self._remove(namespace)
        return seconds[0], seconds[-1]

    async def _version(self, path: str) -> str:
        collection = await self._client.request("GET", path)
        return str(collection["metadata"]["resourceVersion"])

    async def _ready_at(self, path: str, version: str) -> float:
        """When the first object of a collection was Ready, on the monotonic clock."""
        async with contextlib.aclosing(self._client.watch(path, version)) as events:
            async for event in events:
                if _is_ready(event["object"]):
                    return time.monotonic()
        raise RuntimeError(f"the watch of {path} ended")

    async def _remove(self, namespace: str) -> None:
        path = f"/api/v1/namespaces/{namespace}"
        await self._client.request("DELETE", path)

        async def gone() -> bool:
            try:
                await self._client.request("GET", path)
            except ApiError as error:
                return error.status == HTTPStatus.NOT_FOUND
            return False

        await until(f"namespace {namespace} gone", gone, _GONE_SECONDS, 0.5)


def _is_ready(obj: Manifest) -> bool:
    conditions = (obj.get("status") or {}).get("conditions") or ()
    return any(item["type"] == "Ready" and item["status"] == "True" for item in conditions)


def _as_new(obj: Manifest) -> Manifest:
    """An object without what its cluster added, so that another namespace takes it."""
    metadata = {key: value for key, value in obj["metadata"].items() if key not in _OF_THE_SERVER}
    new = {key: value for key, value in obj.items() if key != "status"} | {"metadata": metadata}
    match new["kind"]:
        case "Service":
            new["spec"] = {k: v for k, v in new["spec"].items() if k not in {"clusterIP", "clusterIPs"}}
        case "PersistentVolumeClaim":
            new["spec"] = {k: v for k, v in new["spec"].items() if k != "volumeName"}
            metadata.pop("annotations", None)
            metadata.pop("finalizers", None)
    return new
