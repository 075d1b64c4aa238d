"""A loop whose clock jumps to the next timer: minutes of waiting are tested in milliseconds, without races."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import pytest

T = TypeVar("T")


class _JumpingSelector(selectors.DefaultSelector):
    """Reports I/O that is ready now; with none, moves the clock on instead of sleeping."""

    now = 1000.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        events = super().select(0)
        if events or timeout == 0:
            return events
        if timeout is None:
            raise RuntimeError("the test waits for something that never comes")
        self.now += max(timeout, 0.0)
        return events


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """Event loop in virtual time; `loop.time` is the clock to inject."""

    def __init__(self) -> None:
        self._jumping = _JumpingSelector()
        super().__init__(self._jumping)

    def time(self) -> float:
        """Virtual seconds."""
        return self._jumping.now


@pytest.fixture
def virtual_time() -> Callable[[Callable[[], Coroutine[Any, Any, T]]], T]:
    """Runs a coroutine function in virtual time and returns its result."""

    def run(main: Callable[[], Coroutine[Any, Any, T]]) -> T:
        with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
            return runner.run(main())

    return run
