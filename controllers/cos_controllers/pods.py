"""The pods of a component: which are its own, of which revision, and how far they are."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any

from cos_controllers.k8s import Manifest
from cos_controllers.names import ANNOTATION_REVISION, LABEL_STACK_COMPONENT
from cos_controllers.observation import Snapshot
from cos_controllers.ownership import controller_of
from cos_controllers.wanted import Wanted, workload_ref


def pods_of(wanted: Wanted, snapshot: Snapshot) -> list[Manifest]:
    """The component's pods that may serve, newest last: those being deleted and those that have ended left out."""
    return [
        pod
        for pod in all_pods_of(wanted, snapshot)
        if not pod["metadata"].get("deletionTimestamp")
        and (pod.get("status") or {}).get("phase") not in {"Failed", "Succeeded"}
    ]


def all_pods_of(wanted: Wanted, snapshot: Snapshot) -> list[Manifest]:
    """Pods that the component's workload made. A pod that only carries its labels is someone else's."""
    workload = snapshot.objects.get(workload_ref(wanted))

    def belongs(pod: Manifest) -> bool:
        controller = controller_of(pod) or {}
        if controller.get("kind") == "ReplicaSet":
            return bool(str(controller.get("name", "")).startswith(f"{wanted.name}-"))
        return workload is not None and controller.get("uid") == workload["metadata"]["uid"]

    pods = [
        obj
        for ref, obj in snapshot.objects.items()
        if ref.kind == "Pod"
        and (obj["metadata"].get("labels") or {}).get(LABEL_STACK_COMPONENT) == wanted.component
        and belongs(obj)
    ]
    return sorted(
        pods, key=lambda pod: (pod["metadata"].get("creationTimestamp") or "", pod["metadata"]["name"])
    )


def is_pod_ready(pod: Manifest) -> bool:
    """Whether kubelet's readiness holds."""
    return condition_of(pod, "Ready").get("status") == "True"


def ready_since(pod: Manifest) -> datetime | None:
    """Since when a pod is ready; None if it is not."""
    condition = condition_of(pod, "Ready")
    since = condition.get("lastTransitionTime")
    return datetime.fromisoformat(since) if condition.get("status") == "True" and since else None


def revision_of(pod: Manifest) -> str | None:
    """Revision that a pod was made from."""
    found: str | None = (pod["metadata"].get("annotations") or {}).get(ANNOTATION_REVISION)
    return found


def is_current(pod: Manifest, wanted: Wanted) -> bool:
    """Whether a pod is of the wanted revision and on the wanted volume."""
    return revision_of(pod) == wanted.revision and claim_of(pod) in {None, wanted.claim}


def starting_container(pod: Manifest) -> str | None:
    """The container of a pod that runs and is not ready yet."""
    for status in (pod.get("status") or {}).get("containerStatuses") or ():
        if (status.get("state") or {}).get("running") and not status.get("ready"):
            return str(status["name"])
    return None


def claim_of(pod: Manifest) -> str | None:
    """The claim that a pod mounts; None for a pod without data."""
    for volume in (pod.get("spec") or {}).get("volumes") or ():
        if source := volume.get("persistentVolumeClaim"):
            return str(source.get("claimName"))
    return None


def container_statuses(pod: Manifest) -> Iterator[Manifest]:
    """Statuses of a pod's containers, those that prepare first."""
    status = pod.get("status") or {}
    yield from status.get("initContainerStatuses") or ()
    yield from status.get("containerStatuses") or ()


def has_started(pod: Manifest) -> bool:
    """Whether any container of a pod runs or ever ran."""
    return any(
        not (status.get("state") or {}).get("waiting") or (status.get("lastState") or {}).get("terminated")
        for status in container_statuses(pod)
    )


def condition_of(obj: Manifest, kind: str) -> dict[str, Any]:
    """A condition of an object's status; empty if it has none of this type."""
    for condition in (obj.get("status") or {}).get("conditions") or ():
        if condition.get("type") == kind:
            return dict(condition)
    return {}
