"""As many crash points as fit into the time, chosen by a seed. All of them: `make crash`."""

from __future__ import annotations

import asyncio
import os
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from cos_crash import testbed
from cos_crash.campaign import LANES, Campaign, copy_of_tested
from cos_crash.faults import KILLS
from cos_crash.lifecycles import LIFE_CYCLES
from cos_crash.points import Points

from cos_testbed.instance import Instance

#: Seconds for all of it; some more go by until everything has ended. Nearly five minutes are for the start of the
#: testbed and for the runs without a fault.
SECONDS = float(os.environ.get("COS_CRASH_SECONDS") or 450)
SEED = int(os.environ.get("COS_CRASH_SEED") or 1)
#: The most that may be asked for: `make test` is to stay within bounds.
LIMIT = 840.0
#: Seconds that a fault may cost; a silent watch is noticed after 70.
PATIENCE = 90.0


@pytest.fixture
def deadline() -> float:
    """On the monotonic clock."""
    assert SECONDS <= LIMIT, f"COS_CRASH_SECONDS is at most {LIMIT:g}"
    return time.monotonic() + SECONDS


@pytest.fixture
def instance(deadline: float) -> Iterator[Instance]:
    """The testbed, whose start counts too."""
    assert deadline
    yield testbed.start(testbed.INSTANCE)
    testbed.clean(testbed.INSTANCE)


def test_a_sample_of_crash_points_ends_as_without_a_crash(
    deadline: float, instance: Instance, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    points = Points(SEED)
    campaign = Campaign(
        instance, points, tmp_path, copy_of_tested(tmp_path), LANES, lambda _: None, deadline, PATIENCE
    )
    asyncio.run(campaign.run())
    reached = [result.case for result in campaign.results if not result.unreached]
    tried = Counter(case.cycle for case in reached)
    with capsys.disabled():
        print(  # noqa: T201 - a figure that whoever runs the tests is to see
            f"\ncrash safety: {len(reached)} of {len(points.all)} points tried with seed {SEED}: {dict(tried)}"
        )
    failed = {str(result.case): result.problems for result in campaign.results if not result.ok}
    assert not failed, f"try one alone by `python tests/crash --case ID`; reports are in {tmp_path}"
    kills = {(case.cycle, case.faults[0].kind) for case in reached if len(case.faults) == 1}
    assert kills == {(cycle.name, kind) for cycle in LIFE_CYCLES for kind in KILLS}, (
        f"{SECONDS:g} s were not enough for a crash before and after a write of every life cycle"
    )
