"""The bridge, the nodes' network namespaces, their veths and the routes between them.

A node has no default route: nothing outside the machine is reachable from it, so an image that is not in the
testbed's registry fails to pull at once. The host needs no forwarding and no iptables rule: all traffic begins
or ends on it, or stays on the bridge.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

from cos_testbed.errors import PrerequisiteError, TestbedError
from cos_testbed.instance import Instance, Node
from cos_testbed.process import output

_NSFS = "nsfs"


def conflicting_route(instance: Instance, routes: Sequence[dict[str, Any]]) -> str | None:
    """A route of the host, not of this instance, that overlaps its subnet; `routes` as `ip -j route` prints."""
    for route in routes:
        if route["dst"] == "default" or route.get("dev") == instance.bridge:
            continue
        if IPv4Network(route["dst"], strict=False).overlaps(instance.subnet):
            return f"{route['dst']} dev {route.get('dev')}"
    return None


def check_subnet(instance: Instance) -> None:
    """Raises PrerequisiteError if another network of the host uses the instance's addresses."""
    conflict = conflicting_route(instance, json.loads(output(["ip", "-j", "-4", "route"]) or "[]"))
    if conflict:
        raise PrerequisiteError(
            f"the testbed's network {instance.subnet} overlaps the route '{conflict}': "
            "choose another private /16 by COS_TESTBED_SUBNET"
        )


def ensure_bridge(instance: Instance) -> None:
    """The bridge with the host's address; what is there already stays."""
    if not _link_exists(instance.bridge):
        output(["ip", "link", "add", instance.bridge, "type", "bridge"])
    address = f"{instance.host_address}/{instance.network.prefixlen}"
    output(["ip", "address", "replace", address, "dev", instance.bridge])
    output(["ip", "link", "set", instance.bridge, "up"])


def ensure_node(node: Node, peers: Sequence[Node]) -> None:
    """The node's namespace with eth0 on the bridge, and the routes to it from the host and to its peers."""
    instance = node.instance
    if not netns_exists(node):
        node.run.mkdir(parents=True, exist_ok=True)
        # After a reboot this can be an ordinary file that only bears the name.
        node.netns.unlink(missing_ok=True)
        node.netns.touch()
        output(["unshare", f"--net={node.netns}", "true"])
        _delete_link(node.veth)
    if not _link_exists(node.veth):
        peer = ["type", "veth", "peer", "name", "eth0", "netns", str(node.netns)]
        output(["ip", "link", "add", node.veth, *peer])
    output(["ip", "link", "set", node.veth, "master", instance.bridge, "up"])
    inside = in_node(node)
    output([*inside, "ip", "link", "set", "lo", "up"])
    address = f"{node.address}/{instance.network.prefixlen}"
    output([*inside, "ip", "address", "replace", address, "dev", "eth0"])
    output([*inside, "ip", "link", "set", "eth0", "up"])
    output([*inside, "sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward"])
    for peer_node in peers:
        if peer_node != node:
            route = ["ip", "route", "replace", str(peer_node.pod_network), "via", str(peer_node.address)]
            output([*inside, *route])
    _host_route(node.pod_network, node)


def ensure_service_route(node: Node) -> None:
    """Service addresses are reached from the host through one node, whose kube-proxy translates them."""
    _host_route(node.instance.service_network, node)


def in_node(node: Node) -> list[str]:
    """Prefix that runs a command in the node's network; `ip netns exec` would hide the cgroup mounts."""
    return ["nsenter", f"--net={node.netns}"]


def netns_exists(node: Node) -> bool:
    """Whether a namespace is mounted on the file; the file alone, after a reboot, is none."""
    return node.netns in mounts_of_type(_NSFS)


def remove_node(node: Node) -> None:
    """The namespace and its veth; also what only half exists."""
    _delete_link(node.veth)
    if netns_exists(node):
        output(["umount", str(node.netns)])
    node.netns.unlink(missing_ok=True)


def remove_bridge(instance: Instance) -> None:
    """The bridge and with it every route over it; veths of nodes that nobody recorded go first."""
    for link in json.loads(output(["ip", "-j", "link"])):
        name = str(link["ifname"])
        if name.startswith(f"{instance.bridge}-n"):
            _delete_link(name)
    _delete_link(instance.bridge)


def mounts_of_type(kind: str) -> set[Path]:
    """Mount points of a file system type in this mount namespace."""
    found = set()
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        before, _, after = line.partition(" - ")
        if after.split()[0] == kind:
            found.add(Path(before.split()[4]))
    return found


def _host_route(network: IPv4Network, node: Node) -> None:
    output(["ip", "route", "replace", str(network), "via", str(node.address), "dev", node.instance.bridge])


def _delete_link(name: str) -> None:
    """Whoever deletes it: the kernel takes a veth away by itself, a moment after its namespace."""
    if _link_exists(name):
        output(["ip", "link", "delete", name], check=False)
        if _link_exists(name):
            raise TestbedError(f"the interface {name} cannot be deleted: try 'ip link delete {name}'")


def _link_exists(name: str) -> bool:
    return Path("/sys/class/net", name).exists()
