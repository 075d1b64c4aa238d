"""cgroup hierarchies, on folders that look like them."""

from __future__ import annotations

from pathlib import Path

import pytest

from cos_testbed.cgroups import Hierarchies, unescape_mount


def mountinfo(*mounts: tuple[Path, str, str]) -> str:
    return "".join(
        f"{30 + n} 23 0:{30 + n} / {target} rw,relatime shared:9 - {fs} {fs} {options}\n"
        for n, (target, fs, options) in enumerate(mounts)
    )


def v1_machine(root: Path) -> Hierarchies:
    """Separate controllers, one mount for two of them, a named one, and a hybrid's unified one."""
    for name in ("cpu,cpuacct", "cpuset", "memory", "pids", "systemd", "unified"):
        (root / name).mkdir()
    (root / "cpuset" / "cpuset.cpus").write_text("0-1\n")
    (root / "cpuset" / "cpuset.mems").write_text("0\n")
    return Hierarchies(
        mountinfo(
            (root / "cpu,cpuacct", "cgroup", "rw,cpu,cpuacct"),
            (root / "cpuset", "cgroup", "rw,cpuset"),
            (root / "memory", "cgroup", "rw,memory"),
            (root / "pids", "cgroup", "rw,pids"),
            (root / "systemd", "cgroup", "rw,xattr,name=systemd"),
            (root / "unified", "cgroup2", "rw"),
            (Path("/"), "ext4", "rw"),
        )
    )


def test_v1_controllers_are_found_and_a_hybrid_counts_as_v1(tmp_path: Path) -> None:
    found = v1_machine(tmp_path)
    assert found.v2 is None
    assert found.missing() == []
    assert found.v1["cpuacct"] == tmp_path / "cpu,cpuacct"
    assert tmp_path / "unified" not in found.mounts()
    assert found.membership == tmp_path / "pids"


def test_a_v1_cgroup_is_made_in_every_hierarchy(tmp_path: Path) -> None:
    found = v1_machine(tmp_path)
    found.create("/cos-testbed/0/node-0")
    for mount in found.mounts():
        assert (mount / "cos-testbed" / "0" / "node-0").is_dir()
    assert found.procs_file("/cos-testbed/0/daemons/etcd").parent.is_dir()


def test_an_empty_v1_cpuset_is_filled_from_its_parent(tmp_path: Path) -> None:
    found = v1_machine(tmp_path)
    child = tmp_path / "cpuset" / "cos-testbed"
    child.mkdir()
    (child / "cpuset.cpus").write_text("\n")
    (child / "cpuset.mems").write_text("\n")
    found.create("/cos-testbed")
    assert (child / "cpuset.cpus").read_text() == "0-1\n"
    assert (child / "cpuset.mems").read_text() == "0\n"


def test_pods_weigh_more_than_one_process(tmp_path: Path) -> None:
    found = v1_machine(tmp_path)
    group = tmp_path / "cpu,cpuacct" / "cos-testbed" / "0"
    group.mkdir(parents=True)
    (group / "cpu.shares").write_text("1024\n")
    found.create("/cos-testbed/0/node-0")
    assert int((group / "cpu.shares").read_text()) > 4096


def test_remove_takes_the_unified_hierarchy_of_a_hybrid_too(tmp_path: Path) -> None:
    found = v1_machine(tmp_path)
    found.create("/cos-testbed/0/node-0")
    (tmp_path / "unified" / "cos-testbed" / "0" / "pod").mkdir(parents=True)
    (tmp_path / "memory" / "other").mkdir()
    found.remove("/cos-testbed/0")
    assert not list(tmp_path.glob("*/cos-testbed"))
    assert (tmp_path / "memory" / "other").is_dir()


def test_remove_leaves_other_instances_alone(tmp_path: Path) -> None:
    found = v1_machine(tmp_path)
    found.create("/cos-testbed/0")
    found.create("/cos-testbed/1")
    found.remove("/cos-testbed/0")
    assert (tmp_path / "memory" / "cos-testbed" / "1").is_dir()


def test_processes_are_those_of_the_whole_subtree(tmp_path: Path) -> None:
    found = v1_machine(tmp_path)
    group = found.procs_file("/cos-testbed/0").parent
    (group / "a").mkdir()
    (group / "cgroup.procs").write_text("10\n")
    (group / "a" / "cgroup.procs").write_text("11\n12\n")
    assert found.processes("/cos-testbed/0") == {10, 11, 12}
    assert found.processes("/cos-testbed/1") == set()


def v2_machine(root: Path, controllers: str) -> Hierarchies:
    for group in (root, root / "cos-testbed", root / "cos-testbed" / "0"):
        group.mkdir(exist_ok=True)
        (group / "cgroup.controllers").write_text(controllers)
        (group / "cgroup.subtree_control").write_text("")
    return Hierarchies(mountinfo((root, "cgroup2", "rw,nsdelegate")))


def test_v2_controllers_are_enabled_down_to_the_node(tmp_path: Path) -> None:
    found = v2_machine(tmp_path, "cpu memory pids")
    found.create("/cos-testbed/0")
    # A file keeps the last write only; the kernel's adds up.
    assert (tmp_path / "cos-testbed" / "cgroup.subtree_control").read_text() == "+pids"
    assert found.mounts() == [tmp_path]


@pytest.mark.parametrize(
    ("controllers", "missing"),
    [("cpu cpuset io memory pids", []), ("cpu io pids", ["cpuset", "memory"])],
)
def test_missing_v2_controllers_are_named(tmp_path: Path, controllers: str, missing: list[str]) -> None:
    assert v2_machine(tmp_path, controllers).missing() == missing


def test_mount_points_are_unescaped() -> None:
    assert unescape_mount(r"/var/with\040space\134x/ü") == "/var/with space\\x/ü"
