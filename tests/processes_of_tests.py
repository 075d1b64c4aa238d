"""Programs that tests start beside what they test."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

_STOP_SECONDS = 10


@contextmanager
def ending(process: subprocess.Popen[bytes]) -> Iterator[None]:
    """Let it run until the block ends: then it is told to end, and killed if it does not."""
    try:
        yield
    finally:
        process.terminate()
        try:
            process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
