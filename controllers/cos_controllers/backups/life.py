"""The status of one backup and of its copies: they wait, run, or have ended. Times move only when something does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from pydantic import ValidationError

from cos_controllers.api.backup import BackupPhase, CopyStatus, StackBackup, StackBackupStatus
from cos_controllers.backups.begin import Begin, beginning, chosen, late, obstacle_to
from cos_controllers.backups.job import STORE
from cos_controllers.backups.order import Order
from cos_controllers.backups.outcome import outcome_of
from cos_controllers.backups.report import Report
from cos_controllers.backups.seen import Seen, job_of, repository_of
from cos_controllers.conditions import completion, timestamp
from cos_controllers.k8s import Manifest


@dataclass(frozen=True)
class Step:
    """What becomes of one backup: its status, and the Jobs that it begins."""

    status: StackBackupStatus
    begin: tuple[Begin, ...] = ()


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
    begin: list[Begin] = []
    found = [_row(backup, row, seen, begin, now) for row in rows]
    return Step(_summed_up(backup, found, seen, now), tuple(begin))


def ended(backup: StackBackup, message: str, now: datetime) -> StackBackupStatus:
    """A backup that has failed before any copy began."""
    update = {
        "phase": BackupPhase.FAILED,
        "message": message[:1024],
        "completion_time": timestamp(now),
    }
    return _with_condition(backup, backup.status.model_copy(update=update), now)


def _row(backup: StackBackup, row: CopyStatus, seen: Seen, begin: list[Begin], now: datetime) -> CopyStatus:
    """A copy one step on; one that can begin is added to `begin`."""
    if row.completion_time:
        return row
    job = job_of(backup, row.name, seen)
    if row.start_time or job:
        return _running(backup, row, job, seen, now)
    found = beginning(backup, row.name, seen)
    if isinstance(found, Begin):
        begin.append(found)
        message = seen.problems.get(row.name) or "its Job is made once the engine lets its backup user in"
    else:
        message = found
    if over := late(backup.metadata.creation_timestamp, backup.spec.starting_deadline_seconds, now):
        begin[:] = [item for item in begin if item is not found]
        return _failed(row, f"{over}: {message}", now)
    return row.model_copy(update={"message": message[:1024]})


def _running(
    backup: StackBackup, row: CopyStatus, job: Manifest | None, seen: Seen, now: datetime
) -> CopyStatus:
    """A copy whose Job has been made: it goes on, or has ended."""
    order = _order_in(job) if job else None
    began = row.start_time or (job["metadata"]["creationTimestamp"] if job else timestamp(now))
    update = {"phase": BackupPhase.RUNNING, "start_time": began, "message": ""}
    update |= {"lineage": order.lineage, "place": order.place, "path": order.path} if order else {}
    row = row.model_copy(update=update)
    seconds = backup.spec.active_deadline_seconds
    found = outcome_of(job, STORE, seconds, datetime.fromisoformat(began), seen, now)
    if found.failure:
        return _failed(row, found.failure, now)
    if found.report:
        return _reported(row, found.report, now)
    progress = seen.progress.get(job["metadata"]["uid"]) if job else None
    return row.model_copy(
        update={
            "message": found.waits[:1024],
            "percent": progress.percent if progress else None,
            "remaining_seconds": progress.remaining if progress else None,
            "bytes": progress.total if progress else None,
        }
    )


def _order_in(job: Manifest) -> Order | None:
    """What a Job was told to do."""
    for container in job["spec"]["template"]["spec"]["containers"]:
        for item in container.get("env") or ():
            try:
                return Order.model_validate_json(item.get("value") or "")
            except ValidationError:
                continue
    return None


def _reported(row: CopyStatus, text: str, now: datetime) -> CopyStatus:
    """The end of a copy that is in the repository."""
    try:
        report = Report.model_validate_json(text)
    except ValidationError as error:
        return _failed(row, f"its report cannot be read: {error.errors()[0]['msg']}", now)
    return row.model_copy(
        update={
            "phase": BackupPhase.SUCCEEDED,
            "message": "",
            "completion_time": timestamp(now),
            "snapshot": report.snapshot,
            "engine_version": report.facts.version,
            "point_in_time": timestamp(datetime.fromtimestamp(report.facts.moment, tz=UTC)),
            "bytes": report.facts.bytes,
            "stored_bytes": report.stored,
            "entries": report.facts.entries,
            "sha256": report.facts.sha256,
            "key_fingerprint": report.key,
            "percent": None,
            "remaining_seconds": None,
        }
    )


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
    begun = [row.start_time for row in rows if row.start_time]
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
