"""Backups that a stack asks for by `spec.backup.schedules`, and verifications: which are due, and whether they come.

Nothing is remembered: what is due follows from the clock, the spec and the backups that are there.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from zlib import crc32

from cos_controllers.api.restore import Into, RestorePhase, StackRestore
from cos_controllers.api.schedule import SLOT_FORMAT, Planned, Schedule, Verification
from cos_controllers.api.stack import CosStack
from cos_controllers.backups.seen import Seen
from cos_controllers.cron import following, latest
from cos_controllers.k8s import Manifest
from cos_controllers.names import API_VERSION, LABEL_SCHEDULE
from cos_controllers.timetable import (
    VERIFICATION,
    Operation,
    age,
    is_over,
    jitter,
    made_by,
    schedules_of,
    verification_of,
    verifications,
)


def due(seen: Seen, now: datetime) -> Iterator[Manifest]:
    """The backups and restores to create. Their names follow from their time, so that each is created once.

    Who deletes one that was made does not want it: it is not made again.
    """
    stack = seen.stack
    if stack is None:
        return
    for schedule in schedules_of(stack):
        if slot := _open_slot(stack, schedule, made_by(schedule, seen.backups), now):
            wanted = _backup(stack, schedule, slot, now)
            if not _is_known(wanted, seen.backups, seen):
                yield wanted
    verification = verification_of(stack)
    if verification and (slot := _open_slot(stack, verification, verifications(seen.restores), now)):
        wanted = _verification(stack, verification, slot, now)
        if not _is_known(wanted, seen.restores, seen):
            yield wanted


def until_due(stack: CosStack, now: datetime) -> float | None:
    """Seconds until the next one is; None without one."""
    verification = verification_of(stack)
    times: list[Planned] = [*schedules_of(stack), *([verification] if verification else [])]
    found = [
        (moment + jitter(stack, item) - now).total_seconds()
        for item in times
        if not item.suspend and (moment := following(item, now - jitter(stack, item)))
    ]
    return max(min(found), 1.0) if found else None


def outlived(stack: CosStack, restores: Sequence[StackRestore]) -> list[StackRestore]:
    """The ended verifications beyond those that are kept, the newest that succeeded never among them."""
    verification = verification_of(stack)
    if verification is None:
        return []
    ended = sorted((item for item in verifications(restores) if is_over(item)), key=age, reverse=True)
    good = [item for item in ended if item.status.phase is RestorePhase.SUCCEEDED]
    return [item for item in ended[verification.history_limit :] if item not in good[:1]]


def _open_slot(stack: CosStack, planned: Planned, own: Sequence[Operation], now: datetime) -> datetime | None:
    """The newest moment at which one was due, if it can still begin: no other goes on, and it is not too late."""
    slot = _slot(stack, planned, now)
    if planned.suspend or slot is None or any(not is_over(item) for item in own):
        return None
    if (now - slot).total_seconds() >= planned.starting_deadline_seconds:
        return None
    # A stack that is new has missed nothing.
    return slot if slot > datetime.fromisoformat(stack.metadata.creation_timestamp) else None


def _is_known(wanted: Manifest, there: Sequence[Operation], seen: Seen) -> bool:
    name = wanted["metadata"]["name"]
    return name in seen.made or any(item.metadata.name == name for item in there)


def _slot(stack: CosStack, planned: Planned, now: datetime) -> datetime | None:
    """The newest moment at which one was due."""
    later = jitter(stack, planned)
    found = latest(planned, now - later)
    return found + later if found else None


def _name(stack: CosStack, name: str, slot: datetime) -> str:
    """Of stack, schedule and time; and a mark, since ``a-b`` and ``c`` look like ``a`` and ``b-c``."""
    mark = crc32(f"{stack.metadata.uid}/{name}".encode()) & 0xFFFF
    return f"{stack.metadata.name}-{name.lower()}-{slot.strftime(SLOT_FORMAT)}-{mark:04x}"


def _backup(stack: CosStack, schedule: Schedule, slot: datetime, now: datetime) -> Manifest:
    made = _planned("StackBackup", stack, schedule, schedule.name, slot, now)
    return made | {"spec": made["spec"] | {"allowDowntime": True}} if schedule.allow_downtime else made


def _verification(stack: CosStack, verification: Verification, slot: datetime, now: datetime) -> Manifest:
    made = _planned("StackRestore", stack, verification, VERIFICATION, slot, now)
    repository = made["spec"].pop("repository")
    what = {"source": {"repository": repository} if repository else {}, "into": Into.THROWAWAY.value}
    asked = verification.sql.model_dump(by_alias=True, mode="json") if verification.sql else None
    return made | {"spec": made["spec"] | what | ({"sql": asked} if asked else {})}


def _planned(
    kind: str, stack: CosStack, planned: Planned, name: str, slot: datetime, now: datetime
) -> Manifest:
    left = planned.starting_deadline_seconds - (now - slot).total_seconds()
    return {
        "apiVersion": API_VERSION,
        "kind": kind,
        "metadata": {
            "name": _name(stack, name, slot),
            "namespace": stack.metadata.namespace,
            # Without an owner: what is in a repository outlives the stack, and so does what tells of it.
            "labels": {LABEL_SCHEDULE: name},
        },
        "spec": {
            "stackRef": {"name": stack.metadata.name},
            "repository": planned.repository,
            "components": list(planned.components),
            "startingDeadlineSeconds": max(int(left), 30),
            "activeDeadlineSeconds": planned.active_deadline_seconds,
        },
    }
