"""What every test shares."""

from __future__ import annotations

import gc
import sys
from pathlib import Path

import pytest
from hypothesis import settings

HERE = Path(__file__).parent

# Helpers that stand beside the tests that use them (tests are not a package).
sys.path.insert(0, str(HERE / "unit" / "core"))

# An example that takes long on a busy machine is no fault of what is tested.
settings.register_profile("cos", deadline=None)
settings.load_profile("cos")

# Hundreds of thousands of objects are there as soon as all is imported, and next to no test leaves garbage in cycles:
# Python's looking for it took a tenth of the time of these tests, more on a busy machine.
gc.set_threshold(50_000, 20, 20)

#: Coverage is measured of the core. Tests of what lies around it run untraced: it would cost time and add no line.
AROUND_THE_CORE = [HERE / "unit" / name for name in ("bench", "crash", "operator", "testbed")]
#: Likewise, and theirs are figures of a load that is made in time.
AROUND_THE_CORE += [HERE / "unit" / "probes" / f"test_probe_{name}.py" for name in ("load", "runner")]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if any(item.path.is_relative_to(folder) for folder in AROUND_THE_CORE):
            item.add_marker(pytest.mark.no_cover)
