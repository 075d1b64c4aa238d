"""Daemons that outlive the command: started in a session of their own, known by pid files with identity.

A daemon writes its pid file itself before it executes its program, so an interruption of `up` at any point
leaves no daemon unknown. The file holds the boot id and the process's start time: a pid that another process
has since taken, or one from before a reboot, is never trusted nor signalled.
"""

from __future__ import annotations

import hashlib
import os
import shlex
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from cos_testbed.cgroups import Hierarchies
from cos_testbed.errors import TestbedError
from cos_testbed.instance import Instance

# As many as Elasticsearch asks for; where root may not raise its limit, as many as it may have.
OPEN_FILES = 65536
LOG_LIMIT_BYTES = 20 * 1024 * 1024
PIDFILE_TIMEOUT_SECONDS = 10.0
CLOCK_TICKS = os.sysconf("SC_CLK_TCK")

_WRAPPER = """
ulimit -n "$1" 2>/dev/null || ulimit -n "$(ulimit -Hn)" || exit 126
echo $$ > "$2" || exit 126
read -r boot < /proc/sys/kernel/random/boot_id && read -r stat < /proc/$$/stat || exit 126
printf '%s\\n%s\\n%s\\n' "$boot" "$stat" "$4" > "$3.tmp" && mv "$3.tmp" "$3" || exit 126
shift 4
exec "$@"
"""


@dataclass(frozen=True)
class Daemon:
    """A long-running program of the testbed.

    `inputs` are files that it reads at start only: when they or `argv` change, `ensure` restarts it.
    """

    name: str
    argv: tuple[str, ...]
    netns: Path | None = None
    inputs: tuple[Path, ...] = ()
    environment: tuple[tuple[str, str], ...] = ()
    stop_seconds: float = 10.0

    @property
    def command(self) -> list[str]:
        """The argument vector, with the way into the namespace."""
        enter = ["nsenter", f"--net={self.netns}"] if self.netns else []
        return [*enter, *self.argv]

    @property
    def fingerprint(self) -> str:
        """Changes when a running daemon must be restarted."""
        digest = hashlib.sha256("\0".join([*self.command, *map("=".join, self.environment)]).encode())
        for path in self.inputs:
            digest.update(path.read_bytes())
        return digest.hexdigest()[:16]


@dataclass(frozen=True)
class ProcessId:
    """A process, unmistakably: `start` is its start in clock ticks after the boot named `boot`."""

    pid: int
    start: int
    boot: str
    fingerprint: str = ""


def parse_stat(stat: str) -> tuple[int, str, int]:
    """(pid, state letter, start time in clock ticks) of a line of /proc/PID/stat.

    The program's name, in parentheses, may itself hold spaces and parentheses.
    """
    pid, _, rest = stat.partition(" (")
    fields = rest.rpartition(") ")[2].split()
    return int(pid), fields[0], int(fields[19])


def parse_pidfile(text: str) -> ProcessId | None:
    """None for a file that is not complete."""
    lines = text.splitlines()
    try:
        boot, stat, fingerprint = lines
        pid, _, start = parse_stat(stat)
    except (ValueError, IndexError):
        return None
    return ProcessId(pid, start, boot, fingerprint)


