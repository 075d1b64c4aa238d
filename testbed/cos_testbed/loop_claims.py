"""What to do about PersistentVolumeClaims of the class `loop`: decided from data, and the objects to write.

The contracts are those of Kubernetes' external provisioners and resizers: annotations of the scheduler and the
volume controller say which claim is whose and on which node, PersistentVolumes come bound to their claim, and a
growth is told in the claim's status as external-resizer tells it.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import ceil
from typing import Any

from cos_testbed.loop_volumes import MIB, rounded

STORAGE_CLASS = "loop"
PROVISIONER = "testbed.cos.dev/loop"

_PROVISIONED_BY = "pv.kubernetes.io/provisioned-by"
_STORAGE_PROVISIONER = "volume.kubernetes.io/storage-provisioner"
_SELECTED_NODE = "volume.kubernetes.io/selected-node"
_RESIZE_CONDITIONS = ("Resizing", "FileSystemResizePending", "ControllerResizeError", "NodeResizeError")
_SUFFIXES = {"": 0, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18, "m": -3, "u": -6, "n": -9}
_BINARY_SUFFIXES = {"Ki": 10, "Mi": 20, "Gi": 30, "Ti": 40, "Pi": 50, "Ei": 60}

Object = dict[str, Any]


@dataclass(frozen=True)
class Provision:
    """Make a volume of `size` bytes on a node, and its PersistentVolume."""

    claim: Object
    node: str
    size: int


@dataclass(frozen=True)
class Refuse:
    """Tell whoever made the claim why it cannot be met."""

    claim: Object
    why: str


@dataclass(frozen=True)
class Expand:
    """Bring a claim's volume to `size` bytes."""

    claim: Object
    volume: str
    node: str
    size: int


@dataclass(frozen=True)
class Reclaim:
    """Delete a released volume with its PersistentVolume."""

    volume: Object
    node: str


@dataclass(frozen=True)
class Discard:
    """Delete what a node keeps for neither a claim nor a PersistentVolume."""

    node: str
    name: str


Action = Provision | Refuse | Expand | Reclaim | Discard


def decide(
    claims: Sequence[Object], volumes: Sequence[Object], stored: Mapping[str, Collection[str]]
) -> list[Action]:
    """What is to be done. `stored`: names of the volumes that each node of the testbed has on its disk."""
    ours = {
        volume["metadata"]["name"]: volume
        for volume in volumes
        if (volume["metadata"].get("annotations") or {}).get(_PROVISIONED_BY) == PROVISIONER
    }
    actions: list[Action] = [action for claim in claims for action in _for_claim(claim, ours, stored)]
    actions.extend(Reclaim(volume, node_of(volume)) for volume in ours.values() if _is_to_be_deleted(volume))
    known = {*ours, *map(volume_name, claims)}
    actions.extend(
        Discard(node, name) for node in sorted(stored) for name in sorted(stored[node]) if name not in known
    )
    return actions


def volume_name(claim: Object) -> str:
    """The name of a claim's volume: the same however often the work is begun anew."""
    return f"pvc-{claim['metadata']['uid']}"


def node_of(volume: Object) -> str:
    """The node that a PersistentVolume of ours is on."""
    terms = volume["spec"]["nodeAffinity"]["required"]["nodeSelectorTerms"]
    return str(terms[0]["matchExpressions"][0]["values"][0])


def persistent_volume(claim: Object, node: str, size: int, path: str) -> Object:
    """A volume of type `local`, which honours fsGroup, bound to its claim from the beginning."""
    here = {"key": "kubernetes.io/hostname", "operator": "In", "values": [node]}
    metadata = claim["metadata"]
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": volume_name(claim), "annotations": {_PROVISIONED_BY: PROVISIONER}},
        "spec": {
            "capacity": {"storage": quantity(size)},
            "accessModes": claim["spec"]["accessModes"],
            "volumeMode": "Filesystem",
            "persistentVolumeReclaimPolicy": "Delete",
            "storageClassName": STORAGE_CLASS,
            "claimRef": {
                "apiVersion": "v1",
                "kind": "PersistentVolumeClaim",
                "namespace": metadata["namespace"],
                "name": metadata["name"],
                "uid": metadata["uid"],
            },
            "local": {"path": path},
            "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [here]}]}},
        },
    }


def storage_class() -> Object:
    """The class binds a volume where its first pod is scheduled, and its volumes can grow."""
    return {
        "apiVersion": "storage.k8s.io/v1",
        "kind": "StorageClass",
        "metadata": {"name": STORAGE_CLASS},
        "provisioner": PROVISIONER,
        "volumeBindingMode": "WaitForFirstConsumer",
        "reclaimPolicy": "Delete",
        "allowVolumeExpansion": True,
    }


