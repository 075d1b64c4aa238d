"""`up`, `down` and `clean`: bring a machine from any state to the wanted one.

Each step looks at what is there and adds or removes only what differs, so an interrupted command, a killed
daemon or a reboot needs nothing but the same command again.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from cos_testbed import (
    addons,
    controlplane,
    dns,
    images_infra,
    kwok,
    loop_provisioner,
    loop_volumes,
    network,
    node,
    prereqs,
    registry,
    sysctls,
)
from cos_testbed.api import Api
from cos_testbed.build import bin_dir, cache_dir, ensure_modules
from cos_testbed.cgroups import unescape_mount
from cos_testbed.errors import PrerequisiteError, TestbedError
from cos_testbed.instance import MAX_NODES, RUN_ROOT, STATE_ROOT, Instance, Node
from cos_testbed.locks import exclusive
from cos_testbed.pins import GO_MODULES, PROGRAMS, GoModule
from cos_testbed.process import output
from cos_testbed.progress import Progress
from cos_testbed.supervise import Supervisor

CONTROL_PLANE_MODULES = tuple(m for m in GO_MODULES if m.name in ("kubernetes", "etcd"))
KWOK_MODULES = (*CONTROL_PLANE_MODULES, PROGRAMS[kwok.NAME])
CLUSTER_MODULES = tuple(
    m for m in GO_MODULES if m.name not in ("helm", "traefik", "otelcol", "versitygw", kwok.NAME)
)
# In the order in which `down` stops them, after the nodes.
CONTROL_PLANE_DAEMONS = ("kube-scheduler", "kube-controller-manager", "kube-apiserver", "etcd", "registry")

LOCK_TIMEOUT_SECONDS = 600.0
ADDON_TIMEOUT_SECONDS = 180.0
CONTAINER_GRACE_SECONDS = 8.0
KUBELET_LOG_LINKS = Path("/var/log/containers")


def up(
    instance: Instance,
    progress: Progress,
    *,
    nodes: int | None,
    control_plane_only: bool,
    kwok_nodes: int = 0,
) -> None:
    """Bring up the control plane and, unless only that is wanted, the nodes, the registry and the add-ons.

    `nodes` None means as many as before, or one. Nodes that run stay when only the control plane is asked for.
    `kwok_nodes`: so many nodes that run nothing, and a scheduler; for a control plane without real nodes.
    """
    if kwok_nodes and not (control_plane_only and 0 < kwok_nodes <= kwok.MAX_NODES):
        raise PrerequisiteError(
            f"--kwok-nodes takes 1 to {kwok.MAX_NODES} and stands beside --control-plane-only: "
            "pods of real nodes would land on them"
        )
    modules = CONTROL_PLANE_MODULES if control_plane_only else CLUSTER_MODULES
    modules = KWOK_MODULES if kwok_nodes else modules
    tools = prereqs.CONTROL_PLANE_TOOLS if control_plane_only else prereqs.NODE_TOOLS
    prereqs.check(modules, tools, containers=not control_plane_only)
    count = node_count(instance, nodes)
    prereqs.install_tools(tools, progress)
    ensure_modules(modules, progress)
    programs = {name: bin_dir(module) / name for name, module in PROGRAMS.items()}
    with locked(instance, progress):
        network.check_subnet(instance)
        check_same_subnet(instance)
        sysctls.acquire(instance)
        for directory in (instance.state, instance.run):
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        (instance.state / "subnet").write_text(str(instance.subnet))
        supervisor = Supervisor(instance)
        with progress.step("Control plane"):
            network.ensure_bridge(instance)
            scheduler = bool(kwok_nodes) or not control_plane_only
            controlplane.start(instance, supervisor, programs, scheduler=scheduler)
        if kwok_nodes:
            with progress.step(f"{kwok_nodes} nodes of kwok"):
                kwok.start(instance, supervisor, programs, kwok_nodes)
        if control_plane_only:
            return
        with progress.step("Registry"):
            registry.start(instance, supervisor, programs["registry"])
        images_infra.ensure_archives(progress)
        instance.record_nodes(count)
        members = instance.nodes(count)
        for member in members:
            with progress.step(f"Node {member.name}"):
                node.start(member, members, supervisor, programs)
                node.wait_ready(member, supervisor)
        network.ensure_service_route(members[0])
        with progress.step("Cluster DNS and volumes"):
            addons.apply(programs["kubectl"], instance, addons.manifests(instance, members))
            loop_provisioner.start(instance, supervisor)
            _wait_for_addons(instance, supervisor)


def down(instance: Instance, progress: Progress) -> None:
    """Stop everything and leave nothing of it on the machine but the state directory."""
    _require_root()
    with locked(instance, progress):
        supervisor = Supervisor(instance)
        with progress.step("Stopping the nodes"):
            _stop_nodes(_known_nodes(instance), supervisor)
        with progress.step("Stopping the control plane"):
            supervisor.stop_all((loop_provisioner.NAME, kwok.NAME, *CONTROL_PLANE_DAEMONS))
            supervisor.stop_all(supervisor.names())
            # Whoever is left: shims, and daemons whose start was interrupted.
            supervisor.hierarchies.kill_all(instance.cgroup)
        with progress.step("Removing mounts, network and cgroups"):
            for member in _known_nodes(instance):
                network.remove_node(member)
            for path in (instance.state, instance.run):
                unmount_below(path)
            loop_volumes.wait_detached(instance)
            network.remove_bridge(instance)
            supervisor.hierarchies.remove(instance.cgroup)
            remove_log_links(instance)
            sysctls.release(instance)
            shutil.rmtree(instance.run, ignore_errors=True)
        _lock_path(instance).unlink()
    with contextlib.suppress(OSError):
        RUN_ROOT.rmdir()


def clean(instance: Instance, progress: Progress, *, cache: bool) -> None:
    """`down`, then delete all state of the instance; with `cache` also what was built for all instances."""
    down(instance, progress)
    with progress.step(f"Deleting {instance.state}"):
        if instance.state.exists():
            shutil.rmtree(instance.state)
        with contextlib.suppress(OSError):
            STATE_ROOT.rmdir()
    if cache and cache_dir().exists():
        with progress.step(f"Deleting {cache_dir()}"):
            # An image build that was killed leaves its layers mounted.
            unmount_below(cache_dir())
            shutil.rmtree(cache_dir())


def build(progress: Progress, modules: Sequence[GoModule] = GO_MODULES) -> None:
    """Build every pinned program, changing nothing else."""
    prereqs.check(modules, {}, containers=False)
    ensure_modules(modules, progress)


def unmount_below(directory: Path) -> None:
    """Unmount everything in a directory, the innermost first; raises TestbedError if something stays."""
    for _ in range(3):
        points = mounts_below(directory, Path("/proc/self/mountinfo").read_text())
        if not points:
            return
        for point in points:
            output(["umount", str(point)], check=False)
    for point in mounts_below(directory, Path("/proc/self/mountinfo").read_text()):
        output(["umount", "--lazy", str(point)])


def mounts_below(directory: Path, mountinfo: str) -> list[Path]:
    """Mount points in a directory, last mounted first."""
    points = [Path(unescape_mount(line.split()[4])) for line in mountinfo.splitlines()]
    return [point for point in reversed(points) if point.is_relative_to(directory)]


def remove_log_links(instance: Instance) -> None:
    """Remove our links from the one folder of the host where every kubelet links its containers' logs."""
    if not KUBELET_LOG_LINKS.is_dir():
        return
    for link in KUBELET_LOG_LINKS.iterdir():
        if link.is_symlink() and link.readlink().is_relative_to(instance.state):
            link.unlink()
    with contextlib.suppress(OSError):
        KUBELET_LOG_LINKS.rmdir()


