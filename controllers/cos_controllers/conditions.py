"""The status of a stack from its components' assessments. Times move only when a value does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple, Protocol

from cos_controllers.api.metadata import Metadata
from cos_controllers.api.stack import CosStack
from cos_controllers.api.status import (
    Binding,
    ComponentStatus,
    Condition,
    ConditionStatus,
    ConditionType,
    CosStackStatus,
    GateStatus,
    ObjectiveStatus,
    Reason,
    RetainedVolume,
    Verdict,
)
from cos_controllers.diagnose import TRANSIENT, Assessment, cut
from cos_controllers.gates import NOT_ASKED, RELOADING, Judgement, unasked
from cos_controllers.history import History
from cos_controllers.names import app_secret
from cos_controllers.objectives import Row
from cos_controllers.observation import Problem, Ref
from cos_controllers.protection import Protection
from cos_controllers.samples import target
from cos_controllers.wanted import Wanted

#: Conditions that a person hears of when they turn false.
_TOLD = frozenset({ConditionType.GATES_PASSED, ConditionType.SLO_MET, ConditionType.BACKUP_HEALTHY})
#: Those that not every stack has.
_OPTIONAL = (ConditionType.SLO_MET, ConditionType.BACKUP_HEALTHY)
#: Reason of `Complete` while it is not so.
NOT_YET = "NotYet"
#: Characters of what a condition says of each objective: there may be dozens.
_OBJECTIVE_LENGTH = 300


class Notice(NamedTuple):
    """An Event on the stack: `type` is Normal or Warning."""

    type: str
    reason: str
    message: str


def rolled_back(stack: CosStack, status: CosStackStatus) -> list[ComponentStatus]:
    """Rows of the components whose change is taken back in `status`, and was not in the stored one."""
    return [
        row
        for row in status.components
        if row.failed_revision
        and row.failed_revision != getattr(previous_row(stack, row.name), "failed_revision", None)
    ]


def turned(stack: CosStack, status: CosStackStatus) -> list[Notice]:
    """An Event for each thing that a person must know of, when it turns from the stored status to `status`."""
    before = {item.type: item.status for item in stack.status.conditions}
    found = [
        Notice("Warning", Reason.ROLLED_BACK, f"{row.name}: {row.message}")
        for row in rolled_back(stack, status)
    ]
    for condition in status.conditions:
        turned_to, was = condition.status, before.get(condition.type)
        if was is turned_to:
            continue
        if condition.type == ConditionType.READY and turned_to is ConditionStatus.TRUE:
            found.append(Notice("Normal", "Ready", "every component serves what the spec asks for"))
        elif condition.reason == Reason.ROLLED_BACK:
            continue  # told above, once
        elif (
            (condition.type == ConditionType.STALLED and turned_to is ConditionStatus.TRUE)
            or (
                condition.type == ConditionType.AVAILABLE
                and turned_to is ConditionStatus.FALSE
                and was is ConditionStatus.TRUE
            )
            or (condition.type in _TOLD and turned_to is ConditionStatus.FALSE)
        ):
            found.append(Notice("Warning", condition.reason, condition.message))
    return found


def timestamp(moment: datetime) -> str:
    """RFC 3339 in UTC, in whole seconds, as Kubernetes writes times."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def previous_row(stack: CosStack, component: str) -> ComponentStatus | None:
    """The component's row in the stored status."""
    return next((row for row in stack.status.components if row.name == component), None)


def build_status(
    stack: CosStack,
    assessments: Sequence[tuple[Wanted, Assessment]],
    judgements: Mapping[str, Sequence[Judgement]],
    objectives: Sequence[Row],
    protected: Protection | None,
    retained: Sequence[RetainedVolume],
    history: History,
    now: datetime,
) -> CosStackStatus:
    """Rows, conditions and summary of a stack whose spec was understood; `judgements` of its gates by component."""
    ready = sum(assessment.ready for _, assessment in assessments)
    rows = [
        _row(stack, wanted, assessment, judgements.get(wanted.component, ()), history, now)
        for wanted, assessment in assessments
    ]
    return CosStackStatus(
        observed_generation=stack.metadata.generation,
        revision=history.current.number,
        summary=f"{ready}/{len(assessments)}",
        conditions=_conditions(
            stack, {w.component: a for w, a in assessments}, rows, objectives, protected, now
        ),
        components=rows,
        objectives=[_objective(stack, row, now) for row in objectives],
        retained=sorted(retained, key=lambda volume: volume.claim),
    )


