"""The testbed of these tests. Others have others: no operator but those of these tests may write there."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from cos_testbed.instance import Instance, instance_from

INSTANCE = 5
#: What the life cycles run.
_IMAGES = ("redis", "traefik", "postgres")
_ROOT = Path(__file__).parents[3]
#: Seconds: the first start of all builds Kubernetes.
_LIMIT = 3600.0


def start(index: int) -> Instance:
    """Bring the testbed up, with the images in its registry."""
    _run(index, "up")
    _run(index, "load", *_IMAGES)
    return instance_from({}, index)


def clean(index: int) -> None:
    """Take it down and delete it."""
    _run(index, "clean")


def _run(index: int, *arguments: str) -> None:
    command = (sys.executable, "-m", "cos_testbed", f"--instance={index}", *arguments)
    subprocess.run(command, cwd=_ROOT, check=True, timeout=_LIMIT, stdout=subprocess.DEVNULL)
