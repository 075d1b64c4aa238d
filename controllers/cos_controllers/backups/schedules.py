"""Backups that a stack asks for by `spec.backup.schedules`: which are due, and whether they come in time.

Nothing is remembered: what is due follows from the clock, the spec and the backups that are there.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from datetime import datetime, timedelta
from typing import NamedTuple
from zlib import crc32

from cos_controllers.api.backup import BackupPhase, StackBackup
from cos_controllers.api.schedule import SLOT_FORMAT, Schedule
from cos_controllers.api.stack import CosStack
from cos_controllers.backups.seen import age, is_over
from cos_controllers.cron import following, latest
from cos_controllers.k8s import Manifest
from cos_controllers.names import API_VERSION, LABEL_SCHEDULE


class Lateness(NamedTuple):
    """A schedule whose backups do not come, and since when."""

    schedule: str
    since: datetime


def schedules_of(stack: CosStack) -> list[Schedule]:
    """The schedules of a stack; none without `spec.backup`."""
    return stack.spec.backup.schedules if stack.spec.backup else []


def made_by(schedule: Schedule, backups: Sequence[StackBackup]) -> list[StackBackup]:
    """The backups of a schedule."""
    return [item for item in backups if item.metadata.labels.get(LABEL_SCHEDULE) == schedule.name]


def due(
    stack: CosStack, backups: Sequence[StackBackup], made: Collection[str], now: datetime
) -> Iterator[Manifest]:
    """The backups to create. Their names follow from their time, so that each is created once.

    `made`: names of those that were made, and may be gone: who deletes one does not want it.
    """
    known = {item.metadata.name for item in backups} | set(made)
    for schedule in schedules_of(stack):
        slot = _slot(stack, schedule, now)
        if schedule.suspend or slot is None or any(not is_over(item) for item in made_by(schedule, backups)):
            continue
        left = schedule.starting_deadline_seconds - (now - slot).total_seconds()
        wanted = _backup(stack, schedule, slot, left)
        # A stack that is new has missed nothing.
        if (
            left > 0
            and slot > datetime.fromisoformat(stack.metadata.creation_timestamp)
            and wanted["metadata"]["name"] not in known
        ):
            yield wanted


def until_due(stack: CosStack, now: datetime) -> float | None:
    """Seconds until the next one is; None without one."""
    found = [
        (moment + _jitter(stack, schedule) - now).total_seconds()
        for schedule in schedules_of(stack)
        if not schedule.suspend and (moment := following(schedule, now - _jitter(stack, schedule)))
    ]
    return max(min(found), 1.0) if found else None


def late(stack: CosStack, backups: Sequence[StackBackup], now: datetime) -> list[Lateness]:
    """The schedules whose second backup after the newest that succeeded should have ended, and has not.

    Judged by age, so that it tells too when nobody makes them. Of a schedule that never had one nobody knows how long
    it has been there.
    """
    found = []
    for schedule in schedules_of(stack):
        own = sorted(made_by(schedule, backups), key=age)
        good = [item for item in own if item.status.phase in {BackupPhase.SUCCEEDED, BackupPhase.EXPIRED}]
        if schedule.suspend or not own:
            continue
        since = datetime.fromisoformat((good[-1] if good else own[0]).metadata.creation_timestamp)
        first = following(schedule, since)
        second = following(schedule, first) if first else None
        patience = schedule.starting_deadline_seconds + 2 * schedule.active_deadline_seconds
        if second and now >= second + _jitter(stack, schedule) + timedelta(seconds=patience):
            found.append(Lateness(schedule.name, since))
    return found


def _slot(stack: CosStack, schedule: Schedule, now: datetime) -> datetime | None:
    """The newest moment at which one was due."""
    jitter = _jitter(stack, schedule)
    found = latest(schedule, now - jitter)
    return found + jitter if found else None


def _jitter(stack: CosStack, schedule: Schedule) -> timedelta:
    """How much later than the schedule says: always the same for one stack, and another one for each."""
    mark = crc32(f"{stack.metadata.uid}/{schedule.name}".encode())
    return timedelta(seconds=mark % (schedule.jitter_seconds + 1))


def _backup(stack: CosStack, schedule: Schedule, slot: datetime, left: float) -> Manifest:
    return {
        "apiVersion": API_VERSION,
        "kind": "StackBackup",
        "metadata": {
            "name": f"{stack.metadata.name}-{schedule.name}-{slot.strftime(SLOT_FORMAT)}",
            "namespace": stack.metadata.namespace,
            # Without an owner: what is in a repository outlives the stack, and so does what tells of it.
            "labels": {LABEL_SCHEDULE: schedule.name},
        },
        "spec": {
            "stackRef": {"name": stack.metadata.name},
            "repository": schedule.repository,
            "components": list(schedule.components),
            "startingDeadlineSeconds": max(int(left), 30),
            "activeDeadlineSeconds": schedule.active_deadline_seconds,
        },
    }
