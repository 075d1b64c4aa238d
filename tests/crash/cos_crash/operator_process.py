"""The operator as its image runs it, as a process that can be killed."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import Mapping
from pathlib import Path

#: Seconds for an operator to end when asked to: more than its own limits take together.
_STOP_LIMIT = 40.0


class OperatorEnded(Exception):
    """The operator ended although nobody killed it."""


class OperatorProcess:
    """One operator at a time, started as often as wanted. Its output is appended to `log`."""

    def __init__(self, environment: Mapping[str, str], log: Path) -> None:
        self._environment = {**os.environ, **environment}
        self._log = log
        self._process: asyncio.subprocess.Process | None = None
        self._killed = False

    async def start(self) -> None:
        """Start it. Raises RuntimeError if one runs."""
        if self._process is not None and self._process.returncode is None:
            raise RuntimeError("an operator runs already")
        # It must not outlive these tests, however they end.
        command = ("setpriv", "--pdeathsig=KILL", str(Path(sys.executable).parent / "cos-operator"), "run")
        self._killed = False
        with self._log.open("ab") as output:
            self._process = await asyncio.create_subprocess_exec(
                *command, env=self._environment, stdout=output, stderr=asyncio.subprocess.STDOUT
            )

    def kill(self) -> None:
        """Send SIGKILL, before this returns."""
        if self._process is not None:
            self._killed = True
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()

    async def dead(self) -> None:
        """Wait until the killed process is gone."""
        if self._process is not None:
            await self._process.wait()

    async def stop(self) -> None:
        """Ask it to end, and kill it if it does not."""
        if self._process is None or self._process.returncode is not None:
            return
        self._killed = True
        self._process.terminate()
        try:
            async with asyncio.timeout(_STOP_LIMIT):
                await self._process.wait()
        except TimeoutError:
            self._process.kill()
            await self._process.wait()

    def require_alive(self) -> None:
        """Raise `OperatorEnded` if it ended by itself."""
        if self._process is not None and self._process.returncode is not None and not self._killed:
            raise OperatorEnded(f"the operator ended by itself with code {self._process.returncode}")