def growth_begun(size: int, now: str) -> Object:
    """Strategic merge patch of a claim whose volume begins to grow to `size` bytes; `now` in RFC 3339."""
    return {
        "status": {
            "allocatedResources": {"storage": quantity(size)},
            "allocatedResourceStatuses": {"storage": "ControllerResizeInProgress"},
            "conditions": [{"type": "Resizing", "status": "True", "lastTransitionTime": now}],
        }
    }


def growth_failed(why: str, now: str) -> Object:
    """Strategic merge patch of a claim whose volume could not grow this time."""
    condition = {"type": "ControllerResizeError", "status": "True", "lastTransitionTime": now, "message": why}
    return {"status": {"conditions": [condition]}}


def growth_done(size: int) -> Object:
    """Strategic merge patch of a claim whose volume, its file system too, has `size` bytes."""
    return {
        "status": {
            "capacity": {"storage": quantity(size)},
            "allocatedResourceStatuses": {"storage": None},
            "conditions": [{"$patch": "delete", "type": name} for name in _RESIZE_CONDITIONS],
        }
    }


def capacity(size: int) -> Object:
    """Merge patch of a PersistentVolume that has grown."""
    return {"spec": {"capacity": {"storage": quantity(size)}}}


def quantity(size: int) -> str:
    """A size in bytes, of whole MiB, in Kubernetes' notation."""
    return f"{size // MIB}Mi"


def parse_quantity(text: str) -> int:
    """Bytes of a quantity in Kubernetes' notation, rounded up; raises ValueError for anything else."""
    found = re.fullmatch(r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE]([+-]?[0-9]{1,2})|([A-Za-z]{0,2}))", text)
    if found is None or (found[3] or "") not in {*_SUFFIXES, *_BINARY_SUFFIXES}:
        raise ValueError(f"not a quantity: {text!r}")
    number, exponent, suffix = Fraction(found[1]), found[2], found[3] or ""
    if suffix in _BINARY_SUFFIXES:
        return ceil(number * Fraction(2) ** _BINARY_SUFFIXES[suffix])
    return ceil(number * Fraction(10) ** (int(exponent) if exponent else _SUFFIXES[suffix]))


def _for_claim(claim: Object, ours: Mapping[str, Object], nodes: Collection[str]) -> list[Action]:
    metadata, spec = claim["metadata"], claim["spec"]
    if metadata.get("deletionTimestamp"):
        return []
    if spec.get("volumeName"):
        return _growth(claim, ours.get(spec["volumeName"]))
    annotations = metadata.get("annotations") or {}
    node = annotations.get(_SELECTED_NODE, "")
    if (
        spec.get("storageClassName") != STORAGE_CLASS
        or annotations.get(_STORAGE_PROVISIONER) != PROVISIONER
        or node not in nodes
        or volume_name(claim) in ours
    ):
        return []
    why = _shortcoming(spec)
    if why:
        return [Refuse(claim, why)]
    return [Provision(claim, node, rounded(parse_quantity(spec["resources"]["requests"]["storage"])))]


def _shortcoming(spec: Object) -> str:
    if spec.get("volumeMode", "Filesystem") != "Filesystem":
        return f"class {STORAGE_CLASS} makes volumes of volumeMode Filesystem, not {spec['volumeMode']}"
    foreign = sorted({*spec["accessModes"]} - {"ReadWriteOnce", "ReadWriteOncePod"})
    if foreign:
        return f"a volume of class {STORAGE_CLASS} is on one node: it cannot be {', '.join(foreign)}"
    if spec.get("dataSource") or spec.get("dataSourceRef") or spec.get("selector"):
        return f"a volume of class {STORAGE_CLASS} begins empty: leave out dataSource and selector"
    return ""


def _growth(claim: Object, volume: Object | None) -> list[Action]:
    status = claim.get("status") or {}
    if volume is None or status.get("phase") != "Bound":
        return []
    if volume["spec"]["claimRef"].get("uid") != claim["metadata"]["uid"]:
        return []
    asked = [claim["spec"]["resources"]["requests"]["storage"]]
    begun = (status.get("allocatedResourceStatuses") or {}).get("storage")
    if begun:
        # Begun and not ended: a request that was lowered meanwhile does not undo it.
        asked.append(status["allocatedResources"]["storage"])
    size = rounded(max(map(parse_quantity, asked)))
    if not begun and size <= parse_quantity(status["capacity"]["storage"]):
        return []
    return [Expand(claim, volume["metadata"]["name"], node_of(volume), size)]


def _is_to_be_deleted(volume: Object) -> bool:
    phase, policy = volume.get("status", {}).get("phase"), volume["spec"]["persistentVolumeReclaimPolicy"]
    return (phase, policy) == ("Released", "Delete")
