"""What is to be done about claims of the class `loop`."""

from __future__ import annotations

from typing import Any

import pytest

from cos_testbed import loop_claims
from cos_testbed.loop_claims import Discard, Expand, Object, Provision, Reclaim, Refuse, decide

NODES: dict[str, frozenset[str]] = {"node-0": frozenset(), "node-1": frozenset()}
MIB = 2**20


def claim(size: str = "64Mi", **spec: Any) -> Object:
    """A claim that the scheduler has given to a node."""
    return {
        "metadata": {
            "namespace": "cos",
            "name": "data",
            "uid": "u1",
            "annotations": {
                "volume.kubernetes.io/storage-provisioner": "testbed.cos.dev/loop",
                "volume.kubernetes.io/selected-node": "node-1",
            },
        },
        "spec": {
            "storageClassName": "loop",
            "accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": size}},
            **spec,
        },
        "status": {"phase": "Pending"},
    }


def bound(size: str = "64Mi", capacity: str = "64Mi", **status: Any) -> Object:
    made = claim(size, volumeName="pvc-u1")
    made["status"] = {"phase": "Bound", "capacity": {"storage": capacity}, **status}
    return made


def volume(phase: str = "Bound", policy: str = "Delete") -> Object:
    made = loop_claims.persistent_volume(claim(), "node-1", 64 * MIB, "/somewhere")
    made["spec"]["persistentVolumeReclaimPolicy"] = policy
    made["status"] = {"phase": phase}
    return made


def test_a_claim_is_met_on_the_node_that_the_scheduler_chose() -> None:
    asked = claim()
    assert decide([asked], [], NODES) == [Provision(asked, "node-1", 64 * MIB)]


def without(asked: Object, *path: str) -> Object:
    inner = asked
    for key in path[:-1]:
        inner = inner[key]
    del inner[path[-1]]
    return asked


@pytest.mark.parametrize(
    "asked",
    [
        without(claim(), "metadata", "annotations", "volume.kubernetes.io/selected-node"),
        without(claim(), "metadata", "annotations", "volume.kubernetes.io/storage-provisioner"),
        without(claim(), "metadata", "annotations"),
        claim(storageClassName="local-path"),
        {**claim(), "metadata": {**claim()["metadata"], "deletionTimestamp": "now"}},
    ],
    ids=["no pod yet", "not ours", "just made", "another class", "being deleted"],
)
def test_a_claim_that_is_not_for_us_is_left_alone(asked: Object) -> None:
    assert decide([asked], [], NODES) == []


def test_a_claim_of_a_node_that_is_not_the_testbeds_is_left_alone() -> None:
    assert decide([claim()], [], {"node-0": frozenset()}) == []


def test_a_claim_whose_volume_waits_to_be_bound_is_not_met_twice() -> None:
    assert decide([claim()], [volume("Available")], {**NODES, "node-1": frozenset({"pvc-u1"})}) == []


def test_work_that_was_cut_off_before_the_volume_was_known_goes_on() -> None:
    asked = claim()
    assert decide([asked], [], {**NODES, "node-1": frozenset({"pvc-u1"})}) == [
        Provision(asked, "node-1", 64 * MIB)
    ]


@pytest.mark.parametrize(
    ("spec", "complaint"),
    [
        ({"volumeMode": "Block"}, "makes volumes of volumeMode Filesystem, not Block"),
        ({"accessModes": ["ReadWriteOnce", "ReadWriteMany"]}, "on one node: it cannot be ReadWriteMany"),
        ({"dataSource": {"kind": "VolumeSnapshot", "name": "x"}}, "leave out dataSource"),
        ({"selector": {"matchLabels": {"a": "b"}}}, "leave out dataSource and selector"),
    ],
)
def test_what_cannot_be_met_is_said(spec: dict[str, Any], complaint: str) -> None:
    [refused] = decide([claim(**spec)], [], NODES)
    assert isinstance(refused, Refuse)
    assert complaint in refused.why


@pytest.mark.parametrize(("asked", "got"), [("1Mi", 32), ("33000000", 32), ("33600000", 33), ("0.1Gi", 103)])
def test_a_volume_is_never_smaller_than_asked(asked: str, got: int) -> None:
    [action] = decide([claim(asked)], [], NODES)
    assert isinstance(action, Provision)
    assert action.size == got * MIB >= loop_claims.parse_quantity(asked)


def test_a_raised_request_grows_the_volume() -> None:
    asked = bound("128Mi")
    assert decide([asked], [volume()], NODES) == [Expand(asked, "pvc-u1", "node-1", 128 * MIB)]


