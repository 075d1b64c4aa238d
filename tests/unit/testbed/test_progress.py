"""What a user reads while the testbed works, and when it fails."""

from __future__ import annotations

import io
import re
import sys
import threading
import time
from pathlib import Path

import pytest

from cos_testbed.errors import TestbedError
from cos_testbed.locks import exclusive
from cos_testbed.process import output, run
from cos_testbed.progress import Progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_plain_lines_tell_begin_end_and_elapsed_time() -> None:
    stream = io.StringIO()
    with Progress(stream).step("Building etcd") as step:
        step.note("from the cache")
    begin, end = stream.getvalue().splitlines()
    assert begin.endswith("s] Building etcd ...")
    assert re.search(r"Building etcd: done in \d+\.\d s \(from the cache\)$", end)


def test_a_long_step_is_heard_of() -> None:
    stream = io.StringIO()
    with Progress(stream, heartbeat=0.01).step("Building"):
        time.sleep(0.1)
    assert "Building: still running after 0 s" in stream.getvalue()


@pytest.mark.parametrize("stream", [io.StringIO(), Terminal()], ids=["plain", "terminal"])
def test_a_failed_step_is_named_and_its_error_goes_on(stream: io.StringIO) -> None:
    progress = Progress(stream)
    with pytest.raises(TestbedError), progress.step("outer"), progress.step("Building"):
        raise TestbedError("no")
    assert re.search(r"Building: FAILED in \d+\.\d s", stream.getvalue())
    assert re.search(r"outer: FAILED in \d+\.\d s", stream.getvalue())


def test_a_terminal_gets_the_same_end_lines() -> None:
    stream = Terminal()
    progress = Progress(stream)
    with progress.step("a"), progress.step("b [bold]"):
        pass
    assert re.search(r"b \[bold\]: done in \d+\.\d s", stream.getvalue())


def test_quiet_says_nothing() -> None:
    stream = io.StringIO()
    with Progress(stream, quiet=True).step("a"):
        pass
    assert stream.getvalue() == ""


def test_run_keeps_the_output_and_shows_its_end_on_failure(tmp_path: Path) -> None:
    log = tmp_path / "sub" / "x.log"
    script = "import sys; print('reason'); sys.exit(3)"
    with pytest.raises(TestbedError, match=r"(?s)failed with exit code 3.*last lines of .*reason"):
        run([sys.executable, "-c", script], log=log, timeout=30)
    run([sys.executable, "-c", "print('second')"], log=log, timeout=30)
    assert "reason" in log.read_text()
    assert "second" in log.read_text()


def test_run_kills_the_whole_group_after_its_time(tmp_path: Path) -> None:
    begun = time.monotonic()
    with pytest.raises(TestbedError, match="did not end within 0 s"):
        run(["sh", "-c", "sleep 60 & wait"], log=tmp_path / "x.log", timeout=0.2)
    assert time.monotonic() - begun < 10


def test_a_missing_program_is_named(tmp_path: Path) -> None:
    with pytest.raises(TestbedError, match="cannot run no-such-program: No such file"):
        run(["no-such-program"], log=tmp_path / "x.log", timeout=1)


def test_output_fails_with_the_reason() -> None:
    assert output(["echo", "hi"]) == "hi\n"
    with pytest.raises(TestbedError, match=r"sh -c .* failed with exit code 1: because"):
        output(["sh", "-c", "echo because >&2; exit 1"])


def test_a_lock_excludes_and_its_wait_ends(tmp_path: Path) -> None:
    told: list[str] = []
    path = tmp_path / "x.lock"
    with (
        exclusive(path, timeout=5),
        pytest.raises(TestbedError, match="another command has held"),
        exclusive(path, timeout=0.1, on_wait=lambda: told.append("waiting")),
    ):
        pass
    assert told == ["waiting"]
    with exclusive(path, timeout=0):
        pass


def test_a_lock_that_its_holder_deletes_still_excludes(tmp_path: Path) -> None:
    path = tmp_path / "x.lock"
    held, order = threading.Event(), list[str]()

    def first() -> None:
        with exclusive(path, timeout=5):
            held.set()
            time.sleep(0.3)
            order.append("first")
            path.unlink()

    thread = threading.Thread(target=first)
    thread.start()
    held.wait(5)
    with exclusive(path, timeout=5):
        order.append("second")
        assert path.exists()
    thread.join(5)
    assert order == ["first", "second"]
