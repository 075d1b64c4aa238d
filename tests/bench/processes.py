"""A process under measurement: its CPU time by thread, its memory, and its end."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

_TICKS = os.sysconf("SC_CLK_TCK")
_STOP_SECONDS = 45.0
_POLL = 0.1


@dataclass(frozen=True)
class Cpu:
    """CPU seconds, user and system together: of the thread that the process began with, and of all others."""

    first: float
    others: float

    @property
    def total(self) -> float:
        """Of the whole process."""
        return self.first + self.others

    def __sub__(self, earlier: Cpu) -> Cpu:
        return Cpu(self.first - earlier.first, self.others - earlier.others)


class Measured:
    """A child process: ``with Measured.start(command, environment, log) as process``."""

    def __init__(self, child: subprocess.Popen[bytes], log: Path) -> None:
        self._child = child
        self.log = log

    @classmethod
    def start(cls, command: list[str], environment: Mapping[str, str], log: Path) -> Self:
        """Start a command whose output goes to `log`. The rest of its environment is this process's."""
        with log.open("ab") as out:
            child = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                env={**os.environ, **environment},
            )
        return cls(child, log)

    @classmethod
    def python(cls, script: Path, *arguments: str, environment: Mapping[str, str], log: Path) -> Self:
        """Start a script by this interpreter."""
        return cls.start([sys.executable, str(script), *arguments], environment, log)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._child.poll() is None:
            self._child.terminate()
            try:
                self._child.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self._child.kill()
                self._child.wait()

    @property
    def pid(self) -> int:
        """For /proc and for profilers."""
        return self._child.pid

    def require_alive(self) -> None:
        """Raises RuntimeError, with the log's end, if the process has ended."""
        code = self._child.poll()
        if code is not None:
            tail = self.log.read_text(errors="replace")[-2000:]
            raise RuntimeError(f"process ended with code {code}; the end of {self.log}:\n{tail}")

    def cpu(self) -> Cpu:
        """CPU time so far."""
        first = _cpu_seconds(Path(f"/proc/{self.pid}/task/{self.pid}/stat"))
        return Cpu(first, _cpu_seconds(Path(f"/proc/{self.pid}/stat")) - first)

    def waited(self) -> float:
        """Seconds in which its threads could have run and no core was free: what else ran on the machine."""
        tasks = Path(f"/proc/{self.pid}/task").iterdir()
        return sum(int((task / "schedstat").read_text().split()[1]) for task in tasks) / 1e9

    def resident(self, field: str = "VmRSS") -> int:
        """Resident memory in bytes now; `VmHWM` for its highest value."""
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith(f"{field}:"):
                return int(line.split()[1]) * 1024
        raise RuntimeError(f"/proc tells no {field} of process {self.pid}")

    async def ended(self, seconds: float) -> int:
        """Wait for the process to end by itself; its exit code. Raises TimeoutError."""
        async with asyncio.timeout(seconds):
            while (code := self._child.poll()) is None:
                await asyncio.sleep(_POLL)
        return code

    async def stop(self) -> None:
        """SIGTERM, and wait for the end."""
        self._child.send_signal(signal.SIGTERM)
        await self.ended(_STOP_SECONDS)


def _cpu_seconds(stat: Path) -> float:
    fields = stat.read_text().rpartition(") ")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS
