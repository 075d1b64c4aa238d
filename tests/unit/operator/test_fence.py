"""The dead man's switch on real processes: it is about the kernel, so nothing less will do."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from cos_operator import fence

#: Its stopping stands for any freeze; what it would do next, for a write that was already decided.
VICTIM = """
import os, signal, sys
from cos_operator import fence
fence.arm(float(sys.argv[1]))
{before}
os.kill(os.getpid(), signal.SIGSTOP)
os.write(1, b"written")
fence.arm(None)
"""


@contextmanager
def frozen(seconds: float, before: str = "") -> Iterator[subprocess.Popen[bytes]]:
    """A process that armed its fence with `seconds`, and has stopped."""
    command = [sys.executable, "-c", VICTIM.format(before=before), str(seconds)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        try:
            deadline = time.monotonic() + 20
            while state_of(process) != "T":
                assert process.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.01)
            yield process
        finally:
            process.kill()


def state_of(process: subprocess.Popen[bytes]) -> str:
    """As the kernel names it: T is stopped."""
    return Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[0]


@pytest.mark.parametrize(
    "before",
    [
        "",
        "import threading; threading.Thread(target=threading.Event().wait, daemon=True).start()",
        "signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGALRM])",
    ],
    ids=["alone", "with threads", "after a change of the mask"],
)
def test_a_process_frozen_past_its_fence_does_nothing_more(before: str) -> None:
    with frozen(0.2, before) as process:
        time.sleep(0.4)
        process.send_signal(signal.SIGCONT)
        out, _ = process.communicate(timeout=10)
    assert (process.returncode, out) == (fence.EXIT_CODE, b"")


def test_a_process_thawed_in_time_goes_on() -> None:
    with frozen(20) as process:
        process.send_signal(signal.SIGCONT)
        out, _ = process.communicate(timeout=10)
    assert (process.returncode, out) == (0, b"written")


def test_a_fence_that_has_passed_strikes_at_once() -> None:
    """Zero would switch the timer off."""
    script = "from cos_operator import fence; fence.arm(-1); import time; time.sleep(20)"
    began = time.monotonic()
    assert (
        subprocess.run([sys.executable, "-c", script], check=False, timeout=20).returncode == fence.EXIT_CODE
    )
    assert time.monotonic() - began < 10


@pytest.mark.skipif(os.geteuid() != 0, reason="a process 1 takes a namespace, and that takes root")
def test_process_1_of_a_container_is_no_exception() -> None:
    """The kernel spares process 1 the default action of a signal."""
    script = "from cos_operator import fence; import time; fence.arm(0.1); time.sleep(20)"
    command = ["unshare", "--pid", "--fork", "--kill-child", sys.executable, "-c", script]
    assert subprocess.run(command, check=False, timeout=15).returncode == fence.EXIT_CODE
