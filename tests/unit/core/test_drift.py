"""What we own of a live object, as the API server says it."""

from __future__ import annotations

from typing import Any

from cos_controllers.drift import owned_part
from cos_controllers.names import MANAGER

OWNER = {"apiVersion": "cos.dev/v1alpha1", "kind": "CosStack", "name": "cos", "uid": "1", "controller": True}
FOREIGN = {"apiVersion": "v1", "kind": "Node", "name": "n", "uid": "2"}


def live() -> dict[str, Any]:
    """As a real API server stores it: see the `managedFields` of any applied object."""
    owned = {
        "f:metadata": {
            "f:labels": {"f:a": {}},
            "f:ownerReferences": {'k:{"uid":"1"}': {}},
            "f:finalizers": {'v:"cos.dev/x"': {}},
        },
        "f:spec": {
            "f:accessModes": {},
            "f:resources": {"f:requests": {"f:storage": {}}},
            "f:ports": {'k:{"port":1,"protocol":"TCP"}': {".": {}, "f:name": {}, "f:port": {}}},
        },
    }
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {
            "name": "x",
            "namespace": "cos",
            "uid": "7",
            "labels": {"a": "1", "foreign": "2"},
            "annotations": {"foreign": "3"},
            "ownerReferences": [FOREIGN, OWNER],
            "finalizers": ["kubernetes.io/pvc-protection", "cos.dev/x"],
            "managedFields": [
                {"manager": "kubectl", "operation": "Apply", "fieldsV1": {"f:metadata": {"f:labels": {}}}},
                {"manager": MANAGER, "operation": "Apply", "fieldsV1": owned},
                {"manager": MANAGER, "operation": "Apply", "subresource": "status", "fieldsV1": {}},
            ],
        },
        "spec": {
            "accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": "1Gi"}, "limits": {"storage": "9Gi"}},
            "volumeName": "pv",
            "ports": [
                {"port": 1, "protocol": "TCP", "name": "one", "nodePort": 3},
                {"port": 2, "protocol": "TCP"},
            ],
        },
        "status": {"phase": "Bound"},
    }


def test_what_is_ours_of_a_live_object() -> None:
    found = owned_part(live())
    assert found == {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {
            "name": "x",
            "namespace": "cos",
            "uid": "7",
            "labels": {"a": "1"},
            "ownerReferences": [OWNER],
            "finalizers": ["cos.dev/x"],
        },
        "spec": {
            "accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": "1Gi"}},
            "ports": [{"port": 1, "protocol": "TCP", "name": "one"}],
        },
    }


def test_of_an_object_that_we_never_applied_only_its_identity_is_ours() -> None:
    foreign = live()
    del foreign["metadata"]["managedFields"]
    assert owned_part(foreign) == {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": "x", "namespace": "cos", "uid": "7"},
    }
