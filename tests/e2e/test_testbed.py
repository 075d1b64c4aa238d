"""The testbed itself, on an instance of its own beside the one that the other tests use."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from harness import wait_for

from cos_testbed.build import ensure_binary
from cos_testbed.cgroups import Hierarchies
from cos_testbed.images_infra import HELPER
from cos_testbed.instance import Instance, instance_from
from cos_testbed.lifecycle import unmount_below
from cos_testbed.network import remove_bridge, remove_node
from cos_testbed.supervise import Supervisor, boot_id

INSTANCE = instance_from({}, 9)
# Bounds: measured 4, 1 and 12 s on two idle cores.
CONTROL_PLANE_SECONDS = 10.0
SECOND_UP_SECONDS = 8.0
UP_SECONDS = 120.0

UP = (sys.executable, "-m", "cos_testbed", f"--instance={INSTANCE.index}", "up")
SERVE = "mkdir /www; echo $HOSTNAME > /www/index.html; exec busybox httpd -f -p 8080 -h /www"


def run(*command: str, check: bool = True, timeout: float = 300, **options: Any) -> str:
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=timeout, **options)
    assert done.returncode == 0 or not check, f"{' '.join(command)}: {done.stderr[-3000:]}"
    return done.stdout


def cli(*args: str) -> str:
    return run(*UP[:-1], *args)


def kubectl(*args: str, check: bool = True, data: str | None = None) -> str:
    program = str(ensure_binary("kubectl"))
    return run(program, f"--kubeconfig={INSTANCE.kubeconfig}", *args, check=check, input=data)


def pod(name: str, command: str, *, image: str = HELPER.reference, **spec: Any) -> dict[str, Any]:
    container = {
        "name": "main",
        "image": image,
        "command": ["sh", "-c", command],
        **spec.pop("container", {}),
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {"app": name}},
        "spec": {"terminationGracePeriodSeconds": 0, "containers": [container], **spec},
    }


def service(name: str, app: str) -> dict[str, Any]:
    spec = {"selector": {"app": app}, "ports": [{"port": 80, "targetPort": 8080}]}
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": spec}


def apply(*objects: dict[str, Any]) -> None:
    kubectl("apply", "-f", "-", data=json.dumps({"apiVersion": "v1", "kind": "List", "items": objects}))


def read(kind: str, name: str, path: str) -> str:
    return kubectl("get", kind, name, f"-o=jsonpath={{{path}}}")


def wait_ready(name: str, seconds: float = 60) -> None:
    kubectl("wait", "--for=condition=Ready", f"pod/{name}", f"--timeout={seconds:.0f}s")


def restarts(name: str) -> int:
    return int(read("pod", name, ".status.containerStatuses[0].restartCount") or 0)


def pull_failed(name: str) -> bool:
    reason = read("pod", name, ".status.containerStatuses[0].state.waiting.reason")
    return reason in ("ErrImagePull", "ImagePullBackOff")


def fetch(url: str, *, pid: int | None = None, timeout: float = 5) -> str:
    """GET from the host, or from the network namespace of a process; empty if nobody answers in time."""
    script = (
        f"import urllib.request as u; print(u.urlopen('{url}', timeout={timeout}).read().decode(), end='')"
    )
    enter = ["nsenter", f"--net=/proc/{pid}/ns/net"] if pid else []
    return run(*enter, sys.executable, "-c", script, check=False).strip()


def container_process(name: str) -> int:
    """The host's id of a running container's process 1."""
    return int(re.findall(r"process (\d+)", cli("kill", name, "CONT"))[0])


def is_foreign(line: str) -> bool:
    """Whether a line speaks of another instance, which may change while we look, or of an image build."""
    others = [i for i in range(10) if i != INSTANCE.index]
    names = "|".join(rf"cos-testbed/{i}\b|cos-tb{i}\b|10\.{100 + i}\." for i in others)
    return bool(re.search(rf"{names}|containers/|process_api/", line))


def host_state() -> dict[str, set[str]]:
    """All on the host that a testbed could leave behind, as lines by kind."""
    mounts = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    places = [
        *(Path(p) for p in ("/etc/cni", "/etc/containerd", "/run/containerd", "/run/nri", "/run/netns")),
        *(Path(p) for p in ("/var/lib/kubelet", "/var/lib/cni", "/var/lib/containerd", "/var/log/pods")),
        *Path("/opt").glob("*"),
        *Path("/run/cos-testbed").glob("*"),
        *Path("/var/log/containers").glob("*"),
    ]
    links = [str(p.readlink()) if p.is_symlink() else str(p) for p in places if p.is_symlink() or p.exists()]
    sysctls = ["vm/max_map_count", "vm/overcommit_memory", "kernel/panic", "kernel/panic_on_oops"]
    groups = [str(p) for mount in Hierarchies.of_host().every for p in mount.glob("cos-testbed/**")]
    processes = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            line = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            membership = (folder / "cgroup").read_text()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if "cos-testbed/" in f"{line}{membership}" and "pytest" not in line:
            processes.append(f"{line} {membership}")
    rules = run("iptables-save", check=False).splitlines()
    # Other programs of the host open ports as they please.
    listening = [line.split()[3] for line in run("ss", "-Hltn").splitlines()]
    found: dict[str, list[str]] = {
        "links": [line.split()[0] for line in run("ip", "-br", "link").splitlines()],
        "routes": run("ip", "-4", "route", "show", "table", "all").splitlines(),
        "rules": [re.sub(r"\[\d+:\d+\]", "", line) for line in rules if not line.startswith("#")],
        "mounts": mounts,
        "namespaces": run("lsns", "--type=net", "--noheadings", "--output=NSFS").split(),
        "cgroups": groups,
        "places": links,
        "sysctls": [f"{name}={Path('/proc/sys', name).read_text().strip()}" for name in sysctls],
        "processes": processes,
        "ports": [port for port in listening if port.startswith(str(INSTANCE.subnet[0])[:-3])],
    }
    return {kind: {line.strip() for line in lines if not is_foreign(line)} for kind, lines in found.items()}


def difference(before: dict[str, set[str]], after: dict[str, set[str]]) -> dict[str, set[str]]:
    """What is there after that was not there before."""
    return {kind: after[kind] - before[kind] for kind in before if after[kind] - before[kind]}


@pytest.fixture(scope="module")
def clean_host() -> Iterator[dict[str, set[str]]]:
    """The host's state without our instance; whatever the tests leave is removed."""
    cli("clean")
    yield host_state()
    cli("clean")


