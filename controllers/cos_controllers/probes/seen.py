"""What was read of one stack's probes, and how to read it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple

from pydantic import ValidationError

from cos_controllers.api.probe import StackProbe
from cos_controllers.api.stack import CosStack
from cos_controllers.k8s import Manifest
from cos_controllers.names import LABEL_PROBE
from cos_controllers.ownership import controller_of
from cos_controllers.probes.checks import order_of
from cos_controllers.probes.job import CONTAINER
from cos_controllers.probes.order import ORDER, Order


@dataclass(frozen=True)
class Seen:
    """Everything that was read of one stack's probes.

    `stack` is None if there is none, or it is being deleted, or its spec cannot be used (`why`). `jobs` and `pods`
    carry `LABEL_PROBED_STACK`. `image` makes load, "" if nobody knows it. `warnings`: the newest warning Event of
    Jobs without pods, by UID.
    """

    stack: CosStack | None
    probes: Sequence[StackProbe] = ()
    jobs: Sequence[Manifest] = ()
    pods: Sequence[Manifest] = ()
    image: str = ""
    why: str = ""
    warnings: Mapping[str, str] = field(default_factory=dict)


class End(NamedTuple):
    """When a Job ended, and what it says of why."""

    time: datetime
    message: str


def components(probe: StackProbe, stack: CosStack) -> list[str]:
    """The components to try, in the order of their rows."""
    chosen = probe.spec.components
    return [row.name for row in stack.status.components if not chosen or row.name in chosen]


def order_for(probe: StackProbe, stack: CosStack) -> Order:
    """What the probe's Job is to do."""
    metadata = stack.metadata
    return order_of(metadata.name, metadata.namespace, stack.spec, probe.spec, components(probe, stack))


def age(probe: StackProbe) -> tuple[str, str]:
    """Sorts probes: the oldest first."""
    return probe.metadata.creation_timestamp, probe.metadata.name


def probe_of(job: Manifest) -> str:
    """Name of a Job's probe."""
    return str((job["metadata"].get("labels") or {}).get(LABEL_PROBE) or job["metadata"]["name"])


def job_of(probe: StackProbe, seen: Seen) -> Manifest | None:
    """The Job of a probe. One of an earlier probe of its name is older than the probe."""
    metadata = probe.metadata
    for job in seen.jobs:
        if (
            probe_of(job) == metadata.name
            and job["metadata"]["creationTimestamp"] >= metadata.creation_timestamp
        ):
            return job
    return None


def pods_of_job(job: Manifest, seen: Seen) -> list[Manifest]:
    """The pods of a Job."""
    uid = job["metadata"]["uid"]
    return [pod for pod in seen.pods if (controller_of(pod) or {}).get("uid") == uid]


def end_of(job: Manifest) -> End | None:
    """The end of a Job; None while it goes on."""
    for condition in (job.get("status") or {}).get("conditions") or ():
        if condition["type"] in {"Complete", "Failed"} and condition["status"] == "True":
            told = condition.get("message") or condition.get("reason") or ""
            return End(datetime.fromisoformat(condition["lastTransitionTime"]), told)
    return None


def is_without_pods(job: Manifest, pods: Sequence[Manifest]) -> bool:
    """Whether a Job goes on and nobody knows why it has no pods: admission may refuse them."""
    uid = job["metadata"]["uid"]
    return end_of(job) is None and not any((controller_of(pod) or {}).get("uid") == uid for pod in pods)


def is_quiet(job: Manifest, pods: Sequence[Manifest]) -> bool:
    """Whether no pod of a Job runs any more, and none will: there is one attempt."""
    if end_of(job) or any((pod.get("status") or {}).get("phase") in {"Succeeded", "Failed"} for pod in pods):
        return True
    status = job.get("status") or {}
    suspended = any(
        item["type"] == "Suspended" and item["status"] == "True" for item in status.get("conditions") or ()
    )
    return suspended and not status.get("active") and not status.get("terminating")


def ordered(job: Manifest) -> list[str]:
    """The components that a Job was to try."""
    container = job["spec"]["template"]["spec"]["containers"][0]
    order = next((item["value"] for item in container.get("env") or () if item["name"] == ORDER), "{}")
    try:
        return [subject.component for subject in Order.model_validate_json(order).subjects]
    except ValidationError:
        return []


def report_in(pod: Manifest) -> str:
    """The report of a prober that ended by itself; "" without one."""
    for item in (pod.get("status") or {}).get("containerStatuses") or ():
        ended = (item.get("state") or {}).get("terminated")
        if item["name"] == CONTAINER and ended and ended.get("exitCode") == 0:
            return str(ended.get("message") or "")
    return ""


def why_it_waits(pod: Manifest) -> str:
    """What keeps a pod from running, in the words of scheduler and kubelet; "" if nothing does."""
    status = pod.get("status") or {}
    for condition in status.get("conditions") or ():
        if condition["type"] == "PodScheduled" and condition["status"] == "False":
            return f"its pod waits: {condition.get('message') or condition.get('reason') or ''}"
    for item in status.get("containerStatuses") or ():
        waiting = (item.get("state") or {}).get("waiting") or {}
        if waiting.get("reason") not in {None, "ContainerCreating"}:
            return f"its pod waits: {waiting['reason']}: {waiting.get('message') or ''}"
    return ""


def why_it_ended(pods: Sequence[Manifest], end: End) -> str:
    """Why a Job has no report, by its pods, else by itself."""
    for pod in pods:
        status = pod.get("status") or {}
        for item in status.get("containerStatuses") or ():
            ended = (item.get("state") or {}).get("terminated")
            if ended and ended.get("exitCode"):
                said = (ended.get("message") or "").strip()
                why = f"{ended.get('reason') or 'Error'} ({ended['exitCode']})"
                return f"the prober ended with {why}{': ' + said if said else ''}"
        if status.get("reason"):
            return f"its pod ended: {status['reason']}: {status.get('message') or ''}"
    return f"its Job ended without a report: {end.message or 'its pod is gone'}"
