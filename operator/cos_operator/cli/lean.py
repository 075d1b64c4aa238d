"""Start sooner: the packages of the Kubernetes client import far more than a command uses."""

from __future__ import annotations

import sys
from importlib.util import find_spec, module_from_spec

#: Their `__init__` imports the synchronous client, watches, elections and more: a third of the time to start.
_PACKAGES = ("kubernetes", "kubernetes.aio")


def skip_unused() -> None:
    """Enter these packages without running them, so that only the modules that are asked for are imported.

    For a process that is a command, before its first import of `cos_operator.kube`.
    """
    for name in _PACKAGES:
        spec = find_spec(name)
        if spec and name not in sys.modules:
            sys.modules[name] = module_from_spec(spec)
