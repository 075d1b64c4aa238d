"""Progress with elapsed time: live lines on a terminal, plain lines elsewhere. Written to stderr."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

from rich.console import Console
from rich.progress import Progress as RichProgress
from rich.progress import SpinnerColumn, TextColumn, TimeElapsedColumn

HEARTBEAT_SECONDS = 30.0


class Step:
    """A running step; `note` adds a word to the line that reports its end."""

    def __init__(self, title: str) -> None:
        self.title = title
        self.started = time.monotonic()
        self.remark = ""

    def note(self, remark: str) -> None:
        """Say more in the line that reports the end."""
        self.remark = remark

    @property
    def elapsed(self) -> float:
        """Seconds since the step began."""
        return time.monotonic() - self.started

    def report(self, state: str) -> str:
        """The line that reports the end."""
        remark = f" ({self.remark})" if self.remark else ""
        return f"{self.title}: {state} in {self.elapsed:.1f} s{remark}"


class Progress:
    """Reports named steps; steps may nest and may run in several threads at once.

    On a terminal every running step is a line with a spinner and its elapsed time. Elsewhere a step prints a
    line when it begins, one every `heartbeat` seconds while it runs, and one when it ends.
    """

    def __init__(
        self, stream: TextIO | None = None, *, quiet: bool = False, heartbeat: float = HEARTBEAT_SECONDS
    ) -> None:
        self._stream = stream or sys.stderr
        self._quiet = quiet
        self._heartbeat = heartbeat
        self._started = time.monotonic()
        self._lock = threading.Lock()
        self._console = Console(file=self._stream, highlight=False)
        self._live: RichProgress | None = None
        self._running = 0

    def info(self, text: str) -> None:
        """One line, with the seconds since the command began."""
        if self._quiet:
            return
        line = f"[{time.monotonic() - self._started:6.1f}s] {text}"
        with self._lock:
            if self._console.is_terminal:
                self._console.print(line, markup=False)
            else:
                print(line, file=self._stream, flush=True)

    @contextmanager
    def step(self, title: str) -> Iterator[Step]:
        """Times a block; reports its end, or its failure, and lets the exception through."""
        step = Step(title)
        with self._spinner(title) if self._console.is_terminal else self._beat(step):
            try:
                yield step
            except BaseException:
                self.info(step.report("FAILED"))
                raise
            self.info(step.report("done"))

    @contextmanager
    def _spinner(self, title: str) -> Iterator[None]:
        if self._quiet:
            yield
            return
        with self._lock:
            if self._live is None:
                columns = (
                    SpinnerColumn(),
                    TextColumn("{task.description}", markup=False),
                    TimeElapsedColumn(),
                )
                self._live = RichProgress(*columns, console=self._console, transient=True)
                self._live.start()
            self._running += 1
            live = self._live
            task = live.add_task(title, total=None)
        try:
            yield
        finally:
            with self._lock:
                live.remove_task(task)
                self._running -= 1
                if self._running == 0:
                    live.stop()
                    self._live = None

    @contextmanager
    def _beat(self, step: Step) -> Iterator[None]:
        self.info(f"{step.title} ...")
        over = threading.Event()

        def beat() -> None:
            while not over.wait(self._heartbeat):
                self.info(f"{step.title}: still running after {step.elapsed:.0f} s")

        thread = threading.Thread(target=beat, name="progress", daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()