def refused_status(stack: CosStack, reason: Reason, message: str, now: datetime) -> CosStackStatus:
    """The stored status with one thing to say: the spec is refused. Nobody looks at the engines meanwhile."""
    rows = [
        row.model_copy(
            update={"ready": False, "serving_since": None, "reason": reason.value, "message": message}
            | {"since": _since(stack, row.name, reason, now)}
            | {
                "gates": [
                    _gate(stack, row.name, judgement, now)
                    for judgement in unasked(
                        [gate.name for gate in row.gates], Verdict.UNKNOWN, f"{NOT_ASKED}{reason}"
                    )
                ]
            }
        )
        for row in stack.status.components
    ]
    verdicts = {
        **_others_unknown(stack, reason, message),
        ConditionType.AVAILABLE: (ConditionStatus.UNKNOWN, reason, message),
        ConditionType.READY: (ConditionStatus.FALSE, reason, message),
        ConditionType.RECONCILING: (ConditionStatus.FALSE, reason, ""),
        ConditionType.STALLED: (ConditionStatus.TRUE, reason, message),
        ConditionType.GATES_PASSED: (ConditionStatus.UNKNOWN, reason, message),
    }
    unseen = stack.status.model_copy(update={"components": rows, "summary": None})
    return with_verdicts(stack, unseen, verdicts, now)


def with_refusals(
    stack: CosStack, status: CosStackStatus, refusals: Mapping[str, Problem], now: datetime
) -> CosStackStatus:
    """`status` with what the API server refused, a problem by component ("" for the stack's own objects)."""
    if not refusals:
        return status
    rows = [
        row.model_copy(
            update={"ready": False, "reason": problem.reason.value, "message": problem.message}
            | {"since": _since(stack, row.name, problem.reason, now)}
        )
        if (problem := refusals.get(row.name))
        else row
        for row in status.components
    ]
    text = "; ".join(
        f"{name}: {problem.message}" if name else problem.message for name, problem in refusals.items()
    )
    first = next(iter(refusals.values())).reason
    verdicts = {
        ConditionType.READY: (ConditionStatus.FALSE, first, text),
        ConditionType.STALLED: (ConditionStatus.TRUE, first, text),
    }
    if not any(row.reason in TRANSIENT for row in rows):
        # Those who go by kstatus look at this one first: what is refused is not under way.
        verdicts[ConditionType.RECONCILING] = (ConditionStatus.FALSE, first, "")
    summary = f"{sum(row.ready for row in rows)}/{len(rows)}"
    return with_verdicts(
        stack, status.model_copy(update={"components": rows, "summary": summary}), verdicts, now
    )


def refusal(ref: Ref, error: str) -> Problem:
    """What the API server's refusal of an object means to a person."""
    # The admission plugin PersistentVolumeClaimResize gives its reason in words only.
    if ref.kind == "PersistentVolumeClaim" and "must support resize" in error:
        return Problem(
            Reason.GROWTH_REFUSED,
            f"volume {ref.name} cannot grow, its StorageClass has no allowVolumeExpansion: write the old "
            "storage.size back",
        )
    return Problem(Reason.APPLY_REFUSED, f"{ref.kind} {ref.name}: {error}")


def unknown_status(stack: CosStack, message: str, now: datetime) -> CosStackStatus:
    """The stored status when the cluster could not be read: silence is Unknown."""
    verdicts = dict.fromkeys(
        (ConditionType.READY, ConditionType.AVAILABLE, ConditionType.GATES_PASSED),
        (ConditionStatus.UNKNOWN, Reason.API_UNAVAILABLE, message),
    )
    verdicts |= _others_unknown(stack, Reason.API_UNAVAILABLE, message)
    return with_verdicts(stack, stack.status, verdicts, now)


def _others_unknown(
    stack: CosStack, reason: Reason, message: str
) -> dict[ConditionType, tuple[ConditionStatus, Reason, str]]:
    """Of objectives and backups nobody knows anything either, if the stack has such conditions."""
    has = {item.type for item in stack.status.conditions}
    return dict.fromkeys(
        (kind for kind in _OPTIONAL if kind in has), (ConditionStatus.UNKNOWN, reason, message)
    )


Verdicts = Mapping[ConditionType, tuple[ConditionStatus, Reason, str]]


