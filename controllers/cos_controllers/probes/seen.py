"""What was read of one stack's probes, and how to read it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from pydantic import ValidationError

from cos_controllers.api.probe import StackProbe
from cos_controllers.api.stack import CosStack
from cos_controllers.k8s import Manifest
from cos_controllers.names import LABEL_PROBE
from cos_controllers.probes.checks import order_of
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


def ordered(job: Manifest) -> list[str]:
    """The components that a Job was to try."""
    container = job["spec"]["template"]["spec"]["containers"][0]
    order = next((item["value"] for item in container.get("env") or () if item["name"] == ORDER), "{}")
    try:
        return [subject.component for subject in Order.model_validate_json(order).subjects]
    except ValidationError:
        return []
