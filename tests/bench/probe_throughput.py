"""How much the prober makes of an engine, beside redis-benchmark, pgbench and wrk: four connections each, in turns."""

from __future__ import annotations

import asyncio
import csv
import io
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import yaml
from bench_cluster import BenchCluster
from probed_stack import HOME, ProbedStack, probed_stack
from subject import load

from cos_testbed.images import BY_NAME
from cos_testbed.packages import ensure_packaged
from cos_testbed.progress import Progress

_CONNECTIONS = 4
_SECONDS = 5
_REQUESTS = 100_000
#: One statement a transaction, as the prober's: pgbench counts two of them as one of its own.
_SCRIPT = r"""
\set id random(1, 10000)
SELECT abalance FROM pgbench_accounts WHERE aid = :id;
\set id random(1, 10000)
UPDATE pgbench_accounts SET abalance = abalance + 1 WHERE aid = :id;
"""


async def measure_throughput(
    cluster: BenchCluster, rounds: int, progress: Progress, folder: Path
) -> dict[str, Any]:
    """Requests a second by check, of the prober and of the tool; CPU milliseconds of the prober for 1,000 requests."""
    figures: dict[str, Any] = {"load_before": load(), "prober": {}, "tool": {}, "client_cpu": {}}
    wrk = await asyncio.to_thread(ensure_packaged, "wrk", progress)
    async with probed_stack(cluster, progress, folder) as stack:
        await asyncio.to_thread(_prepare, stack)
        for number in range(rounds):
            with progress.step(f"round {number + 1} of {rounds}"):
                for which in ("prober", "tool") if number % 2 else ("tool", "prober"):
                    if which == "prober":
                        await asyncio.to_thread(_probe, stack, f"saturate-{number}", figures)
                    else:
                        await asyncio.to_thread(_tools, stack, wrk, figures)
    figures["load_after"] = load()
    return figures


def _pod(name: str, image: str, uid: int) -> dict[str, Any]:
    container = {"name": name, "image": BY_NAME[image].reference, "command": ["sleep", "infinity"]}
    security = {"runAsUser": uid, "runAsNonRoot": True}
    spec = {"containers": [container], "securityContext": security, "terminationGracePeriodSeconds": 1}
    metadata = {"name": name, "namespace": HOME}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}


def _prepare(stack: ProbedStack) -> None:
    pods = [_pod("tool-redis", "redis", 999), _pod("tool-postgres", "postgres", 999)]
    stack.cluster.kubectl("apply", "-f", "-", data=yaml.safe_dump_all(pods))
    stack.cluster.kubectl(
        "wait", "--for=condition=Ready", "pod/tool-redis", "pod/tool-postgres", "--timeout=60s"
    )
    _pgbench(stack, "-i", "-q", "-s", "1")
    stack.cluster.kubectl(
        "exec", "-i", "tool-postgres", "--", "sh", "-c", "cat > /tmp/mixed.sql", data=_SCRIPT
    )


def _pgbench(stack: ProbedStack, *arguments: str) -> str:
    login = stack.login("postgres-prod")
    environment = [
        f"PGHOST={stack.host('postgres-prod')}",
        f"PGUSER={login.username}",
        f"PGPASSWORD={login.password}",
        "PGDATABASE=app",
    ]
    return stack.cluster.kubectl("exec", "tool-postgres", "--", "env", *environment, "pgbench", *arguments)


def _probe(stack: ProbedStack, name: str, figures: dict[str, Any]) -> None:
    stack.start_probe(
        name,
        components=["redis", "postgres-prod", "traefik"],
        load="Saturating",
        connections=_CONNECTIONS,
        secondsPerCheck=_SECONDS,
    )
    for row in stack.ended_probe(name)["checks"]:
        kind = {
            "redis/Throughput": "redis",
            "postgres-prod/Mixed": "postgres",
            "traefik/Route/search": "traefik",
        }
        if found := kind.get(row["name"]):
            figures["prober"].setdefault(found, []).append(
                row["operations"] * 1000 / row["elapsedMilliseconds"]
            )
            cost = row["clientCpuMilliseconds"] * 1000 / row["operations"]
            figures["client_cpu"].setdefault(found, []).append(cost)


def _tools(stack: ProbedStack, wrk: Path, figures: dict[str, Any]) -> None:
    found = {"redis": _redis(stack), "postgres": _postgres(stack), "traefik": _traefik(stack, wrk)}
    for name, value in found.items():
        figures["tool"].setdefault(name, []).append(value)


def _redis(stack: ProbedStack) -> float:
    """SET and GET in equal parts: the mean of both times."""
    login = stack.login("redis")
    uri = f"redis://{login.username}:{login.password}@{stack.host('redis')}:6379"
    options = [
        "-c",
        str(_CONNECTIONS),
        "-n",
        str(_REQUESTS),
        "-d",
        "64",
        "-r",
        "1000",
        "-t",
        "set,get",
        "--csv",
    ]
    shown = stack.cluster.kubectl("exec", "tool-redis", "--", "redis-benchmark", "-u", uri, *options)
    rates = [float(row["rps"]) for row in csv.DictReader(io.StringIO(shown))]
    return len(rates) / sum(1 / rate for rate in rates)


def _postgres(stack: ProbedStack) -> float:
    options = ["-n", "-c", str(_CONNECTIONS), "-j", "1", "-T", str(_SECONDS), "-f", "/tmp/mixed.sql"]  # noqa: S108
    (tps,) = re.findall(r"tps = ([0-9.]+)", _pgbench(stack, *options))
    return 2 * float(tps)


def _traefik(stack: ProbedStack, wrk: Path) -> float:
    (route,) = [route for route in stack.spec.traefik.routes if route.component] if stack.spec.traefik else []
    host = ["-H", f"Host: {route.host}"] if route.host else []
    command = [
        str(wrk),
        "-t1",
        f"-c{_CONNECTIONS}",
        f"-d{_SECONDS}s",
        *host,
        f"http://{stack.host('traefik')}{route.path}",
    ]
    # Its own libraries are beside it.
    libraries = ":".join(map(str, wrk.parents[1].glob("lib/*-linux-gnu")))
    environment = {**os.environ, "LD_LIBRARY_PATH": libraries}
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60, env=environment)
    (rate,) = re.findall(r"Requests/sec:\s+([0-9.]+)", done.stdout)
    return float(rate)
