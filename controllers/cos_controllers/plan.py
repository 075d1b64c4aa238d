"""The one place where it is decided what to do about a stack. Pure: the same input gives the same plan."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import NamedTuple

from cos_controllers.api.stack import CosStack, WhenGatesFail
from cos_controllers.api.status import CosStackStatus, Reason, RetainedVolume, Verdict
from cos_controllers.changes import Apply, Delete, differences, forgotten, records, resumptions, revisions
from cos_controllers.conditions import Notice, build_status, previous_row
from cos_controllers.diagnose import TRANSIENT, Assessment, assess, cut
from cos_controllers.gates import DOES_NOT_SERVE, NOT_ASKED, Judgement, expectation, judge, unasked
from cos_controllers.history import History
from cos_controllers.names import LABEL_STACK_COMPONENT, child_name
from cos_controllers.objectives import judge_objectives
from cos_controllers.observation import CheckTarget, Outcome, Ref, Snapshot, ref_of
from cos_controllers.ownership import is_ours
from cos_controllers.pods import is_pod_ready, pods_of, starting_container
from cos_controllers.protection import protection
from cos_controllers.resolve import Resolution, failing, references, resolve
from cos_controllers.rollout import (
    Assessed,
    is_overdue,
    learn_failed,
    learn_good,
    learn_missed,
    seconds_to_next,
    with_clocks,
    with_service,
)
from cos_controllers.turns import replace_pods, take_turns
from cos_controllers.volumes import data_volumes
from cos_controllers.wanted import Wanted

#: Seconds until a stack is looked at again without a hint. One that rests is not: its engines are asked all the
#: time, its objects are watched, and the resync is the net under both.
WHEN_STUCK = 30.0
WHEN_MOVING = 2.0
AT_ONCE = 0.1


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
)


@dataclass(frozen=True)
class Plan:
    """What to do, in this order: applies, deletes, provisions, status, notices; then look again, if at all.

    `targets`: the engines to go on asking meanwhile.
    `notices` tell of what is done; what the status says anew is told by `conditions.turned`.
    """

    status: CosStackStatus
    targets: tuple[CheckTarget, ...] = ()
    applies: tuple[Apply, ...] = ()
    deletes: tuple[Delete, ...] = ()
    provisions: tuple[CheckTarget, ...] = ()
    notices: tuple[Notice, ...] = ()
    requeue_after: float | None = None


class Questions(NamedTuple):
    """What to observe besides objects.

    `targets`: the engines to ask, those with a ready pod and an address. `warnings`: whether warning Events can
    tell more, which they can while a component has no ready pod. `logs`: by component, the pod and container whose
    log tells how far the engine is.
    """

    targets: tuple[CheckTarget, ...]
    warnings: bool
    logs: Mapping[str, LogSource]


class LogSource(NamedTuple):
    """A container whose log is worth reading."""

    pod: str
    container: str


def wanted_refs(resolution: Resolution) -> frozenset[Ref]:
    """Every object that the stack needs, by the names that a foreign object may hold."""
    revision = Ref("ControllerRevision", resolution.history.current.name)
    return frozenset({revision, *(ref_of(obj) for obj in resolution.objects())})


def questions(resolution: Resolution, snapshot: Snapshot) -> Questions:
    """What more is to be observed, once the objects are known."""
    components = resolution.components
    targets = (_target(wanted, snapshot) for wanted in components)
    return Questions(
        targets=tuple(target for target in targets if target),
        warnings=any(
            wanted.instance and not any(is_pod_ready(pod) for pod in pods_of(wanted, snapshot))
            for wanted in components
        ),
        logs={
            wanted.component: LogSource(pod["metadata"]["name"], container)
            for wanted in components
            if wanted.engine.progress
            for pod in pods_of(wanted, snapshot)
            if (container := starting_container(pod))
        },
    )


def plan(stack: CosStack, snapshot: Snapshot, now: datetime) -> Plan:
    """Decide what brings the stack closer to its spec, and what its status says."""
    return decide(stack, resolve(stack, snapshot), snapshot, now)


def decide(stack: CosStack, resolution: Resolution, snapshot: Snapshot, now: datetime) -> Plan:
    """`plan`, for one who has resolved the stack already."""
    history, paused = resolution.history, stack.spec.paused
    recorded = records(stack, snapshot)
    snapshot = recorded.snapshot
    assessed = [(wanted, assess(wanted, snapshot)) for wanted in resolution.components]
    assessed = [(wanted, _after_halt(stack, wanted, found, now)) for wanted, found in assessed]
    assessed = with_service(stack, _with_patience(stack, assessed, now), snapshot, now)
    held: Mapping[str, str] = {}
    if not paused:
        assessed, held = take_turns(stack, assessed, snapshot, history, now)
    if held:
        resolution = resolve(stack, snapshot, held)
        assessed = [(w, found) for w, (_, found) in zip(resolution.components, assessed, strict=True)]
    found = differences(stack, resolution, snapshot, recorded.components)
    assessed = _with_pending(stack, assessed, found.unwritten)
    deletes: tuple[Delete, ...] = ()
    if not paused:
        written = {ref_of(item.obj) for item in recorded.applies} | found.vital
        assessed, deletes = replace_pods(assessed, held, snapshot, written)
    learnt = history if paused else learn_good(assessed, snapshot, history, now)
    assessed = with_clocks(stack, assessed, snapshot, learnt, now)
    taken_back = {wanted.component: history.taken_back(wanted.component) for wanted, _ in assessed}
    objectives = judge_objectives(stack, snapshot.probes, now, taken_back)
    if not paused:
        learnt = learn_failed(stack, assessed, snapshot, learnt, now)
        learnt = learn_missed(stack, assessed, snapshot, objectives, learnt, now)
    judgements = {wanted.component: _judged(stack, wanted, a, snapshot, now) for wanted, a in assessed}
    status = build_status(
        stack,
        assessed,
        judgements,
        objectives,
        protection(stack, snapshot, now),
        _retained(resolution, stack, snapshot),
        learnt,
        now,
    )
    again = _next_look(stack, assessed, learnt, now)
    targets = tuple(filter(None, (_target(wanted, snapshot) for wanted, _ in assessed)))
    if paused:
        applies = resumptions(resolution, snapshot, paused=True)
        return Plan(status=status, targets=targets, applies=applies, requeue_after=again)
    return Plan(
        status=status,
        targets=targets,
        # What was learnt is written before anything is done about it: dying in between changes nothing.
        applies=(
            *recorded.applies,
            *revisions(learnt, history, stack, snapshot),
            *found.applies,
            *resumptions(resolution, snapshot, paused=False),
        ),
        deletes=(*found.deletes, *forgotten(learnt, stack), *deletes),
        provisions=tuple(
            target
            for target in targets
            if (check := snapshot.checks.get(target.component))
            and check.outcome is Outcome.CREDENTIALS_REFUSED
        ),
        notices=tuple(
            Notice("Normal", "Restarting", delete.why) for delete in (*found.deletes, *deletes) if delete.why
        ),
        # What is learnt and acted upon next: its place is not watched.
        requeue_after=AT_ONCE
        if recorded.applies
        or _turns_routes(stack, status)
        or learnt.current.failed.keys() - history.current.failed
        or (held and learnt != history)
        else again,
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
            pods={pod["metadata"]["uid"]: pod["status"].get("podIP") or "" for pod in ready},
            expected=expectation(wanted, snapshot),
        )
        if host
        else None
    )


def _turns_routes(stack: CosStack, status: CosStackStatus) -> bool:
    """Whether routes may be other by this status: they are rendered by the stored one."""
    routes = stack.spec.traefik.routes if stack.spec.traefik else ()
    return failing(status) != failing(stack.status) and any(
        route.when_gates_fail is WhenGatesFail.REFUSE for route in routes
    )


def _judged(
    stack: CosStack, wanted: Wanted, found: Assessment, snapshot: Snapshot, now: datetime
) -> tuple[Judgement, ...]:
    """What the gates of a component say. One that does not serve, or is not asked, says nothing more than that."""
    row = previous_row(stack, wanted.component)
    before = row.gates if row else ()
    if not wanted.instance:
        # Which gates it has is not known without its configuration: those that it had.
        return unasked([gate.name for gate in before], Verdict.UNKNOWN, f"{NOT_ASKED}{found.reason}")
    expected = expectation(wanted, snapshot)
    if not found.serving:
        verdict = Verdict.UNKNOWN if found.reason in TRANSIENT else Verdict.FAILED
        return unasked(expected.gates, verdict, f"{DOES_NOT_SERVE}{found.reason}")
    return judge(expected, snapshot.facts.get(wanted.component), before, now)


def _retained(resolution: Resolution, stack: CosStack, snapshot: Snapshot) -> list[RetainedVolume]:
    """Volumes of data on which nothing runs: of removed components, and what restores have set aside or filled in vain.

    What holds backups is none.
    """
    used = {wanted.claim for wanted in resolution.components}
    components = {
        (obj["metadata"].get("labels") or {}).get(LABEL_STACK_COMPONENT, "")
        for ref, obj in snapshot.objects.items()
        if ref.kind == "PersistentVolumeClaim" and is_ours(obj, stack)
    }
    return [
        RetainedVolume(component=component, claim=obj["metadata"]["name"])
        for component in sorted(filter(None, components))
        for obj in data_volumes(stack, snapshot.objects, child_name(stack.metadata.name, component)).values()
        if obj["metadata"]["name"] not in used
    ]


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


def _after_halt(stack: CosStack, wanted: Wanted, found: Assessment, now: datetime) -> Assessment:
    """What starts again after it was stopped for a backup is no outage, for as long as a start may take."""
    row = previous_row(stack, wanted.component)
    if (
        row is None
        or row.reason != Reason.BACKING_UP
        or found.reason is not Reason.STARTING
        or is_overdue(stack, wanted, now)
    ):
        return found
    message = cut(f"it starts again, its data is read: {found.message}")
    return replace(found, reason=Reason.BACKING_UP, message=message)


def _with_pending(stack: CosStack, assessed: Assessed, unwritten: Collection[Ref]) -> Assessed:
    """A component of which an object is still to be written is not yet what the spec asks for."""
    message = "a change waits: spec.paused" if stack.spec.paused else "a change is being applied"
    return [
        (wanted, replace(found, reason=Reason.WAITING, message=message))
        if found.ready
        and wanted.instance
        and any(ref_of(obj) in unwritten for obj in wanted.instance.objects)
        else (wanted, found)
        for wanted, found in assessed
    ]


def _next_look(stack: CosStack, assessed: Assessed, history: History, now: datetime) -> float | None:
    """Soon while things move, and ever more seldom while nothing does: sick stacks must not starve others."""
    waits = [
        min(
            max(_age(stack, wanted.component, found.reason, now).total_seconds() / 4, WHEN_MOVING), WHEN_STUCK
        )
        for wanted, found in assessed
        if not found.ready
    ]
    if references(stack):
        # Secrets of the user's carry no label of ours, and are not watched.
        waits.append(WHEN_STUCK)
    if (clock := seconds_to_next(stack, assessed, history, now)) is not None:
        waits.append(max(clock, AT_ONCE))
    return min(waits, default=None)
