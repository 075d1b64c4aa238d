"""Where a loop volume lies, and what the kernel says of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from cos_testbed import loop_provisioner, loop_volumes
from cos_testbed.instance import Instance, Node, instance_from
from cos_testbed.loop_volumes import LoopVolume

MOUNTINFO = """\
27 1 254:0 / / rw,relatime - ext4 /dev/vda rw
409 27 7:0 / /run/cos-testbed/1/node-0/loop/pvc-1 rw,nosuid,nodev,relatime - xfs /dev/loop0 rw
410 27 7:0 /data /state/pods/a/volumes/kubernetes.io~local-volume/pvc-1 rw shared:5 - xfs /dev/loop0 rw
411 27 7:1 / /run/with\\040space rw - xfs /dev/loop1 rw
"""


@pytest.fixture
def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Node:
    monkeypatch.setattr("cos_testbed.instance.STATE_ROOT", tmp_path / "state")
    monkeypatch.setattr("cos_testbed.instance.RUN_ROOT", tmp_path / "run")
    (node,) = Instance().nodes(1)
    (node.state / "loop").mkdir(parents=True)
    return node


@pytest.mark.parametrize(
    ("mountpoint", "device"),
    [
        ("/run/cos-testbed/1/node-0/loop/pvc-1", "/dev/loop0"),
        ("/run/with space", "/dev/loop1"),
        ("/run/cos-testbed/1/node-0/loop", None),
        ("/run/cos-testbed/1/node-0/loop/pvc-11", None),
    ],
)
def test_the_device_of_a_mount(mountpoint: str, device: str | None) -> None:
    assert loop_volumes.mounted_device(Path(mountpoint), MOUNTINFO) == device


def test_loop_devices_are_known_by_their_file() -> None:
    backing = [
        ("loop0", "/state/1/a.img"),
        ("loop1", "/state/1/b.img (deleted)"),
        ("loop2", "/state/11/c.img"),
    ]
    assert loop_volumes.attached(Path("/state/1"), backing) == ["loop0", "loop1"]


def test_the_data_stays_and_the_mount_goes_with_down(node: Node) -> None:
    volume = LoopVolume(node, "pvc-1")
    assert volume.image.is_relative_to(node.state)
    assert volume.mountpoint.is_relative_to(node.run)
    assert volume.path.parent == volume.mountpoint, "missing, not empty, where nothing is mounted"


def test_a_volume_is_known_from_its_beginning_to_its_end(node: Node) -> None:
    volume, other = LoopVolume(node, "pvc-1"), LoopVolume(node, "pvc-2")
    assert loop_volumes.stored(node) == frozenset()
    volume.unfinished.touch()
    other.image.touch()
    assert loop_volumes.stored(node) == {"pvc-1", "pvc-2"}
    loop_volumes.remove(volume)
    loop_volumes.remove(other)
    loop_volumes.remove(other)
    assert loop_volumes.stored(node) == frozenset()


@pytest.mark.parametrize(
    ("asked", "got"), [(1, 32), (32 * 2**20, 32), (32 * 2**20 + 1, 33), (64 * 2**20, 64), (10 * 2**30, 10240)]
)
def test_sizes_are_whole_mebibytes(asked: int, got: int) -> None:
    assert loop_volumes.rounded(asked) == got * 2**20


def test_a_file_grows_and_never_shrinks(tmp_path: Path) -> None:
    file = tmp_path / "image"
    loop_volumes._stretch(file, 64 * 2**20)
    assert (file.stat().st_size, file.stat().st_blocks) == (64 * 2**20, 0)
    with file.open("r+b") as opened:
        opened.write(b"data")
    loop_volumes._stretch(file, 32 * 2**20)
    assert file.stat().st_size == 64 * 2**20
    loop_volumes._stretch(file, 128 * 2**20)
    assert file.stat().st_size == 128 * 2**20
    assert file.read_bytes()[:4] == b"data"


def test_the_provisioner_serves_the_instance_that_started_it() -> None:
    instance = instance_from({"COS_TESTBED_SUBNET": "172.20.0.0/16"}, 3)
    daemon = loop_provisioner.daemon(instance)
    assert instance_from(dict(daemon.environment)) == instance
    assert all(path.is_file() for path in daemon.inputs)
