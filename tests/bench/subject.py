"""The operator under measurement, and what is read from it."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path

import aiohttp
from bench_cluster import NAMESPACE, BenchCluster, until
from processes import Cpu, Measured
from prometheus_client.parser import text_string_to_metric_families

_READY_SECONDS = 60.0
_READS = frozenset({"get", "list"})


@dataclass(frozen=True)
class Sample:
    """What the operator had done at a moment: `reads` and `writes` are requests, Leases left out."""

    at: float
    cpu: Cpu
    waited: float
    resident: int
    reads: int
    writes: int
    runs: int
    run_seconds: float
    depth: int


class Subject:
    """A running operator."""

    def __init__(self, process: Measured, port: int) -> None:
        self.process = process
        self._url = f"http://127.0.0.1:{port}"

    @classmethod
    @contextmanager
    def start(cls, cluster: BenchCluster, log: Path, record: Path | None = None) -> Iterator[Subject]:
        """The operator with the rights of its ServiceAccount; with `record`, it notes its writes there."""
        port = _free_port()
        environment = {
            "COS_KUBECONFIG": str(cluster.operator_kubeconfig),
            "COS_LEASE_NAMESPACE": NAMESPACE,
            "COS_HTTP_HOST": "127.0.0.1",
            "COS_HTTP_PORT": str(port),
            **({"COS_BENCH_RECORD": str(record)} if record else {}),
        }
        script = Path(__file__).with_name("benched_operator.py")
        with Measured.python(script, environment=environment, log=log) as process:
            yield cls(process, port)

    async def ready(self) -> None:
        """Wait until it leads and hears every watch."""

        async def leads() -> bool:
            self.process.require_alive()
            try:
                status, text = await self._get("/readyz")
            except aiohttp.ClientError:
                return False
            return status == HTTPStatus.OK and '"role": "leader"' in text

        await until("the operator leads", leads, _READY_SECONDS, 0.2)

    async def sample(self) -> Sample:
        """What it has done so far. The answer costs it some milliseconds at 1,000 stacks, which count as its own."""
        self.process.require_alive()
        _, text = await self._get("/metrics")
        found: dict[str, float] = {}
        for family in text_string_to_metric_families(text):
            for item in family.samples:
                kind = item.labels.get("kind", "")
                if kind != "Lease":
                    verb = "read" if item.labels.get("verb") in _READS else "write"
                    name = (
                        f"{item.name}/{verb}" if item.name == "cos_operator_api_requests_total" else item.name
                    )
                    found[name] = found.get(name, 0.0) + item.value
        return Sample(
            at=time.time(),
            cpu=self.process.cpu(),
            waited=self.process.waited(),
            resident=self.process.resident(),
            reads=int(found.get("cos_operator_api_requests_total/read", 0)),
            writes=int(found.get("cos_operator_api_requests_total/write", 0)),
            runs=int(found.get("cos_operator_reconcile_total", 0)),
            run_seconds=found.get("cos_operator_reconcile_duration_seconds_sum", 0.0),
            depth=int(found["cos_operator_queue_depth"]),
        )

    async def _get(self, path: str) -> tuple[int, str]:
        timeout = aiohttp.ClientTimeout(total=20)
        async with aiohttp.ClientSession(timeout=timeout) as session, session.get(self._url + path) as answer:
            return answer.status, await answer.text()


def load() -> str:
    """The machine's load averages, for the reader to judge how much else ran."""
    return " ".join(f"{value:.1f}" for value in os.getloadavg())


async def resident_over(process: Measured, seconds: float, interval: float) -> list[tuple[float, float]]:
    """Samples (seconds, bytes) of a process's memory."""
    began = time.monotonic()
    points = []
    while (passed := time.monotonic() - began) < seconds:
        points.append((passed, float(process.resident())))
        await asyncio.sleep(interval)
    return points


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
