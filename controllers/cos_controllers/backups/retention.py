"""Which backups of a stack's schedules are kept, and what is to be removed from its repositories."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import NamedTuple
from zoneinfo import ZoneInfo

from cos_controllers.api.backup import BackupPhase, CopyStatus, StackBackup
from cos_controllers.api.schedule import Schedule
from cos_controllers.api.stack import CosStack
from cos_controllers.backups.seen import Seen, repository_of
from cos_controllers.components.registry import stores
from cos_controllers.cron import latest
from cos_controllers.names import LABEL_SCHEDULE
from cos_controllers.places import place_of
from cos_controllers.timetable import age, is_over, made_by, schedules_of

#: Failed backups of a schedule that are kept, as Kubernetes keeps failed Jobs: for a person to read.
_FAILED_KEPT = 3
_SKEW = timedelta(seconds=30)
#: Copies that a Job is told to remove. It removes as many at once as its report has room for.
_MOST_TOLD = 500


class Upkeep(NamedTuple):
    """What is done to a component's part of a repository once a copy is stored.

    `remove`: snapshots. `maintain`: the repository is checked before, and space is given back after. `part` of `parts`
    of its data is read, none if 0.
    """

    remove: tuple[str, ...] = ()
    maintain: bool = False
    part: int = 0
    parts: int = 1


def expired(seen: Seen) -> list[StackBackup]:
    """The backups that their schedule keeps no longer.

    Never one that a restore needs that has not ended, nor the newest good copy of any volume: a stack that came back
    empty is not to push out what was lost. Nor one that is elsewhere than the schedule's next copies, since these
    remove it.
    """
    stack = seen.stack
    if stack is None or _is_searched(seen):
        return []
    needed = {item.spec.backup for item in seen.restores if not is_over(item)} | _newest(seen.backups)
    found = []
    for schedule in schedules_of(stack):
        repository = repository_of(schedule.repository, stack)
        if schedule.suspend or repository is None:
            continue
        own = sorted(made_by(schedule, seen.backups), key=age, reverse=True)
        kept = _kept(schedule, [item for item in own if item.status.phase is BackupPhase.SUCCEEDED])
        failed = [item for item in own if item.status.phase is BackupPhase.FAILED]
        kept |= {item.metadata.name for item in failed[:_FAILED_KEPT]}
        ended = (BackupPhase.SUCCEEDED, BackupPhase.FAILED)
        components = stores(stack.spec)
        found += [
            item
            for item in own
            if item.status.phase in ended
            and item.metadata.name not in kept | needed
            and all(
                row.name in components and row.place == place_of(stack, repository, row.name, seen.objects)
                for row in _remains(item)
            )
        ]
    return found


def _is_searched(seen: Seen) -> bool:
    """Whether a restore looks for its copy, and nobody knows yet which one that is."""
    return any(
        not is_over(item)
        and item.spec.source is not None
        and (
            not item.status.components
            or any(row.source is None and not row.completion_time for row in item.status.components)
        )
        for item in seen.restores
    )


def is_removed(backup: StackBackup) -> bool:
    """Whether nothing of an expired backup is in a repository any more."""
    return backup.status.phase is BackupPhase.EXPIRED and not any(_remains(backup))


def upkeep(stack: CosStack, component: str, place: str, path: str, seen: Seen, now: datetime) -> Upkeep:
    """What is due in a component's part of a repository.

    Once it has failed, nothing is removed before the repository was checked, and the same part of it is read again.
    """
    there = _copies_at(component, place, path, seen)
    held = {
        row.source.snapshot
        for restore in seen.restores
        if not is_over(restore)
        for row in restore.status.components
        if row.source
    }
    active = {schedule.name for schedule in schedules_of(stack) if not schedule.suspend}
    old = [
        row.snapshot
        for backup, row in there
        if backup.status.phase is BackupPhase.EXPIRED
        and row.phase is BackupPhase.SUCCEEDED
        and row.snapshot not in held
        and backup.metadata.labels.get(LABEL_SCHEDULE) in active
    ]
    remove = () if _is_searched(seen) else tuple(old[:_MOST_TOLD])
    rows = [row for _, row in there if row.completion_time]
    newest = max(rows, key=lambda row: row.completion_time or "", default=None)
    if not (newest and newest.maintenance_failure) and not _is_maintenance_due(stack, rows, now):
        return Upkeep(remove)
    return Upkeep(remove, True, *_part(stack, newest))


def _copies_at(component: str, place: str, path: str, seen: Seen) -> list[tuple[StackBackup, CopyStatus]]:
    """The copies of a component's part of a repository, each with its backup, the oldest first."""
    return [
        (backup, row)
        for backup in sorted(seen.backups, key=age)
        for row in backup.status.components
        if (row.name, row.place, row.path) == (component, place, path)
    ]


