"""The testbed itself, on an instance of its own beside the one that the other tests use."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from harness import wait_for
from own_testbed import (
    INSTANCE,
    SERVE,
    UP,
    apply,
    claim,
    cli,
    container_process,
    difference,
    fetch,
    host_state,
    kubectl,
    pod,
    pod_with_volume,
    pull_failed,
    read,
    restarts,
    run,
    service,
    wait_ready,
)

from cos_testbed import loop_provisioner, loop_volumes
from cos_testbed.build import ensure_binary
from cos_testbed.images_infra import HELPER
from cos_testbed.instance import Instance
from cos_testbed.lifecycle import unmount_below
from cos_testbed.network import remove_bridge, remove_node
from cos_testbed.supervise import Supervisor, boot_id

# Bounds: measured 4 and 1 s on two idle cores.
CONTROL_PLANE_SECONDS = 10.0
SECOND_UP_SECONDS = 8.0


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
    serve = "echo $HOSTNAME >> /data/index.html; exec busybox httpd -f -p 8080 -h /data"
    apply(claim("web", "1Mi"), pod_with_volume("web", serve), service("web", "web"))
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
    assert len(before) == 9
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
def test_a_signal_reaches_the_server_below_a_shell() -> None:
    serve = SERVE.replace("exec busybox", "busybox") + "; echo ended"
    apply(pod("child", serve))
    wait_ready("child")
    url = f"http://{read('pod', 'child', '.status.podIP')}:8080/"
    cli("kill", "child", "STOP")
    assert fetch(url) == "child", "process 1 is the shell: the server goes on"
    cli("kill", "child", "CONT")
    cli("kill", "child", "STOP", "--process", "^busybox httpd")
    assert fetch(url, timeout=1) == ""
    cli("kill", "child", "CONT", "--process", "^busybox httpd")
    assert fetch(url) == "child"
    assert restarts("child") == 0


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
            assert len(pids) == 9
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


def capacity(name: str) -> str:
    return read("pvc", name, ".status.capacity.storage")


def grow(name: str, size: str) -> None:
    patch = {"spec": {"resources": {"requests": {"storage": size}}}}
    kubectl("patch", "pvc", name, "--type=merge", f"--patch={json.dumps(patch)}")


def room_in_mib(name: str) -> int:
    """Size of the file system, as the container sees it."""
    return int(kubectl("exec", name, "--", "df", "-m", "/data").splitlines()[-1].split()[1])


def loop_volumes_of(instance: Instance) -> list[str]:
    """Images, mounts and devices of loop volumes."""
    images = [str(path) for path in instance.state.glob("*/loop/*")]
    places = [*host_state()["mounts"], *host_state()["loops"]]
    return [
        *images,
        *(place for place in places if f"cos-testbed/{instance.index}/" in place and "/loop/" in place),
    ]


def test_a_loop_volume_enforces_its_size_and_grows_in_use(up: Instance) -> None:
    kubectl("label", "namespace", "default", "pod-security.kubernetes.io/enforce=restricted", "--overwrite")
    try:
        apply(
            claim("grown", "40Mi", storageClassName="loop"),
            pod_with_volume("grown", "echo data > /data/file; exec busybox sleep infinity"),
        )
    finally:
        kubectl("label", "namespace", "default", "pod-security.kubernetes.io/enforce-")
    wait_ready("grown")
    uid = read("pod", "grown", ".metadata.uid")
    assert capacity("grown") == "40Mi"
    assert 30 <= room_in_mib("grown") <= 40
    fill = "busybox cat /dev/zero 2>&1 > /data/fill; true"
    assert "No space left on device" in kubectl("exec", "grown", "--", "sh", "-c", fill)

    grow("grown", "80Mi")
    wait_for("the claim says that it has grown", lambda: capacity("grown") == "80Mi", 20)
    assert 70 <= room_in_mib("grown") <= 80
    assert read("pvc", "grown", ".status.conditions") == ""
    assert read("pvc", "grown", ".status.allocatedResourceStatuses") == ""
    volume = read("pvc", "grown", ".spec.volumeName")
    assert read("pv", volume, ".spec.capacity.storage") == "80Mi"
    assert read("pod", "grown", ".metadata.uid") == uid
    assert restarts("grown") == 0
    assert kubectl("exec", "grown", "--", "cat", "/data/file").strip() == "data"

    provisioner = Supervisor(up).find(loop_provisioner.NAME)
    assert provisioner
    os.kill(provisioner.pid, signal.SIGKILL)
    grow("grown", "96Mi")
    assert re.search(rf"{loop_provisioner.NAME} +- +not running", run(*UP[:-1], "status", check=False))
    cli("up")
    wait_for("the next `up` goes on with it", lambda: capacity("grown") == "96Mi", 20)
    cli("down")
    assert loop_volumes_of(up) == [str(up.state / "node-0" / "loop" / f"{volume}.img")]
    cli("up")
    wait_for("the pod runs again", lambda: restarts("grown") >= 1, 60)
    wait_ready("grown")
    assert 86 <= room_in_mib("grown") <= 96
    kubectl("delete", "pod/grown", "pvc/grown")
    wait_for("nothing is left of it", lambda: not loop_volumes_of(up), 20)
    kubectl("wait", "--for=delete", f"pv/{volume}", "--timeout=20s")


def test_down_leaves_nothing_behind(up: Instance, clean_host: dict[str, set[str]]) -> None:
    apply(claim("left", "32Mi", storageClassName="loop"), pod_with_volume("left", "busybox sleep infinity"))
    wait_ready("left")
    during = difference(clean_host, host_state())
    # The comparison sees what there is to see, or it would prove nothing.
    for kind in (
        "links",
        "routes",
        "mounts",
        "loops",
        "namespaces",
        "cgroups",
        "places",
        "processes",
        "ports",
    ):
        assert during.get(kind), f"the test does not notice {kind}"
    cli("down")
    assert difference(clean_host, host_state()) == {}
    assert up.state.is_dir()


def test_a_loop_volume_is_made_and_deleted_from_where_it_was_cut_off(up: Instance) -> None:
    """Each state that a kill can leave behind, in turn."""
    (node,) = up.recorded_nodes
    volume, size = loop_volumes.LoopVolume(node, "cut-off"), loop_volumes.MINIMUM_BYTES
    # Until then the provisioner would delete what nobody asks for.
    Supervisor(up).stop(loop_provisioner.NAME)
    volume.unfinished.parent.mkdir(exist_ok=True)
    volume.unfinished.write_text("half a file system")
    loop_volumes.create(volume, size)
    (volume.path / "file").write_text("data")
    run("umount", str(volume.mountpoint))
    loop_volumes.create(volume, size)
    assert (volume.path / "file").read_text() == "data"
    # Grown, but for the file system.
    with volume.image.open("ab") as image:
        image.truncate(2 * size)
    loop_volumes.grow(volume, 2 * size)
    assert shutil.disk_usage(volume.path).total > size
    run("umount", str(volume.mountpoint))
    assert "cut-off" in loop_volumes.stored(node)
    cli("up")
    wait_for("what nobody asks for is deleted", lambda: "cut-off" not in loop_volumes.stored(node), 20)
    assert not [place for place in loop_volumes_of(up) if "cut-off" in place]


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
