"""A dead man's switch: a process that was frozen past its lease ends before it does anything else.

Between the check that a process leads and the system call that sends a write, the process may be stopped for any
length of time (SIGSTOP, the cgroup freezer, a starved node), and no check of its own can close that gap. The kernel
can: the signal of an expired timer is delivered before a stopped process executes its next instruction. The handler
is the C library's `_exit` itself, since Python runs its handlers only later, between two instructions of its own; and
it is a handler, since process 1 of a container ignores a signal's default action.
"""

from __future__ import annotations

import ctypes
import signal

#: Exit code of a process that was ended so: `_exit` gets the signal's number.
EXIT_CODE = int(signal.SIGALRM)

#: A timer of zero seconds would be none.
_AT_ONCE = 1e-6


def arm(seconds: float | None) -> None:
    """End this process in `seconds`, unless this is called again before; None: never. For the main thread."""
    if seconds is None:
        signal.setitimer(signal.ITIMER_REAL, 0)
        return
    libc = ctypes.CDLL(None)
    libc.signal.argtypes = (ctypes.c_int, ctypes.c_void_p)
    libc.signal(signal.SIGALRM, ctypes.cast(libc._exit, ctypes.c_void_p))  # noqa: SLF001 its name in C
    signal.setitimer(signal.ITIMER_REAL, max(seconds, _AT_ONCE))