def with_verdicts(
    stack: CosStack, status: CosStackStatus, verdicts: Verdicts, now: datetime
) -> CosStackStatus:
    """`status` with the given conditions in place of those of the same type."""
    kept = [condition for condition in status.conditions if condition.type not in set(verdicts)]
    made = [_condition(stack, kind, *verdict, now) for kind, verdict in verdicts.items()]
    return status.model_copy(
        update={
            "observed_generation": stack.metadata.generation,
            "conditions": sorted([*kept, *made], key=lambda condition: condition.type),
        }
    )


def condition_of(
    conditions: Sequence[Condition],
    kind: ConditionType,
    status: ConditionStatus,
    *,
    reason: str,
    message: str,
    generation: int,
    now: datetime,
) -> Condition:
    """A condition that follows `conditions`: its time is that of its status."""
    before = next((item for item in conditions if item.type == kind), None)
    unchanged = before is not None and before.status is status
    return Condition(
        type=kind.value,
        status=status,
        reason=reason,
        message=message,
        observed_generation=generation,
        last_transition_time=before.last_transition_time if before and unchanged else timestamp(now),
    )


class Reported(Protocol):
    """What is done once, and has a status that says how it ended: a probe, a backup, a restore."""

    @property
    def metadata(self) -> Metadata:
        """As the API server has it."""


def completion(
    obj: Reported,
    conditions: Sequence[Condition],
    phase: str,
    message: str,
    *,
    done: bool,
    now: datetime,
) -> dict[str, Any]:
    """What the status of an operation says besides itself: the condition `Complete`, which follows `conditions`."""
    condition = condition_of(
        conditions,
        ConditionType.COMPLETE,
        ConditionStatus.TRUE if done else ConditionStatus.FALSE,
        reason=phase if done else NOT_YET,
        message=message,
        generation=obj.metadata.generation,
        now=now,
    )
    return {"conditions": [condition], "observed_generation": obj.metadata.generation}


def _condition(
    stack: CosStack,
    kind: ConditionType,
    status: ConditionStatus,
    reason: Reason,
    message: str,
    now: datetime,
) -> Condition:
    return condition_of(
        stack.status.conditions,
        kind,
        status,
        reason=reason.value,
        message=message,
        generation=stack.metadata.generation,
        now=now,
    )


def _conditions(
    stack: CosStack,
    found: Mapping[str, Assessment],
    rows: Sequence[ComponentStatus],
    objectives: Sequence[Row],
    protected: Protection | None,
    now: datetime,
) -> list[Condition]:
    def verdict(bad: Mapping[str, Assessment], *, when_bad: bool) -> tuple[ConditionStatus, Reason, str]:
        if not bad:
            status = ConditionStatus.FALSE if when_bad else ConditionStatus.TRUE
            return status, Reason.SERVING, ""
        text = "; ".join(f"{name}: {a.message or a.reason.value}" for name, a in bad.items())
        status = ConditionStatus.TRUE if when_bad else ConditionStatus.FALSE
        return status, next(iter(bad.values())).reason, text

    moving = {name: a for name, a in found.items() if a.reason in TRANSIENT}
    # What is held back is a consequence of what is named before it.
    stalled = {
        name: a
        for name, a in sorted(found.items(), key=lambda item: item[1].reason is Reason.HELD_BACK)
        if a.stalled
    }
    verdicts: dict[ConditionType, tuple[ConditionStatus, Reason, str]] = {
        ConditionType.AVAILABLE: verdict({n: a for n, a in found.items() if not a.serving}, when_bad=False),
        # What a person must act on is named before what goes on by itself.
        ConditionType.READY: verdict(
            stalled | {n: a for n, a in found.items() if not a.ready}, when_bad=False
        ),
        ConditionType.RECONCILING: verdict(moving, when_bad=True),
        ConditionType.STALLED: verdict(stalled, when_bad=True),
        ConditionType.GATES_PASSED: _gates_passed(rows),
    }
    if stack.spec.paused:
        verdicts[ConditionType.RECONCILING] = (
            ConditionStatus.FALSE,
            Reason.PAUSED,
            "spec.paused stops all changes; set it to false to resume",
        )
    if stack.spec.slo is not None:
        verdicts[ConditionType.SLO_MET] = _slo_met(objectives)
    if protected is not None:
        verdicts[ConditionType.BACKUP_HEALTHY] = protected
    return [_condition(stack, kind, *verdicts[kind], now) for kind in sorted(verdicts)]


