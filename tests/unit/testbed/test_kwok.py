"""Nodes that only say that they run pods."""

from __future__ import annotations

from ipaddress import ip_network
from pathlib import Path

import pytest
import yaml

from cos_testbed import kwok, lifecycle
from cos_testbed.errors import PrerequisiteError
from cos_testbed.instance import instance_from
from cos_testbed.progress import Progress


def test_only_the_nodes_that_it_makes_are_its_own() -> None:
    instance = instance_from({}, 3)
    daemon = kwok.daemon(instance, Path("/bin/kwok"), Path(__file__), Path(__file__))
    flags = dict(argument.partition("=")[::2] for argument in daemon.argv[1:])
    name, _, value = flags["--manage-nodes-with-annotation-selector"].partition("=")
    nodes = kwok.manifests(3)
    assert [node["metadata"]["name"] for node in nodes] == ["kwok-0", "kwok-1", "kwok-2"]
    assert all(node["metadata"]["annotations"][name] == value for node in nodes)
    assert "--manage-all-nodes" not in flags


def test_a_pods_address_is_of_the_instances_network() -> None:
    instance = instance_from({}, 3)
    daemon = kwok.daemon(instance, Path("/bin/kwok"), Path(__file__), Path(__file__))
    (cidr,) = [argument.partition("=")[2] for argument in daemon.argv if argument.startswith("--cidr=")]
    assert ip_network(cidr).subnet_of(instance.subnet)


def test_every_stage_has_a_name_and_an_effect() -> None:
    stages = list(yaml.safe_load_all(kwok.STAGES))
    assert [stage["metadata"]["name"] for stage in stages] == ["node-ready", "pod-ready", "pod-delete"]
    assert all(stage["spec"]["next"] for stage in stages)


@pytest.mark.parametrize(("alone", "count"), [(False, 1), (True, kwok.MAX_NODES + 1)])
def test_they_do_not_stand_beside_real_nodes_nor_in_crowds(*, alone: bool, count: int) -> None:
    with pytest.raises(PrerequisiteError, match="--kwok-nodes takes 1 to 100"):
        lifecycle.up(
            instance_from({}, 3), Progress(quiet=True), nodes=None, control_plane_only=alone, kwok_nodes=count
        )
