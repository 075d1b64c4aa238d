"""Run as a program: starts operators that have nothing to import any more.

Half of what a crash point costs would else be the import of the operator's libraries. This process imports them, runs
nothing of them, and forks; the child is `cos-operator run` from its first line on. For each line of JSON on standard
input (`environment`, and `log`, the path that output is appended to) it answers with the child's process id. It ends
with its input, and its children end with it.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
import traceback
from typing import Any

# What `run` imports itself.
from cos_operator import logs, operator  # noqa: F401
from cos_operator.main import app

_PR_SET_PDEATHSIG = 1


def main() -> None:
    """Serve until standard input ends."""
    for line in sys.stdin:
        while _reap():
            pass
        child = os.fork()
        if child == 0:
            _become_operator(json.loads(line))
        sys.stdout.write(f"{child}\n")
        sys.stdout.flush()


def _reap() -> bool:
    try:
        return os.waitpid(-1, os.WNOHANG)[0] != 0
    except ChildProcessError:
        return False


def _become_operator(asked: dict[str, Any]) -> None:
    """Never returns."""
    code: Any = 1
    try:
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        log = os.open(asked["log"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        nothing = os.open(os.devnull, os.O_RDONLY)
        for target, source in ((0, nothing), (1, log), (2, log)):
            os.dup2(source, target)
        os.environ.update(asked["environment"])
        app(["run"])
    except SystemExit as end:
        code = end.code
    except BaseException:  # noqa: BLE001 - the parent's loop must not go on in the child
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code if isinstance(code, int) else 0 if code is None else 1)


if __name__ == "__main__":
    main()
