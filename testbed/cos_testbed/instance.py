"""Names, directories and addresses of a testbed, all derived from two small numbers.

An instance owns a /16: `.0.0/24` joins its nodes by a bridge, `.64.0/18` are Service addresses, and each node
has a /24 for its pods from `.128.0/17`.
"""

from __future__ import annotations

import ipaddress
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

from cos_testbed.errors import PrerequisiteError

STATE_ROOT = Path("/var/lib/cos-testbed")
RUN_ROOT = Path("/run/cos-testbed")
MAX_INSTANCES = 10
MAX_NODES = 16

REGISTRY_NAME = "testbed.local:5000"
SUBNET_PREFIX = 16
API_PORT = 6443
ETCD_PORT = 2379
ETCD_PEER_PORT = 2380
REGISTRY_PORT = 5000


@dataclass(frozen=True)
class Node:
    """One node: a network namespace with its own containerd, kubelet, kube-proxy and pod subnet."""

    instance: Instance
    index: int

    @property
    def name(self) -> str:
        """The Kubernetes node name."""
        return f"node-{self.index}"

    @property
    def address(self) -> IPv4Address:
        """On the bridge's network."""
        return self.instance.network[10 + self.index]

    @property
    def pod_network(self) -> IPv4Network:
        """A /24; the bridge plugin takes its first address."""
        return list(self.instance.pod_network.subnets(new_prefix=24))[self.index]

    @property
    def veth(self) -> str:
        """The end on the host; at most 15 characters. The other end is eth0 in the namespace."""
        return f"{self.instance.bridge}-n{self.index}"

    @property
    def state(self) -> Path:
        """Survives `down` and a reboot."""
        return self.instance.state / self.name

    @property
    def run(self) -> Path:
        """Holds unix sockets, whose paths may have 107 characters at most."""
        return self.instance.run / self.name

    @property
    def netns(self) -> Path:
        """A file on which the network namespace is mounted."""
        return self.run / "netns"

    @property
    def containerd_socket(self) -> Path:
        """For `ctr --address` and kubelet."""
        return self.run / "containerd.sock"

    @property
    def containerd_state(self) -> Path:
        """Running tasks, with the mounts that they use."""
        return self.run / "containerd"

    @property
    def cni_config(self) -> Path:
        """Folder of the pod network's configuration."""
        return self.state / "cni"

    @property
    def volumes(self) -> Path:
        """Where the provisioner makes this node's persistent volumes."""
        return self.state / "volumes"

    @property
    def cgroup(self) -> str:
        """Parent of every pod's cgroup, in each hierarchy."""
        return f"{self.instance.cgroup}/{self.name}"

    def daemon(self, program: str) -> str:
        """A daemon's name is also that of its log and pid file."""
        return f"{self.name}-{program}"


@dataclass(frozen=True)
class Instance:
    """A testbed; several with different indices can exist on one machine."""

    index: int = 0
    subnet: IPv4Network = field(default_factory=lambda: IPv4Network("10.100.0.0/16"))

    @property
    def state(self) -> Path:
        """Survives `down` and a reboot."""
        return STATE_ROOT / str(self.index)

    @property
    def run(self) -> Path:
        """Pid files, sockets and mounts; gone after `down`."""
        return RUN_ROOT / str(self.index)

    @property
    def logs(self) -> Path:
        """One file for each daemon."""
        return self.state / "log"

    @property
    def pki(self) -> Path:
        """Keys, certificates and the components' kubeconfigs; mode 0700."""
        return self.state / "pki"

    @property
    def kubeconfig(self) -> Path:
        """Administrator's credentials; mode 0600."""
        return self.state / "kubeconfig"

    @property
    def audit_log(self) -> Path:
        """JSON lines at level Metadata, written by the API server before it answers."""
        return self.state / "audit" / "audit.log"

    @property
    def bridge(self) -> str:
        """The interface that joins the nodes and the host."""
        return f"cos-tb{self.index}"

    @property
    def cgroup(self) -> str:
        """Parent, in each hierarchy, of everything that the instance runs."""
        return f"/cos-testbed/{self.index}"

    @property
    def network(self) -> IPv4Network:
        """Of the bridge: the host and the nodes."""
        return next(self.subnet.subnets(new_prefix=24))

    @property
    def host_address(self) -> IPv4Address:
        """The bridge's address: API server, etcd and registry listen on it."""
        return self.network[1]

    @property
    def service_network(self) -> IPv4Network:
        """ClusterIPs; the host reaches them through the first node."""
        return list(self.subnet.subnets(new_prefix=18))[1]

    @property
    def pod_network(self) -> IPv4Network:
        """All pods' addresses."""
        return list(self.subnet.subnets(new_prefix=17))[1]

    @property
    def kubernetes_address(self) -> IPv4Address:
        """ClusterIP of the Service `kubernetes`: always the first of the range."""
        return self.service_network[1]

    @property
    def dns_address(self) -> IPv4Address:
        """ClusterIP of the cluster's DNS."""
        return self.service_network[10]

    @property
    def api_url(self) -> str:
        """As the host, the nodes and the pods reach it."""
        return f"https://{self.host_address}:{API_PORT}"

    @property
    def registry(self) -> str:
        """host:port of the registry as the host reaches it; plain HTTP."""
        return f"{self.host_address}:{REGISTRY_PORT}"

    def nodes(self, count: int) -> tuple[Node, ...]:
        """The first `count` nodes that an instance can have."""
        return tuple(Node(self, index) for index in range(count))

    @property
    def recorded_nodes(self) -> tuple[Node, ...]:
        """The nodes that `up` was last asked for; none before the first full `up`."""
        try:
            count = int(json.loads((self.state / "nodes.json").read_text())["nodes"])
        except FileNotFoundError:
            return ()
        return self.nodes(count)

    def record_nodes(self, count: int) -> None:
        """Remember, also for after a reboot, how many nodes were asked for."""
        path = self.state / "nodes.json"
        temporary = path.with_suffix(".tmp")
        temporary.write_text(json.dumps({"nodes": count}))
        temporary.rename(path)


def instance_from(environ: Mapping[str, str] = os.environ, index: int | None = None) -> Instance:
    """The instance that the arguments and the environment choose.

    `COS_TESTBED_INSTANCE` is an index from 0; `COS_TESTBED_SUBNET` a private /16, by default 10.(100+index).0.0.
    """
    if index is None:
        raw = environ.get("COS_TESTBED_INSTANCE") or "0"
        if not raw.isdecimal():
            raise PrerequisiteError(f"COS_TESTBED_INSTANCE must be a number, not {raw!r}")
        index = int(raw)
    if not 0 <= index < MAX_INSTANCES:
        raise PrerequisiteError(f"the testbed's instance must be from 0 to {MAX_INSTANCES - 1}, not {index}")
    text = environ.get("COS_TESTBED_SUBNET") or f"10.{100 + index}.0.0/16"
    try:
        subnet = ipaddress.IPv4Network(text)
    except ValueError as error:
        raise PrerequisiteError(f"COS_TESTBED_SUBNET: {error}") from error
    if subnet.prefixlen != SUBNET_PREFIX or not subnet.is_private:
        raise PrerequisiteError(f"COS_TESTBED_SUBNET must be a private /16 network, not {text}")
    return Instance(index, subnet)
