"""Kernel settings that the testbed changes on the host: recorded before, restored by the last `down`.

kubelet itself changes some of them. Several instances share the host, so the record counts its holders.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cos_testbed.instance import RUN_ROOT, Instance
from cos_testbed.locks import exclusive
from cos_testbed.supervise import boot_id

LOCK_TIMEOUT_SECONDS = 10.0
WANTED_MINIMUM = {
    # Elasticsearch refuses to start below this.
    "vm.max_map_count": 262144,
    # Each kubelet and containerd watches many directories.
    "fs.inotify.max_user_instances": 1024,
}
CHANGED_BY_KUBELET = (
    "vm.overcommit_memory",
    "vm.panic_on_oom",
    "kernel.panic",
    "kernel.panic_on_oops",
    "kernel.keys.root_maxkeys",
    "kernel.keys.root_maxbytes",
)


def acquire(instance: Instance) -> None:
    """Record the host's values, unless another instance did, and raise those that are too low."""
    with _record() as record:
        if instance.index in record["holders"]:
            return
        if not record["holders"]:
            record["values"] = {name: read(name) for name in (*WANTED_MINIMUM, *CHANGED_BY_KUBELET)}
        record["holders"].append(instance.index)
    for name, minimum in WANTED_MINIMUM.items():
        if int(read(name)) < minimum:
            write(name, str(minimum))


def release(instance: Instance) -> None:
    """Restore the host's values if no other instance needs them."""
    with _record() as record:
        if instance.index not in record["holders"]:
            return
        record["holders"].remove(instance.index)
        if not record["holders"]:
            for name, value in record["values"].items():
                if read(name) != value:
                    write(name, value)
            record["values"] = {}


def read(name: str) -> str:
    """The kernel's value of a setting such as `vm.max_map_count`."""
    return _path(name).read_text().strip()


def write(name: str, value: str) -> None:
    """Set a setting of the kernel."""
    _path(name).write_text(value)


def _path(name: str) -> Path:
    return Path("/proc/sys", *name.split("."))


@contextmanager
def _record() -> Iterator[dict[str, Any]]:
    """The record, locked; values from before a reboot do not count."""
    path = RUN_ROOT / "sysctls.json"
    with exclusive(RUN_ROOT / "sysctls.lock", timeout=LOCK_TIMEOUT_SECONDS):
        record: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
        if record.get("boot") != boot_id():
            record = {"boot": boot_id(), "holders": [], "values": {}}
        yield record
        if record["holders"]:
            temporary = path.with_suffix(".tmp")
            temporary.write_text(json.dumps(record))
            temporary.rename(path)
        else:
            path.unlink(missing_ok=True)
            (RUN_ROOT / "sysctls.lock").unlink()
