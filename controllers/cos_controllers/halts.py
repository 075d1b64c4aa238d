"""Components that are stopped while a backup reads their data: by what, since when, and until when.

It follows from what StackBackups say, which is written before anything is stopped, and from a mark on the workload that
was. Where that cannot be known, what is stopped stays so, and what runs stays so.
"""

from __future__ import annotations

from collections.abc import Iterable

from cos_controllers.api.backup import CopyStatus, StackBackup, StackBackupStatus
from cos_controllers.api.stack import CosStack
from cos_controllers.jobs import end_of
from cos_controllers.k8s import Manifest
from cos_controllers.names import ANNOTATION_HALTED, LABEL_BACKUP_UID, LABEL_STACK_COMPONENT
from cos_controllers.observation import Ref, Snapshot
from cos_controllers.wanted import Halt


def is_halted(row: CopyStatus) -> bool:
    """Whether a copy needs its component to be stopped."""
    return bool(row.halt_time and not row.resume_time and not row.completion_time)


def halted_in(status: StackBackupStatus) -> frozenset[str]:
    """The components that a backup needs to be stopped now, by its status."""
    return frozenset(row.name for row in status.components if is_halted(row))


def halted_by(workload: Manifest | None) -> str:
    """UID of the StackBackup for which a workload was stopped, "" if it was not."""
    metadata = (workload or {}).get("metadata") or {}
    return str((metadata.get("annotations") or {}).get(ANNOTATION_HALTED) or "")


def halting(component: str, backups: Iterable[StackBackup], but: str = "") -> Halt | None:
    """The backup for which a component is to be stopped now. `but`: not this one, by its UID."""
    for backup in backups:
        metadata = backup.metadata
        if backup.status.completion_time or metadata.deletion_timestamp or metadata.uid == but:
            continue
        for row in backup.status.components:
            if row.name == component and is_halted(row):
                return Halt(metadata.uid, metadata.name, row.halt_time or "")
    return None


def halt_of(stack: CosStack, component: str, instance: str, snapshot: Snapshot) -> Halt | None:
    """What a component is stopped for, or is to be; None if it is to run.

    As long as a Job may read its data it does not start, whatever has become of the backup: what reads holds locks.
    """
    mark = halted_by(snapshot.objects.get(Ref("StatefulSet", instance)))
    if snapshot.backups is None:
        return Halt(mark) if mark else None
    if stack.spec.backup and (found := halting(component, snapshot.backups)):
        return found
    if mark and not _is_read(mark, component, snapshot.backups) and _is_reading(mark, component, snapshot):
        return next(
            (Halt(mark, item.metadata.name) for item in snapshot.backups if item.metadata.uid == mark),
            Halt(mark),
        )
    return None


def _is_read(uid: str, component: str, backups: Iterable[StackBackup]) -> bool:
    return any(
        backup.metadata.uid == uid and row.name == component and row.resume_time
        for backup in backups
        for row in backup.status.components
    )


def _is_reading(uid: str, component: str, snapshot: Snapshot) -> bool:
    """Whether a Job of a backup is there that has not ended."""
    for job in snapshot.jobs:
        labels = job["metadata"].get("labels") or {}
        if (labels.get(LABEL_BACKUP_UID), labels.get(LABEL_STACK_COMPONENT)) == (uid, component):
            return end_of(job) is None
    return False
