"""Volumes that a restore fills, and what says so of them: an annotation by a field manager of its own."""

from __future__ import annotations

from cos_controllers.api.backup import CopyStatus
from cos_controllers.api.quantity import parse_quantity
from cos_controllers.api.restore import StackRestore
from cos_controllers.api.stack import CosStack, StoreSpec
from cos_controllers.drift import owned_part
from cos_controllers.k8s import Manifest
from cos_controllers.names import ANNOTATION_CANDIDATE, ANNOTATION_DATA_VERSION, RESTORER, object_labels
from cos_controllers.observation import Ref


def claim_ref(name: str) -> Ref:
    """The reference of a volume."""
    return Ref("PersistentVolumeClaim", name)


def candidate_of(claim: Manifest) -> str:
    """UID of the restore whose candidate a volume is, "" for one that is in use, or may be."""
    return str((claim["metadata"].get("annotations") or {}).get(ANNOTATION_CANDIDATE) or "")


def candidate(
    restore: StackRestore,
    stack: CosStack,
    copy: CopyStatus,
    engine: str,
    name: str,
    spec: StoreSpec,
    before: Manifest | None,
) -> Manifest:
    """A volume like the one before it, and not smaller than the spec asks, that is nobody's yet."""
    had = (before or {}).get("spec") or {}
    sizes = [spec.storage.size]
    if size := ((had.get("resources") or {}).get("requests") or {}).get("storage"):
        sizes.append(size)
    storage_class = had.get("storageClassName") or spec.storage.storage_class_name
    annotations = {ANNOTATION_CANDIDATE: restore.metadata.uid, ANNOTATION_DATA_VERSION: copy.engine_version}
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {
            "name": name,
            "namespace": stack.metadata.namespace,
            "labels": object_labels(stack.metadata.name, copy.name, engine),
            "annotations": annotations,
        },
        "spec": {
            "accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": max(sizes, key=parse_quantity)}},
            **({"storageClassName": storage_class} if storage_class else {}),
        },
    }


def marked(claim: Manifest, uid: str) -> Manifest:
    """What makes a volume a restore's candidate again: it is not used any more."""
    own = owned_part(claim, RESTORER)
    annotations = {**(own["metadata"].get("annotations") or {}), ANNOTATION_CANDIDATE: uid}
    return own | {"metadata": own["metadata"] | {"annotations": annotations}}


def unmarked(claim: Manifest) -> Manifest:
    """What takes a volume into use: the newest that is no candidate is the one that is rendered."""
    own = owned_part(claim, RESTORER)
    kept = {k: v for k, v in (own["metadata"].get("annotations") or {}).items() if k != ANNOTATION_CANDIDATE}
    return own | {"metadata": own["metadata"] | {"annotations": kept}}
