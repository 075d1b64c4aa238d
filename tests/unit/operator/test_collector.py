"""The garbage collector of a running operator."""

from __future__ import annotations

import gc
import subprocess
import sys

PROGRAM = """
import gc, weakref
import cos_operator.operator
from cos_operator import collector

class Cycle:
    pass

before = len(gc.get_objects())
collector.calm()
one = Cycle()
one.self, gone = one, weakref.ref(one)
del one
gc.collect()
assert gone() is None, "later garbage is still collected"
print(before, len(gc.get_objects()), gc.get_freeze_count(), gc.isenabled())
"""


def test_what_was_imported_is_not_looked_at_again() -> None:
    """In a process of its own, since it holds for all of a process."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], check=True, capture_output=True, text=True, timeout=60
    )
    before, after, frozen, enabled = done.stdout.split()
    assert int(before) > 50_000
    assert int(after) < int(before) / 100
    assert int(frozen) > 50_000
    assert enabled == "True"
    assert gc.get_freeze_count() == 0, "this process is not changed"
