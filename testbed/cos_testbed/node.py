"""A node's daemons (containerd, kubelet, kube-proxy) and their configuration."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from cos_testbed import loop_volumes, network, pki, probe
from cos_testbed.api import Api
from cos_testbed.controlplane import component_kubeconfig, write_if_changed
from cos_testbed.errors import TestbedError
from cos_testbed.images_infra import SANDBOX, import_into
from cos_testbed.instance import REGISTRY_NAME, Instance, Node
from cos_testbed.supervise import Daemon, Supervisor, uptime_seconds

KUBELET_PORT = 10250
START_TIMEOUT_SECONDS = 60.0
READY_TIMEOUT_SECONDS = 120.0
CNI_VERSION = "1.0.0"

# Plugins that make directories or sockets at fixed paths of the host.
DISABLED_CONTAINERD_PLUGINS = ("io.containerd.internal.v1.opt", "io.containerd.nri.v1.nri")


def render_containerd(node: Node, *, runc: str, cni_programs: Path) -> str:
    """The config.toml of containerd; nothing of it lies outside the instance's directories."""
    run = node.run
    return f"""\
version = 3
root = {_toml(node.state / "containerd")}
state = {_toml(node.containerd_state)}
disabled_plugins = {json.dumps(DISABLED_CONTAINERD_PLUGINS)}
oom_score = 0

[grpc]
address = {_toml(node.containerd_socket)}

[plugins.'io.containerd.shim.v1.manager']
socket_dir = {_toml(run / "s")}

[plugins.'io.containerd.image-verifier.v1.bindir']
bin_dir = {_toml(node.state / "image-verifiers")}

[plugins.'io.containerd.cri.v1.images']
snapshotter = "overlayfs"

[plugins.'io.containerd.cri.v1.images'.pinned_images]
sandbox = {_toml(SANDBOX.reference)}

[plugins.'io.containerd.cri.v1.images'.registry]
config_path = {_toml(node.state / "certs.d")}

[plugins.'io.containerd.cri.v1.runtime']
netns_mounts_under_state_dir = true
restrict_oom_score_adj = true
enable_cdi = false

[plugins.'io.containerd.cri.v1.runtime'.cni]
bin_dirs = [{_toml(cni_programs)}]
conf_dir = {_toml(node.cni_config)}

[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"

[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc.options]
BinaryName = {_toml(runc)}
Root = {_toml(run / "runc")}
SystemdCgroup = false
"""


def render_cni(node: Node) -> str:
    """A bridge in the node's namespace. Addresses in use are kept in the run directory: a reboot frees them."""
    plugins: list[dict[str, Any]] = [
        {
            "type": "bridge",
            "bridge": "cni0",
            "isGateway": True,
            "hairpinMode": True,
            "ipam": {
                "type": "host-local",
                "dataDir": str(node.run / "ipam"),
                "ranges": [[{"subnet": str(node.pod_network)}]],
                "routes": [{"dst": "0.0.0.0/0"}],
            },
        },
        {"type": "portmap", "capabilities": {"portMappings": True}},
    ]
    return json.dumps({"cniVersion": CNI_VERSION, "name": "cos-testbed", "plugins": plugins}, indent=2)


def render_hosts_toml(instance: Instance) -> str:
    """Where containerd finds the registry's fixed name."""
    return f"""\
server = "http://{instance.registry}"

[host."http://{instance.registry}"]
capabilities = ["pull", "resolve"]
"""


def kubelet_config(node: Node, *, ca: Path, serving: pki.KeyPair) -> dict[str, Any]:
    """KubeletConfiguration as a mapping."""
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": str(node.address),
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": str(ca)},
        },
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": str(serving.certificate),
        "tlsPrivateKeyFile": str(serving.key),
        "clusterDomain": "cluster.local",
        "clusterDNS": [str(node.instance.dns_address)],
        "resolvConf": str(node.state / "resolv.conf"),
        "containerRuntimeEndpoint": f"unix://{node.containerd_socket}",
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": node.cgroup,
        "failCgroupV1": False,
        "failSwapOn": False,
        "podLogsDir": str(node.state / "pod-logs"),
        "volumePluginDir": str(node.state / "volume-plugins"),
        "containerLogMaxSize": "10Mi",
        "containerLogMaxFiles": 2,
        "serializeImagePulls": False,
        # The disk is shared with whatever else the machine does: no eviction before it is really full.
        "evictionHard": {
            "memory.available": "100Mi",
            "nodefs.available": "1%",
            "nodefs.inodesFree": "1%",
            "imagefs.available": "1%",
            "imagefs.inodesFree": "1%",
        },
        "imageGCHighThresholdPercent": 100,
        "imageGCLowThresholdPercent": 99,
    }


