"""Measurements of the operator: `python tests/bench/bench.py --help`. They take minutes and are no tests."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import report
import typer
from apply_ready import measure_pairs
from backup_cost import measure_backups
from bench_cluster import ROOT, BenchCluster, run_testbed
from probe_cost import measure_cost
from probe_delay import measure_delays
from probe_soak import measure_soak
from probe_throughput import measure_throughput
from scale import Run, Wish

from cos_testbed.progress import Progress

app = typer.Typer(
    help="Measure the operator on a testbed of its own; see docs/benchmarks.md.",
    add_completion=False,
    pretty_exceptions_enable=False,
)

Instance = Annotated[int, typer.Option(help="Index of the testbed to use. What it holds is deleted.")]
Results = Annotated[Path, typer.Option(help="JSON file that the figures are kept in, for `report`.")]
_INSTANCE = 6
_RESULTS = ROOT / ".bench" / "results.json"


@app.command()
def scale(
    *,
    sizes: Annotated[
        str, typer.Option(help="Numbers of six-service stacks, each on a new cluster.")
    ] = "10,100,1000",
    repeat: Annotated[int, typer.Option(min=1, help="Times to measure each size below 1000.")] = 1,
    steady: Annotated[float, typer.Option(help="Seconds to watch the steady state.")] = 180,
    edits: Annotated[int, typer.Option(help="Single edits in steady state.")] = 200,
    edit_interval: Annotated[float, typer.Option(help="Seconds between two of them.")] = 0.4,
    restarts: Annotated[int, typer.Option(help="Cold restarts.")] = 2,
    churn: Annotated[int, typer.Option(help="Edits of the churn: as many as an hour would bring.")] = 1000,
    churn_rate: Annotated[float, typer.Option(help="Edits a second of the churn.")] = 10,
    floor: Annotated[bool, typer.Option(help="Measure the floor too.")] = True,
    instance: Instance = _INSTANCE,
    results: Results = _RESULTS,
) -> None:
    """Stacks on nodes of kwok: time, CPU, memory, API calls, latency, restart, churn."""
    folder = Path(tempfile.mkdtemp(prefix="cos-bench-"))
    progress = Progress()
    progress.info(f"logs are in {folder}")
    cluster = BenchCluster(instance)
    try:
        for stacks in map(int, sizes.split(",")):
            for _ in range(repeat if stacks < 1000 else 1):
                wish = Wish(stacks, steady, edits, edit_interval, restarts, churn, churn_rate, floor)
                run = Run(cluster, wish, progress, folder)
                try:
                    asyncio.run(run.measure())
                finally:
                    # Also what was measured before a phase that failed.
                    _keep(results, "scale", run.figures)
    finally:
        run_testbed(instance, "clean")
    report.write(json.loads(results.read_text()))


@app.command()
def apply_ready(
    *,
    pairs: Annotated[int, typer.Option(min=1, help="Pairs of applies, one each way.")] = 12,
    instance: Instance = _INSTANCE,
    results: Results = _RESULTS,
) -> None:
    """From `kubectl apply` to Ready on real pods: a CosStack against its rendered children."""
    _measure("apply_ready", instance, results, lambda cluster, *to: measure_pairs(cluster, pairs, *to))


@app.command()
def probe_delay(
    *,
    rounds: Annotated[int, typer.Option(min=1, help="Times to measure each delay of each check.")] = 6,
    instance: Instance = _INSTANCE,
    results: Results = _RESULTS,
) -> None:
    """Whether probes tell a delay that is known: 0, 1, 2 and 5 ms before each engine, in turns."""
    _measure("probe_delay", instance, results, lambda cluster, *to: measure_delays(cluster, rounds, *to))


@app.command()
def probe_cost(
    *,
    rounds: Annotated[int, typer.Option(min=1, help="Times to measure with and without a probe.")] = 4,
    instance: Instance = _INSTANCE,
    results: Results = _RESULTS,
) -> None:
    """What probes cost a stack in CPU, and what an application notices of one."""
    _measure("probe_cost", instance, results, lambda cluster, *to: measure_cost(cluster, rounds, *to))


@app.command()
def probe_soak(
    *,
    runs: Annotated[int, typer.Option(min=1, help="Probes, one after the other.")] = 50,
    seconds: Annotated[int, typer.Option(min=1, max=60, help="Of load for each check.")] = 2,
    instance: Instance = _INSTANCE,
    results: Results = _RESULTS,
) -> None:
    """A healthy stack, probed again and again: wrong verdicts, and how many runs say nothing."""
    _measure("probe_soak", instance, results, lambda cluster, *to: measure_soak(cluster, runs, seconds, *to))


@app.command()
def probe_throughput(
    *,
    rounds: Annotated[int, typer.Option(min=1, help="Times to measure each.")] = 4,
    instance: Instance = _INSTANCE,
    results: Results = _RESULTS,
) -> None:
    """How much a saturating probe makes of an engine, beside redis-benchmark, pgbench and wrk."""
    _measure(
        "probe_throughput", instance, results, lambda cluster, *to: measure_throughput(cluster, rounds, *to)
    )


@app.command()
def backup(
    *,
    rounds: Annotated[int, typer.Option(min=1, help="Times to measure each.")] = 3,
    megabytes: Annotated[int, typer.Option(min=10, help="Of data in Redis.")] = 1000,
    instance: Instance = _INSTANCE,
    results: Results = _RESULTS,
) -> None:
    """What a backup and a restore take beside the same tools by hand, and what an application notices of one."""
    _measure(
        "backup", instance, results, lambda cluster, *to: measure_backups(cluster, rounds, megabytes, *to)
    )


@app.command(name="report")
def write_report(*, results: Results = _RESULTS) -> None:
    """Write the tables of docs/benchmarks.md anew from the figures that were kept."""
    report.write(json.loads(results.read_text()))


def _measure(
    kind: str,
    instance: int,
    results: Path,
    measure: Callable[[BenchCluster, Progress, Path], Coroutine[Any, Any, dict[str, Any]]],
) -> None:
    """Measure on a cluster of its own, keep the figures as those of `kind`, and write the tables."""
    folder = Path(tempfile.mkdtemp(prefix="cos-bench-"))
    progress = Progress()
    progress.info(f"logs are in {folder}")
    try:
        _keep(results, kind, asyncio.run(measure(BenchCluster(instance), progress, folder)))
    finally:
        run_testbed(instance, "clean")
    report.write(json.loads(results.read_text()))


def _keep(results: Path, kind: str, figures: dict[str, Any]) -> None:
    """Add figures to the file, with what is needed to tell them from others."""
    results.parent.mkdir(parents=True, exist_ok=True)
    found = json.loads(results.read_text()) if results.exists() else []
    made = {
        "kind": kind,
        "at": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "commit": _git("describe", "--always", "--dirty"),
        "python": sys.version.split()[0],
        "command": " ".join(["python", "tests/bench/bench.py", *sys.argv[1:]]),
    }
    results.write_text(json.dumps([*found, {**made, **figures}], indent=1))


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=ROOT, check=False, capture_output=True, text=True)
    return done.stdout.strip() or "unknown"


if __name__ == "__main__":
    app()
