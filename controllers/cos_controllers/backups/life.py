"""The status of one backup and of its copies: they wait, run, or have ended. Times move only when something does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import NamedTuple

from pydantic import ValidationError

from cos_controllers.api.backup import BackupPhase, CopyStatus, StackBackup, StackBackupStatus
from cos_controllers.backups.begin import Begin, beginning, chosen, late, needs_halt, obstacle_to
from cos_controllers.backups.job import DUMP, STORE, TIDIER, told
from cos_controllers.backups.order import Order, Tidy
from cos_controllers.backups.outcome import outcome_of
from cos_controllers.backups.report import Report, Tidied, of_facts
from cos_controllers.backups.retention import last_maintained
from cos_controllers.backups.seen import Seen, job_of, repository_of
from cos_controllers.conditions import completion, timestamp
from cos_controllers.halts import is_halted
from cos_controllers.jobs import POD_SECONDS, has_done, pods_of_job
from cos_controllers.k8s import Manifest
from cos_controllers.names import child_name
from cos_controllers.observation import Ref

#: Seconds besides its own grace that a pod may take to be gone, and the Job to be made: the component is down all the
#: time.
_STOP_SECONDS = 120


@dataclass(frozen=True)
class Step:
    """What becomes of one backup: its status, and the Jobs that it begins.

    `removed`: the snapshots of each component that are in the repository no longer.
    """

    status: StackBackupStatus
    begin: tuple[Begin, ...] = ()
    removed: Mapping[str, Sequence[str]] = field(default_factory=dict)


def step(backup: StackBackup, seen: Seen, now: datetime) -> Step:
    """The next step of a backup that has not ended."""
    rows = list(backup.status.components)
    obstacle = None
    if not rows:
        obstacle = obstacle_to(backup, seen)
        if obstacle is None and seen.stack:
            rows = [CopyStatus(name=name) for name in chosen(backup, seen.stack)]
    if obstacle:
        if obstacle.lasting:
            return Step(ended(backup, obstacle.message, now))
        if over := late(backup.metadata.creation_timestamp, backup.spec.starting_deadline_seconds, now):
            return Step(ended(backup, f"{over}: {obstacle.message}", now))
        update = {"phase": BackupPhase.PENDING, "message": obstacle.message[:1024]}
        return Step(_with_condition(backup, backup.status.model_copy(update=update), now))
    found = [_row(backup, row, seen, now) for row in rows]
    return Step(
        _summed_up(backup, [item.row for item in found], seen, now),
        tuple(item.begin for item in found if item.begin),
        {item.row.name: item.removed for item in found if item.removed},
    )


def ended(backup: StackBackup, message: str, now: datetime) -> StackBackupStatus:
    """A backup that has failed before any copy began."""
    update = {
        "phase": BackupPhase.FAILED,
        "message": message[:1024],
        "completion_time": timestamp(now),
    }
    return _with_condition(backup, backup.status.model_copy(update=update), now)


class _Found(NamedTuple):
    """A copy one step on, the Job that it begins, and the snapshots that are in its repository no longer."""

    row: CopyStatus
    begin: Begin | None = None
    removed: tuple[str, ...] = ()


def _row(backup: StackBackup, row: CopyStatus, seen: Seen, now: datetime) -> _Found:
    if row.completion_time:
        return _Found(row)
    job = job_of(backup, row.name, seen)
    if row.start_time or job:
        return _running(backup, row, job, seen, now)
    found = beginning(backup, row, seen, now)
    if row.halt_time:
        return _stopping(backup, row, found, seen, now)
    begin = found if isinstance(found, Begin) else None
    if isinstance(found, Begin):
        message = seen.problems.get(row.name) or "its Job is made once the engine lets its backup user in"
    else:
        message = found
    if over := late(backup.metadata.creation_timestamp, backup.spec.starting_deadline_seconds, now):
        return _Found(_failed(row, f"{over}: {message}", now))
    if begin and needs_halt(row.name, seen):
        # Written down before it is done: the stack stops what this says, and starts it again by the same token.
        update = {"phase": BackupPhase.RUNNING, "halt_time": timestamp(now), "message": "is being stopped"}
        return _Found(row.model_copy(update=update))
    return _Found(row.model_copy(update={"message": message[:1024]}), begin)


def _stopping(backup: StackBackup, row: CopyStatus, found: Begin | str, seen: Seen, now: datetime) -> _Found:
    """A copy that waits until its component is stopped: not for long, since it may be already."""
    message = found if isinstance(found, str) else seen.problems.get(row.name) or "its Job is made"
    workload = seen.objects.get(Ref("StatefulSet", child_name(backup.spec.stack_ref.name, row.name))) or {}
    pod = ((workload.get("spec") or {}).get("template") or {}).get("spec") or {}
    limit = pod.get("terminationGracePeriodSeconds", 30) + _STOP_SECONDS
    if now - datetime.fromisoformat(row.halt_time or timestamp(now)) >= timedelta(seconds=limit):
        return _Found(_failed(row, f"not stopped and read from within {limit} s: {message}", now))
    return _Found(
        row.model_copy(update={"message": message[:1024]}), found if isinstance(found, Begin) else None
    )


def _running(backup: StackBackup, row: CopyStatus, job: Manifest | None, seen: Seen, now: datetime) -> _Found:
    """A copy whose Job has been made: it goes on, or has ended."""
    order = told(job, Order)
    began = row.start_time or (job["metadata"]["creationTimestamp"] if job else timestamp(now))
    update = {"phase": BackupPhase.RUNNING, "start_time": began, "message": ""}
    update |= {"lineage": order.lineage, "place": order.place, "path": order.path} if order else {}
    if is_halted(row) and job and any(has_done(pod, DUMP) for pod in pods_of_job(job, seen.pods)):
        update["resume_time"] = timestamp(now)
    row = row.model_copy(update=update)
    if row.snapshot:
        return _tidied(row, job, seen, now)
    found = outcome_of(job, STORE, datetime.fromisoformat(began), seen, now)
    if found.failure:
        return _Found(_failed(row, found.failure, now))
    if found.report:
        try:
            report = Report.model_validate_json(found.report)
        except ValidationError as error:
            why = f"its report cannot be read: {error.errors()[0]['msg']}"
            return _Found(_failed(row, why, now))
        return _tidied(_stored(row, report), job, seen, now)
    limit = backup.spec.active_deadline_seconds + POD_SECONDS
    if is_halted(row) and now - datetime.fromisoformat(began) >= timedelta(seconds=limit):
        why = f": {found.waits}" if found.waits else ""
        return _Found(_failed(row, f"not read within {limit} s, while it is stopped{why}", now))
    waits = found.waits or ("is stopped while it is read" if is_halted(row) else "")
    progress = seen.progress.get(job["metadata"]["uid"]) if job else None
    update = {
        "message": waits[:1024],
        "percent": progress.percent if progress else None,
        "remaining_seconds": progress.remaining if progress else None,
        "bytes": progress.total if progress else None,
    }
    return _Found(row.model_copy(update=update))


def _stored(row: CopyStatus, report: Report) -> CopyStatus:
    """A copy that is in the repository."""
    return row.model_copy(
        update={
            **of_facts(report.facts),
            "snapshot": report.snapshot,
            "stored_bytes": report.stored,
            "key_fingerprint": report.key,
            "percent": None,
            "remaining_seconds": None,
        }
    )


def _tidied(row: CopyStatus, job: Manifest | None, seen: Seen, now: datetime) -> _Found:
    """A copy that is stored has succeeded, once its Job has done what else it does. Whatever becomes of that."""
    order = told(job, Tidy)
    known = last_maintained(row, seen)
    update: dict[str, object] = {
        "phase": BackupPhase.SUCCEEDED,
        "completion_time": timestamp(now),
        "message": "",
        "maintained": known.maintained if known else None,
        "read_part": known.read_part if known else 0,
    }
    if job and order is None:
        return _Found(row.model_copy(update=update))
    found = outcome_of(job, TIDIER, datetime.fromisoformat(row.start_time or timestamp(now)), seen, now)
    if order is None or found.failure:
        update["maintenance_failure"] = found.failure[:1024]
        return _Found(row.model_copy(update=update))
    if not found.report:
        what = "its repository is looked after" if order.maintain else "older ones are removed"
        return _Found(row.model_copy(update={"message": f"copied; {what}"}))
    removed = _removed(found.report)
    update["removed"] = len(removed)
    if order.maintain:
        update["maintained"] = timestamp(now)
        update["read_part"] = order.part or update["read_part"]
    return _Found(row.model_copy(update=update), removed=removed)


def _removed(report: str) -> tuple[str, ...]:
    """The copies that are in the repository no longer, none if nobody can say: to remove one twice does no harm."""
    try:
        return Tidied.model_validate_json(report).removed
    except ValidationError:
        return ()


def _failed(row: CopyStatus, message: str, now: datetime) -> CopyStatus:
    update = {
        "phase": BackupPhase.FAILED,
        "message": message[:1024],
        "completion_time": timestamp(now),
        "percent": None,
        "remaining_seconds": None,
    }
    return row.model_copy(update=update)


def _summed_up(
    backup: StackBackup, rows: Sequence[CopyStatus], seen: Seen, now: datetime
) -> StackBackupStatus:
    """The status of a backup by its rows."""
    stored = backup.status
    begun = [moment for row in rows if (moment := row.halt_time or row.start_time)]
    repository = repository_of(backup.spec.repository, seen.stack) if seen.stack else None
    status = stored.model_copy(
        update={
            "components": list(rows),
            "repository": stored.repository or (repository.name if repository else ""),
            "start_time": min(begun, default=None),
            "stack_revision": seen.stack.status.revision
            if seen.stack and begun and not stored.start_time
            else stored.stack_revision,
        }
    )
    failed = [row for row in rows if row.phase is BackupPhase.FAILED]
    if all(row.completion_time for row in rows):
        moments = [datetime.fromisoformat(row.point_in_time) for row in rows if row.point_in_time]
        skew = round((max(moments) - min(moments)).total_seconds()) if moments else None
        told = "; ".join(f"{row.name}: {row.message}" for row in failed)
        update = {
            "phase": BackupPhase.FAILED if failed else BackupPhase.SUCCEEDED,
            "message": (told or _all_copied(rows, skew))[:1024],
            "completion_time": timestamp(now),
            "skew_seconds": None if failed else skew,
        }
    else:
        update = {
            "phase": BackupPhase.RUNNING if begun else BackupPhase.PENDING,
            "message": "; ".join(_told(row) for row in rows)[:1024],
        }
    return _with_condition(backup, status.model_copy(update=update), now)


def _all_copied(rows: Sequence[CopyStatus], skew: int | None) -> str:
    count = f"{len(rows)} component{'s' if len(rows) > 1 else ''} copied"
    return f"{count}, {skew} s between the first and the last moment" if len(rows) > 1 else count


def _told(row: CopyStatus) -> str:
    """A copy in words."""
    if row.completion_time or row.message:
        return f"{row.name}: {row.message or 'copied'}"
    left = f", about {row.remaining_seconds} s left" if row.remaining_seconds is not None else ""
    return f"{row.name}: {'is dumped' if row.percent is None else f'{row.percent} % stored'}{left}"


def _with_condition(backup: StackBackup, status: StackBackupStatus, now: datetime) -> StackBackupStatus:
    done = status.completion_time is not None
    said = completion(
        backup, backup.status.conditions, status.phase.value, status.message, done=done, now=now
    )
    return status.model_copy(update=said)
