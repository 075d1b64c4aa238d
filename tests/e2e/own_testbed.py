"""A testbed of its own for the tests of the testbed itself, and what a testbed could leave behind on its host."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from cos_testbed.build import ensure_binary
from cos_testbed.cgroups import Hierarchies
from cos_testbed.images_infra import HELPER
from cos_testbed.instance import instance_from

INSTANCE = instance_from({}, 9)

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


def claim(name: str, size: str, **spec: Any) -> dict[str, Any]:
    resources = {"requests": {"storage": size}}
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": name},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": resources, **spec},
    }


def pod_with_volume(name: str, command: str) -> dict[str, Any]:
    """As Pod Security `restricted` wants it; the claim of the same name is at /data."""
    hardened = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
    user = {"runAsNonRoot": True, "runAsUser": 999, "runAsGroup": 999, "fsGroup": 999}
    return pod(
        name,
        command,
        container={
            "volumeMounts": [{"name": "data", "mountPath": "/data"}],
            "securityContext": hardened,
        },
        volumes=[{"name": "data", "persistentVolumeClaim": {"claimName": name}}],
        securityContext={
            **user,
            "fsGroupChangePolicy": "OnRootMismatch",
            "seccompProfile": {"type": "RuntimeDefault"},
        },
    )


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
    loops = [path.read_text() for path in Path("/sys/block").glob("loop*/loop/backing_file")]
    # Other programs of the host open ports as they please.
    listening = [line.split()[3] for line in run("ss", "-Hltn").splitlines()]
    found: dict[str, list[str]] = {
        "links": [line.split()[0] for line in run("ip", "-br", "link").splitlines()],
        "routes": run("ip", "-4", "route", "show", "table", "all").splitlines(),
        "rules": [re.sub(r"\[\d+:\d+\]", "", line) for line in rules if not line.startswith("#")],
        "mounts": mounts,
        "loops": loops,
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
