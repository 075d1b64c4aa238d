"""What differs between the objects that are wanted and those that are there."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace

from cos_controllers.api.stack import CosStack, DeletionPolicy
from cos_controllers.drift import needs_apply, owned_part
from cos_controllers.halts import halted_by
from cos_controllers.history import History
from cos_controllers.k8s import Manifest
from cos_controllers.names import (
    ANNOTATION_DATA_VERSION,
    ANNOTATION_FILES,
    ANNOTATION_HALTED,
    ANNOTATION_TEMPLATE,
    LABEL_STACK_COMPONENT,
    backup_secret,
    child_name,
    config_map,
    files_secret,
)
from cos_controllers.observation import Ref, Snapshot, ref_of
from cos_controllers.ownership import controller_of, is_credential, is_ours
from cos_controllers.pods import is_current, pods_of
from cos_controllers.resolve import Resolution
from cos_controllers.volumes import data_version
from cos_controllers.wanted import Wanted, workload_ref

#: Kinds of which an object is deleted when it is no longer rendered. Volumes never are.
PRUNED_KINDS = frozenset(
    {"StatefulSet", "Deployment", "Service", "ConfigMap", "Secret", "PodDisruptionBudget"}
)

#: Fields of a workload's spec that the API server lets nobody change.
_IMMUTABLE = {
    "StatefulSet": ("selector", "serviceName", "podManagementPolicy"),
    "Deployment": ("selector",),
}


@dataclass(frozen=True)
class Apply:
    """Server-side apply of an object. Without `force`, where the object is new: nothing is taken over.

    Objects that follow of the same component rest on a `vital` one, and wait if it is refused.
    """

    obj: Manifest
    force: bool = True
    vital: bool = True


@dataclass(frozen=True)
class Delete:
    """Deletion of the object with this UID, with `orphan` of it alone; `why` becomes an Event, if any."""

    ref: Ref
    uid: str
    why: str = ""
    orphan: bool = False


@dataclass(frozen=True)
class Records:
    """What is to be written about volumes before anything else of their `components` is done.

    `snapshot`: what there is once it is written.
    """

    applies: tuple[Apply, ...]
    components: frozenset[str]
    snapshot: Snapshot


def records(stack: CosStack, snapshot: Snapshot) -> Records:
    """On each volume of the stack the newest version that was started on it, rendered or not.

    Of its own, so that nothing that is refused or no longer wanted keeps it from being known: an older version must
    never open what a newer one may have converted.
    """
    applies, components, known = [], set(), dict(snapshot.objects)
    for ref, live in sorted(snapshot.objects.items()):
        if ref.kind != "PersistentVolumeClaim" or not is_ours(live, stack):
            continue
        version = {ANNOTATION_DATA_VERSION: data_version(ref.name, snapshot.objects)}
        if (live["metadata"].get("annotations") or {}).items() >= version.items() or not any(
            version.values()
        ):
            continue
        applies.append(Apply(_annotated(owned_part(live), version)))
        components.add((live["metadata"].get("labels") or {}).get(LABEL_STACK_COMPONENT, ""))
        known[ref] = _annotated(live, version)
    return Records(tuple(applies), frozenset(components), replace(snapshot, objects=known))


def _annotated(obj: Manifest, annotations: dict[str, str]) -> Manifest:
    metadata = obj["metadata"]
    return obj | {"metadata": metadata | {"annotations": (metadata.get("annotations") or {}) | annotations}}


@dataclass(frozen=True)
class Differences:
    """What makes the objects of a stack what they are to be, pods and what is learnt aside.

    `unwritten`: what is not yet as it is to be; `vital`: the part of it on which new pods rest.
    """

    applies: tuple[Apply, ...]
    deletes: tuple[Delete, ...]
    unwritten: frozenset[Ref]
    vital: frozenset[Ref]


def differences(
    stack: CosStack, resolution: Resolution, snapshot: Snapshot, unrecorded: Collection[str] = ()
) -> Differences:
    """Compare what is wanted with what is there. `unrecorded`: see `Records.components`."""
    changed = (*_applies(resolution, snapshot), *_released(resolution, stack, snapshot))
    workloads = _remade(resolution, snapshot)
    gone = {item.ref for item in workloads}
    return Differences(
        applies=tuple(change for change in changed if ref_of(change.obj) not in gone),
        deletes=(*_pruned(resolution, stack, snapshot, unrecorded), *workloads),
        unwritten=frozenset(ref_of(change.obj) for change in changed),
        # No pod waits for what it does not rest on: a growth that is refused stays unwritten for as long as it is.
        vital=frozenset(ref_of(change.obj) for change in changed if change.vital),
    )


def _applies(resolution: Resolution, snapshot: Snapshot) -> tuple[Apply, ...]:
    """What is missing or differs, each object after those that it rests on."""
    found = []
    data = {wanted.claim for wanted in resolution.components}
    held_back = {workload_ref(wanted) for wanted in resolution.components if _is_held_back(wanted, snapshot)}
    for rendered in resolution.objects():
        ref = ref_of(rendered)
        obj = rendered | {"spec": rendered["spec"] | {"paused": True}} if ref in held_back else rendered
        live = snapshot.objects.get(ref)
        if live is None:
            # No pod mounts a volume of backups.
            is_mounted = ref.kind != "PersistentVolumeClaim" or ref.name in data
            found.append(Apply(obj, force=False, vital=is_mounted))
        elif needs_apply(obj, live):
            is_volume = ref.kind == "PersistentVolumeClaim"
            # A volume that may not grow is still the volume that it was; one that is gone is not made anew, empty.
            known = {"metadata": obj["metadata"] | {"uid": live["metadata"]["uid"]}} if is_volume else {}
            found.append(Apply(obj | known, vital=not is_volume))
    return (*found, *_nudges(resolution, snapshot))


def _is_held_back(wanted: Wanted, snapshot: Snapshot) -> bool:
    """Whether a Deployment is only rendered otherwise than its pods, all of the wanted revision, were.

    By a new version of the operator, say. That restarts nothing: it comes into force with the next change. (A
    StatefulSet has `OnDelete` for that.)
    """
    if not wanted.instance or workload_ref(wanted).kind != "Deployment":
        return False
    pods = pods_of(wanted, snapshot)
    templates = {(pod["metadata"].get("annotations") or {}).get(ANNOTATION_TEMPLATE) for pod in pods}
    return (
        all(is_current(pod, wanted) for pod in pods)
        and len(templates) == 1
        and templates != {wanted.instance.template_hash}
    )


def _remade(resolution: Resolution, snapshot: Snapshot) -> tuple[Delete, ...]:
    """Workloads that differ in what cannot be changed: deleted without their pods, which their successors adopt."""
    found = []
    for obj in resolution.objects():
        live = snapshot.objects.get(ref_of(obj))
        fields = _IMMUTABLE.get(obj["kind"], ())
        if live and any(live["spec"].get(field) != obj["spec"].get(field) for field in fields):
            kind, name = ref_of(obj)
            why = f"{kind} {name} is made anew around its pods, to change what cannot be changed in place"
            found.append(Delete(ref_of(obj), live["metadata"]["uid"], why, orphan=True))
    return tuple(found)


def _released(resolution: Resolution, stack: CosStack, snapshot: Snapshot) -> list[Apply]:
    """Data of removed and blocked components that must not go with the stack, though it was once to.

    Volumes and credentials that are rendered get or lose their owner where they are rendered.
    """
    if stack.spec.deletion_policy is not DeletionPolicy.RETAIN:
        return []
    rendered = {ref_of(obj) for obj in resolution.objects()}
    return [
        Apply(_without_owner(obj))
        for ref, obj in sorted(snapshot.objects.items())
        if ref not in rendered
        and (ref.kind == "PersistentVolumeClaim" or is_credential(ref, obj, stack))
        and controller_of(obj)
        and is_ours(obj, stack)
    ]


def _without_owner(obj: Manifest) -> Manifest:
    """A volume or Secret as we own it, without its owner: an apply takes that away."""
    own = owned_part(obj)
    if version := (obj["metadata"].get("annotations") or {}).get(ANNOTATION_DATA_VERSION):
        # Perhaps written in this very pass.
        own = _annotated(own, {ANNOTATION_DATA_VERSION: version})
    return own | {"metadata": {k: v for k, v in own["metadata"].items() if k != "ownerReferences"}}


def _nudges(resolution: Resolution, snapshot: Snapshot) -> list[Apply]:
    """Touch pods whose mounted files changed: kubelet then refreshes them at once, not after a minute."""
    found = []
    for wanted in resolution.components:
        for pod in pods_of(wanted, snapshot) if wanted.instance else ():
            metadata = pod["metadata"]
            files_hash = wanted.instance.files_hash if wanted.instance else ""
            if (metadata.get("annotations") or {}).get(ANNOTATION_FILES) == files_hash:
                continue
            touched = {
                "name": metadata["name"],
                "namespace": metadata["namespace"],
                "uid": metadata["uid"],
                "annotations": {ANNOTATION_FILES: files_hash},
            }
            found.append(Apply({"apiVersion": "v1", "kind": "Pod", "metadata": touched}))
    return found


def _pruned(
    resolution: Resolution, stack: CosStack, snapshot: Snapshot, unrecorded: Collection[str]
) -> tuple[Delete, ...]:
    """Objects of ours that are no longer rendered.

    Volumes and credentials stay; so does all of a blocked component, and of an `unrecorded` one for now, whose pod
    is the only witness of what has opened its volume.
    """
    wanted = {ref_of(obj) for obj in resolution.objects()}
    kept = {item.component for item in resolution.components if not item.instance} | set(unrecorded)
    found = []
    for ref, obj in sorted(snapshot.objects.items()):
        labels = obj["metadata"].get("labels") or {}
        if (
            ref.kind in PRUNED_KINDS
            and ref not in wanted
            and is_ours(obj, stack)
            and labels.get(LABEL_STACK_COMPONENT) not in kept
            and _is_rendered_name(ref, obj, stack)
            and not obj["metadata"].get("deletionTimestamp")
        ):
            found.append(Delete(ref, obj["metadata"]["uid"]))
    return tuple(found)


def _is_rendered_name(ref: Ref, obj: Manifest, stack: CosStack) -> bool:
    """Whether the name is one that rendering gives, credentials left out. A copy that a user made has another."""
    name = child_name(
        stack.metadata.name, (obj["metadata"].get("labels") or {}).get(LABEL_STACK_COMPONENT, "")
    )
    return ref.name in {name, config_map(name), files_secret(name)} or (
        ref.kind == "Secret" and ref.name == backup_secret(name)
    )


def resumptions(resolution: Resolution, snapshot: Snapshot, *, paused: bool) -> tuple[Apply, ...]:
    """What was stopped for a backup and is not rendered now, as it is but for that: nothing keeps it from starting."""
    return tuple(
        Apply(_resumed(owned_part(live)))
        for wanted in resolution.components
        if (paused or not wanted.instance) and not wanted.halt
        for live in (snapshot.objects.get(workload_ref(wanted)),)
        if live and halted_by(live)
    )


def _resumed(own: Manifest) -> Manifest:
    annotations = {k: v for k, v in own["metadata"].get("annotations", {}).items() if k != ANNOTATION_HALTED}
    return own | {
        "metadata": own["metadata"] | {"annotations": annotations},
        "spec": own["spec"] | {"replicas": 1},
    }


def revisions(learnt: History, known: History, stack: CosStack, snapshot: Snapshot) -> list[Apply]:
    """The present spec if it is not stored yet, and what was learnt of it and of earlier ones since `known`."""
    found = []
    for revision in learnt.revisions:
        if revision in known.revisions and revision is not learnt.current:
            continue
        intent = revision.manifest(stack)
        live = snapshot.objects.get(ref_of(intent))
        if live is None:
            found.append(Apply(intent, force=False, vital=False))
        elif is_ours(live, stack) and needs_apply(intent, live):
            found.append(Apply(intent, vital=False))
    return found


def forgotten(history: History, stack: CosStack) -> list[Delete]:
    """Revisions beyond `revisionHistoryLimit`."""
    return [
        Delete(Ref("ControllerRevision", revision.name), revision.uid)
        for revision in history.superfluous(stack.spec.revision_history_limit)
    ]
