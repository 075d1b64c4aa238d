"""A machine that cannot run the testbed is told so in one line, with exit code 2."""

from __future__ import annotations

from pathlib import Path

import pytest

from cos_testbed import prereqs
from cos_testbed.errors import PrerequisiteError
from cos_testbed.prereqs import GIB


@pytest.mark.parametrize(
    ("system", "uid", "memory", "complaint"),
    [
        ("Darwin", 0, 16 * GIB, "runs on Linux, this is Darwin"),
        ("Linux", 1000, 16 * GIB, "run it as root"),
        ("Linux", 0, 4 * GIB, "needs 8 GiB of memory, this machine has 4.0"),
    ],
)
def test_an_unfit_machine_is_named(system: str, uid: int, memory: int, complaint: str) -> None:
    with pytest.raises(PrerequisiteError, match=complaint) as caught:
        prereqs.check_system(system=system, uid=uid, memory_bytes=memory)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 2


def test_a_machine_sold_with_8_gib_is_enough() -> None:
    prereqs.check_system(system="Linux", uid=0, memory_bytes=int(7.7 * GIB))


def test_too_little_disk_names_the_place() -> None:
    with pytest.raises(PrerequisiteError, match=r"needs 15 GiB free at /cache, there are 3\.0"):
        prereqs.check_disk(path=Path("/cache"), free_bytes=3 * GIB, needed_bytes=15 * GIB)


def test_without_apt_the_missing_packages_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prereqs, "check_system", lambda **_: None)
    monkeypatch.setattr(prereqs, "check_disk", lambda **_: None)
    monkeypatch.setattr(prereqs.shutil, "which", lambda _: None)
    tools = {"runc": "runc", "busybox": "busybox-static"}
    with pytest.raises(PrerequisiteError, match=r"first: busybox-static runc$"):
        prereqs.check([], tools, containers=False)


def test_only_absent_programs_are_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prereqs.shutil, "which", lambda name: None if name == "runc" else f"/bin/{name}")
    assert prereqs.missing_packages({"runc": "runc", "ip": "iproute2"}) == ["runc"]
