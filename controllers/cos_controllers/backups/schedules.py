"""Backups that a stack asks for by `spec.backup.schedules`, and verifications: which are due, and whether they come.

Nothing is remembered: what is due follows from the clock, the spec and the backups that are there.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from typing import NamedTuple
from zlib import crc32

from cos_controllers.api.backup import BackupPhase, StackBackup
from cos_controllers.api.restore import Into, RestorePhase, StackRestore
from cos_controllers.api.schedule import SLOT_FORMAT, Schedule, Verification
from cos_controllers.api.stack import CosStack
from cos_controllers.backups.seen import Operation, Seen, age, is_over
from cos_controllers.cron import following, latest
from cos_controllers.k8s import Manifest
from cos_controllers.names import API_VERSION, LABEL_SCHEDULE

Planned = Schedule | Verification

_SKEW = timedelta(seconds=30)
#: What says of a StackRestore that it is a verification, in the place of a schedule's name, which has no capitals.
VERIFICATION = "Verification"


class Lateness(NamedTuple):
    """A schedule whose backups do not come, or the verification, and since when."""

    schedule: str
    since: datetime


def schedules_of(stack: CosStack) -> list[Schedule]:
    """The schedules of a stack; none without `spec.backup`."""
    return stack.spec.backup.schedules if stack.spec.backup else []


def made_by(schedule: Schedule, backups: Sequence[StackBackup]) -> list[StackBackup]:
    """The backups of a schedule."""
    return [item for item in backups if item.metadata.labels.get(LABEL_SCHEDULE) == schedule.name]


def verification_of(stack: CosStack) -> Verification | None:
    """When the stack's copies are verified."""
    return stack.spec.backup.verification if stack.spec.backup else None


def verifications(restores: Sequence[StackRestore]) -> list[StackRestore]:
    """The restores that were made for proof, by themselves."""
    return [item for item in restores if item.metadata.labels.get(LABEL_SCHEDULE) == VERIFICATION]


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
        (moment + _jitter(stack, item) - now).total_seconds()
        for item in times
        if not item.suspend and (moment := following(item, now - _jitter(stack, item)))
    ]
    return max(min(found), 1.0) if found else None


def late(
    stack: CosStack, backups: Sequence[StackBackup], restores: Sequence[StackRestore], now: datetime
) -> list[Lateness]:
    """The schedules, and the verification, whose second one after the newest that succeeded should have ended.

    Judged by age, so that it tells too when nobody makes them; and not before somebody last touched the spec, which may
    be when it came, or was resumed.
    """
    touched = max(
        [
            stack.metadata.creation_timestamp,
            *(item.time for item in stack.metadata.managed_fields if not item.subresource),
        ]
    )
    kept: list[tuple[str, Planned, Sequence[Operation]]] = [
        (schedule.name, schedule, made_by(schedule, backups)) for schedule in schedules_of(stack)
    ]
    if verification := verification_of(stack):
        kept.append((VERIFICATION, verification, verifications(restores)))
    found = []
    for name, planned, operations in kept:
        if planned.suspend:
            continue
        good = [item.metadata.creation_timestamp for item in operations if _has_succeeded(item)]
        since = datetime.fromisoformat(max([touched, *good]))
        # A clock that is a second behind does not make it one of the time before.
        first = following(planned, since + _SKEW)
        second = following(planned, first) if first else None
        patience = planned.starting_deadline_seconds + 2 * planned.active_deadline_seconds
        if second and now >= second + _jitter(stack, planned) + timedelta(seconds=patience):
            found.append(Lateness(name, since))
    return found


def _has_succeeded(item: Operation) -> bool:
    """Whether all of it did, though it may be kept no longer."""
    if isinstance(item, StackBackup) and item.status.phase is BackupPhase.EXPIRED:
        return item.status.skew_seconds is not None
    return item.status.phase in {BackupPhase.SUCCEEDED, RestorePhase.SUCCEEDED}


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
    jitter = _jitter(stack, planned)
    found = latest(planned, now - jitter)
    return found + jitter if found else None


def _jitter(stack: CosStack, planned: Planned) -> timedelta:
    """How much later than the schedule says: always the same for one stack, and another one for each."""
    name = planned.name if isinstance(planned, Schedule) else VERIFICATION
    return timedelta(seconds=crc32(f"{stack.metadata.uid}/{name}".encode()) % (planned.jitter_seconds + 1))


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
    return made | {"spec": made["spec"] | what}


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
