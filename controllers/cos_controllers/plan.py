"""The one place where it is decided what to do about a stack. Pure: the same input gives the same plan."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import NamedTuple

from cos_controllers.api.stack import CosStack, DeletionPolicy
from cos_controllers.api.status import CosStackStatus, Reason, RetainedVolume
from cos_controllers.conditions import Notice, build_status, previous_row
from cos_controllers.diagnose import (
    Assessment,
    assess,
    is_pod_ready,
    is_volume_terminating,
    pods_of,
    template_of,
    workload_ref,
)
from cos_controllers.drift import needs_apply
from cos_controllers.k8s import Manifest
from cos_controllers.names import (
    ANNOTATION_FILES,
    LABEL_STACK_COMPONENT,
    child_name,
    config_map,
    files_secret,
)
from cos_controllers.observation import CheckTarget, Outcome, Ref, Snapshot, ref_of
from cos_controllers.ownership import controller_of, is_credential, is_ours, without_owner
from cos_controllers.resolve import Resolution, Wanted, resolve

#: Kinds of which an object is deleted when it is no longer rendered. Volumes never are.
PRUNED_KINDS = frozenset(
    {"StatefulSet", "Deployment", "Service", "ConfigMap", "Secret", "PodDisruptionBudget"}
)

#: Seconds until a stack is looked at again without a hint.
WHEN_READY = 30.0
WHEN_MOVING = 2.0


class _Limit(NamedTuple):
    """How long something may be under way before a person is told."""

    while_: Reason
    patience: timedelta
    then: Reason
    says: str


_PATIENCE = (
    _Limit(
        Reason.PROVISIONING,
        timedelta(seconds=60),
        Reason.CREDENTIALS_REFUSED,
        "the engine refuses the operator too; a restart of the pod brings the operator's credentials into force: ",
    ),
    _Limit(Reason.STARTING, timedelta(seconds=600), Reason.NOT_STARTING, ""),
)


@dataclass(frozen=True)
class Apply:
    """Server-side apply of an object. Without `force`, where the object is new: nothing is taken over."""

    obj: Manifest
    force: bool = True


@dataclass(frozen=True)
class Delete:
    """Deletion of the object with this UID; `why` becomes an Event, if any."""

    ref: Ref
    uid: str
    why: str = ""


@dataclass(frozen=True)
class Plan:
    """What to do, in this order: applies, deletes, provisions, status, notices; then look again.

    `notices` tell of what is done; what the status says anew is told by `conditions.turned`.
    """

    status: CosStackStatus
    applies: tuple[Apply, ...] = ()
    deletes: tuple[Delete, ...] = ()
    provisions: tuple[CheckTarget, ...] = ()
    notices: tuple[Notice, ...] = ()
    requeue_after: float = WHEN_READY


class Questions(NamedTuple):
    """What to observe besides objects.

    `targets`: the engines to ask, those with a ready pod and an address. `warnings`: whether warning Events can
    tell more, which they can while a component has no ready pod.
    """

    targets: tuple[CheckTarget, ...]
    warnings: bool


def wanted_refs(stack: CosStack, snapshot: Snapshot) -> frozenset[Ref]:
    """Every object that the stack needs, by the names that a foreign object may hold."""
    return frozenset(ref_of(obj) for obj in resolve(stack, snapshot).objects())


def questions(stack: CosStack, snapshot: Snapshot) -> Questions:
    """What more is to be observed, once the objects are known."""
    components = resolve(stack, snapshot).components
    targets = (_target(wanted, snapshot) for wanted in components)
    return Questions(
        targets=tuple(target for target in targets if target),
        warnings=any(
            wanted.instance and not any(is_pod_ready(pod) for pod in pods_of(wanted, snapshot))
            for wanted in components
        ),
    )


def plan(stack: CosStack, snapshot: Snapshot, now: datetime) -> Plan:
    """Decide what brings the stack closer to its spec, and what its status says."""
    resolution = resolve(stack, snapshot)
    applies = (*_applies(resolution, snapshot), *_released(resolution, stack, snapshot))
    pending = {ref_of(apply.obj) for apply in applies}
    assessed = [(wanted, assess(wanted, snapshot)) for wanted in resolution.components]
    assessed = _with_patience(stack, assessed, now)
    assessed = _with_pending(stack, assessed, pending)
    replaced: tuple[Delete, ...] = ()
    if not stack.spec.paused:
        assessed, replaced = _replace_pods(assessed, snapshot, pending)
    status = build_status(stack, assessed, _retained(resolution, stack, snapshot), now)
    if stack.spec.paused:
        return Plan(status=status)
    provisions = tuple(
        target
        for wanted, _ in assessed
        if (check := snapshot.checks.get(wanted.component))
        and check.outcome is Outcome.CREDENTIALS_REFUSED
        and (target := _target(wanted, snapshot))
    )
    return Plan(
        status=status,
        applies=applies,
        deletes=(*_pruned(resolution, stack, snapshot), *replaced),
        provisions=provisions,
        notices=tuple(Notice("Normal", "Restarting", delete.why) for delete in replaced),
        requeue_after=_next_look(stack, assessed, now),
    )


def _target(wanted: Wanted, snapshot: Snapshot) -> CheckTarget | None:
    ready = [pod for pod in pods_of(wanted, snapshot) if is_pod_ready(pod)]
    service = snapshot.objects.get(Ref("Service", wanted.name))
    if not wanted.instance or not ready or not service:
        return None
    ops_port = wanted.engine.ops_port
    host = ready[-1]["status"].get("podIP") if ops_port else service["spec"].get("clusterIP")
    accounts = wanted.engine.accounts
    return (
        CheckTarget(
            component=wanted.component,
            engine=wanted.engine.kind,
            host=host,
            port=ops_port or wanted.engine.ports[0].number,
            credentials=wanted.credentials,
            database=accounts.database if accounts else "",
        )
        if host
        else None
    )


def _applies(resolution: Resolution, snapshot: Snapshot) -> tuple[Apply, ...]:
    found = []
    for obj in resolution.objects():
        live = snapshot.objects.get(ref_of(obj))
        if live is None:
            found.append(Apply(obj, force=False))
        elif needs_apply(obj, live):
            found.append(Apply(obj))
    return (*found, *_nudges(resolution, snapshot))


def _released(resolution: Resolution, stack: CosStack, snapshot: Snapshot) -> list[Apply]:
    """Data of removed and blocked components that must not go with the stack, though it was once to.

    Volumes and credentials that are rendered get or lose their owner where they are rendered.
    """
    if stack.spec.deletion_policy is not DeletionPolicy.RETAIN:
        return []
    rendered = {ref_of(obj) for obj in resolution.objects()}
    return [
        Apply(without_owner(obj))
        for ref, obj in sorted(snapshot.objects.items())
        if ref not in rendered
        and (ref.kind == "PersistentVolumeClaim" or is_credential(ref, obj, stack))
        and controller_of(obj)
        and is_ours(obj, stack)
    ]


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


def _pruned(resolution: Resolution, stack: CosStack, snapshot: Snapshot) -> tuple[Delete, ...]:
    """Objects of ours that are no longer rendered. Volumes and credentials stay; so does all of a blocked one."""
    wanted = {ref_of(obj) for obj in resolution.objects()}
    blocked = {item.component for item in resolution.components if not item.instance}
    found = []
    for ref, obj in sorted(snapshot.objects.items()):
        labels = obj["metadata"].get("labels") or {}
        if (
            ref.kind in PRUNED_KINDS
            and ref not in wanted
            and is_ours(obj, stack)
            and labels.get(LABEL_STACK_COMPONENT) not in blocked
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
    return ref.name in {name, config_map(name), files_secret(name)}


def _retained(resolution: Resolution, stack: CosStack, snapshot: Snapshot) -> list[RetainedVolume]:
    present = {wanted.component for wanted in resolution.components}
    return [
        RetainedVolume(component=component, claim=ref.name)
        for ref, obj in snapshot.objects.items()
        if ref.kind == "PersistentVolumeClaim"
        and is_ours(obj, stack)
        and (component := (obj["metadata"].get("labels") or {}).get(LABEL_STACK_COMPONENT, ""))
        and component not in present
    ]


Assessed = list[tuple[Wanted, Assessment]]


def _age(stack: CosStack, component: str, reason: Reason, now: datetime) -> timedelta:
    """How long the component has been in `reason`, by the stored status; zero if it was not."""
    row = previous_row(stack, component)
    if row is None or row.reason != reason.value or row.since is None:
        return timedelta()
    return now - datetime.fromisoformat(row.since)


def _with_patience(stack: CosStack, assessed: Assessed, now: datetime) -> Assessed:
    """What has been under way for too long is no longer work under way: a person is told."""
    judged: Assessed = []
    for wanted, found in assessed:
        for limit in _PATIENCE:
            row = previous_row(stack, wanted.component)
            known = row is not None and row.reason == limit.then.value
            if found.reason is limit.while_ and (
                known or _age(stack, wanted.component, limit.while_, now) > limit.patience
            ):
                judged.append((wanted, replace(found, reason=limit.then, message=limit.says + found.message)))
                break
        else:
            judged.append((wanted, found))
    return judged


def _with_pending(stack: CosStack, assessed: Assessed, pending: set[Ref]) -> Assessed:
    """A component of which an object is still to be written is not yet what the spec asks for."""
    message = "a change waits: spec.paused" if stack.spec.paused else "a change is being applied"
    return [
        (wanted, replace(found, reason=Reason.WAITING, message=message))
        if found.ready and wanted.instance and any(ref_of(obj) in pending for obj in wanted.instance.objects)
        else (wanted, found)
        for wanted, found in assessed
    ]


def _replace_pods(
    assessed: Assessed, snapshot: Snapshot, pending: set[Ref]
) -> tuple[Assessed, tuple[Delete, ...]]:
    """Replace pods of an earlier template, one component at a time.

    A component's turn comes when all that its pod rests on is written and every other component serves: a change
    that fails on one is not tried on the next. One that does not serve anyway waits for nobody.
    """
    judged: Assessed = []
    deletes: list[Delete] = []
    for wanted, found in assessed:
        pods = _outdated_pods(wanted, snapshot, pending)
        holder = next((w.component for w, a in assessed if w is not wanted and _holds_up(w, a)), None)
        if not pods:
            judged.append((wanted, found))
        elif found.serving and (deletes or holder):
            message = f"a change waits until {holder or 'another component'} serves again"
            judged.append((wanted, replace(found, reason=Reason.WAITING, message=message)))
        else:
            message = f"pod {pods[0]['metadata']['name']} is replaced, to bring a change into force"
            judged.append((wanted, replace(found, reason=Reason.RESTARTING, message=message, serving=False)))
            deletes += [
                Delete(Ref("Pod", p["metadata"]["name"]), p["metadata"]["uid"], message) for p in pods
            ]
    return judged, tuple(deletes)


def _holds_up(wanted: Wanted, found: Assessment) -> bool:
    """Whether others wait for a component: its pod is new, or being made, and does not serve."""
    if wanted.instance is None or found.serving:
        return False
    return found.effective_revision in {None, wanted.instance.template_hash}


def _outdated_pods(wanted: Wanted, snapshot: Snapshot, pending: set[Ref]) -> Sequence[Manifest]:
    """Pods to replace.

    None while anything that the new pod rests on is still to be written or the workload's controller has not seen
    the change, and none whose end would delete its volume.
    """
    ref = workload_ref(wanted)
    live = snapshot.objects.get(ref)
    if not wanted.instance or ref.kind != "StatefulSet" or live is None:
        return ()
    if any(ref_of(obj) in pending for obj in wanted.instance.objects) or is_volume_terminating(
        wanted, snapshot
    ):
        return ()
    if (live.get("status") or {}).get("observedGeneration", 0) < live["metadata"].get("generation", 0):
        return ()
    wanted_hash = wanted.instance.template_hash
    return [pod for pod in pods_of(wanted, snapshot) if template_of(pod) != wanted_hash]


def _next_look(stack: CosStack, assessed: Assessed, now: datetime) -> float:
    """Soon while things move, and ever more seldom while nothing does: sick stacks must not starve others."""
    ages = [
        _age(stack, wanted.component, found.reason, now).total_seconds()
        for wanted, found in assessed
        if not found.ready
    ]
    return min(max(min(ages, default=WHEN_READY * 4) / 4, WHEN_MOVING), WHEN_READY)
