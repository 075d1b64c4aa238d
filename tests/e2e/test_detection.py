"""A killed, hung or read-only engine is told of. `make detection` measures how soon: 20 of each fault of each engine.

It goes on where it was: each measurement is a line of a file.
"""

from __future__ import annotations

import json
import os
import statistics
from pathlib import Path

import pytest
from applications import COMPONENTS
from faults import Fault, detect, faults
from harness import ROOT, Cluster

from conftest import NAMESPACE

#: How often each fault is measured; unset: once, of engines that are soon there again.
ROUNDS = int(os.environ.get("COS_DETECTION_ROUNDS") or 0)
RECORD = ROOT / ".bench" / "detection.jsonl"
#: Seconds of the issue's bar, for 95 % of the measurements.
BAR_SECONDS = 6.0
SOON_THERE = ("postgres-dev", "redis", "traefik")
ENGINES = {name: name.partition("-")[0] for name in (COMPONENTS if ROUNDS else SOON_THERE)}
REASONS = {
    "kill": {"Starting", "CrashLooping", "NotAnswering"},
    "hang": {"Starting", "NotAnswering"},
    "read-only": {"Starting", "ReadOnly"},
}


@pytest.mark.parametrize("fault", faults(ENGINES), ids=str)
def test_what_is_wrong_with_an_engine_is_told(
    healthy: Cluster, fault: Fault, capsys: pytest.CaptureFixture[str]
) -> None:
    if not ROUNDS:
        assert detect(healthy, NAMESPACE, "cos", fault).reason in REASONS[fault.kind]
        return
    while len(measured := recorded(RECORD, fault)) < ROUNDS:
        found = detect(healthy, NAMESPACE, "cos", fault)
        assert found.reason in REASONS[fault.kind]
        RECORD.parent.mkdir(exist_ok=True)
        with RECORD.open("a") as file:
            file.write(json.dumps({"fault": str(fault), "seconds": found.seconds}) + "\n")
    p95 = statistics.quantiles(measured, n=20, method="inclusive")[-1]
    with capsys.disabled():
        print(  # noqa: T201 - a figure that whoever measures is to see
            f"\n{fault!s:24} n={len(measured)} p50 {statistics.median(measured):.2f} p95 {p95:.2f} "
            f"max {max(measured):.2f} s"
        )
    assert p95 < BAR_SECONDS


def recorded(path: Path, fault: Fault) -> list[float]:
    """Seconds of the measurements of a fault so far."""
    lines = path.read_text().splitlines() if path.exists() else []
    return [item["seconds"] for item in map(json.loads, lines) if item["fault"] == str(fault)]