@contextmanager
def locked(instance: Instance, progress: Progress) -> Iterator[None]:
    """One command at a time changes an instance."""

    def tell() -> None:
        progress.info("Waiting for another testbed command to end")

    with exclusive(_lock_path(instance), timeout=LOCK_TIMEOUT_SECONDS, on_wait=tell):
        yield


def _lock_path(instance: Instance) -> Path:
    return RUN_ROOT / f"{instance.index}.lock"


def check_same_subnet(instance: Instance) -> None:
    """Raises PrerequisiteError if the cluster on disk has other addresses: its Services would keep them."""
    record = instance.state / "subnet"
    if record.exists() and record.read_text() != str(instance.subnet):
        raise PrerequisiteError(
            f"this testbed was made with COS_TESTBED_SUBNET={record.read_text()}: set that, or run 'clean' first"
        )


def node_count(instance: Instance, wanted: int | None) -> int:
    """How many nodes `up` makes; raises PrerequisiteError for a number that it cannot."""
    have = len(instance.recorded_nodes)
    count = wanted if wanted is not None else max(have, 1)
    if not 1 <= count <= MAX_NODES:
        raise PrerequisiteError(f"the number of nodes must be from 1 to {MAX_NODES}, not {count}")
    if count < have:
        raise PrerequisiteError(f"this testbed has {have} nodes; to make it smaller, run 'clean' first")
    return count


