"""Programs that tests need and Debian has packaged: unpacked into the cache, not installed.

An installed package would start its service and change the machine for others.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from cos_testbed import locks
from cos_testbed.build import cache_dir
from cos_testbed.errors import PrerequisiteError, TestbedError
from cos_testbed.process import output, run
from cos_testbed.progress import Progress

#: Program → the packages that hold it, in one Debian release or another.
PACKAGED = {"prometheus": ("prometheus",), "promtool": ("promtool", "prometheus"), "wrk": ("wrk",)}
#: Program → packages of libraries that it needs and that few machines have: unpacked beside it.
LIBRARIES = {"wrk": ("libluajit-5.1-2",)}
TIMEOUT_SECONDS = 600.0


def ensure_packaged(program: str, progress: Progress) -> Path:
    """The path of a program out of a Debian package, which is fetched first if it is not in the cache.

    Raises PrerequisiteError where apt has no such package, TestbedError if it cannot be fetched.
    """
    target = cache_dir() / "bin" / f"debian-{program}"
    found = target / "usr" / "bin" / program
    if found.is_file():
        return found
    target.parent.mkdir(parents=True, exist_ok=True)
    with (
        progress.step(f"Fetching Debian's {program}"),
        locks.exclusive(target.with_name(f"{target.name}.lock"), timeout=TIMEOUT_SECONDS),
    ):
        if not found.is_file():
            _fetch(program, target)
    return found


def _fetch(program: str, target: Path) -> None:
    log = cache_dir() / "log" / "apt.log"
    if shutil.which("apt-get") is None:
        raise PrerequisiteError(f"Debian's apt is needed to fetch {program}")
    # A new machine has no lists of packages, an old one such as name what the mirror no longer has.
    run(["apt-get", "-q", "update"], log=log, timeout=TIMEOUT_SECONDS)
    package = next(filter(_is_known, PACKAGED[program]), None)
    if package is None:
        raise PrerequisiteError(f"apt has no package {' or '.join(PACKAGED[program])}, which holds {program}")
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}-") as temporary:
        folder = Path(temporary)
        wanted = [package, *LIBRARIES.get(program, ())]
        run(["apt-get", "-q", "download", *wanted], log=log, cwd=folder, timeout=TIMEOUT_SECONDS)
        for archive in folder.glob("*.deb"):
            run(["dpkg-deb", "-x", str(archive), str(folder / "root")], log=log, timeout=TIMEOUT_SECONDS)
        if not (folder / "root" / "usr" / "bin" / program).is_file():
            raise TestbedError(f"Debian's package {package} does not hold {program}")
        shutil.rmtree(target, ignore_errors=True)
        (folder / "root").rename(target)


def _is_known(package: str) -> bool:
    """Whether apt can fetch the package."""
    return bool(output(["apt-cache", "show", package], check=False))
