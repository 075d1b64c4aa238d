"""The operator as a process that can be killed."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

#: Seconds for an operator to end when asked to: more than its own limits take together.
_STOP_LIMIT = 40.0
#: Seconds for all of the operator to be imported, on a machine that does much else.
_IMPORT_LIMIT = 240.0


class OperatorEnded(Exception):
    """The operator ended although nobody killed it."""


class Nursery:
    """Starts operators of the repository copy `source`, inside ``async with``; see `nursery.py`."""

    def __init__(self, source: Path) -> None:
        paths = (source / "operator", source / "controllers")
        self._environment = {**os.environ, "PYTHONPATH": ":".join(map(str, paths))}
        self._process: asyncio.subprocess.Process | None = None
        self._asking = asyncio.Lock()

    async def __aenter__(self) -> Self:
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            str(Path(__file__).with_name("nursery.py")),
            env=self._environment,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        if self._process and self._process.stdin:
            self._process.stdin.close()
            await self._process.wait()

    async def start(self, environment: Mapping[str, str], log: Path) -> int:
        """The process id of a new operator, which answers for its end by its pidfd alone."""
        if not (self._process and self._process.stdin and self._process.stdout):
            raise RuntimeError("not open: use `async with`")
        asked = {"environment": dict(environment), "log": str(log)}
        async with self._asking, asyncio.timeout(_IMPORT_LIMIT):
            self._process.stdin.write(json.dumps(asked).encode() + b"\n")
            return int(await self._process.stdout.readline())


class OperatorProcess:
    """One operator at a time, started as often as wanted. Its output is appended to `log`."""

    def __init__(self, nursery: Nursery, environment: Mapping[str, str], log: Path) -> None:
        self._nursery = nursery
        self._environment = environment
        self._log = log
        self._pidfd: int | None = None
        self._dead = asyncio.Event()
        self._dead.set()
        self._killed = True

    async def start(self) -> None:
        """Start it. Raises RuntimeError if one runs."""
        if not self._dead.is_set():
            raise RuntimeError("an operator runs already")
        self._pidfd = os.pidfd_open(await self._nursery.start(self._environment, self._log))
        self._killed = False
        self._dead.clear()
        asyncio.get_running_loop().add_reader(self._pidfd, self._ended)

    def kill(self, number: signal.Signals = signal.SIGKILL) -> None:
        """Send the signal, before this returns."""
        self._killed = True
        if self._pidfd is not None:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, number)

    async def dead(self) -> None:
        """Wait until it is gone."""
        await self._dead.wait()

    async def stop(self) -> None:
        """Ask it to end, and kill it if it does not."""
        self.kill(signal.SIGTERM)
        try:
            async with asyncio.timeout(_STOP_LIMIT):
                await self.dead()
        except TimeoutError:
            self.kill()
            await self.dead()

    def require_alive(self) -> None:
        """Raise `OperatorEnded` if it ended by itself."""
        if self._dead.is_set() and not self._killed:
            raise OperatorEnded("the operator ended by itself")

    def _ended(self) -> None:
        if self._pidfd is not None:
            asyncio.get_running_loop().remove_reader(self._pidfd)
            os.close(self._pidfd)
            self._pidfd = None
        self._dead.set()
