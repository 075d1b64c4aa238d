"""The data volume of an instance: which one it is, what is asked of it, and what has been on it."""

from __future__ import annotations

import re
from collections.abc import Mapping

from cos_controllers.api.common import Storage
from cos_controllers.api.quantity import parse_quantity
from cos_controllers.api.stack import CosStack
from cos_controllers.api.status import Reason
from cos_controllers.components.versions import newest
from cos_controllers.k8s import Manifest
from cos_controllers.names import ANNOTATION_CANDIDATE, ANNOTATION_DATA_VERSION, LABEL_VERSION, claim_name
from cos_controllers.observation import Problem, Ref
from cos_controllers.ownership import is_ours
from cos_controllers.pods import claim_of, has_started


def current_claim(stack: CosStack, objects: Mapping[Ref, Manifest], instance: str) -> str:
    """The newest volume of an instance that is there, else the first. One that a restore fills is not there yet."""
    serials = [
        serial for serial, obj in data_volumes(stack, objects, instance).items() if not is_candidate(obj)
    ]
    return claim_name(instance, max(serials, default=0))


def data_volumes(stack: CosStack, objects: Mapping[Ref, Manifest], instance: str) -> dict[int, Manifest]:
    """The data volumes of an instance by their serials."""
    form = re.compile(rf"^{re.escape(claim_name(instance, 0)[:-1])}(\d+)$")
    return {
        int(match.group(1)): obj
        for ref, obj in objects.items()
        if ref.kind == "PersistentVolumeClaim" and (match := form.fullmatch(ref.name)) and is_ours(obj, stack)
    }


def serial_of(claim: str) -> int:
    """The serial in the name of a data volume, -1 if it has none."""
    _, _, serial = claim.rpartition("-")
    return int(serial) if serial.isdecimal() else -1


def is_candidate(claim: Manifest) -> bool:
    """Whether a restore fills a volume, or has filled it in vain."""
    return ANNOTATION_CANDIDATE in (claim["metadata"].get("annotations") or {})


def data_version(claim: str, objects: Mapping[Ref, Manifest]) -> str:
    """The newest version of the engine that was started on a volume, "" if none is known.

    Served or not: an engine may convert its files long before it answers.
    """
    live = objects.get(Ref("PersistentVolumeClaim", claim))
    annotations = ((live or {}).get("metadata") or {}).get("annotations") or {}
    started = (
        (pod["metadata"].get("labels") or {}).get(LABEL_VERSION, "")
        for ref, pod in objects.items()
        if ref.kind == "Pod" and claim_of(pod) == claim and has_started(pod)
    )
    return newest([annotations.get(ANNOTATION_DATA_VERSION, ""), *started])


def asked_of_volume(
    spec: Storage, claim: str, live: Manifest | None, field: str = "storage"
) -> tuple[Storage, Problem | None]:
    """What to ask of a volume: never less or other than it is, which the API server would refuse.

    `field`: where the spec asks for it.
    """
    if live is None:
        return spec, None
    has = live["spec"]
    size, storage_class = has["resources"]["requests"]["storage"], has.get("storageClassName")
    problem = None
    if spec.storage_class_name not in {None, storage_class}:
        problem = Problem(
            Reason.STORAGE_CLASS_FIXED,
            f"volume {claim} keeps its storageClassName {storage_class}: write that instead of "
            f"{spec.storage_class_name} in {field}, or leave it out",
        )
    if parse_quantity(spec.size) >= parse_quantity(size):
        size = spec.size
    else:
        problem = Problem(
            Reason.SHRINK_REFUSED,
            f"{field}.size {spec.size} is below the volume's {size}, and a volume cannot shrink: "
            f"write {size} or more",
        )
    return Storage(size=size, storage_class_name=storage_class), problem


def lost_volume(instance: str, claim: str, objects: Mapping[Ref, Manifest]) -> Problem | None:
    """The engine has run on a volume that is gone: an empty or older one in its place must be a person's wish."""
    workload = objects.get(Ref("StatefulSet", instance))
    if workload is None:
        return None
    ran_on = claim_of(workload["spec"]["template"]) or claim
    is_there = Ref("PersistentVolumeClaim", claim) in objects
    # A newer one than that which is gone was restored.
    if is_there and (serial_of(claim) > serial_of(ran_on) or Ref("PersistentVolumeClaim", ran_on) in objects):
        return None
    if Ref("PersistentVolumeClaim", ran_on) in objects:
        return Problem(
            Reason.VOLUME_LOST,
            f"volume {claim} is gone, and {ran_on} is of a restore that failed: take that into use by "
            f"`kubectl annotate pvc {ran_on} {ANNOTATION_CANDIDATE}-`, or delete StatefulSet {instance} to begin with "
            "an empty volume",
        )
    otherwise = f"volume {claim}, which was there before it" if is_there else "an empty volume"
    return Problem(
        Reason.VOLUME_LOST,
        f"volume {ran_on} is gone: restore it, or delete StatefulSet {instance} to begin with {otherwise}",
    )


def capacity(claim: str, objects: Mapping[Ref, Manifest]) -> str | None:
    """The size that a volume has, a quantity; None while it has none."""
    live = objects.get(Ref("PersistentVolumeClaim", claim)) or {}
    found: str | None = ((live.get("status") or {}).get("capacity") or {}).get("storage")
    return found


def growth(claim: str, objects: Mapping[Ref, Manifest]) -> Problem | None:
    """A volume that has not grown yet to what is asked of it."""
    live = objects.get(Ref("PersistentVolumeClaim", claim)) or {}
    has = capacity(claim, objects)
    asked = ((live.get("spec") or {}).get("resources") or {}).get("requests", {}).get("storage")
    if not has or not asked or parse_quantity(has) >= parse_quantity(asked):
        return None
    conditions = (live.get("status") or {}).get("conditions") or ()
    said = "; ".join(item["message"] for item in conditions if item.get("message"))
    text = f"volume {claim} grows from {has} to {asked}"
    return Problem(Reason.VOLUME_RESIZING, f"{text}: {said}" if said else text)
