"""Runs finite commands: output to a log file, a time limit, and errors that carry the log's tail."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from cos_testbed.errors import TestbedError


def run(
    cmd: Sequence[str],
    *,
    log: Path,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    timeout: float,
) -> None:
    """Run a command to its end, appending its output to `log`.

    `env` replaces the whole environment; `timeout` is in seconds, after which the command's process group is
    killed. Raises TestbedError, with the log's tail, on a non-zero exit, a time-out or a missing program.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as out:
        out.write(f"$ {shlex.join(cmd)}\n".encode())
        out.flush()
        try:
            child = subprocess.Popen(
                cmd,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                cwd=cwd,
                env=env,
                start_new_session=True,
            )
        except OSError as error:
            raise TestbedError(f"cannot run {cmd[0]}: {error.strerror}") from error
        try:
            code = child.wait(timeout)
        except subprocess.TimeoutExpired:
            raise TestbedError(f"{shlex.join(cmd[:3])} did not end within {timeout:.0f} s", log=log) from None
        finally:
            if child.poll() is None:
                _kill_group(child)
    if code != 0:
        raise TestbedError(f"{shlex.join(cmd[:3])} failed with exit code {code}", log=log)


def output(cmd: Sequence[str], *, timeout: float = 30.0, check: bool = True, stdin: str | None = None) -> str:
    """The standard output of a short command. With `check`, a non-zero exit raises TestbedError."""
    try:
        done = subprocess.run(
            cmd, input=stdin or "", capture_output=True, text=True, timeout=timeout, check=False
        )
    except OSError as error:
        raise TestbedError(f"cannot run {cmd[0]}: {error.strerror}") from error
    except subprocess.TimeoutExpired:
        raise TestbedError(f"{shlex.join(cmd)} did not end within {timeout:.0f} s") from None
    if check and done.returncode != 0:
        raise TestbedError(
            f"{shlex.join(cmd)} failed with exit code {done.returncode}: {done.stderr.strip()}"
        )
    return done.stdout


def _kill_group(child: subprocess.Popen[bytes]) -> None:
    """The child leads its own group and is not reaped yet, so the id cannot belong to anybody else."""
    os.killpg(child.pid, signal.SIGKILL)
    child.wait(10)
