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
from cos_controllers.objectives import judge_objectives, needed, runs_of
from cos_controllers.ownership import owner_reference
from cos_controllers.samples import measured_of


def due(stack: CosStack, probes: Sequence[StackProbe], now: datetime) -> Manifest | None:
    """The probe to create, if one is due. Its name follows from why, so that it is created once."""
    wanted = stack.spec.probes
    if stack.spec.paused:
        return None
    if wanted.after_change and _is_ready(stack) and (probe := _after_change(stack, probes, now)):
        return probe
    # Also while a change is taken back: what runs then is measured too.
    if wanted.interval_seconds and _has(stack, ConditionType.AVAILABLE):
        slot = _slot(stack, wanted.interval_seconds, now)
        own = [probe for probe in probes if _is_automatic(probe, stack)]
        if not any(datetime.fromisoformat(probe.metadata.creation_timestamp) >= slot for probe in own):
            return _probe(stack, f"t{int(slot.timestamp()) // 60}")
    return None


def _after_change(stack: CosStack, probes: Sequence[StackProbe], now: datetime) -> Manifest | None:
    """The next probe of a changed stack; None if none is due, or that one ended without having started.

    One, and others while an objective is not decided that is missed or compared: twice as many at most as would decide
    it, since some may say nothing.
    """
    revision = stack.status.revision or 0
    probed = [probe.status.stack_revision or 0 for probe in measured_of(stack, probes)]
    count = probed.count(revision)
    if max(probed, default=0) >= revision and count >= _most_wanted(stack, probes, now):
        return None
    found = _probe(stack, f"r{revision}-{count + 1}" if count else f"r{revision}")
    taken = any(probe.metadata.name == found["metadata"]["name"] for probe in probes)
    return None if taken else found


def _most_wanted(stack: CosStack, probes: Sequence[StackProbe], now: datetime) -> int:
    """How many probes there may be to decide objectives that are not decided."""
    rows = judge_objectives(stack, probes, now, _taken_back(stack))
    return 2 * max((runs_of(row.objective) for row in rows if row.wanted), default=0)


def _taken_back(stack: CosStack) -> dict[str, list[str]]:
    return {row.name: row.taken_back_revisions for row in stack.status.components}


def superfluous(stack: CosStack, probes: Sequence[StackProbe]) -> list[StackProbe]:
    """Ended ones beyond the history that is asked for, of those that the operator made; `probes` oldest first.

    Those by which an objective is judged are kept whatever is asked for.
    """
    ended = [probe for probe in probes if probe.status.completion_time and _is_automatic(probe, stack)]
    kept = needed(stack, probes, _taken_back(stack))
    older = ended[: max(len(ended) - stack.spec.probes.history_limit, 0)]
    return [probe for probe in older if probe.metadata.name not in kept]


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
    return _has(stack, ConditionType.READY) and stack.status.observed_generation == stack.metadata.generation


def _has(stack: CosStack, kind: ConditionType) -> bool:
    """Whether a condition is True."""
    return any(item.type == kind and item.status is ConditionStatus.TRUE for item in stack.status.conditions)


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