@pytest.fixture
def up(clean_host: dict[str, set[str]]) -> Instance:
    """The instance, running."""
    assert clean_host
    cli("up")
    return INSTANCE


def test_the_control_plane_alone_is_ready_in_ten_seconds(clean_host: dict[str, set[str]]) -> None:
    ensure_binary("kube-apiserver")
    ensure_binary("etcd")
    begun = time.monotonic()
    cli("up", "--control-plane-only")
    assert time.monotonic() - begun < CONTROL_PLANE_SECONDS
    assert "cos-testbed-admin" in kubectl("auth", "whoami")

    kubectl("create", "configmap", "owner")
    uid = read("configmap", "owner", ".metadata.uid")
    reference = {"apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": uid}
    owned = {"name": "owned", "ownerReferences": [reference]}
    apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": owned})
    kubectl("delete", "configmap", "owner")
    kubectl("wait", "--for=delete", "configmap/owned", "--timeout=30s")

    cli("down")
    assert difference(clean_host, host_state()) == {}


def test_up_gives_a_cluster_that_serves(up: Instance) -> None:
    claim = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": "data"},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Mi"}}},
    }
    writer = pod(
        "web",
        "echo $HOSTNAME >> /data/index.html; exec busybox httpd -f -p 8080 -h /data",
        container={"volumeMounts": [{"name": "data", "mountPath": "/data"}]},
        volumes=[{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}],
        securityContext={"runAsUser": 999, "fsGroup": 999},
    )
    apply(claim, writer, service("web", "web"))
    wait_ready("web")
    cluster_ip, pod_ip = read("service", "web", ".spec.clusterIP"), read("pod", "web", ".status.podIP")
    assert wait_for("the ClusterIP answers", lambda: fetch(f"http://{cluster_ip}/"), 20) == "web"
    assert fetch(f"http://{pod_ip}:8080/") == "web"
    assert kubectl("exec", "web", "--", "id", "-u").strip() == "999"
    assert kubectl("logs", "web") == ""
    resolved = kubectl("exec", "web", "--", "nslookup", "web.default.svc.cluster.local")
    assert f"Address: {cluster_ip}" in resolved
    inside = container_process("web")
    assert fetch(f"http://{cluster_ip}/", pid=inside) == "web"
    assert "node-0" in cli("status")
    assert oct(up.kubeconfig.stat().st_mode & 0o777) == "0o600"