class Supervisor:
    """Starts, finds and stops the daemons of one instance."""

    def __init__(self, instance: Instance) -> None:
        self.instance = instance
        self.pids = instance.run / "pid"
        self.hierarchies = Hierarchies.of_host()

    def find(self, name: str) -> ProcessId | None:
        """The running daemon of that name."""
        try:
            known = parse_pidfile((self.pids / name).read_text())
        except FileNotFoundError:
            return None
        return known if known and is_alive(known) else None

    def names(self) -> list[str]:
        """Every daemon that has a pid file."""
        return sorted(path.name for path in self.pids.glob("*") if path.suffix != ".tmp")

    def log(self, name: str) -> Path:
        """A daemon's log file."""
        return self.instance.logs / f"{name}.log"

    def ensure(self, daemon: Daemon) -> bool:
        """Start the daemon unless it runs as it should; True if it was started."""
        running = self.find(daemon.name)
        fingerprint = daemon.fingerprint
        if running and running.fingerprint == fingerprint:
            return False
        if running:
            self.stop(daemon.name, daemon.stop_seconds)
        self._start(daemon, fingerprint)
        return True

    def _start(self, daemon: Daemon, fingerprint: str) -> None:
        self.pids.mkdir(parents=True, exist_ok=True)
        pidfile = self.pids / daemon.name
        pidfile.unlink(missing_ok=True)
        log = self.log(daemon.name)
        log.parent.mkdir(parents=True, exist_ok=True)
        if log.exists() and log.stat().st_size > LOG_LIMIT_BYTES:
            log.rename(log.with_suffix(".log.1"))
        procs = self.hierarchies.procs_file(f"{self.instance.cgroup}/daemons/{daemon.name}")
        shell = ["/bin/sh", "-c", _WRAPPER, "sh", str(OPEN_FILES), str(procs), str(pidfile), fingerprint]
        with log.open("ab") as out:
            out.write(f"$ {shlex.join(daemon.command)}\n".encode())
            out.flush()
            child = subprocess.Popen(
                [*shell, *daemon.command],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                cwd="/",
                env={
                    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
                    **dict(daemon.environment),
                },
                start_new_session=True,
            )
        deadline = time.monotonic() + PIDFILE_TIMEOUT_SECONDS
        while self.find(daemon.name) is None:
            if child.poll() is not None or time.monotonic() > deadline:
                raise TestbedError(f"{daemon.name} did not start", log=log)
            time.sleep(0.01)

    def wait(self, daemon: str, ready: Callable[[], bool], timeout: float, interval: float = 0.1) -> None:
        """Poll `ready` until it holds; raises TestbedError when the daemon dies or the time is over."""
        deadline = time.monotonic() + timeout
        while not ready():
            if self.find(daemon) is None:
                raise TestbedError(f"{daemon} ended before it was ready", log=self.log(daemon))
            if time.monotonic() > deadline:
                raise TestbedError(f"{daemon} was not ready within {timeout:.0f} s", log=self.log(daemon))
            time.sleep(interval)

    def stop(self, name: str, patience: float = 10.0) -> None:
        """SIGTERM, then SIGKILL after `patience` seconds. Does nothing if the daemon does not run."""
        running = self.find(name)
        if running is not None:
            terminate(running, patience)
        (self.pids / name).unlink(missing_ok=True)

    def stop_all(self, names: Sequence[str]) -> None:
        """Stop daemons one after the other."""
        for name in names:
            self.stop(name)


def is_alive(process: ProcessId) -> bool:
    """Whether that very process runs still; a zombie does not."""
    if process.boot != boot_id():
        return False
    try:
        _, state, start = parse_stat(Path(f"/proc/{process.pid}/stat").read_text())
    except (FileNotFoundError, ProcessLookupError):
        return False
    return start == process.start and state not in ("Z", "X")


def terminate(process: ProcessId, patience: float) -> None:
    """End a process, gently for `patience` seconds; raises TestbedError if even SIGKILL does not help."""
    for number, seconds in ((signal.SIGTERM, patience), (signal.SIGKILL, 10.0)):
        try:
            handle = os.pidfd_open(process.pid)
        except ProcessLookupError:
            return
        try:
            if not is_alive(process):
                return
            signal.pidfd_send_signal(handle, number)
        except ProcessLookupError:
            return
        finally:
            os.close(handle)
        deadline = time.monotonic() + seconds
        while is_alive(process):
            if time.monotonic() > deadline:
                break
            time.sleep(0.02)
        else:
            return
    raise TestbedError(f"process {process.pid} does not end, not even by SIGKILL")


def uptime_seconds(process: ProcessId) -> float:
    """Seconds since the process started."""
    return float(Path("/proc/uptime").read_text().split()[0]) - process.start / CLOCK_TICKS


def boot_id() -> str:
    """The kernel's name of the present boot."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