def containerd_daemon(node: Node, programs: Mapping[str, Path]) -> Daemon:
    """The container runtime; its shims and containers outlive its restart."""
    runc = shutil.which("runc")
    if runc is None:
        raise TestbedError("runc is not in PATH: install Debian's package 'runc'")
    config = node.state / "containerd.toml"
    write_if_changed(config, render_containerd(node, runc=runc, cni_programs=programs["bridge"].parent))
    # containerd looks for its shim beside the programs in PATH.
    path = f"{programs['containerd'].parent}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    return Daemon(
        node.daemon("containerd"),
        (str(programs["containerd"]), f"--config={config}", "--log-level=warn"),
        netns=node.netns,
        inputs=(config,),
        environment=(("PATH", path),),
    )


def kubelet_daemon(node: Node, program: Path) -> Daemon:
    """With certificates of the cluster's authority, as client and as server."""
    instance = node.instance
    authority = pki.cluster_authority(instance)
    user = f"system:node:{node.name}"
    client = authority.leaf(f"kubelet-{node.name}", user, organization="system:nodes")
    kubeconfig = instance.pki / f"kubelet-{node.name}.kubeconfig"
    pki.write_kubeconfig(kubeconfig, instance.api_url, authority, client, user)
    serving = authority.leaf(
        f"kubelet-{node.name}-server", user, hosts=[node.name, str(node.address)], server=True
    )
    config = node.state / "kubelet.json"
    ca = authority.files.certificate
    write_if_changed(config, json.dumps(kubelet_config(node, ca=ca, serving=serving), indent=2))
    return Daemon(
        node.daemon("kubelet"),
        (
            str(program),
            f"--config={config}",
            f"--kubeconfig={kubeconfig}",
            f"--root-dir={node.state / 'kubelet'}",
            f"--cert-dir={node.state / 'kubelet' / 'pki'}",
            f"--hostname-override={node.name}",
            f"--node-ip={node.address}",
        ),
        netns=node.netns,
        inputs=(config, kubeconfig, serving.certificate, ca),
    )


def kube_proxy_daemon(node: Node, program: Path) -> Daemon:
    """Translates Service addresses by iptables in the node's namespace."""
    instance = node.instance
    kubeconfig = component_kubeconfig(instance, pki.cluster_authority(instance), "kube-proxy")
    return Daemon(
        node.daemon("kube-proxy"),
        (
            str(program),
            f"--kubeconfig={kubeconfig}",
            "--proxy-mode=iptables",
            f"--hostname-override={node.name}",
            # Traffic from outside the pods, the host's, is masqueraded so that answers come back this way.
            f"--cluster-cidr={instance.pod_network}",
            # These conntrack settings belong to the host and cannot be written in a namespace.
            "--conntrack-max-per-core=0",
            "--conntrack-tcp-timeout-established=0",
            "--conntrack-tcp-timeout-close-wait=0",
        ),
        netns=node.netns,
        inputs=(kubeconfig,),
    )


def write_files(node: Node) -> None:
    """What containerd and kubelet expect to find besides their own configuration."""
    node.run.mkdir(parents=True, exist_ok=True)
    # A containerd shim refuses a socket directory that others can enter.
    (node.run / "s").mkdir(mode=0o700, exist_ok=True)
    for directory in ("pod-logs", "volume-plugins", "image-verifiers", "volumes"):
        (node.state / directory).mkdir(parents=True, exist_ok=True)
    write_if_changed(node.cni_config / "10-cos-testbed.conflist", render_cni(node))
    write_if_changed(node.state / "certs.d" / REGISTRY_NAME / "hosts.toml", render_hosts_toml(node.instance))
    # Pods ask the cluster's DNS only.
    write_if_changed(node.state / "resolv.conf", "")


def start(node: Node, peers: Sequence[Node], supervisor: Supervisor, programs: Mapping[str, Path]) -> None:
    """Start what does not run of a node; returns once containerd serves, with its images and volumes in place."""
    supervisor.hierarchies.create(node.cgroup)
    network.ensure_node(node, peers)
    write_files(node)
    containerd = containerd_daemon(node, programs)
    supervisor.ensure(containerd)
    serves = partial(probe.unix_accepts, node.containerd_socket)
    supervisor.wait(containerd.name, serves, START_TIMEOUT_SECONDS, 0.05)
    import_into(node, programs["ctr"])
    loop_volumes.restore(node)
    supervisor.ensure(kubelet_daemon(node, programs["kubelet"]))
    supervisor.ensure(kube_proxy_daemon(node, programs["kube-proxy"]))


def wait_ready(node: Node, supervisor: Supervisor) -> None:
    """Wait until the kubelet that runs now says that its node is Ready."""
    api = Api(node.instance)
    kubelet = supervisor.find(node.daemon("kubelet"))
    started = time.time() - uptime_seconds(kubelet) if kubelet else 0.0

    def ready() -> bool:
        return api.node_is_ready(node.name, since=started)

    supervisor.wait(node.daemon("kubelet"), ready, READY_TIMEOUT_SECONDS, 0.2)


def daemon_names(node: Node) -> tuple[str, ...]:
    """In the order in which they start."""
    return tuple(node.daemon(program) for program in ("containerd", "kube-proxy", "kubelet"))


def _toml(value: object) -> str:
    """A TOML basic string; JSON's escapes are a subset of TOML's."""
    return json.dumps(str(value))
