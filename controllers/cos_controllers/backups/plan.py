"""What becomes of the backups of one stack: of each component one copy is made at a time.

Decided anew from what is there, so that an operator that was killed between any two calls goes on. The name of a
component's Job is the lock: as long as there is one, nothing else is done to its data or its backups.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime

from cos_controllers.api.backup import StackBackupStatus
from cos_controllers.backups.begin import Begin
from cos_controllers.backups.life import step
from cos_controllers.backups.seen import Seen, age, is_over, label
from cos_controllers.jobs import Doomed, doomed
from cos_controllers.k8s import Manifest
from cos_controllers.names import LABEL_BACKUP_UID, LABEL_STACK_COMPONENT

#: Seconds until the next look while a backup waits or runs: progress is read then.
_LOOK_AGAIN = 5.0


@dataclass(frozen=True)
class Plan:
    """What is to be done, in this order.

    `statuses`: those that differ from what is stored, by name of the backup. `jobs`: to be deleted with their pods:
    their result is stored, or nobody waits for it. `begin`: Jobs to create. `again`: seconds until the next look, None
    if only an event can change anything.
    """

    statuses: Mapping[str, StackBackupStatus] = field(default_factory=dict)
    jobs: tuple[Doomed, ...] = ()
    begin: tuple[Begin, ...] = ()
    again: float | None = None


def decide(seen: Seen, now: datetime) -> Plan:
    """The next step of each backup."""
    backups = sorted((backup for backup in seen.backups if not is_over(backup)), key=age)
    plan = Plan(jobs=tuple(doomed(job) for job in seen.jobs if _is_done_with(job, seen)))
    for backup in backups:
        found = step(backup, seen, now)
        # The next one waits for what this one begins.
        seen = replace(seen, jobs=(*seen.jobs, *(item.job for item in found.begin)))
        plan = replace(plan, begin=(*plan.begin, *found.begin))
        if found.status != backup.status:
            plan = replace(plan, statuses={**plan.statuses, backup.metadata.name: found.status})
    leaving = any(not job["metadata"].get("deletionTimestamp") for job in seen.jobs)
    return replace(plan, again=_LOOK_AGAIN if backups or leaving else None)


def _is_done_with(job: Manifest, seen: Seen) -> bool:
    """Whether the result of a Job is stored, or nobody waits for it; not one that is being deleted already."""
    if job["metadata"].get("deletionTimestamp"):
        return False
    for backup in seen.backups:
        if backup.metadata.uid == label(job, LABEL_BACKUP_UID) and not is_over(backup):
            row = next(
                (r for r in backup.status.components if r.name == label(job, LABEL_STACK_COMPONENT)), None
            )
            return row is not None and row.completion_time is not None
    return True
