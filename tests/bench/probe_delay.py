"""Whether probes tell a delay that is known: each check through a proxy that adds 0, 1, 2 and 5 ms, in turns."""

from __future__ import annotations

import asyncio
import base64
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from bench_cluster import NAMESPACE, ROOT, BenchCluster, run_testbed
from processes import Measured
from subject import load

from cos_controllers.api.probe import ProbeSettings
from cos_controllers.credentials import Credentials, Login
from cos_controllers.observation import CheckTarget, Expectation
from cos_controllers.parsing import parse_stack
from cos_controllers.probes.checks import Check, Subject, order_of
from cos_operator.engines.registry import CLIENTS
from cos_operator.probe.base import Target
from cos_operator.probe.load import make_load, percentiles
from cos_operator.probe.runner import DRIVERS
from cos_testbed.progress import Progress

#: Milliseconds.
DELAYS = (0, 1, 2, 5)
_STACK = "cos"
_READY_SECONDS = 300
_SECONDS = 3.0
#: Requests a second: of one connection, with room for the longest delay.
_RATE = 50


async def measure_delays(
    cluster: BenchCluster, rounds: int, progress: Progress, folder: Path
) -> dict[str, Any]:
    """The p50 of each check, in milliseconds, by delay: one value a round."""
    figures: dict[str, Any] = {"load_before": load(), "p50": {}}
    with progress.step("cluster with a node"):
        await asyncio.to_thread(run_testbed, cluster.instance, "up")
        images = ("postgres", "redis", "elasticsearch", "neo4j", "traefik")
        await asyncio.to_thread(run_testbed, cluster.instance, "load", *images)
        await asyncio.to_thread(cluster.install)
    environment = {
        "COS_KUBECONFIG": str(cluster.operator_kubeconfig),
        "COS_LEASE_NAMESPACE": NAMESPACE,
        "COS_HTTP_HOST": "127.0.0.1",
        "COS_HTTP_PORT": "0",
    }
    command = [str(Path(sys.executable).with_name("cos-operator")), "run"]
    with Measured.start(command, environment, folder / "operator.log"):
        with progress.step("six services"):
            spec = _create_stack(cluster)
        subjects = order_of(_STACK, "default", spec.spec, ProbeSettings(), spec_components(cluster)).subjects
        for subject in subjects:
            # One Postgres is as the other.
            if subject.component != "postgres-dev":
                with progress.step(subject.component):
                    found = await asyncio.to_thread(_measure_subject, cluster, subject, rounds)
                figures["p50"] |= found
    figures["load_after"] = load()
    return figures


def _create_stack(cluster: BenchCluster) -> Any:
    sample = yaml.safe_load_all((ROOT / "manifests/samples/full.yaml").read_text())
    (stack,) = [obj for obj in sample if obj and obj["kind"] == "CosStack"]
    stack["metadata"] = {"name": _STACK, "namespace": "default"}
    stack["spec"]["images"] = {"registry": "testbed.local:5000"}
    cluster.kubectl("apply", "-f", "-", data=yaml.safe_dump(stack))
    ready = "--for=condition=Ready=True"
    cluster.kubectl("wait", f"cosstack/{_STACK}", ready, f"--timeout={_READY_SECONDS}s")
    return parse_stack(stack)


def spec_components(cluster: BenchCluster) -> list[str]:
    """The components, by the stack's status."""
    shown = json.loads(cluster.kubectl("get", "cosstack", _STACK, "-o", "json"))
    return [row["name"] for row in shown["status"]["components"]]


def _login(cluster: BenchCluster, name: str) -> Login:
    data = json.loads(cluster.kubectl("get", "secret", name, "-o", "json"))["data"]
    return Login(*(base64.b64decode(data[key]).decode() for key in ("username", "password")))


def _measure_subject(
    cluster: BenchCluster, subject: Subject, rounds: int
) -> dict[str, dict[str, list[float]]]:
    name = f"cos-{subject.component}"
    host = json.loads(cluster.kubectl("get", "service", name, "-o", "json"))["spec"]["clusterIP"]
    login = None if subject.engine == "traefik" else _login(cluster, f"{name}-app")
    target = Target(host, subject.port, login)
    driver = DRIVERS[subject.engine]
    if login:
        admin = _login(cluster, f"{name}-admin")
        asked = CheckTarget(
            subject.component,
            subject.engine,
            host,
            subject.port,
            Credentials(admin, login, login),
            {"neo4j": "neo4j"}.get(subject.engine, ""),
            expected=Expectation(),
        )
        asyncio.run(CLIENTS[subject.engine].tidy(asked))
    driver.prepare(target)
    found: dict[str, dict[str, list[float]]] = {}
    with _proxies(target) as ways:
        for number in range(rounds):
            for check in subject.checks:
                row = found.setdefault(check.name(subject.component), {str(delay): [] for delay in DELAYS})
                # In turns, and the other way round each second time.
                for delay in DELAYS if number % 2 else reversed(DELAYS):
                    row[str(delay)].append(_p50(driver, ways[delay], check))
    return found


def _p50(driver: Any, target: Target, check: Check) -> float:
    connect = driver.connector(target, check)
    measured = make_load(connect, rate=_RATE, connections=1, seconds=_SECONDS, stop=threading.Event())
    seen = percentiles(measured.due)
    if seen is None or measured.errors:
        raise RuntimeError(f"{check.kind}: {measured.errors} errors: {measured.first_error}")
    return seen.p50 / 1000


@contextmanager
def _proxies(target: Target) -> Iterator[dict[int, Target]]:
    """A proxy for each delay, none of them as well: what it takes itself is in every figure."""
    command = [
        sys.executable,
        str(Path(__file__).with_name("delaying_proxy.py")),
        target.host,
        str(target.port),
    ]
    running = {
        delay: subprocess.Popen([*command, str(delay)], stdout=subprocess.PIPE, text=True) for delay in DELAYS
    }
    try:
        yield {
            delay: Target(
                "127.0.0.1", int((process.stdout.readline() if process.stdout else "") or 0), target.login
            )
            for delay, process in running.items()
        }
    finally:
        for process in running.values():
            process.kill()
            process.wait()