def _known_nodes(instance: Instance) -> tuple[Node, ...]:
    """Nodes of which anything may exist: recorded, or started by an `up` that did not get that far."""
    recorded = instance.recorded_nodes
    every = instance.nodes(MAX_NODES)
    return tuple(n for n in every if n in recorded or n.run.exists())


def _stop_nodes(members: Sequence[Node], supervisor: Supervisor) -> None:
    """Stop kubelet first, so that it restarts nothing; then the containers, gently at first; then containerd."""
    groups = supervisor.hierarchies
    for member in members:
        supervisor.stop_all([member.daemon("kubelet"), member.daemon("kube-proxy")])
        groups.signal_all(member.cgroup, signal.SIGTERM)
    deadline = time.monotonic() + CONTAINER_GRACE_SECONDS
    while any(groups.processes(member.cgroup) for member in members) and time.monotonic() < deadline:
        time.sleep(0.1)
    for member in members:
        groups.kill_all(member.cgroup)
        supervisor.stop(member.daemon("containerd"))


def _wait_for_addons(instance: Instance, supervisor: Supervisor) -> None:
    """Wait for the Deployments, and for a DNS answer: their status can be from before a reboot."""
    api = Api(instance)
    for namespace, name in addons.DEPLOYMENTS:
        _wait(
            partial(api.deployment_is_available, namespace, name),
            f"Deployment {namespace}/{name} is not available: see 'kubectl -n {namespace} describe pods'",
            supervisor,
            f"{namespace}_{name}-",
        )
    _wait(
        lambda: dns.answers(instance.dns_address),
        f"DNS at {instance.dns_address} does not answer: see 'kubectl -n kube-system logs deploy/coredns'",
        supervisor,
    )


def newest_pod_log(instance: Instance, pods: str) -> Path | None:
    """What a container said last, of the pods whose names begin with ``namespace_pod``."""
    found = instance.state.glob(f"*/pod-logs/{pods}*/*/*.log")
    return max(found, key=lambda path: path.stat().st_mtime, default=None)


def _wait(ready: Callable[[], bool], problem: str, supervisor: Supervisor, pods: str = "") -> None:
    deadline = time.monotonic() + ADDON_TIMEOUT_SECONDS
    while not ready():
        if time.monotonic() > deadline:
            log = supervisor.log(supervisor.instance.nodes(1)[0].daemon("kubelet"))
            if pods:
                log = newest_pod_log(supervisor.instance, pods) or log
            raise TestbedError(f"after {ADDON_TIMEOUT_SECONDS:.0f} s {problem}", log=log)
        time.sleep(0.2)


def _require_root() -> None:
    if os.geteuid() != 0:
        raise PrerequisiteError(
            "the testbed's processes and namespaces belong to root: run it as root (sudo)"
        )