def _slo_met(objectives: Sequence[Row]) -> tuple[ConditionStatus, Reason, str]:
    """The worst verdict of all objectives that count, in words."""
    for verdict, status, reason in (
        (Verdict.FAILED, ConditionStatus.FALSE, Reason.OBJECTIVE_MISSED),
        (Verdict.UNKNOWN, ConditionStatus.UNKNOWN, Reason.OBJECTIVE_UNKNOWN),
    ):
        found = [row for row in objectives if row.verdict is verdict and not row.objective.dry_run]
        if found:
            told = "; ".join(f"{row.objective.name}: {cut(row.message, _OBJECTIVE_LENGTH)}" for row in found)
            return status, reason, told
    return ConditionStatus.TRUE, Reason.OBJECTIVES_MET, ""


def _objective(stack: CosStack, row: Row, now: datetime) -> ObjectiveStatus:
    name = row.objective.name
    before = next((item for item in stack.status.objectives if item.name == name), None)
    return ObjectiveStatus(
        name=name,
        verdict=row.verdict,
        target=target(row.objective),
        measured=row.measured,
        probe=row.probe,
        failures=row.failures,
        measurements=row.measurements,
        dry_run=row.objective.dry_run,
        message=row.message[:1024],
        since=before.since if before and before.verdict is row.verdict else timestamp(now),
    )


def _gates_passed(rows: Sequence[ComponentStatus]) -> tuple[ConditionStatus, Reason, str]:
    """The worst verdict of all gates, in words; in the order of the rows, stores before the proxy."""
    for verdict, status, reason in (
        (Verdict.FAILED, ConditionStatus.FALSE, Reason.GATE_FAILED),
        (Verdict.UNKNOWN, ConditionStatus.UNKNOWN, Reason.GATE_UNKNOWN),
    ):
        found: dict[tuple[str, str], list[str]] = {}
        for row in rows:
            for gate in row.gates:
                if gate.verdict is verdict:
                    found.setdefault((row.name, gate.message), []).append(gate.name)
        if found:
            told = (f"{row} {', '.join(names)}: {message}" for (row, message), names in found.items())
            return status, reason, "; ".join(told)
    return ConditionStatus.TRUE, Reason.GATES_PASSED, ""


def _row(
    stack: CosStack,
    wanted: Wanted,
    assessment: Assessment,
    judgements: Sequence[Judgement],
    history: History,
    now: datetime,
) -> ComponentStatus:
    return ComponentStatus(
        name=wanted.component,
        ready=assessment.ready,
        version=wanted.spec.version,
        endpoint=f"{wanted.name}.{stack.metadata.namespace}.svc:{wanted.engine.ports[0].number}",
        binding=Binding(name=app_secret(wanted.name)) if wanted.engine.accounts else None,
        desired_revision=wanted.desired,
        effective_revision=assessment.effective_revision,
        serving_since=assessment.serving_since,
        last_good_revision=history.last_good_hash(wanted.component),
        failed_revision=wanted.failure.revision if wanted.failure else None,
        taken_back_revisions=sorted(history.taken_back(wanted.component)),
        last_progress_time=assessment.last_progress_time,
        progress=assessment.progress,
        reason=assessment.reason.value,
        message=assessment.message,
        since=_since(stack, wanted.component, assessment.reason, now),
        gates=[_gate(stack, wanted.component, judgement, now) for judgement in judgements],
    )


def _gate(stack: CosStack, component: str, judgement: Judgement, now: datetime) -> GateStatus:
    row = previous_row(stack, component)
    before = next((gate for gate in row.gates if gate.name is judgement.name), None) if row else None
    # What waits to be read has waited since it began to, whatever was unknown before.
    unchanged = (
        before is not None
        and before.verdict is judgement.verdict
        and (before.message == RELOADING) == (judgement.message == RELOADING)
    )
    return GateStatus(
        name=judgement.name,
        verdict=judgement.verdict,
        message=judgement.message,
        since=before.since if before and unchanged else timestamp(now),
    )


def _since(stack: CosStack, component: str, reason: Reason, now: datetime) -> str:
    before = previous_row(stack, component)
    if before and before.since and before.reason == reason.value:
        return before.since
    return timestamp(now)
