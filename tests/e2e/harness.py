"""How end-to-end tests touch the cluster: kubectl as a person uses it, and waiting for a condition with a deadline."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import yaml

from cos_testbed.instance import instance_from

ROOT = Path(__file__).resolve().parents[2]
REGISTRY = "testbed.local:5000"
T = TypeVar("T")


def run_testbed(*args: str, timeout: float = 600) -> str:
    """A command of the testbed; its standard output."""
    command = [sys.executable, "-m", "cos_testbed", *args]
    done = subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True, timeout=timeout)
    assert done.returncode == 0, f"testbed {' '.join(args)}: {done.stderr[-3000:]}"
    return done.stdout.strip()


def wait_for(what: str, probe: Callable[[], T | None], seconds: float, interval: float = 0.5) -> T:
    """Ask until the answer is true; past the deadline fail with the last answer."""
    deadline = time.monotonic() + seconds
    while True:
        answer = probe()
        if answer:
            return answer
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds:g} s: {what}; last answer: {answer!r}")
        time.sleep(interval)


@dataclass(frozen=True)
class Cluster:
    """The testbed's cluster."""

    kubeconfig: str
    kubectl_path: str
    helm_path: str

    def run(
        self, *args: str, data: str | None = None, timeout: float = 60, check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """kubectl with these arguments."""
        command = [self.kubectl_path, "--kubeconfig", self.kubeconfig, *args]
        done = subprocess.run(
            command, input=data, check=False, capture_output=True, text=True, timeout=timeout
        )
        if check:
            assert done.returncode == 0, f"kubectl {' '.join(args)}: {done.stderr}"
        return done

    def helm(self, *args: str, timeout: float = 300, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Helm with these arguments."""
        env = {**os.environ, "KUBECONFIG": self.kubeconfig}
        done = subprocess.run(
            [self.helm_path, *args], check=False, capture_output=True, text=True, timeout=timeout, env=env
        )
        if check:
            assert done.returncode == 0, f"helm {' '.join(args)}: {done.stderr}"
        return done

    def get(self, kind: str, name: str, namespace: str = "") -> dict[str, Any] | None:
        """An object, or None."""
        where = ("-n", namespace) if namespace else ()
        done = self.run("get", kind, name, *where, "-o", "json", "--ignore-not-found")
        return dict(json.loads(done.stdout)) if done.stdout.strip() else None

    def list(self, kind: str, namespace: str = "", selector: str = "") -> list[dict[str, Any]]:
        """Objects of a kind."""
        where = ("-n", namespace) if namespace else ("-A",)
        select = ("-l", selector) if selector else ()
        return list(json.loads(self.run("get", kind, *where, *select, "-o", "json").stdout)["items"])

    def apply(self, *objects: Mapping[str, Any], check: bool = True) -> subprocess.CompletedProcess[str]:
        """`kubectl apply` as a person does it."""
        return self.run("apply", "-f", "-", data=yaml.safe_dump_all(objects), check=check)

    def patch_stack(self, name: str, namespace: str, spec: Mapping[str, Any]) -> None:
        """Edit the spec of a stack (a merge)."""
        patch = json.dumps({"spec": spec})
        self.run("patch", "cosstack", name, "-n", namespace, "--type=merge", "-p", patch)

    def replace_spec(self, name: str, namespace: str, spec: Mapping[str, Any]) -> None:
        """Give a stack this spec: fields that are left out go.

        A patch, for it has no resourceVersion that a write of the status could outdate, as `kubectl replace` has.
        """
        patch = json.dumps([{"op": "replace", "path": "/spec", "value": spec}])
        self.run("patch", "cosstack", name, "-n", namespace, "--type=json", "-p", patch)

    def stack(self, name: str, namespace: str) -> dict[str, Any]:
        """A CosStack."""
        found = self.get("cosstack", name, namespace)
        assert found, f"no CosStack {namespace}/{name}"
        return found

    def condition(self, name: str, namespace: str, kind: str) -> dict[str, Any]:
        """A condition of a stack; empty if it has none of that type, or one of an earlier generation."""
        stack = self.stack(name, namespace)
        for condition in stack.get("status", {}).get("conditions", []):
            if condition["type"] == kind:
                current = condition.get("observedGeneration") == stack["metadata"]["generation"]
                return dict(condition) if current else {}
        return {}

    def wait_ready(self, name: str, namespace: str, seconds: float = 240) -> dict[str, Any]:
        """Wait for Ready=True of the present generation; the error shows the whole status."""
        try:
            wait_for(
                f"CosStack {namespace}/{name} Ready",
                lambda: self.condition(name, namespace, "Ready").get("status") == "True",
                seconds,
            )
        except AssertionError as error:
            status = yaml.safe_dump(self.stack(name, namespace).get("status"))
            pods = self.run("get", "pods", "-n", namespace, "-o", "wide").stdout
            raise AssertionError(f"{error}\n{status}\n{pods}") from error
        return self.stack(name, namespace)

    def namespace(self, name: str) -> None:
        """A namespace that enforces Pod Security `restricted`."""
        labels = {"pod-security.kubernetes.io/enforce": "restricted"}
        self.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}})

    def fresh_namespace(self, name: str, seconds: float = 180) -> None:
        """An empty one; what is left of that name from another run ends first."""
        self.delete_namespace(name)
        wait_for(f"namespace {name} gone", lambda: self.get("namespace", name) is None, seconds)
        self.namespace(name)

    def delete_namespace(self, *names: str) -> None:
        """Let namespaces end in their own time: Kubernetes looks again only after half of a pod's time to end."""
        self.run("delete", "namespace", *names, "--ignore-not-found", "--wait=false")

    def python(self, pod: str, namespace: str, script: str, *args: str, timeout: float = 60) -> str:
        """Run a Python script in a pod; its standard output. Fails with its error output."""
        done = self.run(
            "exec", "-i", pod, "-n", namespace, "--", "python", "-", *args, data=script, timeout=timeout
        )
        return done.stdout.strip()


def pod_uids(cluster: Cluster, namespace: str, stack: str) -> dict[str, str]:
    """UID of each pod of a stack by component (those being deleted left out)."""
    pods = cluster.list("pods", namespace, f"cos.dev/stack={stack}")
    return {
        pod["metadata"]["labels"]["cos.dev/component"]: pod["metadata"]["uid"]
        for pod in pods
        if not pod["metadata"].get("deletionTimestamp")
    }


def restarts(pods: Sequence[Mapping[str, Any]]) -> int:
    """Container restarts of pods, in all."""
    return sum(s["restartCount"] for pod in pods for s in pod["status"].get("containerStatuses", []))


def audit_events() -> list[dict[str, Any]]:
    """The API server's audit log, oldest first (the last 200 MB of it)."""
    text = instance_from().audit_log.read_text()
    return [json.loads(line) for line in text.splitlines() if line.endswith("}")]