@pytest.mark.parametrize(
    ("asked", "made"),
    [
        (bound(), volume()),
        (bound("1Mi", "32Mi"), volume()),
        (bound("128Mi"), {**volume(), "metadata": {"name": "pvc-u1"}}),
        (bound("128Mi"), {**volume(), "spec": {**volume()["spec"], "claimRef": {"uid": "another"}}}),
        ({**bound("128Mi"), "status": {"phase": "Lost", "capacity": {}}}, volume()),
    ],
    ids=["as asked", "more than asked", "not our volume", "another claim's volume", "volume lost"],
)
def test_nothing_else_grows(asked: Object, made: Object) -> None:
    assert [action for action in decide([asked], [made], NODES) if isinstance(action, Expand)] == []


def test_a_growth_that_was_begun_is_ended_though_the_request_was_lowered_again() -> None:
    begun = loop_claims.growth_begun(128 * MIB, "now")["status"]
    asked = bound("64Mi", **begun)
    assert decide([asked], [volume()], NODES) == [Expand(asked, "pvc-u1", "node-1", 128 * MIB)]


def test_growth_is_told_as_external_resizers_tell_it() -> None:
    status = loop_claims.growth_begun(128 * MIB, "2026-11-23T08:00:00Z")["status"]
    assert status["allocatedResources"] == {"storage": "128Mi"}
    assert status["allocatedResourceStatuses"] == {"storage": "ControllerResizeInProgress"}
    assert [(c["type"], c["status"]) for c in status["conditions"]] == [("Resizing", "True")]
    status = loop_claims.growth_failed("no room", "2026-11-23T08:00:00Z")["status"]
    assert [(c["type"], c["message"]) for c in status["conditions"]] == [("ControllerResizeError", "no room")]
    status = loop_claims.growth_done(128 * MIB)["status"]
    assert status["capacity"] == {"storage": "128Mi"}
    assert status["allocatedResourceStatuses"] == {"storage": None}, "a merge patch deletes by null"
    gone = {c["type"] for c in status["conditions"] if c["$patch"] == "delete"}
    assert gone >= {"Resizing", "FileSystemResizePending", "ControllerResizeError"}


@pytest.mark.parametrize(
    ("phase", "policy", "deleted"),
    [
        ("Released", "Delete", True),
        ("Released", "Retain", False),
        ("Bound", "Delete", False),
        ("Available", "Delete", False),
        ("Pending", "Delete", False),
    ],
)
def test_a_volume_goes_when_its_claim_has_gone(phase: str, policy: str, *, deleted: bool) -> None:
    made = volume(phase, policy)
    on_disk = {**NODES, "node-1": frozenset({"pvc-u1"})}
    assert decide([], [made], on_disk) == ([Reclaim(made, "node-1")] if deleted else [])


def test_what_neither_a_claim_nor_a_volume_asks_for_is_deleted() -> None:
    on_disk = {"node-0": frozenset({"pvc-old"}), "node-1": frozenset({"pvc-u1"})}
    assert decide([bound()], [volume()], on_disk) == [Discard("node-0", "pvc-old")]
    assert decide([bound()], [], on_disk) == [Discard("node-0", "pvc-old")]


def test_a_volume_is_bound_to_its_claim_and_its_node() -> None:
    made = loop_claims.persistent_volume(claim(), "node-1", 64 * MIB, "/somewhere")
    assert made["spec"]["claimRef"]["uid"] == "u1"
    assert made["spec"]["local"] == {"path": "/somewhere"}, "of type local: honours fsGroup"
    assert made["spec"]["storageClassName"] == loop_claims.storage_class()["metadata"]["name"]
    assert made["spec"]["capacity"] == {"storage": "64Mi"}
    assert loop_claims.node_of(made) == "node-1"


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("1", 1),
        ("10Gi", 10 * 2**30),
        ("10G", 10 * 10**9),
        ("1.5Ki", 1536),
        (".5Mi", 2**19),
        ("12e6", 12 * 10**6),
        ("12E6", 12 * 10**6),
        ("1E", 10**18),
        ("128974848000m", 128974848),
        ("1500m", 2),
        ("1k", 1000),
    ],
)
def test_quantities(text: str, size: int) -> None:
    assert loop_claims.parse_quantity(text) == size


@pytest.mark.parametrize("text", ["", "Gi", "1 Gi", "1gi", "1K", "-1Gi", "1e", "1e6Gi", "٣Gi"])
def test_what_is_no_quantity(text: str) -> None:
    with pytest.raises(ValueError, match="not a quantity"):
        loop_claims.parse_quantity(text)
