"""What becomes of the probes of one stack: one runs at a time, each leaves nothing behind, old ones go.

Decided anew from what is there, so that an operator that was killed between any two calls goes on. The Job is the
memory: as long as there is one, what it may have written is not yet cleaned up.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import NamedTuple

from cos_controllers.api.probe import StackProbe, StackProbeStatus
from cos_controllers.api.stack import CosStack
from cos_controllers.k8s import Manifest
from cos_controllers.probes.automatic import due, superfluous, until_due
from cos_controllers.probes.job import probe_job
from cos_controllers.probes.life import running, waiting
from cos_controllers.probes.seen import Seen, age, is_quiet, job_of, order_for, ordered, pods_of, probe_of

#: Seconds until the next look while a probe waits or runs, if nothing is heard.
_LOOK_AGAIN = 15.0


class Doomed(NamedTuple):
    """An object to stop or delete, if it is still this one."""

    name: str
    uid: str


@dataclass(frozen=True)
class Plan:
    """What is to be done, in this order.

    `statuses`: those that differ from what is stored, by name of the probe. `suspend`: Jobs whose result nobody waits
    for, to be stopped. `tidy`: components in which what probes left is removed, and the place of the next made; only
    after that `job` is created, or `jobs` are deleted. `create`: a probe that is due. `probes`: those no longer kept.
    `again`: seconds until the next look, None if only an event can change anything.
    """

    statuses: Mapping[str, StackProbeStatus] = field(default_factory=dict)
    suspend: tuple[Doomed, ...] = ()
    tidy: tuple[str, ...] = ()
    job: Manifest | None = None
    jobs: tuple[Doomed, ...] = ()
    create: Manifest | None = None
    probes: tuple[Doomed, ...] = ()
    again: float | None = None


def decide(seen: Seen, now: datetime) -> Plan:
    """The next step of each probe."""
    probes = sorted((probe for probe in seen.probes if not probe.metadata.deletion_timestamp), key=age)
    current = next((probe for probe in probes if _has_started(probe)), None)
    queue = [probe for probe in probes if not probe.status.start_time and not probe.status.completion_time]
    job = job_of(current, seen) if current else None
    over = [item for item in seen.jobs if item is not job]
    statuses: dict[str, StackProbeStatus] = {}
    if current:
        statuses[current.metadata.name] = running(current, job, seen, now)
    plan = Plan()
    if seen.stack and job is None:
        if over:
            plan = _cleared(over, seen, seen.stack)
        elif current and not statuses[current.metadata.name].completion_time:
            plan = _begun(current, seen.stack, seen.image)
    busy = current.metadata.name if current else probe_of(over[0]) if over else ""
    for probe in queue:
        status = statuses[probe.metadata.name] = waiting(probe, seen, busy, now)
        # One that waits for its components holds up none that need not.
        busy = busy or (probe.metadata.name if status.start_time else "")
    stored = {probe.metadata.name: probe.status for probe in probes}
    plan = replace(plan, statuses={name: item for name, item in statuses.items() if item != stored[name]})
    if busy or queue:
        return replace(plan, again=_LOOK_AGAIN)
    if not seen.stack:
        return plan
    return replace(
        plan,
        create=due(seen.stack, probes, now) if seen.image else None,
        probes=tuple(Doomed(p.metadata.name, p.metadata.uid) for p in superfluous(seen.stack, probes)),
        again=until_due(seen.stack, now),
    )


def _has_started(probe: StackProbe) -> bool:
    return probe.status.start_time is not None and probe.status.completion_time is None


def _begun(probe: StackProbe, stack: CosStack, image: str) -> Plan:
    """Its place is made, and its Job."""
    order = order_for(probe, stack)
    names = tuple(subject.component for subject in order.subjects)
    return Plan(tidy=names, job=probe_job(stack, probe, order, image))


def _cleared(jobs: Sequence[Manifest], seen: Seen, stack: CosStack) -> Plan:
    """Jobs that are over, or that nobody waits for, go, and what they have written before them."""
    loud = [job for job in jobs if not is_quiet(job, pods_of(job, seen))]
    if loud:
        return Plan(suspend=tuple(_doomed(job) for job in loud if not job["spec"].get("suspend")))
    present = {row.name for row in stack.status.components}
    names = dict.fromkeys(name for job in jobs for name in ordered(job) if name in present)
    return Plan(tidy=tuple(names), jobs=tuple(map(_doomed, jobs)))


def _doomed(job: Manifest) -> Doomed:
    return Doomed(job["metadata"]["name"], job["metadata"]["uid"])
