"""What becomes of the backups and restores of one stack: one thing is done to the data of a component at a time.

Decided anew from what is there, so that an operator that was killed between any two calls goes on. The name of a
component's Job is the lock: as long as there is one, nothing else is done to its data or its backups.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

from cos_controllers.api.backup import BackupPhase, StackBackupStatus
from cos_controllers.api.restore import StackRestoreStatus
from cos_controllers.backups.begin import Begin, Claim
from cos_controllers.backups.job import is_search
from cos_controllers.backups.life import step
from cos_controllers.backups.restoring import restore_step
from cos_controllers.backups.retention import expired, is_removed, without
from cos_controllers.backups.schedules import due, outlived, until_due
from cos_controllers.backups.seen import Seen, label
from cos_controllers.halts import halted_in
from cos_controllers.jobs import Doomed, doomed
from cos_controllers.k8s import Manifest
from cos_controllers.names import LABEL_BACKUP_UID, LABEL_STACK_COMPONENT
from cos_controllers.observation import ref_of
from cos_controllers.timetable import Operation, age, is_over

#: Seconds until the next look while there are Jobs, whose progress is read then; while all wait for the stack or for a
#: person; and once volumes were written.
_LOOK_AGAIN = 5.0
_WHILE_WAITING = 15.0
_AFTER_WRITES = 0.5
#: A component that is stopped is down.
_WHILE_STOPPED = 1.0


@dataclass(frozen=True)
class Plan:
    """What is to be done, in this order.

    `statuses`, `restored`: those that differ from what is stored, by name of the backup and of the restore. `jobs`: to
    be deleted with their pods: their result is stored, or nobody waits for it. `claims`: volumes to write. `begin`:
    Jobs to create. `backups`: those of which nothing is kept any more. `restores`: verifications that are kept no
    longer. `create`: backups and verifications that are due. `again`: seconds until the next look, None if only an
    event can change anything.
    """

    statuses: Mapping[str, StackBackupStatus] = field(default_factory=dict)
    restored: Mapping[str, StackRestoreStatus] = field(default_factory=dict)
    jobs: tuple[Doomed, ...] = ()
    claims: tuple[Claim, ...] = ()
    begin: tuple[Begin, ...] = ()
    backups: tuple[Doomed, ...] = ()
    restores: tuple[Doomed, ...] = ()
    create: tuple[Manifest, ...] = ()
    again: float | None = None


def decide(seen: Seen, now: datetime) -> Plan:
    """The next step of each backup and of each restore."""
    backups = sorted((backup for backup in seen.backups if not is_over(backup)), key=age)
    restores = sorted((restore for restore in seen.restores if not is_over(restore)), key=age)
    plan = Plan(jobs=tuple(doomed(job) for job in seen.jobs if _is_done_with(job, seen)))
    removed: dict[str, list[str]] = {}
    read = seen.backups
    for backup in backups:
        found = step(backup, seen, now)
        looked_at = backup.model_copy(update={"status": found.status})
        for component, snapshots in found.removed.items():
            removed.setdefault(component, []).extend(snapshots)
        # The next one waits for what this one begins.
        seen = replace(
            seen,
            jobs=(*seen.jobs, *(item.job for item in found.begin)),
            backups=[looked_at if item is backup else item for item in seen.backups],
        )
        plan = replace(plan, begin=(*plan.begin, *found.begin))
        if found.status != backup.status:
            plan = replace(plan, statuses={**plan.statuses, backup.metadata.name: found.status})
    for restore in restores:
        after = restore_step(restore, seen, now)
        made = {ref_of(item.volume): item.volume for item in after.claims}
        seen = replace(
            seen,
            jobs=(*seen.jobs, *(item.job for item in after.begin)),
            objects={**made, **seen.objects},
            restores=[
                item.model_copy(update={"status": after.status}) if item is restore else item
                for item in seen.restores
            ],
        )
        plan = replace(plan, claims=(*plan.claims, *after.claims), begin=(*plan.begin, *after.begin))
        if after.status != restore.status:
            plan = replace(plan, restored={**plan.restored, restore.metadata.name: after.status})
    again = [_wait(seen, plan, waiting=bool(backups or restores))]
    # What is kept is judged by what is stored.
    seen = replace(seen, backups=read)
    plan = _retained(seen, plan, removed)
    if seen.stack and seen.image:
        gone = tuple(map(_doomed, outlived(seen.stack, seen.restores)))
        plan = replace(plan, create=tuple(due(seen, now)), restores=gone)
        again.append(until_due(seen.stack, now))
    return replace(plan, again=min((seconds for seconds in again if seconds is not None), default=None))


def _retained(seen: Seen, plan: Plan, removed: Mapping[str, Sequence[str]]) -> Plan:
    """The plan with what becomes of backups that are kept no longer.

    That is written down before anything is taken from a repository: nobody is to count on what may be gone.
    """
    statuses: dict[str, StackBackupStatus] = {}
    for backup in expired(seen):
        update = {"phase": BackupPhase.EXPIRED, "message": "its schedule keeps it no longer"}
        statuses[backup.metadata.name] = backup.status.model_copy(update=update)
    over = [item for item in seen.backups if item.status.phase is BackupPhase.EXPIRED]
    for backup in over:
        found = without(backup, removed)
        if found.status != backup.status:
            statuses[backup.metadata.name] = found.status
    gone = (item for item in over if is_removed(item) and not item.metadata.deletion_timestamp)
    return replace(
        plan,
        # First of all: the Job that has removed them goes once its own backup has ended.
        statuses={**statuses, **plan.statuses},
        backups=tuple(map(_doomed, gone)),
    )


def _doomed(item: Operation) -> Doomed:
    return Doomed(item.metadata.name, item.metadata.uid)


def _wait(seen: Seen, plan: Plan, *, waiting: bool) -> float | None:
    """Seconds until the next look: for what nobody tells of, and not often while all wait."""
    if plan.claims:
        return _AFTER_WRITES
    if any(halted_in(backup.status) for backup in seen.backups if not is_over(backup)):
        return _WHILE_STOPPED
    if seen.jobs:
        return _LOOK_AGAIN
    return _WHILE_WAITING if waiting else None


def _is_done_with(job: Manifest, seen: Seen) -> bool:
    """Whether the result of a Job is stored, or nobody waits for it; not one that is being deleted already."""
    if job["metadata"].get("deletionTimestamp"):
        return False
    uid, component = label(job, LABEL_BACKUP_UID), label(job, LABEL_STACK_COMPONENT)
    for backup in seen.backups:
        if backup.metadata.uid == uid and not is_over(backup):
            return any(row.name == component and row.completion_time for row in backup.status.components)
    for restore in seen.restores:
        if restore.metadata.uid == uid and not is_over(restore):
            return any(
                row.name == component
                and (row.switch_time or row.completion_time or (row.source and is_search(job)))
                for row in restore.status.components
            )
    return True
