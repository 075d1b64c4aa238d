"""Every name and address follows from two numbers, so instances and nodes never meet."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network
from itertools import combinations

import pytest

from cos_testbed.errors import PrerequisiteError
from cos_testbed.instance import MAX_INSTANCES, MAX_NODES, Instance, instance_from
from cos_testbed.network import conflicting_route


def test_the_first_instance_has_these_addresses() -> None:
    instance = instance_from({})
    assert instance.host_address == IPv4Address("10.100.0.1")
    assert instance.service_network == IPv4Network("10.100.64.0/18")
    assert instance.kubernetes_address == IPv4Address("10.100.64.1")
    assert instance.dns_address == IPv4Address("10.100.64.10")
    assert instance.pod_network == IPv4Network("10.100.128.0/17")
    first, second = instance.nodes(2)
    assert (first.name, first.address) == ("node-0", IPv4Address("10.100.0.10"))
    assert second.pod_network == IPv4Network("10.100.129.0/24")


def test_networks_of_one_instance_are_disjoint() -> None:
    instance = Instance()
    nodes = instance.nodes(MAX_NODES)
    networks = [instance.network, instance.service_network, *(node.pod_network for node in nodes)]
    assert not any(a.overlaps(b) for a, b in combinations(networks, 2))
    assert all(node.pod_network.subnet_of(instance.pod_network) for node in nodes)
    assert all(node.address in instance.network for node in nodes)


def test_instances_share_nothing() -> None:
    instances = [instance_from({}, index) for index in range(MAX_INSTANCES)]
    for a, b in combinations(instances, 2):
        assert not a.subnet.overlaps(b.subnet)
        assert {a.state, a.run, a.bridge, a.cgroup}.isdisjoint({b.state, b.run, b.bridge, b.cgroup})


def test_interface_names_and_socket_paths_fit_the_kernel() -> None:
    node = instance_from({}, MAX_INSTANCES - 1).nodes(MAX_NODES)[-1]
    assert len(node.veth) <= 15
    assert len(str(node.containerd_socket)) + len(".ttrpc") <= 107
    # containerd appends 65 characters for each shim's socket.
    assert len(str(node.run / "s")) <= 42


@pytest.mark.parametrize(
    ("environ", "complaint"),
    [
        ({"COS_TESTBED_INSTANCE": "one"}, "COS_TESTBED_INSTANCE must be a number"),
        ({"COS_TESTBED_INSTANCE": "10"}, "from 0 to 9"),
        ({"COS_TESTBED_SUBNET": "10.5.0.0/20"}, "must be a private /16"),
        ({"COS_TESTBED_SUBNET": "8.8.0.0/16"}, "must be a private /16"),
        ({"COS_TESTBED_SUBNET": "10.5.0.1/16"}, "COS_TESTBED_SUBNET: 10.5.0.1/16 has host bits set"),
    ],
)
def test_a_wrong_choice_is_refused_in_words(environ: dict[str, str], complaint: str) -> None:
    with pytest.raises(PrerequisiteError, match=complaint) as caught:
        instance_from(environ)
    assert caught.value.exit_code == 2


def test_the_environment_chooses_instance_and_subnet() -> None:
    chosen = instance_from({"COS_TESTBED_INSTANCE": "3", "COS_TESTBED_SUBNET": "172.20.0.0/16"})
    assert (chosen.index, chosen.api_url) == (3, "https://172.20.0.1:6443")


def test_a_route_of_somebody_else_in_the_subnet_is_a_conflict() -> None:
    instance = Instance()
    harmless = [
        {"dst": "default", "dev": "eth0"},
        {"dst": "10.99.0.0/16", "dev": "eth0"},
        {"dst": "10.100.64.0/18", "dev": instance.bridge},
    ]
    assert conflicting_route(instance, harmless) is None
    assert (
        conflicting_route(instance, [*harmless, {"dst": "10.0.0.0/8", "dev": "vpn0"}])
        == "10.0.0.0/8 dev vpn0"
    )
    assert conflicting_route(instance, [{"dst": "10.100.3.4", "dev": "eth0"}]) == "10.100.3.4 dev eth0"
