"""Probes that a stack asks for by `spec.probes`: which is due, and which are no longer kept."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from zlib import crc32

from cos_controllers.api.probe import StackProbe
from cos_controllers.api.stack import CosStack
from cos_controllers.api.status import ConditionStatus, ConditionType
from cos_controllers.k8s import Manifest, V1ObjectMeta, manifest
from cos_controllers.names import API_VERSION
from cos_controllers.objectives import measured_of
from cos_controllers.ownership import owner_reference


def due(stack: CosStack, probes: Sequence[StackProbe], now: datetime) -> Manifest | None:
    """The probe to create, if one is due. Its name follows from why, so that it is created once."""
    wanted = stack.spec.probes
    if stack.spec.paused or not _is_ready(stack):
        return None
    revision = stack.status.revision or 0
    probed = {probe.status.stack_revision or 0 for probe in measured_of(stack, probes)}
    if wanted.after_change and max(probed, default=0) < revision:
        return _probe(stack, f"r{revision}")
    if wanted.interval_seconds:
        slot = _slot(stack, wanted.interval_seconds, now)
        own = [probe for probe in probes if _is_automatic(probe, stack)]
        if not any(datetime.fromisoformat(probe.metadata.creation_timestamp) >= slot for probe in own):
            return _probe(stack, f"t{int(slot.timestamp()) // 60}")
    return None


def superfluous(stack: CosStack, probes: Sequence[StackProbe]) -> list[StackProbe]:
    """Ended ones beyond the history that is asked for, of those that the operator made; `probes` oldest first."""
    ended = [probe for probe in probes if probe.status.completion_time and _is_automatic(probe, stack)]
    return ended[: max(len(ended) - stack.spec.probes.history_limit, 0)]


def until_due(stack: CosStack, now: datetime) -> float | None:
    """Seconds until the next one by the clock; None without one."""
    interval = stack.spec.probes.interval_seconds
    if interval is None or stack.spec.paused:
        return None
    following = _slot(stack, interval, now) + timedelta(seconds=interval)
    return max((following - now).total_seconds(), 1.0)


def _is_automatic(probe: StackProbe, stack: CosStack) -> bool:
    """Whether the operator made it: its controller is the stack."""
    return any(
        owner.uid == stack.metadata.uid and owner.controller for owner in probe.metadata.owner_references
    )


def _is_ready(stack: CosStack) -> bool:
    ready = next((item for item in stack.status.conditions if item.type == ConditionType.READY), None)
    return (
        ready is not None
        and ready.status is ConditionStatus.TRUE
        and stack.status.observed_generation == stack.metadata.generation
    )


def _slot(stack: CosStack, interval: int, now: datetime) -> datetime:
    """The newest moment at which a probe was due, by a clock that is the stack's own: not all at the full hour."""
    phase = crc32(stack.metadata.uid.encode()) % interval
    seconds = int(now.timestamp())
    return datetime.fromtimestamp((seconds - phase) // interval * interval + phase, tz=now.tzinfo)


def _probe(stack: CosStack, suffix: str) -> Manifest:
    template = stack.spec.probes.template.model_dump(by_alias=True, mode="json", exclude_none=True)
    metadata = V1ObjectMeta(
        name=f"{stack.metadata.name}-{suffix}",
        namespace=stack.metadata.namespace,
        owner_references=[owner_reference(stack)],
    )
    return {
        "apiVersion": API_VERSION,
        "kind": "StackProbe",
        "metadata": manifest(metadata),
        "spec": {**template, "stackRef": {"name": stack.metadata.name}},
    }
