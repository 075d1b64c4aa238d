"""What a stack has asked for by the clock: schedules of backups, verifications, and whether they come in time."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import NamedTuple
from zlib import crc32

from cos_controllers.api.backup import BackupPhase, StackBackup
from cos_controllers.api.restore import RestorePhase, StackRestore
from cos_controllers.api.schedule import Planned, Schedule, Verification
from cos_controllers.api.stack import CosStack
from cos_controllers.cron import following
from cos_controllers.names import LABEL_SCHEDULE

_SKEW = timedelta(seconds=30)
#: What says of a StackRestore that it is a verification, in the place of a schedule's name, which has no capitals.
VERIFICATION = "Verification"
#: What Jobs are made for.
Operation = StackBackup | StackRestore


def age(item: Operation) -> tuple[str, str]:
    """Sorts backups and restores: the oldest first."""
    return item.metadata.creation_timestamp, item.metadata.name


def is_over(item: Operation) -> bool:
    """Whether it has ended, or is about to be gone."""
    return item.status.completion_time is not None or item.metadata.deletion_timestamp is not None


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
        if second and now >= second + jitter(stack, planned) + timedelta(seconds=patience):
            found.append(Lateness(name, since))
    return found


def _has_succeeded(item: Operation) -> bool:
    """Whether all of it did, though it may be kept no longer."""
    if isinstance(item, StackBackup) and item.status.phase is BackupPhase.EXPIRED:
        return item.status.skew_seconds is not None
    return item.status.phase in {BackupPhase.SUCCEEDED, RestorePhase.SUCCEEDED}


def jitter(stack: CosStack, planned: Planned) -> timedelta:
    """How much later than the schedule says: always the same for one stack, and another one for each."""
    name = planned.name if isinstance(planned, Schedule) else VERIFICATION
    return timedelta(seconds=crc32(f"{stack.metadata.uid}/{name}".encode()) % (planned.jitter_seconds + 1))
