"""Whether probes tell a delay that is known: each check through a proxy that adds 0, 1, 2 and 5 ms, in turns."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench_cluster import BenchCluster
from probed_stack import HOME, NAME, ProbedStack, probed_stack
from subject import load

from cos_controllers.api.probe import ProbeSettings
from cos_controllers.credentials import Credentials
from cos_controllers.observation import CheckTarget
from cos_controllers.probes.checks import order_of
from cos_controllers.probes.order import Check, Subject
from cos_operator.engines.registry import CLIENTS
from cos_operator.probe.base import Target
from cos_operator.probe.load import make_load, percentiles
from cos_operator.probe.runner import DRIVERS
from cos_testbed.progress import Progress

#: Milliseconds.
DELAYS = (0, 1, 2, 5)
_SECONDS = 3.0
#: Requests a second: of one connection, with room for the longest delay.
_RATE = 50


async def measure_delays(
    cluster: BenchCluster, rounds: int, progress: Progress, folder: Path
) -> dict[str, Any]:
    """The p50 of each check, in milliseconds, by delay: one value a round."""
    figures: dict[str, Any] = {"load_before": load(), "p50": {}}
    async with probed_stack(cluster, progress, folder) as stack:
        components = [name for name in stack.components() if name != "postgres-dev"]
        for subject in order_of(NAME, HOME, stack.spec, ProbeSettings(), components).subjects:
            with progress.step(subject.component):
                figures["p50"] |= await asyncio.to_thread(_measure_subject, stack, subject, rounds)
    figures["load_after"] = load()
    return figures


def _measure_subject(stack: ProbedStack, subject: Subject, rounds: int) -> dict[str, dict[str, list[float]]]:
    host = stack.host(subject.component)
    login = None if subject.engine == "traefik" else stack.login(subject.component)
    target = Target(host, subject.port, login)
    driver = DRIVERS[subject.engine]
    if login:
        credentials = Credentials(stack.login(subject.component, "admin"), login, login)
        # The default database of Community.
        database = "neo4j" if subject.engine == "neo4j" else ""
        asked = CheckTarget(subject.component, subject.engine, host, subject.port, credentials, database)
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
