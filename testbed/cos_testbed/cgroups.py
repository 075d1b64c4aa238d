"""The testbed's subtree in every cgroup hierarchy (v1, v2): who is in it is ours.

Membership is kept by the kernel, so it also names the processes of an `up` that was interrupted.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import time
from collections.abc import Iterator
from pathlib import Path

from cos_testbed.errors import TestbedError

V2_CONTROLLERS = ("cpu", "cpuset", "io", "memory", "pids", "hugetlb")
NEEDED_CONTROLLERS = ("cpu", "cpuset", "memory", "pids")
#: Eight times the default, v1 and v2: by default all pods together get as much CPU as any one process of the machine,
#: and an engine starves while something is compiled.
_WEIGHTS = {"cpu.shares": "8192", "cpu.weight": "800"}
KILL_TIMEOUT_SECONDS = 20.0


class Hierarchies:
    """The mounted cgroup hierarchies.

    `v1` maps a controller (or `name=…`) to its mount point, `v2` is the unified mount point if it has the
    controllers. Exactly one of them is in use: a hybrid machine counts as v1. `every` are all mount points,
    for runc makes a container's cgroup also in a hybrid machine's unified one.
    """

    def __init__(self, mountinfo: str, *, v2_controllers: str | None = None) -> None:
        self.v1: dict[str, Path] = {}
        self.v2: Path | None = None
        self.every: list[Path] = []
        for line in mountinfo.splitlines():
            fields, _, rest = line.partition(" - ")
            target = Path(unescape_mount(fields.split()[4]))
            fs, _, options = [*rest.split(), "", "", ""][:3]
            if fs in ("cgroup", "cgroup2") and target not in self.every:
                self.every.append(target)
            if fs == "cgroup":
                for option in options.split(","):
                    if option in ("rw", "xattr", "clone_children") or "release_agent" in option:
                        continue
                    self.v1[option] = target
            elif fs == "cgroup2":
                self.v2 = target
        if "memory" in self.v1:
            self.v2 = None
        elif self.v2 is not None:
            have = v2_controllers
            if have is None:
                have = (self.v2 / "cgroup.controllers").read_text()
            self.controllers = have.split()
        else:
            self.controllers = []

    @classmethod
    def of_host(cls) -> Hierarchies:
        """Those that this process sees."""
        return cls(Path("/proc/self/mountinfo").read_text())

    def missing(self) -> list[str]:
        """Controllers that kubelet needs and the machine does not offer."""
        offered = self.controllers if self.v2 else list(self.v1)
        return [name for name in NEEDED_CONTROLLERS if name not in offered]

    def mounts(self) -> list[Path]:
        """Mount points of the hierarchies in use."""
        return [self.v2] if self.v2 else sorted(set(self.v1.values()))

    @property
    def membership(self) -> Path:
        """The hierarchy whose cgroups tell which processes are ours. In v1 one without limits: `pids`."""
        return self.v2 or self.v1["pids"]

    def create(self, path: str) -> None:
        """Make a cgroup in every hierarchy, able to hold kubelet's limits."""
        for mount in self.mounts():
            current = mount
            for part in path.strip("/").split("/"):
                if self.v2:
                    _enable_controllers(current)
                child = current / part
                child.mkdir(exist_ok=True)
                for name in ("cpuset.cpus", "cpuset.mems"):
                    # A v1 cpuset starts empty and then accepts no process.
                    if not self.v2 and (child / name).is_file() and not (child / name).read_text().strip():
                        (child / name).write_text((current / name).read_text())
                for name, weight in _WEIGHTS.items():
                    if (child / name).is_file():
                        (child / name).write_text(weight)
                current = child
            if self.v2:
                _enable_controllers(current)

    def procs_file(self, path: str) -> Path:
        """Where a process writes its id to join; makes the cgroup in the membership hierarchy."""
        group = self.membership / path.strip("/")
        group.mkdir(parents=True, exist_ok=True)
        return group / "cgroup.procs"

    def processes(self, path: str) -> set[int]:
        """Ids of all processes in a cgroup and below it."""
        found: set[int] = set()
        for group in _tree(self.membership / path.strip("/")):
            with contextlib.suppress(OSError):
                found.update(map(int, (group / "cgroup.procs").read_text().split()))
        return found

    def signal_all(self, path: str, number: signal.Signals) -> int:
        """Signal every process in a cgroup and below; returns how many there were."""
        members = self.processes(path)
        for pid in members:
            with contextlib.suppress(ProcessLookupError):
                handle = os.pidfd_open(pid)
                try:
                    # The id may have been reused since it was read; the handle cannot be.
                    if pid in self.processes(path):
                        signal.pidfd_send_signal(handle, number)
                finally:
                    os.close(handle)
        return len(members)

    def kill_all(self, path: str, timeout: float = KILL_TIMEOUT_SECONDS) -> None:
        """SIGKILL everything in a cgroup and below until nothing is left."""
        deadline = time.monotonic() + timeout
        while self.signal_all(path, signal.SIGKILL):
            self._thaw(path)
            if time.monotonic() > deadline:
                left = sorted(self.processes(path))
                raise TestbedError(f"processes {left} in cgroup {path} did not die within {timeout:.0f} s")
            time.sleep(0.05)

    def remove(self, path: str, timeout: float = KILL_TIMEOUT_SECONDS) -> None:
        """Remove an empty cgroup and all below it, in every hierarchy, and parents that hold nothing else."""
        deadline = time.monotonic() + timeout
        for mount in self.every:
            root = mount / path.strip("/")
            for group in reversed(list(_tree(root))):
                while True:
                    try:
                        group.rmdir()
                        break
                    except FileNotFoundError:
                        break
                    except OSError as error:
                        # The kernel empties a cgroup a moment after its last process is gone.
                        if time.monotonic() > deadline:
                            raise TestbedError(f"cannot remove cgroup {group}: {error.strerror}") from error
                        time.sleep(0.05)
            with contextlib.suppress(OSError):
                root.parent.rmdir()

    def _thaw(self, path: str) -> None:
        """A frozen process does not die before it is thawed (v1)."""
        freezer = self.v1.get("freezer")
        if freezer is None:
            return
        for group in _tree(freezer / path.strip("/")):
            with contextlib.suppress(OSError):
                (group / "freezer.state").write_text("THAWED")


def _enable_controllers(group: Path) -> None:
    have = (group / "cgroup.controllers").read_text().split()
    enabled = (group / "cgroup.subtree_control").read_text().split()
    for name in V2_CONTROLLERS:
        if name in have and name not in enabled:
            (group / "cgroup.subtree_control").write_text(f"+{name}")


def _tree(root: Path) -> Iterator[Path]:
    """A cgroup and all below it, parents first; empty if it does not exist."""
    if root.is_dir():
        yield root
        with contextlib.suppress(OSError):
            for child in sorted(root.iterdir()):
                if child.is_dir():
                    yield from _tree(child)


def unescape_mount(path: str) -> str:
    """Undo the octal escapes of /proc/self/mountinfo."""
    return re.sub(r"\\([0-7]{3})", lambda m: chr(int(m[1], 8)), path)
