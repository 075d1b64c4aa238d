"""The cluster under measurement: a control plane with nodes of kwok, the operator's rights, stacks and volumes."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import TypeVar

import yaml
from apiclient import CONNECTIONS, ApiClient, Manifest
from auditlog import AuditLog

from cos_controllers.names import API_VERSION, claim_name
from cos_testbed.instance import instance_from

ROOT = Path(__file__).resolve().parents[2]
NAMESPACE = "cos-system"
OPERATOR = "cos-operator"
#: The operator, as the audit log names it.
OPERATOR_USER = f"system:serviceaccount:{NAMESPACE}:{OPERATOR}"
KWOK_NODES = 10
STACKS_PATH = f"/apis/{API_VERSION}/cosstacks"
#: A stack finds its children by label within its namespace: with many stacks in one, each LIST would grow with all.
STACKS_PER_NAMESPACE = 10

_TESTBED_SECONDS = 1800.0
_KUBECTL_SECONDS = 120.0
_DATA = ("postgres-prod", "postgres-dev", "redis", "elasticsearch", "neo4j")
T = TypeVar("T")


def run_testbed(instance: int, *arguments: str) -> str:
    """A command of the testbed; its standard output."""
    command = [sys.executable, "-m", "cos_testbed", f"--instance={instance}", *arguments]
    done = subprocess.run(
        command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True, timeout=_TESTBED_SECONDS
    )
    return done.stdout.strip()


async def until(what: str, probe: Callable[[], Awaitable[T]], seconds: float, interval: float) -> T:
    """Ask until the answer is true. Raises TimeoutError, which says `what` was waited for."""
    deadline = time.monotonic() + seconds
    while not (answer := await probe()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {seconds:g} s: {what}")
        await asyncio.sleep(interval)
    return answer


class BenchCluster:
    """One instance of the testbed."""

    def __init__(self, instance: int) -> None:
        self.instance = instance
        place = instance_from(index=instance)
        self.kubeconfig = place.kubeconfig
        self.audit = AuditLog(place.audit_log)
        self.operator_kubeconfig = place.state / "bench-operator.kubeconfig"
        self._kubectl = ""

    def make(self) -> None:
        """From nothing: no object of an earlier measurement is left."""
        run_testbed(self.instance, "clean")
        run_testbed(self.instance, "up", "--control-plane-only", f"--kwok-nodes={KWOK_NODES}")
        self.install()

    def install(self) -> None:
        """The definitions and rights that `manifests/install.yaml` gives, and credentials of its ServiceAccount."""
        self._kubectl = run_testbed(self.instance, "path", "kubectl")
        shipped = yaml.safe_load_all((ROOT / "manifests/install.yaml").read_text())
        objects = [obj for obj in shipped if obj["kind"] != "Deployment"]
        self.kubectl("apply", "--server-side", "-f", "-", data=yaml.safe_dump_all(objects))
        self.kubectl("wait", "--for=jsonpath={.status.conditions}", "--timeout=60s", "crd", "--all")
        self.kubectl("wait", "--for=condition=Established", "--timeout=60s", "crd", "--all")
        token = self.kubectl(
            "create", "token", OPERATOR, f"--namespace={NAMESPACE}", "--duration=24h"
        ).strip()
        config = json.loads(self.kubeconfig.read_text())
        config["users"][0]["user"] = {"token": token}
        self.operator_kubeconfig.touch(mode=0o600)
        self.operator_kubeconfig.write_text(json.dumps(config))

    def kubectl(self, *arguments: str, data: str = "", seconds: float = _KUBECTL_SECONDS) -> str:
        """What a person types; its standard output."""
        done = subprocess.run(
            [self._kubectl, f"--kubeconfig={self.kubeconfig}", *arguments],
            input=data,
            check=True,
            stdout=subprocess.PIPE,
            text=True,
            timeout=seconds,
        )
        return done.stdout


def stack_name(number: int) -> str:
    """All of the same length, so that no name is the beginning of another."""
    return f"s{number:04}"


def namespace_of(number: int) -> str:
    """Where stack `number` is."""
    return f"bench-{number // STACKS_PER_NAMESPACE:03}"


def stack_path(number: int) -> str:
    """Where the API serves the stack."""
    return f"/apis/{API_VERSION}/namespaces/{namespace_of(number)}/cosstacks/{stack_name(number)}"


def six_services(number: int) -> Manifest:
    """The six-service sample of `manifests/samples`, under another name."""
    sample = yaml.safe_load_all((ROOT / "manifests/samples/full.yaml").read_text())
    (stack,) = [obj for obj in sample if obj and obj["kind"] == "CosStack"]
    stack["metadata"] = {"name": stack_name(number), "namespace": namespace_of(number)}
    return dict(stack)


async def prepare(client: ApiClient, count: int) -> None:
    """Namespaces, and a volume for each claim to come.

    kwok provisions nothing. The volumes exist beforehand, each reserved for its claim; it is the controller manager
    that binds them.
    """
    storage_class = {
        "apiVersion": "storage.k8s.io/v1",
        "kind": "StorageClass",
        "metadata": {
            "name": "bench",
            "annotations": {"storageclass.kubernetes.io/is-default-class": "true"},
        },
        "provisioner": "kubernetes.io/no-provisioner",
        "volumeBindingMode": "Immediate",
    }
    await client.request("POST", "/apis/storage.k8s.io/v1/storageclasses", body=storage_class)
    namespaces = sorted({namespace_of(number) for number in range(count)})
    await create(client, "/api/v1/namespaces", ({"metadata": {"name": name}} for name in namespaces))
    volumes = [_volume(number, component) for number in range(count) for component in _DATA]
    path = "/api/v1/persistentvolumes"
    await create(client, path, volumes)

    async def available() -> bool:
        return set(await client.column(path, "Status")) == {"Available"}

    await until("volumes Available", available, 300, 1)


async def create_stacks(client: ApiClient, count: int) -> None:
    """Create the stacks, as fast as the API server takes them."""
    stacks = [six_services(number) for number in range(count)]
    for first in range(0, count, STACKS_PER_NAMESPACE):
        path = f"/apis/{API_VERSION}/namespaces/{namespace_of(first)}/cosstacks"
        await create(client, path, stacks[first : first + STACKS_PER_NAMESPACE])


async def create(client: ApiClient, path: str, objects: Iterable[Manifest]) -> None:
    """Create objects of one collection, several at once."""
    waiting = iter(list(objects))

    async def work() -> None:
        for obj in waiting:
            await client.request("POST", path, body=obj)

    async with asyncio.TaskGroup() as group:
        for _ in range(CONNECTIONS):
            group.create_task(work())


def _volume(number: int, component: str) -> Manifest:
    claim = claim_name(f"{stack_name(number)}-{component}", 0)
    return {
        "metadata": {"name": f"{namespace_of(number)}-{claim}"},
        "spec": {
            "capacity": {"storage": "100Gi"},
            "accessModes": ["ReadWriteOnce"],
            "persistentVolumeReclaimPolicy": "Retain",
            "storageClassName": "bench",
            "claimRef": {"namespace": namespace_of(number), "name": claim},
            "hostPath": {"path": "/nonexistent"},
        },
    }
