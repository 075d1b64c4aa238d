"""What becomes of a restore: a new volume is filled beside the one in use, then they are exchanged, or not.

Until the new volume holds what was copied and the engine has served from it alone, nothing of the stack changes. Should
the component not serve from it in time, it goes back to the volume that it had.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from pydantic import ValidationError

from cos_controllers.api.restore import RestoredStatus, RestorePhase, StackRestore, StackRestoreStatus
from cos_controllers.api.stack import CosStack
from cos_controllers.api.status import Verdict
from cos_controllers.backups.begin import Begin, Claim, Waits, late
from cos_controllers.backups.candidates import candidate_of, claim_ref, marked, unmarked
from cos_controllers.backups.job import FINDER, LOAD, is_search
from cos_controllers.backups.outcome import outcome_of
from cos_controllers.backups.report import FoundCopies, FoundCopy, Loaded, of_moment
from cos_controllers.backups.restore_begin import (
    Stage,
    as_status,
    begin_restore,
    begin_search,
    is_proof,
    obstacle_to_restore,
    refusal,
    repository_in,
    rows_of,
)
from cos_controllers.backups.seen import Seen, job_of, pods_on
from cos_controllers.conditions import completion, previous_row, timestamp
from cos_controllers.k8s import Manifest
from cos_controllers.names import child_name
from cos_controllers.pods import ready_since

#: In the order in which they are gone through: a restore is as far as its last component.
_ORDER = (RestorePhase.PENDING, RestorePhase.RUNNING, RestorePhase.SWITCHING)


@dataclass(frozen=True)
class RestoreStep:
    """What becomes of one restore: its status, volumes to write, and the Jobs that it begins, after the volumes."""

    status: StackRestoreStatus
    claims: tuple[Claim, ...] = ()
    begin: tuple[Begin, ...] = ()


def restore_step(restore: StackRestore, seen: Seen, now: datetime) -> RestoreStep:
    """The next step of a restore that has not ended."""
    rows = list(restore.status.components)
    if not rows:
        obstacle = obstacle_to_restore(restore, seen)
        if obstacle:
            over = late(restore.metadata.creation_timestamp, restore.spec.starting_deadline_seconds, now)
            if obstacle.lasting or over:
                message = obstacle.message if obstacle.lasting else f"{over}: {obstacle.message}"
                update = {"phase": RestorePhase.FAILED, "message": message[:1024]}
                update["completion_time"] = timestamp(now)
            else:
                update = {"phase": RestorePhase.PENDING, "message": obstacle.message[:1024]}
            return RestoreStep(_with_condition(restore, restore.status.model_copy(update=update), now))
    if seen.stack and not rows:
        rows = rows_of(restore, seen.stack, seen)
        repository = repository_in(restore, seen.stack, seen)
        known = restore.status.model_copy(update={"repository": repository.name if repository else ""})
        restore = restore.model_copy(update={"status": known})
    found = [_step(restore, row, seen, now) for row in rows]
    return RestoreStep(
        _summed_up(restore, _chosen(restore, found, seen, now), now),
        tuple(claim for item in found for claim in item.claims),
        tuple(begin for item in found for begin in item.begin),
    )


def _step(restore: StackRestore, row: RestoredStatus, seen: Seen, now: datetime) -> Stage:
    if row.completion_time:
        return Stage(row)
    if row.switch_time:
        return _switching(restore, row, seen, now)
    job = job_of(restore, row.name, seen)
    if row.source is None:
        return _searching(restore, row, job, seen, now)
    if row.start_time or (job and not is_search(job)):
        return _filling(restore, row, job, seen, now)
    try:
        chosen = row.model_copy(update={"message": "its copy is chosen"})
        found = Stage(chosen) if job else begin_restore(restore, row, seen)
    except Waits as why:
        found = Stage(row.model_copy(update={"message": str(why)[:1024]}))
    over = late(restore.metadata.creation_timestamp, restore.spec.starting_deadline_seconds, now)
    return Stage(_failed(row, f"{over}: {found.row.message}", now)) if over else found


def _searching(
    restore: StackRestore, row: RestoredStatus, job: Manifest | None, seen: Seen, now: datetime
) -> Stage:
    """A copy that is looked for in a repository."""
    over = late(restore.metadata.creation_timestamp, restore.spec.starting_deadline_seconds, now)
    if job is None:
        message = seen.problems.get(row.name) or "the newest copy is looked for"
        begin: tuple[Begin, ...] = ()
        try:
            begin = (begin_search(restore, row, seen),)
        except Waits as why:
            message = str(why)
        if over:
            return Stage(_failed(row, f"{over}: {message}", now))
        return Stage(row.model_copy(update={"message": message[:1024]}), begin=begin)
    began = datetime.fromisoformat(job["metadata"]["creationTimestamp"])
    outcome = outcome_of(job, FINDER, began, seen, now)
    if outcome.failure:
        return Stage(_failed(row, outcome.failure, now))
    if not outcome.report:
        waits = outcome.waits or "the newest copy is looked for"
        return Stage(row.model_copy(update={"message": waits[:1024]}))
    try:
        found = FoundCopies.model_validate_json(outcome.report).copies
    except ValidationError as error:
        return Stage(_failed(row, f"its report cannot be read: {error.errors()[0]['msg']}", now))
    told = f"{len(found)} copies are found: those of the other components are awaited"
    return Stage(row.model_copy(update={"message": told}), found=found)


def _chosen(
    restore: StackRestore, stages: Sequence[Stage], seen: Seen, now: datetime
) -> list[RestoredStatus]:
    """The rows with the copies that are chosen, once those of all components were looked for: what belongs together."""
    rows = [stage.row for stage in stages]
    if lost := [row for row in rows if row.source is None and row.completion_time]:
        # What belongs together is restored together, or not at all.
        why = f"not restored, since {lost[0].name} cannot be: name in components what is to be restored without it"
        return [row if row.completion_time or row.start_time else _failed(row, why, now) for row in rows]
    open_ones = [stage for stage in stages if stage.row.source is None and not stage.row.completion_time]
    if seen.stack is None or not open_ones or not all(stage.found for stage in open_ones):
        return rows
    found = choice({stage.row.name: stage.found for stage in open_ones})
    return [
        row.model_copy(
            update={
                "source": as_status(restore, row.name, found[row.name], seen.stack, seen),
                "message": f"the copy of {found[row.name].backup} is chosen",
            }
        )
        if row.name in found
        else row
        for row in rows
    ]


def choice(found: Mapping[str, Sequence[FoundCopy]]) -> dict[str, FoundCopy]:
    """Of the copies of each component, the newest first, those of the newest backup that has all; else the newest."""
    for first in sorted((copy for copies in found.values() for copy in copies), key=_moment, reverse=True):
        # Of one name there may be several: the newest again.
        of_backup = {
            name: next((copy for copy in copies if copy.backup == first.backup), None)
            for name, copies in found.items()
        }
        whole = {name: copy for name, copy in of_backup.items() if copy}
        if len(whole) == len(found):
            return whole
    return {name: copies[0] for name, copies in found.items()}


def _moment(copy: FoundCopy) -> int:
    return copy.facts.moment


def _filling(
    restore: StackRestore, row: RestoredStatus, job: Manifest | None, seen: Seen, now: datetime
) -> Stage:
    """A volume that is filled; once it is, and is proved, it comes into use."""
    began = row.start_time or (job["metadata"]["creationTimestamp"] if job else timestamp(now))
    row = row.model_copy(update={"phase": RestorePhase.RUNNING, "start_time": began, "message": ""})
    found = outcome_of(job, LOAD, datetime.fromisoformat(began), seen, now)
    if found.failure:
        return Stage(_failed(row, found.failure, now))
    if not found.report:
        progress = seen.progress.get(job["metadata"]["uid"]) if job else None
        update = {"message": found.waits[:1024], "percent": progress.percent if progress else None}
        return Stage(row.model_copy(update=update))
    try:
        loaded = Loaded.model_validate_json(found.report)
    except ValidationError as error:
        return Stage(_failed(row, f"its report cannot be read: {error.errors()[0]['msg']}", now))
    return _filled(restore, row, loaded, seen, now)


def _filled(restore: StackRestore, row: RestoredStatus, loaded: Loaded, seen: Seen, now: datetime) -> Stage:
    """A volume that is filled comes into use, if nothing has come in between."""
    claim, stack, copy = seen.objects.get(claim_ref(row.claim)), seen.stack, row.source
    if stack is None or copy is None:
        return Stage(_failed(row, seen.why or "the stack was deleted", now))
    reached = of_moment(loaded.moment) if restore.spec.point_in_time and loaded.moment else copy.point_in_time
    told = {"percent": None, "entries": loaded.entries, "point_in_time": reached}
    if is_proof(restore):
        update = {"phase": RestorePhase.SUCCEEDED, "completion_time": timestamp(now), "message": ""}
        return Stage(row.model_copy(update=told | update))
    if stack.spec.paused:
        return Stage(row.model_copy(update={"message": "filled; a change waits: spec.paused"}))
    lost = [
        f"volume {row.claim} was deleted" if claim is None or _is_going(claim) else "",
        refusal(restore, copy, stack, seen),
        f"volume {row.previous_claim} is being deleted and cannot be set aside"
        if _is_going(seen.objects.get(claim_ref(row.previous_claim)))
        else "",
    ]
    if why := next(filter(None, lost), ""):
        return Stage(_failed(row, why, now))
    update = {
        "phase": RestorePhase.SWITCHING,
        "switch_time": timestamp(now),
        "message": f"restarts on volume {row.claim}",
    }
    # The status is written first: a volume that has come into use is never taken for one that is still to be.
    return Stage(row.model_copy(update=told | update))


def _is_going(claim: Manifest | None) -> bool:
    """Whether a volume is there and is being deleted."""
    return claim is not None and bool(claim["metadata"].get("deletionTimestamp"))


def _switching(restore: StackRestore, row: RestoredStatus, seen: Seen, now: datetime) -> Stage:
    """The volume is in use, and its component serves from it, or goes back."""
    stack, claim = seen.stack, seen.objects.get(claim_ref(row.claim))
    if stack is None or claim is None:
        return Stage(_without(row, seen, now))
    pods = pods_on(row.claim, child_name(stack.metadata.name, row.name), seen)
    if _serves(row, pods, stack):
        update = {"phase": RestorePhase.SUCCEEDED, "completion_time": timestamp(now), "message": ""}
        return Stage(row.model_copy(update=update))
    if stack.spec.paused:
        return Stage(row.model_copy(update={"message": "a change waits: spec.paused"}))
    if _is_late(restore, row, pods, stack, now):
        return _going_back(restore, row, claim, seen, now)
    told = row.model_copy(update={"message": f"restarts on volume {row.claim}"})
    return Stage(told, claims=(Claim(row.name, unmarked(claim)),) if candidate_of(claim) else ())


def _without(row: RestoredStatus, seen: Seen, now: datetime) -> RestoredStatus:
    """The stack or the volume is not there, or the stack cannot be used for now.

    Who corrects it is not to find that another volume has come into use: that is waited for.
    """
    if seen.stack is None and seen.why:
        return row.model_copy(update={"message": seen.why[:1024]})
    return _failed(row, f"volume {row.claim} is gone" if seen.stack else "the stack was deleted", now)


def _going_back(
    restore: StackRestore, row: RestoredStatus, claim: Manifest, seen: Seen, now: datetime
) -> Stage:
    """It has not served in time. Without the volume before it there is nothing to go back to."""
    old = seen.objects.get(claim_ref(row.previous_claim))
    if old is None or _is_going(old):
        told = f"it does not serve from volume {row.claim}, and stays on it: there is no other"
        return Stage(_failed(row, told, now))
    if not candidate_of(claim):
        # Told only once it is so: a status that has ended is not looked at again.
        told = f"goes back to volume {row.previous_claim}"
        marking = Claim(row.name, marked(claim, restore.metadata.uid))
        return Stage(row.model_copy(update={"message": told}), claims=(marking,))
    told = f"it did not serve from volume {row.claim} in time, and goes back to {row.previous_claim}"
    return Stage(_failed(row, told, now))


def _is_late(
    restore: StackRestore, row: RestoredStatus, pods: Sequence[Manifest], stack: CosStack, now: datetime
) -> bool:
    """Whether a component has had its time to serve from the new volume.

    That begins with its pod, which may have to wait for the turn of the component. Of one that is ready the stack must
    have found since then that it does not serve: the operator may have been away.
    """
    since = datetime.fromisoformat(row.switch_time or timestamp(now))
    if not pods:
        return now - since >= timedelta(seconds=restore.spec.active_deadline_seconds)
    made = [datetime.fromisoformat(pod["metadata"]["creationTimestamp"]) for pod in pods]
    over = now - max(*made, since) >= timedelta(seconds=stack.spec.progress_deadline_seconds)
    ready = [moment for pod in pods if (moment := ready_since(pod))]
    found = _found_wanting(row, stack)
    return over and (not ready or (found is not None and found >= max(ready)))


def _found_wanting(row: RestoredStatus, stack: CosStack) -> datetime | None:
    """Since when the stack says that a component does not serve, or that a gate of it fails; None if it does not."""
    known = previous_row(stack, row.name)
    if known is None:
        return None
    moments = [gate.since for gate in known.gates if gate.verdict is Verdict.FAILED]
    moments += [known.since] if known.serving_since is None and known.since else []
    return max(map(datetime.fromisoformat, moments), default=None)


def _serves(row: RestoredStatus, pods: Sequence[Manifest], stack: CosStack) -> bool:
    """Whether the stack has seen a ready pod on the new volume serve, and no gate fails.

    Not whether it is ready: there may be another part of the spec that it does not meet, as before.
    """
    known = previous_row(stack, row.name)
    if known is None or known.serving_since is None:
        return False
    if any(gate.verdict is Verdict.FAILED for gate in known.gates):
        return False
    served = datetime.fromisoformat(known.serving_since)
    return any((since := ready_since(pod)) is not None and since <= served for pod in pods)


def _failed(row: RestoredStatus, message: str, now: datetime) -> RestoredStatus:
    update = {"phase": RestorePhase.FAILED, "message": message[:1024], "percent": None}
    return row.model_copy(update={**update, "completion_time": timestamp(now)})


def _summed_up(restore: StackRestore, rows: Sequence[RestoredStatus], now: datetime) -> StackRestoreStatus:
    failed = [row for row in rows if row.phase is RestorePhase.FAILED]
    begun = [row.start_time for row in rows if row.start_time]
    update: dict[str, object] = {"components": list(rows), "start_time": min(begun, default=None)}
    if rows and all(row.completion_time for row in rows):
        told = "; ".join(f"{row.name}: {row.message}" for row in failed)
        kept = ", ".join(row.previous_claim for row in rows if row.previous_claim)
        update |= {
            "phase": RestorePhase.FAILED if failed else RestorePhase.SUCCEEDED,
            "message": (told or (f"restored; kept: {kept}" if kept else "restored"))[:1024],
            "completion_time": timestamp(now),
        }
    else:
        going = [row.phase for row in rows if not row.completion_time]
        update |= {
            "phase": min(going, key=_ORDER.index),
            "message": "; ".join(f"{row.name}: {_told(row)}" for row in rows)[:1024],
        }
    return _with_condition(restore, restore.status.model_copy(update=update), now)


def _told(row: RestoredStatus) -> str:
    if row.message:
        return row.message
    if row.phase is RestorePhase.RUNNING:
        return f"{row.percent} % fetched" if row.percent is not None else "its volume is filled"
    return row.phase.value


def _with_condition(restore: StackRestore, status: StackRestoreStatus, now: datetime) -> StackRestoreStatus:
    done = status.completion_time is not None
    said = completion(
        restore, restore.status.conditions, status.phase.value, status.message, done=done, now=now
    )
    return status.model_copy(update=said)
