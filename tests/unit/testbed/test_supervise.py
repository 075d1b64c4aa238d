"""A pid file is trusted only for the very process that wrote it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from cos_testbed.supervise import (
    Daemon,
    ProcessId,
    boot_id,
    is_alive,
    parse_pidfile,
    parse_stat,
    terminate,
)

FIELDS_AFTER_NAME = "S 1 2 3 0 -1 4194560 10 0 0 0 1 2 0 0 20 0 1 0 98765 1000 50"


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    child = subprocess.Popen(
        [sys.executable, "-c", "import time; print(flush=True); time.sleep(60)"], stdout=-1
    )
    assert child.stdout
    child.stdout.readline()
    yield child
    child.kill()
    child.wait(10)
    child.stdout.close()


def identity_of(pid: int) -> ProcessId:
    text = "\n".join([boot_id(), Path(f"/proc/{pid}/stat").read_text().strip(), "abc"])
    found = parse_pidfile(text)
    assert found
    return found


@pytest.mark.parametrize("name", ["etcd", "kube apiserver", "a) S 1 (b", ")"])
def test_stat_is_read_past_any_program_name(name: str) -> None:
    assert parse_stat(f"42 ({name}) {FIELDS_AFTER_NAME}") == (42, "S", 98765)


def test_a_pidfile_names_process_boot_and_configuration() -> None:
    text = f"boot-1\n42 (etcd) {FIELDS_AFTER_NAME}\nabc\n"
    assert parse_pidfile(text) == ProcessId(42, 98765, "boot-1", "abc")


@pytest.mark.parametrize("text", ["", "boot-1\n", "boot-1\n42 (et", "boot-1\n42 (etcd) S 1\nabc\n", "123\n"])
def test_an_incomplete_pidfile_names_nobody(text: str) -> None:
    assert parse_pidfile(text) is None


def test_only_the_same_process_of_the_same_boot_is_alive(sleeper: subprocess.Popen[bytes]) -> None:
    known = identity_of(sleeper.pid)
    assert is_alive(known)
    assert not is_alive(replace(known, start=known.start - 1))
    assert not is_alive(replace(known, boot="another boot"))


def test_a_zombie_is_not_alive(sleeper: subprocess.Popen[bytes]) -> None:
    known = identity_of(sleeper.pid)
    sleeper.kill()
    os.waitid(os.P_PID, sleeper.pid, os.WEXITED | os.WNOWAIT)
    assert not is_alive(known)


def test_terminate_leaves_a_stranger_with_the_same_pid_alone(sleeper: subprocess.Popen[bytes]) -> None:
    stranger = replace(identity_of(sleeper.pid), start=1)
    terminate(stranger, patience=0.1)
    assert sleeper.poll() is None


def test_terminate_ends_a_process_gently(sleeper: subprocess.Popen[bytes]) -> None:
    terminate(identity_of(sleeper.pid), patience=5)
    assert sleeper.wait(5) == -15


def test_terminate_ends_a_process_that_does_not_listen() -> None:
    deaf = "import signal, time; signal.signal(15, signal.SIG_IGN); print(flush=True); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", deaf], stdout=-1) as child:
        assert child.stdout
        child.stdout.readline()
        terminate(identity_of(child.pid), patience=0.1)
        assert child.wait(5) == -9


def test_a_daemon_is_restarted_when_arguments_or_inputs_change(tmp_path: Path) -> None:
    config = tmp_path / "config"
    config.write_text("a: 1")
    daemon = Daemon("etcd", ("etcd", "--x"), inputs=(config,))
    before = daemon.fingerprint
    assert before == Daemon("etcd", ("etcd", "--x"), inputs=(config,)).fingerprint
    assert before != replace(daemon, argv=("etcd", "--y")).fingerprint
    assert before != replace(daemon, environment=(("A", "b"),)).fingerprint
    config.write_text("a: 2")
    assert before != daemon.fingerprint


def test_a_daemon_of_a_node_enters_its_network() -> None:
    daemon = Daemon("kubelet", ("kubelet", "-v"), netns=Path("/run/x/netns"))
    assert daemon.command == ["nsenter", "--net=/run/x/netns", "kubelet", "-v"]
