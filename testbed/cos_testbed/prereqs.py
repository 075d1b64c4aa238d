"""What the machine must have. Checked before anything is changed; what apt can install is installed."""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from cos_testbed.build import cache_dir, is_built, require_go
from cos_testbed.cgroups import Hierarchies
from cos_testbed.errors import PrerequisiteError
from cos_testbed.instance import STATE_ROOT
from cos_testbed.pins import GoModule
from cos_testbed.process import run
from cos_testbed.progress import Progress

GIB = 1024**3
MINIMUM_MEMORY_BYTES = 8 * GIB
# Go's caches take 16 GiB and the programs one.
DISK_TO_BUILD_BYTES = 20 * GIB
DISK_TO_RUN_BYTES = 5 * GIB
APT_TIMEOUT_SECONDS = 600.0

# Program → Debian package.
CONTROL_PLANE_TOOLS: Mapping[str, str] = {"ip": "iproute2", "nsenter": "util-linux"}
NODE_TOOLS: Mapping[str, str] = {
    **CONTROL_PLANE_TOOLS,
    "runc": "runc",
    "iptables": "iptables",
    "conntrack": "conntrack",
    "mount": "mount",
    "losetup": "mount",
    "mkfs.xfs": "xfsprogs",
    "buildah": "buildah",
    "catatonit": "catatonit",
    "busybox": "busybox-static",
}


def check_system(*, system: str, uid: int, memory_bytes: int) -> None:
    """Raises PrerequisiteError unless this is Linux, as root, with enough memory."""
    if system != "Linux":
        raise PrerequisiteError(f"the testbed runs on Linux, this is {system}")
    if uid != 0:
        raise PrerequisiteError("the testbed makes network namespaces and containers: run it as root (sudo)")
    if memory_bytes < MINIMUM_MEMORY_BYTES * 0.95:
        raise PrerequisiteError(
            f"the testbed needs {MINIMUM_MEMORY_BYTES // GIB} GiB of memory, this machine has "
            f"{memory_bytes / GIB:.1f}"
        )


def check_disk(*, path: Path, free_bytes: int, needed_bytes: int) -> None:
    """Raises PrerequisiteError if the file system of `path` has too little room."""
    if free_bytes < needed_bytes:
        raise PrerequisiteError(
            f"the testbed needs {needed_bytes // GIB} GiB free at {path}, there are {free_bytes / GIB:.1f}"
        )


def check(modules: Sequence[GoModule], tools: Mapping[str, str], *, containers: bool) -> None:
    """Everything that `up` needs of the machine; changes nothing.

    `containers` asks for what only nodes need: cgroup controllers and the overlay file system.
    """
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    check_system(system=platform.system(), uid=os.geteuid(), memory_bytes=memory)
    unbuilt = [module for module in modules if not is_built(module)]
    if unbuilt:
        require_go()
    for path, needed in (
        (cache_dir(), DISK_TO_BUILD_BYTES if unbuilt else 0),
        (STATE_ROOT, DISK_TO_RUN_BYTES),
    ):
        check_disk(path=path, free_bytes=_free_bytes(path), needed_bytes=needed)
    if containers:
        missing = Hierarchies.of_host().missing()
        if missing:
            raise PrerequisiteError(f"the kernel offers no cgroup controller {', '.join(missing)}")
        if "overlay" not in Path("/proc/filesystems").read_text().split():
            raise PrerequisiteError("the kernel has no overlay file system: try 'modprobe overlay'")
    absent = missing_packages(tools)
    if absent and shutil.which("apt-get") is None:
        raise PrerequisiteError(f"install these packages (Debian's names) first: {' '.join(absent)}")


def missing_packages(tools: Mapping[str, str]) -> list[str]:
    """Debian packages of the programs that are not in PATH."""
    return sorted({package for program, package in tools.items() if shutil.which(program) is None})


def install_tools(tools: Mapping[str, str], progress: Progress) -> None:
    """Install the Debian packages of absent programs."""
    packages = missing_packages(tools)
    if not packages:
        return
    log = cache_dir() / "log" / "apt.log"
    env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    apt = ["apt-get", "-q", "-y", "-o", "DPkg::Lock::Timeout=120"]
    with progress.step(f"Installing {' '.join(packages)}"):
        run([*apt, "update"], log=log, env=env, timeout=APT_TIMEOUT_SECONDS)
        install = [*apt, "install", "--no-install-recommends", *packages]
        run(install, log=log, env=env, timeout=APT_TIMEOUT_SECONDS)


def _free_bytes(path: Path) -> int:
    while not path.exists():
        path = path.parent
    return shutil.disk_usage(path).free
