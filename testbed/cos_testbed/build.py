"""Builds the pinned Go programs, each once for the whole machine, into a cache shared between clones."""

from __future__ import annotations

import hashlib
import os
import platform
import re
import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path

from cos_testbed import locks
from cos_testbed.errors import PrerequisiteError, TestbedError
from cos_testbed.pins import GO_MINIMUM, PROGRAMS, GoModule
from cos_testbed.process import output, run
from cos_testbed.progress import Progress

BUILD_TIMEOUT_SECONDS = 3600.0
# Longer than any build of another process that we may have to wait for.
LOCK_TIMEOUT_SECONDS = 2 * BUILD_TIMEOUT_SECONDS
NICENESS = 5


def cache_dir() -> Path:
    """`$COS_TESTBED_CACHE`, else `$XDG_CACHE_HOME/cos-testbed`, else `~/.cache/cos-testbed`."""
    own = os.environ.get("COS_TESTBED_CACHE")
    if own:
        return Path(own)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "cos-testbed"


def bin_dir(module: GoModule) -> Path:
    """Where a module's programs are, or will be once built."""
    return cache_dir() / "bin" / f"{module.name}-{pin_hash(module)}"


def pin_hash(module: GoModule) -> str:
    """Changes with anything that the programs are made of, except the Go toolchain."""
    digest = hashlib.sha256()
    own = sorted(path.name for path in module.source.glob("*.go"))
    for name in ("go.mod", "go.sum", *own):
        digest.update((module.source / name).read_bytes())
    recipe = [platform.machine(), module.tags, module.ldflags, *sorted(module.programs.values())]
    digest.update("\0".join(recipe).encode())
    return digest.hexdigest()[:12]


def is_built(module: GoModule) -> bool:
    """Whether all of a module's programs are in the cache."""
    return all((bin_dir(module) / program).is_file() for program in module.programs)


def ensure_binary(name: str, progress: Progress | None = None) -> Path:
    """The path of a pinned program, which is built first if it is not in the cache.

    Raises TestbedError for an unknown name or a failed build, PrerequisiteError without a recent enough Go.
    """
    module = PROGRAMS.get(name)
    if module is None:
        raise TestbedError(f"no pinned program is named {name!r}; known: {', '.join(sorted(PROGRAMS))}")
    ensure_module(module, progress or Progress())
    return bin_dir(module) / name


def ensure_modules(modules: Iterable[GoModule], progress: Progress) -> None:
    """One after the other: a single `go build` uses every core already."""
    for module in modules:
        ensure_module(module, progress)


def ensure_module(module: GoModule, progress: Progress) -> None:
    """Build a module's programs unless they are in the cache; concurrent callers wait for the first."""
    if is_built(module):
        return
    require_go()
    target = bin_dir(module)
    target.parent.mkdir(parents=True, exist_ok=True)
    lock = target.with_name(f"{target.name}.lock")
    with (
        progress.step(f"Building {module.name} {module.version}") as step,
        locks.exclusive(lock, timeout=LOCK_TIMEOUT_SECONDS),
    ):
        if is_built(module):
            step.note("built by another process")
            return
        _build(module, target)


def _build(module: GoModule, target: Path) -> None:
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{module.name}-") as temporary:
        made = Path(temporary) / "bin"
        for program, package in module.programs.items():
            run(
                ["nice", "-n", str(NICENESS), *go_build_command(module, package, made / program)],
                log=cache_dir() / "log" / f"build-{module.name}.log",
                cwd=module.source,
                env=go_environment(os.environ),
                timeout=BUILD_TIMEOUT_SECONDS,
            )
        if target.exists():
            shutil.rmtree(target)
        made.rename(target)


def go_build_command(module: GoModule, package: str, to: Path) -> list[str]:
    """Explicit where a user's GOFLAGS could differ."""
    return [
        "go",
        "build",
        "-mod=readonly",
        "-trimpath",
        "-buildvcs=false",
        f"-tags={module.tags}",
        f"-ldflags={module.ldflags}",
        f"-o={to}",
        package,
    ]


def go_environment(base: os._Environ[str] | dict[str, str]) -> dict[str, str]:
    """The caller's environment, with what would change the result taken out."""
    kept = {
        name: value
        for name, value in base.items()
        if name not in ("GOFLAGS", "GOOS", "GOARCH", "GOEXPERIMENT")
    }
    return {**kept, "GOFLAGS": "", "GOWORK": "off", "CGO_ENABLED": "0"}


def require_go() -> None:
    """Raises PrerequisiteError unless a Go toolchain of at least GO_MINIMUM is in PATH."""
    wanted = ".".join(map(str, GO_MINIMUM))
    if shutil.which("go") is None:
        raise PrerequisiteError(f"Go {wanted} or newer is needed to build the testbed: no 'go' in PATH")
    reported = output(["go", "version"])
    if parse_go_version(reported) < GO_MINIMUM:
        raise PrerequisiteError(
            f"Go {wanted} or newer is needed to build the testbed, found: {reported.strip()}"
        )


def parse_go_version(reported: str) -> tuple[int, int]:
    """(major, minor) of a `go version` line; (0, 0) if it has none."""
    found = re.search(r"\bgo(\d+)\.(\d+)", reported)
    return (int(found[1]), int(found[2])) if found else (0, 0)
