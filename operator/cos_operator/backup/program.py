"""Programs that work on repositories: run within a limit, heard line by line, ended with their pod."""

from __future__ import annotations

import math
import os
import re
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

#: Seconds for a program to end by itself once it is told to.
_GRACE_SECONDS = 4.0
#: What erases a line of a terminal.
_CONTROL = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
#: Characters of what a program said that are passed on.
_LONGEST = 800

#: Those that run, for who has to end them.
_RUNNING: set[subprocess.Popen[str]] = set()


class ToolError(Exception):
    """A program failed; the message is for a person and holds no secret. `code`: its exit code, None if it has none."""

    def __init__(self, message: str, code: int | None = None) -> None:
        super().__init__(message)
        self.code = code


class Program:
    """Calls of one program, all of them within `limit` seconds from now.

    `environment`: what it needs to know. `explain`: an exit code and what was said on standard error in words.
    """

    def __init__(
        self,
        program: str,
        environment: Mapping[str, str],
        limit: float,
        explain: Callable[[int, str], str],
    ) -> None:
        self._program = program
        self._name = Path(program).name
        self._environment = environment
        self._end = time.monotonic() + limit
        self._limit = limit
        self._explain = explain

    def call(
        self,
        options: Sequence[str],
        *arguments: str,
        hear: Callable[[str], None] = lambda _: None,
        within: float = math.inf,
    ) -> None:
        """Run it to its end, `hear` getting each line of standard output. Raises `ToolError`.

        `arguments`: after the `options`, the first one the command that messages speak of.
        """
        left = min(self._end - time.monotonic(), within)
        late_by = f"{within:g}" if left == within else f"{self._limit:g}"
        if left <= 0:
            raise ToolError(f"{self._name} {arguments[0]} was not begun within {late_by} s")
        with subprocess.Popen(  # noqa: S603 - arguments of our own, no shell
            [self._program, *options, *arguments],
            env={**os.environ, **self._environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
        ) as process:
            _RUNNING.add(process)
            late = threading.Event()
            timer = threading.Timer(left, _end, (process, late))
            timer.start()
            said: list[str] = []
            # Both pipes are read at once: a full one would keep it from going on.
            reader = threading.Thread(target=lambda: said.extend(process.stderr or ()), daemon=True)
            reader.start()
            try:
                for line in process.stdout or ():
                    hear(line)
                code = process.wait()
                reader.join(_GRACE_SECONDS)
            finally:
                _RUNNING.discard(process)
                timer.cancel()
                if process.poll() is None:
                    process.kill()
        if late.is_set():
            told = because(said)
            raise ToolError(f"{self._name} {arguments[0]} had not ended within {late_by} s{told}", code)
        if code:
            raise ToolError(self._explain(code, "".join(said)), code)


def end_all() -> None:
    """End every program that runs, and wait for it."""
    for process in list(_RUNNING):
        _terminate(process)


def because(said: Sequence[str]) -> str:
    """What a program said, in one printable line; its end, where the cause is."""
    text = " ".join(_CONTROL.sub("", " ".join(said)).split())
    printable = "".join(char if char.isascii() and char.isprintable() else "?" for char in text)
    return f": {printable[-_LONGEST:]}" if printable else ""


def _end(process: subprocess.Popen[str], late: threading.Event) -> None:
    late.set()
    _terminate(process)


def _terminate(process: subprocess.Popen[str]) -> None:
    process.terminate()
    try:
        process.wait(_GRACE_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
