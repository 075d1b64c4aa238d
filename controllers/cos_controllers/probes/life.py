"""The status of one probe: it waits, runs, or has ended. Times move only when something does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import NamedTuple

from cos_controllers.api.probe import CheckStatus, ProbePhase, StackProbe, StackProbeStatus, UsageStatus
from cos_controllers.api.stack import CosStack
from cos_controllers.api.status import GateName, Verdict
from cos_controllers.conditions import completion, timestamp
from cos_controllers.jobs import (
    NO_IMAGE,
    POD_SECONDS,
    end_of,
    pods_of_job,
    report_in,
    why_it_ended,
    why_it_waits,
)
from cos_controllers.k8s import Manifest
from cos_controllers.probes.job import CONTAINER
from cos_controllers.probes.order import Order
from cos_controllers.probes.results import Report, UnreadableReport, decode, judged, usage, worst
from cos_controllers.probes.seen import Seen, components, order_for

#: A Job that has ended without a report: what its pod says may come a moment later.
_REPORT_SECONDS = 10


class _Obstacle(NamedTuple):
    """Why a probe cannot start; `lasting` if only another probe could."""

    message: str
    lasting: bool = False


def waiting(probe: StackProbe, seen: Seen, held: str, now: datetime) -> StackProbeStatus:
    """A probe that has not started: it starts, waits with a reason, or has waited too long.

    `held`: what of the same stack it has to wait for, "" if nothing.
    """
    obstacle = _obstacle(probe, seen, held)
    if obstacle is None and seen.stack:
        return _started(probe, seen.stack, now)
    message, lasting = obstacle or _Obstacle("")
    limit = probe.spec.starting_deadline_seconds
    if lasting:
        return ended(probe, ProbePhase.ERROR, message, now)
    if now - datetime.fromisoformat(probe.metadata.creation_timestamp) >= timedelta(seconds=limit):
        told = f"not started within {limit} s (startingDeadlineSeconds): {message}"
        return ended(probe, ProbePhase.ERROR, told, now)
    update = {"phase": ProbePhase.PENDING, "message": message[:1024]}
    return _with_condition(probe, probe.status.model_copy(update=update), now)


def _obstacle(probe: StackProbe, seen: Seen, held: str) -> _Obstacle | None:
    stack = seen.stack
    if stack is None:
        return _Obstacle(seen.why or f"there is no CosStack {probe.spec.stack_ref.name} in this namespace")
    if not stack.status.components:
        return _Obstacle("the stack has no components yet")
    if problem := _mistake(probe, stack) or ("" if seen.image else NO_IMAGE):
        return _Obstacle(problem, lasting=True)
    if problem := _hindrance(components(probe, stack), stack):
        return _Obstacle(problem)
    return _Obstacle(held) if held else None


def _hindrance(tried: Sequence[str], stack: CosStack) -> str:
    """What the components that are to be tried are not ready for."""
    serving = {row.name for row in stack.status.components if row.serving_since}
    if missing := [name for name in tried if name not in serving]:
        return f"waits for {', '.join(missing)} to serve"
    if full := sorted(set(tried) & _full(stack)):
        return f"waits for room: the gate {GateName.STORAGE_HEADROOM} of {', '.join(full)} fails"
    if stale := sorted(set(tried) & _without_routes(stack)):
        return f"waits until {', '.join(stale)} has read its routes (gate {GateName.CONFIGURATION_IN_FORCE})"
    return ""


def _without_routes(stack: CosStack) -> set[str]:
    """A proxy that is not known to have read its routes: it would answer for them itself, with 404."""
    gate = GateName.CONFIGURATION_IN_FORCE
    known = {
        row.name
        for row in stack.status.components
        for item in row.gates
        if item.name is gate and item.verdict is Verdict.PASSED
    }
    return {"traefik"} - known


def _full(stack: CosStack) -> set[str]:
    """Components to which no probe writes: it must not be what fills a volume."""
    return {
        row.name
        for row in stack.status.components
        for gate in row.gates
        if gate.name is GateName.STORAGE_HEADROOM and gate.verdict is Verdict.FAILED
    }


def _mistake(probe: StackProbe, stack: CosStack) -> str:
    """What the spec asks for that the stack does not have."""
    rows = [row.name for row in stack.status.components]
    if unknown := sorted(set(probe.spec.components) - set(rows)):
        return f"spec.components: the stack has no {', '.join(unknown)}; it has {', '.join(rows)}"
    routes = {route.name for route in stack.spec.traefik.routes} if stack.spec.traefik else set()
    if unknown := sorted(set(probe.spec.routes) - routes):
        known = ", ".join(sorted(routes)) or "none"
        return f"spec.routes: the stack has no route {', '.join(unknown)}; it has {known}"
    if not order_for(probe, stack).subjects:
        return "there is nothing to try: name routes of Traefik in spec.routes, or other components"
    return ""


def _started(probe: StackProbe, stack: CosStack, now: datetime) -> StackProbeStatus:
    order = order_for(probe, stack)
    revisions = {row.name: row.effective_revision or "" for row in stack.status.components}
    update = {
        "phase": ProbePhase.RUNNING,
        "message": _task(order),
        "start_time": timestamp(now),
        "stack_revision": stack.status.revision,
        "components": [
            UsageStatus(name=subject.component, revision=revisions[subject.component])
            for subject in order.subjects
        ],
    }
    return _with_condition(probe, probe.status.model_copy(update=update), now)


def _task(order: Order) -> str:
    """What a run does, in words."""
    count = sum(len(subject.checks) for subject in order.subjects)
    return f"{count} checks of {order.seconds} s each"


def running(probe: StackProbe, job: Manifest | None, seen: Seen, now: datetime) -> StackProbeStatus:
    """A probe that has started: it goes on, or has ended."""
    if seen.stack is None:
        return ended(probe, ProbePhase.ERROR, seen.why or "the stack has been deleted", now)
    pods = pods_of_job(job, seen.pods) if job else []
    if report := next(filter(None, (report_in(pod, CONTAINER) for pod in pods)), ""):
        return _reported(probe, report, seen.stack, now)
    end = end_of(job) if job else None
    if end and (not pods or now - end.time >= timedelta(seconds=_REPORT_SECONDS)):
        return ended(probe, ProbePhase.ERROR, why_it_ended(pods, end), now)
    refused = seen.warnings.get(job["metadata"]["uid"], "") if job and not pods else ""
    waits = next(filter(None, map(why_it_waits, pods)), refused)
    limit = order_for(probe, seen.stack).limit + 2 * POD_SECONDS
    began = datetime.fromisoformat(probe.status.start_time or timestamp(now))
    if now - began >= timedelta(seconds=limit):
        what = "its Job has not ended" if job else "its Job was not created"
        return ended(probe, ProbePhase.ERROR, f"{what} within {limit} s{': ' + waits if waits else ''}", now)
    message = waits[:1024] or _task(order_for(probe, seen.stack))
    return _with_condition(probe, probe.status.model_copy(update={"message": message}), now)


def _reported(probe: StackProbe, text: str, stack: CosStack, now: datetime) -> StackProbeStatus:
    """The end of a probe whose prober has spoken."""
    try:
        report = decode(text)
    except UnreadableReport as error:
        return ended(probe, ProbePhase.ERROR, f"its report cannot be read: {error}", now)
    before = {row.name: row.revision for row in probe.status.components}
    after = {row.name: row.effective_revision or "" for row in stack.status.components}
    changed = {name for name, revision in before.items() if after.get(name) != revision}
    rows = [_unless_changed(judged(item), changed) for item in report.figures]
    told = "; ".join(f"{row.name}: {row.message}" for row in rows if row.message)
    message = told or f"{len(rows)} checks measured"
    found = ended(probe, worst(row.phase for row in rows), message, now)
    update = {"checks": rows, "components": _usages(report, before), "client_cpu_milliseconds": report.cpu}
    return found.model_copy(update=update)


def _unless_changed(row: CheckStatus, changed: set[str]) -> CheckStatus:
    """Nobody knows which of two revisions was measured."""
    if row.name.partition("/")[0] not in changed:
        return row
    told = "the component was changed meanwhile"
    return row.model_copy(update={"phase": ProbePhase.INCONCLUSIVE, "message": told})


def _usages(report: Report, revisions: Mapping[str, str]) -> list[UsageStatus]:
    taken = {item.component: item for item in report.taken}
    return [
        usage(taken[name], revision) if name in taken else UsageStatus(name=name, revision=revision)
        for name, revision in revisions.items()
    ]


def ended(probe: StackProbe, phase: ProbePhase, message: str, now: datetime) -> StackProbeStatus:
    """A probe that has ended; nothing changes it any more."""
    update = {"phase": phase, "message": message[:1024], "completion_time": timestamp(now)}
    return _with_condition(probe, probe.status.model_copy(update=update), now)


def _with_condition(probe: StackProbe, status: StackProbeStatus, now: datetime) -> StackProbeStatus:
    done = status.completion_time is not None
    said = completion(probe, probe.status.conditions, status.phase.value, status.message, done=done, now=now)
    return status.model_copy(update=said)