def test_the_second_up_changes_nothing(up: Instance) -> None:
    supervisor = Supervisor(up)
    before = {name: supervisor.find(name) for name in supervisor.names()}
    assert len(before) == 8
    begun = time.monotonic()
    cli("up")
    assert time.monotonic() - begun < SECOND_UP_SECONDS
    assert {name: supervisor.find(name) for name in supervisor.names()} == before


@pytest.mark.usefixtures("up")
def test_a_signal_reaches_process_one_of_a_container() -> None:
    apply(pod("victim", SERVE))
    wait_ready("victim")
    address = read("pod", "victim", ".status.podIP")
    cli("kill", "victim", "STOP")
    assert fetch(f"http://{address}:8080/", timeout=1) == ""
    cli("kill", "victim", "CONT")
    assert fetch(f"http://{address}:8080/") == "victim"
    cli("kill", "victim", "KILL", "-c", "main")
    wait_for("the container restarts", lambda: restarts("victim") == 1, 30)
    wait_ready("victim")


@pytest.mark.usefixtures("up")
def test_an_image_comes_from_the_registry_by_its_fixed_name(tmp_path: Path) -> None:
    storage = ["--root", str(tmp_path / "r"), "--runroot", str(tmp_path / "run"), "--storage-driver=vfs"]
    buildah = ["buildah", *storage]
    run(*buildah, "pull", f"docker-archive:{HELPER.archive}")
    # An image of its own: kubelet asks for credentials of a preloaded one once it was also pulled.
    (tmp_path / "Dockerfile").write_text(f"FROM {HELPER.reference}\nLABEL mine=1\n")
    run(*buildah, "bud", "--isolation=chroot", "--pull-never", "--tag=mine:1", str(tmp_path))
    run(*buildah, "push", "--tls-verify=false", "mine:1", f"docker://{INSTANCE.registry}/mine:1")
    apply(
        pod("pulled", SERVE, image="testbed.local:5000/mine:1"),
        pod("official", SERVE, image="redis:8"),
        pod("bad-tag", SERVE, image="testbed.local:5000/mine:2"),
    )
    wait_ready("pulled")
    for name in ("official", "bad-tag"):
        wait_for(f"{name} fails to pull", partial(pull_failed, name), 10)


@pytest.mark.usefixtures("up")
def test_the_audit_log_counts_writes() -> None:
    kubectl("create", "configmap", "counted")
    written = [json.loads(line) for line in INSTANCE.audit_log.read_text().splitlines()]
    ours = [
        event
        for event in written
        if event["verb"] == "create" and event.get("objectRef", {}).get("name") == "counted"
    ]
    assert [event["user"]["username"] for event in ours] == ["cos-testbed-admin"]
    assert ours[0]["level"] == "Metadata"


def forget_as_a_reboot_does(instance: Instance) -> None:
    """Take away what a reboot takes away, without asking: processes, mounts, interfaces, cgroups.

    Files stay, among them pid files; each now names a process that is somebody else's.
    """
    supervisor = Supervisor(instance)
    supervisor.hierarchies.kill_all(instance.cgroup)
    for member in instance.recorded_nodes:
        remove_node(member)
        # What mounts are made on is a file that stays.
        member.netns.touch()
    for path in (instance.state, instance.run):
        unmount_below(path)
    remove_bridge(instance)
    supervisor.hierarchies.remove(instance.cgroup)


