"""What one does with a running testbed: look at it, read its logs, kill containers from the host."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cos_testbed import kwok, loop_provisioner
from cos_testbed import node as nodes
from cos_testbed.api import Api
from cos_testbed.errors import TestbedError
from cos_testbed.instance import Instance, Node
from cos_testbed.lifecycle import CONTROL_PLANE_DAEMONS
from cos_testbed.supervise import Supervisor, parse_stat, uptime_seconds


@dataclass(frozen=True)
class DaemonStatus:
    """`pid` None: not running. Uptime in seconds, resident memory in bytes."""

    name: str
    pid: int | None
    uptime: float = 0.0
    memory: int = 0


@dataclass(frozen=True)
class Process:
    """A process of a container, by the host's ids; `command` is its command line, as `ps` shows it."""

    pid: int
    parent: int
    command: str


def daemon_statuses(instance: Instance) -> list[DaemonStatus]:
    """Every daemon that this instance should run, by what `up` was last asked for."""
    supervisor = Supervisor(instance)
    names = list(reversed(CONTROL_PLANE_DAEMONS))
    for member in instance.recorded_nodes:
        names.extend(nodes.daemon_names(member))
    if instance.recorded_nodes:
        names.append(loop_provisioner.NAME)
    if kwok.NAME in supervisor.names():
        names.append(kwok.NAME)
    found = []
    for name in names:
        running = supervisor.find(name)
        if running is None:
            found.append(DaemonStatus(name, None))
        else:
            memory = _resident_bytes(running.pid)
            found.append(DaemonStatus(name, running.pid, uptime_seconds(running), memory))
    return found


def kill(
    instance: Instance,
    pod: str,
    number: signal.Signals,
    *,
    namespace: str,
    container: str | None,
    process: str | None = None,
) -> int:
    """Signal a process of a pod's container from the host; returns the host's process id.

    It is process 1, unless `process` says which: a regular expression, searched in the command lines. Of a process
    and its descendants that match alike, the outermost is meant.

    A signal sent inside the container would not do: process 1 of a PID namespace never receives SIGKILL or
    SIGSTOP from within. `container` None is right for a pod with one container.
    """
    found = Api(instance).get_json(f"/api/v1/namespaces/{namespace}/pods/{pod}")
    if found is None:
        raise TestbedError(f"no pod {namespace}/{pod} (or the API server does not answer)")
    identifier = running_container_id(found, container)
    members = {member.name: member for member in instance.recorded_nodes}
    member = members.get(found["spec"].get("nodeName", ""))
    if member is None:
        raise TestbedError(f"pod {namespace}/{pod} is not on a node of this testbed")
    pid = container_pid(member, identifier)
    if process is not None:
        pid = outermost(container_processes(identifier), process).pid
    ended = f"process {pid} of container {identifier} of pod {namespace}/{pod} has just ended"
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        raise TestbedError(ended) from None
    try:
        # The id may be another's by now: only a process in the container's own cgroup is the right one.
        if identifier not in _read(Path(f"/proc/{pid}/cgroup")):
            raise TestbedError(ended)
        signal.pidfd_send_signal(handle, number)
    finally:
        os.close(handle)
    return pid


def outermost(processes: Sequence[Process], pattern: str) -> Process:
    """The process whose command line matches and none of whose ancestors does.

    Raises TestbedError, with what there is, unless that is exactly one.
    """
    try:
        matching = {process.pid: process for process in processes if re.search(pattern, process.command)}
    except re.error as error:
        raise TestbedError(f"{pattern!r} is no regular expression: {error}") from None
    parents = {process.pid: process.parent for process in processes}

    def is_below_another(pid: int) -> bool:
        while (pid := parents.get(pid, 0)) in parents:
            if pid in matching:
                return True
        return False

    found = [process for process in matching.values() if not is_below_another(process.pid)]
    if len(found) != 1:
        shown = "".join(f"\n  {process.command[:100]}" for process in found or processes)
        count = f"{len(found)} processes" if found else "no process"
        raise TestbedError(f"{count} of the container with {pattern!r} in the command line:{shown}")
    return found[0]


def container_processes(identifier: str) -> list[Process]:
    """Every process of a container, known by its cgroup."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        if identifier in _read(folder / "cgroup"):
            parent = _read(folder / "stat").rpartition(") ")[2].split()[1:2]
            command = _read(folder / "cmdline").replace("\0", " ").strip()
            if parent and command:
                found.append(Process(int(folder.name), int(parent[0]), command))
    return found


def running_container_id(pod: dict[str, Any], container: str | None) -> str:
    """The id, without its scheme, of a pod's running container."""
    name = f"{pod['metadata']['namespace']}/{pod['metadata']['name']}"
    status = pod.get("status", {})
    statuses = [*status.get("containerStatuses", []), *status.get("initContainerStatuses", [])]
    if container is None:
        declared = [item["name"] for item in pod["spec"]["containers"]]
        if len(declared) > 1:
            raise TestbedError(f"pod {name} has containers {', '.join(declared)}: name one with -c")
        container = str(declared[0])
    for item in statuses:
        if item["name"] == container:
            if "running" not in item.get("state", {}):
                raise TestbedError(f"container {container} of pod {name} is not running")
            return str(item["containerID"]).rpartition("://")[2]
    raise TestbedError(f"pod {name} has no started container {container}")


def container_pid(member: Node, identifier: str) -> int:
    """The host's id of a container's process 1, from the task directory that containerd's shim keeps."""
    task = member.containerd_state / "io.containerd.runtime.v2.task" / "k8s.io" / identifier
    try:
        return int((task / "init.pid").read_text())
    except (FileNotFoundError, ValueError):
        raise TestbedError(f"containerd on {member.name} runs no container {identifier}") from None


def components_with_logs(instance: Instance) -> list[str]:
    """Names that `show_log` takes."""
    return sorted(path.stem for path in instance.logs.glob("*.log"))


def show_log(instance: Instance, component: str, *, lines: int, follow: bool) -> int:
    """Print the end of a component's log; returns the exit code of `tail`."""
    if component not in components_with_logs(instance):
        known = ", ".join(components_with_logs(instance)) or "none yet"
        raise TestbedError(f"no log of {component!r}; there are: {known}")
    command = ["tail", f"--lines={lines}", *(["--follow=name"] if follow else [])]
    return subprocess.call([*command, str(instance.logs / f"{component}.log")])


def _resident_bytes(pid: int) -> int:
    stat = _read(Path(f"/proc/{pid}/stat"))
    if not stat:
        return 0
    parse_stat(stat)
    return int(stat.rpartition(") ")[2].split()[21]) * os.sysconf("SC_PAGE_SIZE")


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return ""
