"""From nothing to a Ready stack of six services: `make demo`. Run again, it changes nothing and ends in seconds."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console
from rich.live import Live
from rich.table import Table

from cos_testbed.images import operator_values
from cos_testbed.progress import Progress

ROOT = Path(__file__).resolve().parent.parent
REGISTRY = "testbed.local:5000"
NAMESPACE, STACK = "cos", "cos"
OPERATOR_NAMESPACE = "cos-system"
READY_WITHIN_SECONDS = 600

console = Console(stderr=True, highlight=False)


class DemoError(Exception):
    """What went wrong, in one line for the person at the terminal."""


def run_testbed(*args: str, show: bool = False) -> str:
    """A command of the testbed. With `show` its progress goes to the terminal."""
    done = subprocess.run(
        [sys.executable, "-m", "cos_testbed", *args],
        cwd=ROOT,
        check=False,
        text=True,
        stdout=None if show else subprocess.PIPE,
    )
    if done.returncode:
        raise DemoError(f"the testbed failed at: {' '.join(args)}")
    return "" if show else (done.stdout or "").strip()


def tool(path: str, *args: str, data: str | None = None) -> str:
    """Standard output of kubectl or helm; its error is the demo's."""
    done = subprocess.run([path, *args], check=False, capture_output=True, text=True, input=data, timeout=300)
    if done.returncode:
        raise DemoError(f"{Path(path).name} {' '.join(args[:3])}: {done.stderr.strip()}")
    return done.stdout


def sample() -> str:
    """The six-service sample with images from the testbed's registry, in its namespace."""
    objects = [obj for obj in yaml.safe_load_all((ROOT / "manifests/samples/full.yaml").read_text()) if obj]
    for obj in objects:
        if obj["kind"] == "CosStack":
            obj["spec"]["images"] = {"registry": REGISTRY}
    return yaml.safe_dump_all(objects)


def install(helm: str) -> None:
    """The operator, as its chart deploys it, for all namespaces."""
    tool(
        helm,
        "upgrade",
        "--install",
        "cos-operator",
        str(ROOT / "charts/cos-operator"),
        "--namespace",
        OPERATOR_NAMESPACE,
        "--create-namespace",
        # A CRD that is there already, from `make test` or an earlier demo, becomes this release's.
        "--take-ownership",
        "--force-conflicts",
        "--wait",
        "--timeout",
        "3m",
        "--set",
        f"{operator_values()},watch.clusterWide=true",
    )


def rows(stack: dict[str, Any]) -> Table:
    """The stack's components as a table."""
    table = Table("component", "ready", "version", "reason", "message", box=None, pad_edge=False)
    for row in stack.get("status", {}).get("components", []):
        ready = "[green]yes[/]" if row.get("ready") else "[yellow]no[/]"
        table.add_row(row["name"], ready, row.get("version"), row["reason"], row.get("message", "")[:70])
    return table


def wait_ready(kubectl: str, progress: Progress) -> dict[str, Any]:
    """Show the components until the stack is Ready."""
    deadline = time.monotonic() + READY_WITHIN_SECONDS
    said: dict[str, str] = {}
    with Live(console=console, auto_refresh=False, transient=True) as live:
        while time.monotonic() < deadline:
            stack = json.loads(tool(kubectl, "get", "cosstack", STACK, "-n", NAMESPACE, "-o", "json"))
            generation = stack["metadata"]["generation"]
            if console.is_terminal:
                live.update(rows(stack), refresh=True)
            else:
                for row in stack.get("status", {}).get("components", []):
                    if said.get(row["name"]) != row["reason"]:
                        said[row["name"]] = row["reason"]
                        progress.info(f"{row['name']}: {row['reason']} {row.get('message', '')}".rstrip())
            for condition in stack.get("status", {}).get("conditions", []):
                current = condition.get("observedGeneration") == generation
                if condition["type"] == "Ready" and condition["status"] == "True" and current:
                    return dict(stack)
            time.sleep(1)
    raise DemoError(
        f"the stack is not Ready after {READY_WITHIN_SECONDS} s; see: "
        f"kubectl get cosstack {STACK} -n {NAMESPACE} -o wide"
    )


def summary(stack: dict[str, Any], kubectl: str, kubeconfig: str, seconds: float) -> None:
    """How to reach each service, and where its credentials are."""
    # Wide enough for every row; a terminal that is narrower breaks lines, and nothing is cut off.
    out = Console(highlight=False, width=140, soft_wrap=True)
    services = json.loads(tool(kubectl, "get", "services", "-n", NAMESPACE, "-o", "json"))["items"]
    addresses = {item["metadata"]["name"]: item["spec"]["clusterIP"] for item in services}
    table = Table("service", "in the cluster", "from this machine", "credentials", box=None, pad_edge=False)
    for row in stack["status"]["components"]:
        host, _, port = row["endpoint"].partition(":")
        secret = f"Secret {row['binding']['name']}" if row.get("binding") else "none"
        table.add_row(row["name"], row["endpoint"], f"{addresses[host.split('.')[0]]}:{port}", secret)
    out.print(
        f"\ncosstack/{STACK} is Ready after {seconds:.0f} s: {stack['status']['summary']} components serve.\n"
    )
    out.print(table)
    out.print(f"\nexport KUBECONFIG={kubeconfig}")
    out.print(f"export PATH={Path(kubectl).parent}:$PATH")
    out.print(
        f"kubectl -n {NAMESPACE} get secret {STACK}-redis-app -o jsonpath='{{.data.uri}}' | base64 -d\n"
    )
    out.print(f"$ kubectl get cosstack -n {NAMESPACE}")
    out.print(tool(kubectl, "get", "cosstack", "-n", NAMESPACE), end="")


def main() -> int:
    """Everything, in order; each step is skipped by the tool that finds nothing to do."""
    began = time.monotonic()
    progress = Progress()
    try:
        run_testbed("up", show=True)
        run_testbed("images", show=True)
        kubeconfig, kubectl, helm = (
            run_testbed("kubeconfig"),
            run_testbed("path", "kubectl"),
            run_testbed("path", "helm"),
        )
        os.environ["KUBECONFIG"] = kubeconfig
        with progress.step("Install the operator"):
            install(helm)
        with progress.step("Apply the stack"):
            tool(kubectl, "apply", "-f", "-", data=sample())
        with progress.step("Wait for the stack"):
            stack = wait_ready(kubectl, progress)
    except DemoError as error:
        console.print(f"demo: {error}", markup=False)
        return 1
    summary(stack, kubectl, kubeconfig, time.monotonic() - began)
    return 0


if __name__ == "__main__":
    sys.exit(main())
