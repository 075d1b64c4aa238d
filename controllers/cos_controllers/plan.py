"""The one place where it is decided what to do about a stack. Pure: the same input gives the same plan."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from cos_controllers.api.stack import CosStack
from cos_controllers.api.status import ConditionStatus, ConditionType, CosStackStatus, Reason, RetainedVolume
from cos_controllers.conditions import build_status, previous_row
from cos_controllers.diagnose import (
    TRANSIENT,
    Assessment,
    assess,
    is_pod_ready,
    pods_of,
    template_of,
    workload_ref,
)
from cos_controllers.drift import needs_apply
from cos_controllers.k8s import Manifest
from cos_controllers.names import (
    ANNOTATION_FILES,
    LABEL_STACK_COMPONENT,
    admin_secret,
    app_secret,
    seed_secret,
)
from cos_controllers.observation import CheckTarget, Outcome, Ref, Snapshot, ref_of
from cos_controllers.ownership import is_ours
from cos_controllers.resolve import Resolution, Wanted, resolve

#: Kinds of which an object is deleted when it is no longer rendered. Volumes never are.
PRUNED_KINDS = frozenset(
    {"StatefulSet", "Deployment", "Service", "ConfigMap", "Secret", "PodDisruptionBudget"}
)

#: Seconds until a stack is looked at again without a hint.
WHEN_READY = 30.0
WHEN_MOVING = 2.0
WHEN_STALLED = 5.0

#: How long the making of an account may be refused before a person is told.
PROVISION_PATIENCE = timedelta(seconds=60)

#: How long a component that starts may hold up the restart of another one.
TURN_PATIENCE = timedelta(seconds=300)


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
class Notice:
    """An Event on the stack."""

    type: str
    reason: str
    message: str


@dataclass(frozen=True)
class Plan:
    """What to do, in this order: applies, deletes, provisions, status, notices; then look again."""

    status: CosStackStatus
    applies: tuple[Apply, ...] = ()
    deletes: tuple[Delete, ...] = ()
    provisions: tuple[CheckTarget, ...] = ()
    notices: tuple[Notice, ...] = ()
    requeue_after: float = WHEN_READY


def wanted_refs(stack: CosStack, snapshot: Snapshot) -> frozenset[Ref]:
    """Every object that the stack needs, by the names that a foreign object may hold."""
    return frozenset(ref_of(obj) for obj in resolve(stack, snapshot).objects())


def check_targets(stack: CosStack, snapshot: Snapshot) -> tuple[CheckTarget, ...]:
    """The engines to ask now: those with a ready pod and an address."""
    targets = (_target(wanted, snapshot) for wanted in resolve(stack, snapshot).components)
    return tuple(target for target in targets if target)


def wants_warnings(stack: CosStack, snapshot: Snapshot) -> bool:
    """Whether warning Events can tell more: while a component has no ready pod."""
    return any(
        not any(is_pod_ready(pod) for pod in pods_of(wanted.component, snapshot))
        for wanted in resolve(stack, snapshot).components
    )


def plan(stack: CosStack, snapshot: Snapshot, now: datetime) -> Plan:
    """Decide what brings the stack closer to its spec, and what its status says."""
    resolution = resolve(stack, snapshot)
    applies = _applies(resolution, snapshot)
    assessed = [(wanted, assess(wanted, snapshot)) for wanted in resolution.components]
    assessed = _with_patience(stack, assessed, now)
    replaced: tuple[Delete, ...] = ()
    if not stack.spec.paused:
        assessed, replaced = _replace_pods(stack, assessed, snapshot, {ref_of(a.obj) for a in applies}, now)
    status = build_status(stack, assessed, _retained(resolution, stack, snapshot), now)
    notices = (*_notices(stack, status), *(Notice("Normal", "Restarting", d.why) for d in replaced))
    if stack.spec.paused:
        return Plan(status=status, notices=notices)
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
        notices=notices,
        requeue_after=_next_look(assessed),
    )


def _target(wanted: Wanted, snapshot: Snapshot) -> CheckTarget | None:
    ready = [pod for pod in pods_of(wanted.component, snapshot) if is_pod_ready(pod)]
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


def _nudges(resolution: Resolution, snapshot: Snapshot) -> list[Apply]:
    """Touch pods whose mounted files changed: kubelet then refreshes them at once, not after a minute."""
    found = []
    for wanted in resolution.components:
        for pod in pods_of(wanted.component, snapshot) if wanted.instance else ():
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
            and not _is_credential(ref, obj, stack)
            and not obj["metadata"].get("deletionTimestamp")
        ):
            found.append(Delete(ref, obj["metadata"]["uid"]))
    return tuple(found)


def _is_credential(ref: Ref, obj: Manifest, stack: CosStack) -> bool:
    if ref.kind != "Secret":
        return False
    component = (obj["metadata"].get("labels") or {}).get(LABEL_STACK_COMPONENT, "")
    instance = f"{stack.metadata.name}-{component}"
    return ref.name in {seed_secret(stack.metadata.name), admin_secret(instance), app_secret(instance)}


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
    """An account that cannot be made for long is no longer work under way: a person is told."""
    judged: Assessed = []
    for wanted, found in assessed:
        if found.reason is Reason.PROVISIONING:
            row = previous_row(stack, wanted.component)
            known = row is not None and row.reason == Reason.CREDENTIALS_REFUSED.value
            if known or _age(stack, wanted.component, Reason.PROVISIONING, now) > PROVISION_PATIENCE:
                message = "the engine refuses the credentials, and the operator cannot set them: see its log"
                judged.append((wanted, replace(found, reason=Reason.CREDENTIALS_REFUSED, message=message)))
                continue
        judged.append((wanted, found))
    return judged


def _replace_pods(
    stack: CosStack, assessed: Assessed, snapshot: Snapshot, pending: set[Ref], now: datetime
) -> tuple[Assessed, tuple[Delete, ...]]:
    """Replace pods of an earlier template, one component at a time.

    A component's turn comes when its workload carries the new template and no other component is on its way
    back; one that does not serve anyway, and one that holds others up for too long, waits for nobody.
    """
    judged: Assessed = []
    deletes: list[Delete] = []
    for wanted, found in assessed:
        pods = _outdated_pods(wanted, snapshot, pending)
        others = [(w, a) for w, a in assessed if w.component != wanted.component]
        if not pods:
            judged.append((wanted, found))
        elif found.serving and (deletes or any(_holds_up(stack, other, now) for other in others)):
            message = "a change waits until the other components are back"
            judged.append((wanted, replace(found, reason=Reason.WAITING, message=message)))
        else:
            message = f"pod {pods[0]['metadata']['name']} is replaced, to bring a change into force"
            judged.append((wanted, replace(found, reason=Reason.RESTARTING, message=message, serving=False)))
            deletes += [
                Delete(Ref("Pod", p["metadata"]["name"]), p["metadata"]["uid"], message) for p in pods
            ]
    return judged, tuple(deletes)


def _outdated_pods(wanted: Wanted, snapshot: Snapshot, pending: set[Ref]) -> Sequence[Manifest]:
    """Pods to replace; none while the workload itself is still to be changed, or not yet seen by its controller."""
    ref = workload_ref(wanted)
    live = snapshot.objects.get(ref)
    if not wanted.instance or ref.kind != "StatefulSet" or live is None or ref in pending:
        return ()
    if (live.get("status") or {}).get("observedGeneration", 0) < live["metadata"].get("generation", 0):
        return ()
    wanted_hash = wanted.instance.template_hash
    return [pod for pod in pods_of(wanted.component, snapshot) if template_of(pod) != wanted_hash]


def _holds_up(stack: CosStack, other: tuple[Wanted, Assessment], now: datetime) -> bool:
    wanted, found = other
    return (
        found.reason in TRANSIENT
        and found.reason is not Reason.WAITING
        and _age(stack, wanted.component, found.reason, now) < TURN_PATIENCE
    )


def _next_look(assessed: Assessed) -> float:
    if all(found.ready for _, found in assessed):
        return WHEN_READY
    if any(found.reason in TRANSIENT or found.reason is Reason.NOT_ANSWERING for _, found in assessed):
        return WHEN_MOVING
    return WHEN_STALLED


def _notices(stack: CosStack, status: CosStackStatus) -> list[Notice]:
    """An Event for each condition that a person must know of, when it turns."""
    before: Mapping[str, ConditionStatus] = {item.type: item.status for item in stack.status.conditions}
    found = []
    for condition in status.conditions:
        if before.get(condition.type) is condition.status:
            continue
        if condition.type == ConditionType.READY and condition.status is ConditionStatus.TRUE:
            found.append(Notice("Normal", "Ready", "every component serves what the spec asks for"))
        elif (condition.type == ConditionType.STALLED and condition.status is ConditionStatus.TRUE) or (
            condition.type == ConditionType.AVAILABLE
            and condition.status is ConditionStatus.FALSE
            and before.get(condition.type) is ConditionStatus.TRUE
        ):
            found.append(Notice("Warning", condition.reason, condition.message))
    return found
