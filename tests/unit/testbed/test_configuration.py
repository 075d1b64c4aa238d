"""What the daemons are told."""

from __future__ import annotations

import json
import tomllib
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest

from cos_testbed import addons, controlplane, node, registry
from cos_testbed.instance import Instance, Node, instance_from
from cos_testbed.pki import KeyPair

PAIR = KeyPair(Path("/pki/x.crt"), Path("/pki/x.key"))
FILES = controlplane.ControlPlaneFiles(
    ca=Path("/pki/ca.crt"),
    server=PAIR,
    kubelet_client=PAIR,
    service_account=PAIR,
    etcd_ca=Path("/pki/etcd/ca.crt"),
    etcd_server=PAIR,
    etcd_client=PAIR,
    audit_policy=Path("/policy.yaml"),
    controller_manager=Path("/cm"),
    scheduler=Path("/s"),
)


@pytest.fixture
def second() -> Node:
    return instance_from({}, 1).nodes(2)[1]


def flags(argv: tuple[str, ...]) -> dict[str, str]:
    return dict(argument.removeprefix("--").partition("=")[::2] for argument in argv[1:])


def strings(value: Any) -> list[str]:
    if isinstance(value, dict):
        return [text for item in value.values() for text in strings(item)]
    if isinstance(value, list):
        return [text for item in value for text in strings(item)]
    return [value] if isinstance(value, str) else []


def test_containerd_touches_nothing_outside_its_nodes_folders(second: Node) -> None:
    text = node.render_containerd(second, runc="/usr/sbin/runc", cni_programs=Path("/cache/cni"))
    config = tomllib.loads(text)
    paths = [value for value in strings(config) if value.startswith("/")]
    own = [path for path in paths if path not in ("/usr/sbin/runc", "/cache/cni")]
    assert len(own) >= 8
    for path in own:
        assert Path(path).is_relative_to(second.state) or Path(path).is_relative_to(second.run)


def test_containerd_resolves_only_the_testbeds_registry(second: Node) -> None:
    hosts = tomllib.loads(node.render_hosts_toml(second.instance))
    assert hosts["server"] == "http://10.101.0.1:5000"
    assert list(hosts["host"]) == ["http://10.101.0.1:5000"]


def test_pods_get_addresses_of_their_nodes_subnet(second: Node) -> None:
    bridge = json.loads(node.render_cni(second))["plugins"][0]
    assert bridge["ipam"]["ranges"] == [[{"subnet": "10.101.129.0/24"}]]
    assert Path(bridge["ipam"]["dataDir"]).is_relative_to(second.run)


def test_kubelet_is_told_its_own_places_and_authenticates_everybody(second: Node) -> None:
    config = node.kubelet_config(second, ca=Path("/ca"), serving=PAIR)
    assert config["cgroupRoot"] == "/cos-testbed/1/node-1"
    assert config["clusterDNS"] == ["10.101.64.10"]
    assert config["authentication"]["anonymous"] == {"enabled": False}
    assert config["authorization"] == {"mode": "Webhook"}
    assert Path(config["podLogsDir"]).is_relative_to(second.state)
    assert config["containerRuntimeEndpoint"] == "unix:///run/cos-testbed/1/node-1/containerd.sock"


def test_the_api_server_listens_on_the_bridge_and_logs_every_request() -> None:
    instance = Instance()
    told = flags(controlplane.apiserver_daemon(instance, Path("/bin/x"), FILES).argv)
    assert told["bind-address"] == "10.100.0.1"
    assert told["authorization-mode"] == "Node,RBAC"
    assert told["audit-log-path"] == str(instance.audit_log)
    assert told["service-cluster-ip-range"] == "10.100.64.0/18"
    assert told["kubelet-preferred-address-types"] == "InternalIP"


def test_etcd_lets_in_only_certificates_of_its_own_authority() -> None:
    told = flags(controlplane.etcd_daemon(Instance(), Path("/bin/x"), FILES).argv)
    assert "client-cert-auth" in told
    assert told["trusted-ca-file"] == "/pki/etcd/ca.crt"
    assert told["listen-client-urls"] == "https://10.100.0.1:2379"


@pytest.mark.parametrize("make", [controlplane.controller_manager_daemon, controlplane.scheduler_daemon])
def test_controllers_of_two_instances_never_listen_on_the_same_address(make: Any) -> None:
    told = [flags(make(instance_from({}, index), Path("/bin/x"), FILES).argv) for index in (0, 1)]
    assert told[0]["bind-address"] != told[1]["bind-address"]
    assert told[0]["leader-elect"] == "false"


def test_the_registry_stores_in_the_instances_state() -> None:
    instance = Instance()
    config = json.loads(registry.render_config(instance))
    root = config["storage"]["filesystem"]["rootdirectory"]
    assert Path(root).is_relative_to(instance.state)
    assert config["http"]["addr"] == "10.100.0.1:5000"


def test_dns_answers_at_the_address_that_kubelet_gives_to_pods() -> None:
    instance = Instance()
    service = next(item for item in addons.dns_manifests(instance) if item["kind"] == "Service")
    assert service["spec"]["clusterIP"] == str(instance.dns_address)
    assert instance.dns_address in ip_network(instance.service_network)


def test_the_provisioner_knows_a_folder_of_its_own_for_every_node() -> None:
    nodes = Instance().nodes(3)
    made = addons.storage_manifests(nodes)
    config = next(item for item in made if item["kind"] == "ConfigMap")["data"]["config.json"]
    paths = {entry["node"]: entry["paths"] for entry in json.loads(config)["nodePathMap"]}
    assert paths == {member.name: [str(member.volumes)] for member in nodes}


def test_storage_classes_wait_for_the_first_consumer_and_one_is_the_default() -> None:
    made = addons.storage_manifests(Instance().nodes(1))
    classes = {item["metadata"]["name"]: item for item in made if item["kind"] == "StorageClass"}
    assert {item["volumeBindingMode"] for item in classes.values()} == {"WaitForFirstConsumer"}
    default = "storageclass.kubernetes.io/is-default-class"
    assert [name for name in classes if classes[name]["metadata"].get("annotations", {}).get(default)] == [
        "local-path"
    ]
    assert {name: item.get("allowVolumeExpansion", False) for name, item in classes.items()} == {
        "local-path": False,
        "loop": True,
    }


def test_a_change_of_configuration_replaces_the_pod() -> None:
    hashes = [
        item["spec"]["template"]["metadata"]["annotations"]["cos.dev/config-hash"]
        for count in (1, 2)
        for item in addons.storage_manifests(Instance().nodes(count))
        if item["kind"] == "Deployment"
    ]
    assert hashes[0] != hashes[1]


def test_infrastructure_pods_never_pull() -> None:
    made = addons.manifests(Instance(), Instance().nodes(1))
    pods = [item["spec"]["template"]["spec"] for item in made if item["kind"] == "Deployment"]
    assert [pod["containers"][0]["imagePullPolicy"] for pod in pods] == ["Never", "Never"]
