"""Volumes that enforce their size and grow while they are in use: for each a file, a loop device and XFS on it.

The file is in the node's state, the mount in its run directory: `down` takes the mount away and keeps the data.
The loop device has no name of its own anywhere: the kernel frees it when its last mount goes, so that a command
that was killed at any point leaves none behind.

XFS and not ext4, because growing a mounted ext4 takes CAP_SYS_RESOURCE, which a sandboxed machine may withhold.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from cos_testbed.cgroups import unescape_mount
from cos_testbed.errors import TestbedError
from cos_testbed.instance import Instance, Node
from cos_testbed.locks import exclusive
from cos_testbed.process import output

MIB = 1024**2
# Below this the file system's own tables leave nothing to write on.
MINIMUM_BYTES = 32 * MIB
LOCK_TIMEOUT_SECONDS = 60.0
DETACH_TIMEOUT_SECONDS = 10.0
BLOCK_DEVICES = Path("/sys/block")


@dataclass(frozen=True)
class LoopVolume:
    """One volume of a node. Its name is that of its PersistentVolume."""

    node: Node
    name: str

    @property
    def image(self) -> Path:
        """The file that holds the file system; there only once it is whole."""
        return _images(self.node) / f"{self.name}.img"

    @property
    def unfinished(self) -> Path:
        """The file while the file system is being made."""
        return _images(self.node) / f"{self.name}.new"

    @property
    def mountpoint(self) -> Path:
        """Where the file system is mounted."""
        return self.node.run / "loop" / self.name

    @property
    def path(self) -> Path:
        """What pods get: a folder inside, so that nothing is ever written below where a mount is missing."""
        return self.mountpoint / "data"


def rounded(size: int) -> int:
    """The bytes that a volume of at least `size` bytes gets: whole MiB, and not too few of them."""
    return max(-(-size // MIB) * MIB, MINIMUM_BYTES)


def create(volume: LoopVolume, size: int) -> None:
    """Make and mount a volume of `size` bytes; one that exists already stays as it is."""
    with _locked(volume.node.instance):
        if not volume.image.exists():
            volume.unfinished.parent.mkdir(parents=True, exist_ok=True)
            volume.unfinished.unlink(missing_ok=True)
            _stretch(volume.unfinished, size)
            # mkfs.xfs calls less than 300 MiB unsupported, since it is slow with many writers.
            output(["mkfs.xfs", "-q", "--unsupported", str(volume.unfinished)])
            volume.unfinished.rename(volume.image)
        _mount(volume)


def grow(volume: LoopVolume, size: int) -> None:
    """Bring a mounted volume to at least `size` bytes: the file, the loop device, the file system."""
    with _locked(volume.node.instance):
        device = mounted_device(volume.mountpoint, _mountinfo())
        if device is None:
            raise TestbedError(f"volume {volume.name} is not mounted: run 'up'")
        _stretch(volume.image, size)
        output(["losetup", "--set-capacity", device])
        output(["xfs_growfs", "-d", str(volume.mountpoint)])


def remove(volume: LoopVolume) -> None:
    """Unmount a volume and delete it, also one that only half exists."""
    with _locked(volume.node.instance):
        if mounted_device(volume.mountpoint, _mountinfo()) is not None:
            output(["umount", str(volume.mountpoint)])
        if volume.mountpoint.exists():
            volume.mountpoint.rmdir()
        volume.unfinished.unlink(missing_ok=True)
        # Last, for by this file the volume is known.
        volume.image.unlink(missing_ok=True)


def restore(node: Node) -> None:
    """Mount every volume of a node, as after `down` or a reboot; before kubelet looks for them."""
    with _locked(node.instance):
        for image in sorted(_images(node).glob("*.img")):
            _mount(LoopVolume(node, image.stem))


def stored(node: Node) -> frozenset[str]:
    """Names of the volumes of which a node has anything."""
    return frozenset(path.stem for path in _images(node).glob("*") if path.suffix in (".img", ".new"))


def wait_detached(instance: Instance) -> None:
    """Wait until the kernel has freed the loop devices of unmounted volumes; raises TestbedError if it does not."""
    deadline = time.monotonic() + DETACH_TIMEOUT_SECONDS
    while held := attached(instance.state, _backing_files()):
        if time.monotonic() > deadline:
            raise TestbedError(f"a process still holds the volume of {', '.join(held)}: see 'losetup'")
        time.sleep(0.05)


def attached(directory: Path, backing: Iterable[tuple[str, str]]) -> list[str]:
    """Of (loop device, its file) the devices whose file is, or was, in a directory."""
    return [device for device, file in backing if Path(file).is_relative_to(directory)]


def mounted_device(mountpoint: Path, mountinfo: str) -> str | None:
    """The device that is mounted on a directory."""
    device = None
    for line in mountinfo.splitlines():
        before, _, after = line.partition(" - ")
        if Path(unescape_mount(before.split()[4])) == mountpoint:
            device = after.split()[1]
    return device


def _images(node: Node) -> Path:
    return node.state / "loop"


def _stretch(file: Path, size: int) -> None:
    """A sparse file: it takes the disk's room only for what is written."""
    with file.open("ab") as opened:
        if opened.tell() < size:
            os.truncate(opened.fileno(), size)


def _mount(volume: LoopVolume) -> None:
    if mounted_device(volume.mountpoint, _mountinfo()) is None:
        volume.mountpoint.mkdir(parents=True, exist_ok=True)
        options = "loop,nosuid,nodev"
        output(["mount", "-t", "xfs", "-o", options, str(volume.image), str(volume.mountpoint)])
    volume.path.mkdir(mode=0o755, exist_ok=True)


def _locked(instance: Instance) -> AbstractContextManager[None]:
    """`up` mounts while the provisioner may remove."""
    return exclusive(instance.run / "loop.lock", timeout=LOCK_TIMEOUT_SECONDS)


def _mountinfo() -> str:
    return Path("/proc/self/mountinfo").read_text()


def _backing_files() -> list[tuple[str, str]]:
    """(loop device, file) of every loop device of the machine that has one."""
    found = []
    for entry in BLOCK_DEVICES.glob("loop*"):
        try:
            found.append((entry.name, (entry / "loop" / "backing_file").read_text().strip()))
        except OSError:
            continue
    return found
