"""Python's garbage collector, set up for a process that answers within milliseconds."""

from __future__ import annotations

import gc

#: New objects, less those that have gone, until the young ones are looked at; how many such looks until the next
#: generation's, and how many of those until all objects are, which is what takes long. What ends without a cycle,
#: which is nearly all, is freed at once as ever.
_THRESHOLDS = (10_000, 10, 50)


def calm() -> None:
    """Keep the collector away from what lives as long as the process: everything that has been imported.

    Without this it looked at half a million objects every few seconds, which held up whatever came then for 0.1 s.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_THRESHOLDS)
