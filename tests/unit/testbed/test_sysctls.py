"""The host's kernel settings come back when the last instance goes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cos_testbed import sysctls
from cos_testbed.instance import Instance


@pytest.fixture
def kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    values = dict.fromkeys((*sysctls.WANTED_MINIMUM, *sysctls.CHANGED_BY_KUBELET), "0")
    values["vm.max_map_count"] = "65530"
    values["fs.inotify.max_user_instances"] = "8192"
    monkeypatch.setattr(sysctls, "RUN_ROOT", tmp_path)
    monkeypatch.setattr(sysctls, "read", lambda name: values[name])
    monkeypatch.setattr(sysctls, "write", values.__setitem__)
    return values


def test_what_is_too_low_is_raised_and_what_is_higher_stays(kernel: dict[str, str]) -> None:
    sysctls.acquire(Instance(0))
    assert kernel["vm.max_map_count"] == "262144"
    assert kernel["fs.inotify.max_user_instances"] == "8192"


def test_everything_is_restored_also_what_kubelet_changed(kernel: dict[str, str], tmp_path: Path) -> None:
    before = dict(kernel)
    sysctls.acquire(Instance(0))
    kernel["kernel.panic"] = "10"
    sysctls.release(Instance(0))
    assert kernel == before
    assert list(tmp_path.iterdir()) == []


def test_the_last_of_two_instances_restores(kernel: dict[str, str]) -> None:
    before = dict(kernel)
    sysctls.acquire(Instance(0))
    sysctls.acquire(Instance(1))
    sysctls.release(Instance(0))
    assert kernel["vm.max_map_count"] == "262144"
    sysctls.release(Instance(1))
    assert kernel == before


def test_a_second_up_does_not_record_what_the_first_changed(kernel: dict[str, str]) -> None:
    before = dict(kernel)
    for _ in range(2):
        sysctls.acquire(Instance(0))
    sysctls.release(Instance(0))
    assert kernel == before


def test_a_record_from_before_a_reboot_restores_nothing(kernel: dict[str, str], tmp_path: Path) -> None:
    sysctls.acquire(Instance(0))
    record = json.loads((tmp_path / "sysctls.json").read_text())
    (tmp_path / "sysctls.json").write_text(json.dumps({**record, "boot": "another"}))
    kernel["vm.max_map_count"] = "100000"
    sysctls.release(Instance(0))
    assert kernel["vm.max_map_count"] == "100000"