def test_up_after_a_reboot_finds_the_data_and_trusts_no_old_pid(up: Instance) -> None:
    with subprocess.Popen(["sleep", "600"]) as stranger:
        try:
            forget_as_a_reboot_does(up)
            stat = Path(f"/proc/{stranger.pid}/stat").read_text().strip().split()
            pids = list((up.run / "pid").iterdir())
            assert len(pids) == 8
            for number, path in enumerate(pids):
                # Half of them of an earlier boot, half of a process that took the pid since.
                boot = "00000000-0000-0000-0000-000000000000" if number % 2 else boot_id()
                start = stat[21] if number % 2 else "1"
                path.write_text("\n".join([boot, " ".join([*stat[:21], start, *stat[22:]]), "abc", ""]))
            cli("up")
            wait_for("the pod runs again", lambda: restarts("web") >= 1, 60)
            wait_ready("web")
            cluster_ip = read("service", "web", ".spec.clusterIP")
            # One line from before, one from now.
            answer = wait_for("the ClusterIP answers", lambda: fetch(f"http://{cluster_ip}/"), 20)
            assert answer.split() == ["web", "web"]
            cli("down")
            assert stranger.poll() is None
        finally:
            stranger.kill()


@pytest.mark.parametrize("seconds", [0.7, 1.5, 3.0, 5.0])
def test_up_resumes_after_an_interruption_at_any_point(
    seconds: float, clean_host: dict[str, set[str]]
) -> None:
    """The command is killed; what it had started goes on, and the next `up` completes it."""
    assert clean_host
    cli("clean")
    with subprocess.Popen(UP, stderr=subprocess.DEVNULL, start_new_session=True) as interrupted:
        time.sleep(seconds)
        os.killpg(interrupted.pid, signal.SIGKILL)
    cli("up")
    status = cli("status")
    assert "not running" not in status
    assert "1 of 1 nodes Ready" in status


def test_down_leaves_nothing_behind(up: Instance, clean_host: dict[str, set[str]]) -> None:
    apply(pod("left", SERVE))
    wait_ready("left")
    during = difference(clean_host, host_state())
    # The comparison sees what there is to see, or it would prove nothing.
    for kind in ("links", "routes", "mounts", "namespaces", "cgroups", "places", "processes", "ports"):
        assert during.get(kind), f"the test does not notice {kind}"
    cli("down")
    assert difference(clean_host, host_state()) == {}
    assert up.state.is_dir()


def test_down_after_an_interrupted_up_leaves_nothing_behind(clean_host: dict[str, set[str]]) -> None:
    with subprocess.Popen(UP, stderr=subprocess.DEVNULL, start_new_session=True) as interrupted:
        wait_for("kubelet starts", lambda: Supervisor(INSTANCE).find("node-0-kubelet"), 60, 0.05)
        os.killpg(interrupted.pid, signal.SIGKILL)
    cli("down")
    assert difference(clean_host, host_state()) == {}


def test_two_nodes_serve_across_nodes(clean_host: dict[str, set[str]]) -> None:
    cli("clean")
    cli("up")
    cli("up", "--nodes=2")
    apply(
        pod("one", SERVE, nodeName="node-0"),
        pod("two", SERVE, nodeName="node-1"),
        service("one", "one"),
        service("two", "two"),
    )
    processes = {}
    for name in ("one", "two"):
        wait_ready(name)
        processes[name] = container_process(name)
    for source in ("one", "two"):
        for target in ("one", "two"):
            cluster_ip = read("service", target, ".spec.clusterIP")
            pod_ip = read("pod", target, ".status.podIP")
            for url in (f"http://{cluster_ip}/", f"http://{pod_ip}:8080/"):
                reach = partial(fetch, url, pid=processes[source])
                assert wait_for(f"{source} reaches {url}", reach, 20) == target
            assert fetch(f"http://{cluster_ip}/") == target
    cli("clean")
    assert difference(clean_host, host_state()) == {}
    assert not INSTANCE.state.exists()


def test_a_machine_that_cannot_run_it_is_told_so_in_one_line(tmp_path: Path) -> None:
    """Without root's rights: exit code 2, one line, nothing made."""
    cli("clean")
    unprivileged = ["setpriv", "--reuid=65534", "--clear-groups", *UP]
    env = {**os.environ, "HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    done = subprocess.run(unprivileged, check=False, capture_output=True, text=True, timeout=60, env=env)
    assert done.returncode == 2, done.stderr
    assert done.stderr.strip().splitlines() == [
        "cos_testbed: the testbed makes network namespaces and containers: run it as root (sudo)"
    ]
    for place in (tmp_path / "cache", INSTANCE.run, INSTANCE.state):
        assert not place.exists()
