"""Locks between processes on files; the kernel frees a lock when its holder dies."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from cos_testbed.errors import TestbedError

POLL_SECONDS = 0.1


@contextmanager
def exclusive(path: Path, *, timeout: float, on_wait: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Hold the lock `path`, made if absent; its holder may delete it.

    `on_wait` is called once if somebody else holds it. Raises TestbedError after `timeout` seconds.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + timeout
    waiting = False
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_file_at(handle, path):
                break
        except BlockingIOError:
            if time.monotonic() > deadline:
                os.close(handle)
                raise TestbedError(f"another command has held {path} for {timeout:.0f} s") from None
            if not waiting:
                waiting = True
                on_wait()
        os.close(handle)
        time.sleep(POLL_SECONDS)
    try:
        yield
    finally:
        os.close(handle)


def _is_file_at(handle: int, path: Path) -> bool:
    """False when the former holder deleted the file while we waited for it."""
    try:
        return os.path.samestat(os.fstat(handle), path.stat())
    except FileNotFoundError:
        return False
