"""A healthy stack, probed again and again: every verdict that is not a good one is wrong."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path
from typing import Any

from bench_cluster import BenchCluster
from probed_stack import NAME, ProbedStack, probed_stack
from subject import load

from cos_testbed.progress import Progress


async def measure_soak(
    cluster: BenchCluster, runs: int, seconds: int, progress: Progress, folder: Path
) -> dict[str, Any]:
    """How each probe and each of its checks ended, and what objectives said after it."""
    figures: dict[str, Any] = {
        "load_before": load(),
        "runs": [],
        "seconds": seconds,
        "checks": Counter(),
        "verdicts": Counter(),
        "messages": [],
    }
    async with probed_stack(cluster, progress, folder) as stack:
        cluster.kubectl("patch", "cosstack", NAME, "--type=merge", "-p", '{"spec":{"slo":{}}}')
        # Its figures are those of engines that have just started.
        await asyncio.to_thread(_run, stack, "warm", seconds)
        await asyncio.to_thread(cluster.kubectl, "delete", "stackprobe", "warm")
        with progress.step(f"{runs} probes") as step:
            for number in range(runs):
                await asyncio.to_thread(_measure, stack, f"run-{number}", seconds, figures)
                step.note(f"{number + 1}: {dict(Counter(figures['runs']))}")
    figures["load_after"] = load()
    return figures


def _run(stack: ProbedStack, name: str, seconds: int) -> dict[str, Any]:
    stack.start_probe(name, secondsPerCheck=seconds)
    return stack.ended_probe(name)


def _measure(stack: ProbedStack, name: str, seconds: int, figures: dict[str, Any]) -> None:
    status = _run(stack, name, seconds)
    figures["runs"].append(status["phase"])
    for row in status["checks"]:
        figures["checks"][row["phase"]] += 1
        if row.get("message"):
            figures["messages"].append(f"{name} {row['name']} {row['phase']}: {row['message']}")
    for row in stack.get("cosstack", NAME)["status"].get("objectives", []):
        figures["verdicts"][row["verdict"]] += 1
        if row["verdict"] != "Passed":
            figures["messages"].append(f"{name} objective {row['name']} {row['verdict']}: {row['message']}")
