"""The operator as it ships, in a process of its own, except that every engine is taken to serve.

No engine runs in a pod of kwok, so a protocol check could only fail. With $COS_BENCH_RECORD, the path of a file, the
writes of the operator are recorded there: one JSON object a line.
"""

from __future__ import annotations

import asyncio
import json
import os
from importlib.metadata import version
from pathlib import Path
from typing import Any, TextIO

from cos_controllers.observation import CheckResult, CheckTarget, Facts, Outcome, Usage
from cos_operator import collector, logs, metrics
from cos_operator.engines.registry import CLIENTS
from cos_operator.kube import Kube
from cos_operator.operator import Operator
from cos_operator.settings import OperatorSettings


class Serving:
    """Client of any engine: it serves, and knows its accounts."""

    async def check(self, _: CheckTarget) -> CheckResult:
        return CheckResult(Outcome.SERVING)

    async def examine(self, target: CheckTarget) -> Facts:
        """All is as expected, and nearly nothing is taken."""
        return Facts(
            serving="",
            troubles=(),
            configuration=target.expected.configuration,
            connections=Usage(1, 100),
            storage=Usage(1, 100),
            routes={route.name: "" for route in target.expected.routes},
        )

    async def provision(self, _: CheckTarget) -> None:
        return

    async def tidy(self, _: CheckTarget) -> None:
        return


class RecordingKube(Kube):
    """Notes each write before it is sent. Its cost (about 0.1 ms a write) is counted as the operator's."""

    record: TextIO | None = None

    async def _write(self, request: Any, http: Any) -> dict[str, Any]:
        if self.record:
            fields = {
                "method": http.method,
                "path": http.path,
                "query": http.query,
                "content_type": http.content_type,
                "body": http.body,
            }
            self.record.write(json.dumps(fields) + "\n")
        return await super()._write(request, http)


async def run() -> None:
    """As `cos_operator.operator.run`."""
    settings = OperatorSettings.load()
    logs.configure(settings.log_level, settings.log_format)
    collector.calm()
    metrics.register_process(version("cos-operator"))
    path = os.environ.get("COS_BENCH_RECORD")
    async with (
        RecordingKube.connect(settings.kubeconfig) as kube,
        Kube.connect(settings.kubeconfig) as lease_kube,
    ):
        # Line by line, so that its length tells at any time what has been sent.
        kube.record = Path(path).open("w", buffering=1, encoding="utf-8") if path else None  # noqa: SIM115
        try:
            await Operator(settings, kube, lease_kube, {engine: Serving() for engine in CLIENTS}).run()
        finally:
            if kube.record:
                kube.record.close()


if __name__ == "__main__":
    asyncio.run(run())
