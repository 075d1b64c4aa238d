"""What becomes of the probes of one stack: one runs at a time, each leaves nothing behind, old ones go.

Decided anew from what is there, so that an operator that was killed between any two calls goes on. The Job is the
memory: as long as there is one, what it may have written is not yet cleaned up.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, NamedTuple

from cos_controllers.api.probe import StackProbe, StackProbeStatus
from cos_controllers.api.stack import CosStack
from cos_controllers.jobs import Doomed, doomed, is_quiet, pods_of_job
from cos_controllers.k8s import Manifest
from cos_controllers.probes.automatic import due, superfluous, until_due
from cos_controllers.probes.job import probe_job
from cos_controllers.probes.life import running, waiting
from cos_controllers.probes.seen import (
    Seen,
    age,
    components,
    job_of,
    order_for,
    ordered,
    probe_of,
)

#: Seconds until the next look while a probe waits or runs, if nothing is heard.
_LOOK_AGAIN = 15.0


class Clearing(NamedTuple):
    """A Job that is over: what it left in `components` is removed, then it is deleted."""

    job: Doomed
    components: tuple[str, ...]


@dataclass(frozen=True)
class Plan:
    """What is to be done, in this order.

    `statuses`: those that differ from what is stored, by name of the probe. `suspend`: Jobs whose result nobody waits
    for, to be stopped. `job`: to be created, once the place of probes is made and empty in the components `tidy`.
    `clear`: see `Clearing`; one that cannot be done keeps nothing else from being done. `create`: a probe that is due.
    `probes`: those no longer kept. `again`: seconds until the next look, None if only an event can change anything.
    """

    statuses: Mapping[str, StackProbeStatus] = field(default_factory=dict)
    suspend: tuple[Doomed, ...] = ()
    tidy: tuple[str, ...] = ()
    job: Manifest | None = None
    clear: tuple[Clearing, ...] = ()
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
    loud = [item for item in over if not is_quiet(item, pods_of_job(item, seen.pods))]
    quiet = [item for item in over if item not in loud]
    statuses: dict[str, StackProbeStatus] = {}
    plan = Plan(suspend=tuple(doomed(item) for item in loud if not item["spec"].get("suspend")))
    if current:
        statuses[current.metadata.name] = running(current, job, seen, now)
        goes_on = statuses[current.metadata.name].completion_time is None
        if seen.stack and goes_on and not job and not loud and not _namesake(current, quiet):
            plan = replace(plan, **_begun(current, seen.stack, seen.image))
    if seen.stack:
        # What the current one tries is cleared before it begins, and not while it runs.
        busy_with = set(components(current, seen.stack)) if current else set()
        plan = replace(plan, clear=tuple(_clearing(item, seen.stack, busy_with) for item in quiet))
    busy = current.metadata.name if current else probe_of(loud[0]) if loud else ""
    for probe in queue:
        held = f"waits until {busy} has ended" if busy else ""
        if not held and _namesake(probe, quiet):
            held = "waits until what an earlier probe of its name has left is cleared"
        status = statuses[probe.metadata.name] = waiting(probe, seen, held, now)
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


def _namesake(probe: StackProbe, jobs: Sequence[Manifest]) -> bool:
    """Whether a Job of an earlier probe has the name that this one's would have."""
    return any(job["metadata"]["name"] == probe.metadata.name for job in jobs)


def _begun(probe: StackProbe, stack: CosStack, image: str) -> dict[str, Any]:
    """Its place is made, and its Job."""
    order = order_for(probe, stack)
    names = tuple(subject.component for subject in order.subjects)
    return {"tidy": names, "job": probe_job(stack, probe, order, image)}


def _clearing(job: Manifest, stack: CosStack, but: Collection[str]) -> Clearing:
    present = {row.name for row in stack.status.components}
    return Clearing(doomed(job), tuple(name for name in ordered(job) if name in present and name not in but))