def _part(stack: CosStack, newest: CopyStatus | None) -> tuple[int, int]:
    """The part of the data that is read next, and how many there are."""
    percent = stack.spec.backup.maintenance.read_percent if stack.spec.backup else 0
    if not percent:
        return 0, 1
    parts = 100 // percent
    return (newest.read_part if newest else 0) % parts + 1, parts


def last_maintained(copy: CopyStatus, seen: Seen) -> CopyStatus | None:
    """The copy that says when the part of a repository that a copy is in was last looked after; None if none does."""
    found = (row for _, row in _copies_at(copy.name, copy.place, copy.path, seen) if row.maintained)
    return max(found, key=lambda row: (row.maintained or "", row.completion_time or ""), default=None)


def without(backup: StackBackup, removed: Mapping[str, Sequence[str]]) -> StackBackup:
    """An expired backup, once these snapshots, by component, are in the repository no longer."""
    rows = [
        row.model_copy(update={"phase": BackupPhase.EXPIRED})
        if row.phase is BackupPhase.SUCCEEDED and row.snapshot in removed.get(row.name, ())
        else row
        for row in backup.status.components
    ]
    return backup.model_copy(update={"status": backup.status.model_copy(update={"components": rows})})


def _remains(backup: StackBackup) -> Iterator[CopyStatus]:
    return (row for row in backup.status.components if row.phase is BackupPhase.SUCCEEDED)


def _newest(backups: Sequence[StackBackup]) -> set[str]:
    """Names of the backups that hold the newest good copy of some volume."""
    newest: dict[tuple[str, str], tuple[str, str]] = {}
    for backup in backups:
        if backup.status.phase is not BackupPhase.EXPIRED:
            for row in _remains(backup):
                found = (row.point_in_time or "", backup.metadata.name)
                volume = (row.name, row.lineage)
                newest[volume] = max(newest.get(volume, found), found)
    return {name for _, name in newest.values()}


def _kept(schedule: Schedule, backups: Sequence[StackBackup]) -> set[str]:
    """Names of those to keep, of good ones, the newest first.

    As restic does it: of the newest so many periods that have one, the last one of each.
    """
    zone, keep = ZoneInfo(schedule.time_zone), schedule.keep
    names = [backup.metadata.name for backup in backups]
    # A clock that is a second behind does not make another day of it.
    moments = [
        (datetime.fromisoformat(backup.metadata.creation_timestamp) + _SKEW).astimezone(zone)
        for backup in backups
    ]
    days = [moment.date() for moment in moments]
    weeks = [day.isocalendar()[:2] for day in days]
    months = [(day.year, day.month) for day in days]
    kept: set[str] = set()
    periods: tuple[tuple[int, Sequence[object]], ...] = (
        (keep.last, names),
        (keep.daily, days),
        (keep.weekly, weeks),
        (keep.monthly, months),
    )
    for count, of in periods:
        last: dict[object, str] = {}
        for period, name in zip(of, names, strict=True):
            last.setdefault(period, name)
        kept |= set(list(last.values())[:count])
    return kept


def _is_maintenance_due(stack: CosStack, rows: Sequence[CopyStatus], now: datetime) -> bool:
    """Whether its time has come since it was done last, or since the first copy."""
    if stack.spec.backup is None:
        return False
    slot = latest(stack.spec.backup.maintenance, now)
    done = [row.maintained for row in rows if row.maintained]
    copied = [
        row.completion_time for row in rows if row.phase is BackupPhase.SUCCEEDED and row.completion_time
    ]
    since = max(done, default=None) or min(copied, default=None)
    return slot is not None and since is not None and slot > datetime.fromisoformat(since)
