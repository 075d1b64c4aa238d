"""What probes cost: CPU of the stack and of the prober, and what an application notices, with and without, in turns."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from bench_cluster import BenchCluster
from probed_stack import HOME, NAME, ProbedStack, probed_stack
from subject import load

from cos_testbed.progress import Progress

#: Of each window; a default probe of ten checks is over in it.
_WINDOW_SECONDS = 90.0
_SETTLE_SECONDS = 5.0


async def measure_cost(
    cluster: BenchCluster, rounds: int, progress: Progress, folder: Path
) -> dict[str, Any]:
    """CPU seconds of windows with and without a probe, and an application's p99 in such windows."""
    figures: dict[str, Any] = {
        "load_before": load(),
        "window": _WINDOW_SECONDS,
        "cpu": {"without": [], "with": [], "prober": []},
        "p99": {"without": [], "with": []},
    }
    async with probed_stack(cluster, progress, folder) as stack:
        await asyncio.to_thread(_measure, stack, rounds, progress, figures)
    figures["load_after"] = load()
    return figures


def _measure(stack: ProbedStack, rounds: int, progress: Progress, figures: dict[str, Any]) -> None:
    # The first run of all makes databases and indexes, and lets the JVMs compile.
    _probe(stack, "warm")
    for number in range(rounds):
        order = ("without", "with") if number % 2 else ("with", "without")
        for kind in order:
            with progress.step(f"round {number + 1} of {rounds}: CPU {kind}") as step:
                before = _cpu(stack)
                began = time.monotonic()
                if kind == "with":
                    figures["cpu"]["prober"].append(_probe(stack, f"cpu-{number}"))
                time.sleep(max(_WINDOW_SECONDS - (time.monotonic() - began), 0))
                figures["cpu"][kind].append(_cpu(stack) - before)
                step.note(f"{figures['cpu'][kind][-1]:.2f} s")
        for kind in order:
            with progress.step(f"round {number + 1} of {rounds}: application {kind}") as step:
                figures["p99"][kind].append(_application(stack, f"app-{number}" if kind == "with" else ""))
                step.note(json.dumps(figures["p99"][kind][-1]))
        time.sleep(_SETTLE_SECONDS)


def _cpu(stack: ProbedStack) -> float:
    """CPU seconds of all pods of the stack, by kubelet."""
    (node,) = json.loads(stack.cluster.kubectl("get", "nodes", "-o", "json"))["items"]
    name = node["metadata"]["name"]
    shown = stack.cluster.kubectl(
        "get", "--raw", f"/api/v1/nodes/{name}/proxy/stats/summary?only_cpu_and_memory=true"
    )
    pods = [
        pod
        for pod in json.loads(shown)["pods"]
        if pod["podRef"]["namespace"] == HOME and pod["podRef"]["name"].startswith(f"{NAME}-")
    ]
    return sum(float(pod["cpu"]["usageCoreNanoSeconds"]) for pod in pods) / 1e9


def _end(stack: ProbedStack, name: str) -> float:
    """CPU seconds of the prober."""
    status = stack.ended_probe(name)
    if status["phase"] != "Successful":
        raise RuntimeError(f"probe {name}: {status['phase']}: {status['message']}")
    return float(status["clientCpuMilliseconds"]) / 1000


def _probe(stack: ProbedStack, name: str) -> float:
    stack.start_probe(name)
    return _end(stack, name)


def _application(stack: ProbedStack, probe: str) -> dict[str, float]:
    """An application's p99s in milliseconds, by engine; meanwhile the `probe` of this name, if any."""
    targets: dict[str, Any] = {}
    for name, component, port in (("redis", "redis", 6379), ("postgres", "postgres-prod", 5432)):
        login = stack.login(component)
        account = {"user": login.username, "password": login.password}
        targets[name] = {"host": stack.host(component), "port": port, **account}
    targets["postgres"]["database"] = stack.secret("postgres-prod")["database"]
    (route,) = [route for route in stack.spec.traefik.routes if route.component] if stack.spec.traefik else []
    targets["traefik"] = {
        "host": stack.host("traefik"),
        "port": 80,
        "name": route.host or "",
        "path": route.path,
    }
    seconds = _WINDOW_SECONDS * 2 / 3
    command = [sys.executable, str(Path(__file__).with_name("application.py")), str(seconds)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdin
        assert child.stdout
        child.stdin.write(json.dumps(targets))
        child.stdin.close()
        if probe:
            stack.start_probe(probe)
        found = json.loads(child.stdout.read())
        if probe:
            _end(stack, probe)
    return {str(name): float(value) for name, value in found.items()}
