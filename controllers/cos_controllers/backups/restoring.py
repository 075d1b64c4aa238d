"""What becomes of a restore: a new volume is filled beside the one in use, then they are exchanged, or not.

Until the new volume holds what was copied and the engine has served from it alone, nothing of the stack changes. Should
the component not pass its gates on it in time, it goes back to the volume that it had.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from pydantic import ValidationError

from cos_controllers.api.backup import BackupPhase, CopyStatus, StackBackup
from cos_controllers.api.quantity import parse_quantity
from cos_controllers.api.restore import (
    ExistingData,
    RestoredStatus,
    RestorePhase,
    StackRestore,
    StackRestoreStatus,
)
from cos_controllers.api.stack import CosStack, StoreSpec
from cos_controllers.api.status import ConditionStatus, ConditionType
from cos_controllers.backups.begin import NO_IMAGE, Begin, Obstacle, Waits, engine_of, late, template_of
from cos_controllers.backups.job import LOAD, job_of_restore
from cos_controllers.backups.outcome import outcome_of
from cos_controllers.backups.report import Loaded
from cos_controllers.backups.seen import Seen, is_over, job_of, repository_of
from cos_controllers.components.registry import DUMPERS
from cos_controllers.conditions import condition_of, previous_row, timestamp
from cos_controllers.drift import owned_part
from cos_controllers.k8s import Manifest
from cos_controllers.names import (
    ANNOTATION_CANDIDATE,
    ANNOTATION_DATA_VERSION,
    child_name,
    claim_name,
    object_labels,
)
from cos_controllers.observation import Ref
from cos_controllers.ownership import controller_of
from cos_controllers.places import place_of
from cos_controllers.pods import claim_of, is_pod_ready, ready_since
from cos_controllers.volumes import data_volumes, is_candidate, serial_of

#: Reason of `Complete` while it is not so.
NOT_YET = "NotYet"
#: In the order in which they are gone through: a restore is as far as its last component.
_ORDER = (RestorePhase.PENDING, RestorePhase.RUNNING, RestorePhase.SWITCHING)


@dataclass(frozen=True)
class RestoreStep:
    """What becomes of one restore: its status, volumes to write, and the Jobs that it begins, after the volumes."""

    status: StackRestoreStatus
    claims: tuple[Manifest, ...] = ()
    begin: tuple[Begin, ...] = ()


@dataclass(frozen=True)
class _Row:
    """One component one step on."""

    row: RestoredStatus
    claims: tuple[Manifest, ...] = ()
    begin: tuple[Begin, ...] = ()


def restore_step(restore: StackRestore, seen: Seen, now: datetime) -> RestoreStep:
    """The next step of a restore that has not ended."""
    rows = list(restore.status.components)
    if not rows:
        obstacle = _obstacle(restore, seen)
        if obstacle:
            over = late(restore.metadata.creation_timestamp, restore.spec.starting_deadline_seconds, now)
            if obstacle.lasting or over:
                message = obstacle.message if obstacle.lasting else f"{over}: {obstacle.message}"
                update = {"phase": RestorePhase.FAILED, "message": message[:1024]}
                update["completion_time"] = timestamp(now)
            else:
                update = {"phase": RestorePhase.PENDING, "message": obstacle.message[:1024]}
            return RestoreStep(_with_condition(restore, restore.status.model_copy(update=update), now))
        rows = [RestoredStatus(name=copy.name) for copy in _copies(restore, seen)]
    found = [_step(restore, row, seen, now) for row in rows]
    return RestoreStep(
        _summed_up(restore, [item.row for item in found], now),
        tuple(claim for item in found for claim in item.claims),
        tuple(begin for item in found for begin in item.begin),
    )


def _backup(restore: StackRestore, seen: Seen) -> StackBackup | None:
    return next((item for item in seen.backups if item.metadata.name == restore.spec.backup), None)


def _copies(restore: StackRestore, seen: Seen) -> list[CopyStatus]:
    """The copies to restore."""
    backup = _backup(restore, seen)
    wanted = restore.spec.components
    return [row for row in backup.status.components if not wanted or row.name in wanted] if backup else []


def _obstacle(restore: StackRestore, seen: Seen) -> Obstacle | None:
    """Why nobody can say what is to be restored."""
    stack, backup = seen.stack, _backup(restore, seen)
    if stack is None:
        return Obstacle(seen.why or f"there is no CosStack {restore.spec.stack_ref.name} in this namespace")
    if backup is None:
        name = restore.spec.backup
        return Obstacle(f"there is no StackBackup {name} of stack {stack.metadata.name} in this namespace")
    if not backup.status.completion_time:
        return Obstacle(f"waits until backup {restore.spec.backup} has ended")
    if mistake := _mistake(restore, stack, backup, seen):
        return Obstacle(mistake, lasting=True)
    return Obstacle("a change waits: spec.paused") if stack.spec.paused else None


def _mistake(restore: StackRestore, stack: CosStack, backup: StackBackup, seen: Seen) -> str:
    """What cannot be as the spec asks."""
    copies = {row.name: row for row in backup.status.components}
    if unknown := sorted(set(restore.spec.components) - set(copies)):
        return f"spec.components: the backup has no {', '.join(unknown)}; it has {', '.join(copies)}"
    if bad := [row.name for row in _copies(restore, seen) if row.phase is not BackupPhase.SUCCEEDED]:
        return f"backup {backup.metadata.name} has no good copy of {', '.join(bad)}"
    name = backup.status.repository
    repository = repository_of(name, stack)
    for copy in _copies(restore, seen):
        if repository is None or place_of(stack, repository, copy.name, seen.objects) != copy.place:
            return f"the copy of {copy.name} is at {copy.place}, which is not what the stack calls {name} now"
    if not seen.image:
        return NO_IMAGE
    return next(filter(None, (_refusal(restore, row, stack, seen) for row in _copies(restore, seen))), "")


def _refusal(restore: StackRestore, copy: CopyStatus, stack: CosStack, seen: Seen) -> str:
    """Why a copy must not come into the place of what a component has."""
    try:
        engine = engine_of(copy.name, stack)
    except Waits:
        return f"the stack has no component {copy.name} that this version can restore"
    row = previous_row(stack, copy.name)
    runs = row.version if row and row.version else engine.instances(stack.spec)[copy.name].version
    if refusal := engine.may_open(copy.engine_version, runs):
        return f"{copy.name}: {refusal}"
    volumes = data_volumes(stack, seen.objects, child_name(stack.metadata.name, copy.name))
    used = [obj for obj in volumes.values() if not is_candidate(obj) and _is_used(obj)]
    if used and restore.spec.existing_data is ExistingData.REFUSE:
        name = used[-1]["metadata"]["name"]
        return (
            f"{copy.name} has data on volume {name}: write existingData: SetAside to put the copy in its place and to "
            "keep the volume"
        )
    return ""


def _is_used(claim: Manifest) -> bool:
    """Whether an engine was ever started on a volume."""
    return ANNOTATION_DATA_VERSION in (claim["metadata"].get("annotations") or {})


def _step(restore: StackRestore, row: RestoredStatus, seen: Seen, now: datetime) -> _Row:
    if row.completion_time:
        return _Row(row)
    if row.switch_time:
        return _switching(restore, row, seen, now)
    job = job_of(restore, row.name, seen)
    if row.start_time or job:
        return _filling(restore, row, job, seen, now)
    try:
        found = _beginning(restore, row, seen)
    except Waits as why:
        found = _Row(row.model_copy(update={"message": str(why)[:1024]}))
    over = late(restore.metadata.creation_timestamp, restore.spec.starting_deadline_seconds, now)
    return _Row(_failed(row, f"{over}: {found.row.message}", now)) if over else found


def _beginning(restore: StackRestore, row: RestoredStatus, seen: Seen) -> _Row:
    """The volume to fill, then the Job that fills it. Raises `Waits`."""
    stack, backup = seen.stack, _backup(restore, seen)
    copy = next((item for item in _copies(restore, seen) if item.name == row.name), None)
    if stack is None or backup is None or copy is None:
        raise Waits(seen.why or "the stack or the backup has been deleted")
    repository = repository_of(backup.status.repository, stack)
    if repository is None or stack.spec.backup is None:
        raise Waits(f"the stack no longer has repository {backup.status.repository}")
    if other := _switching_now(row.name, seen):
        raise Waits(f"waits until {other} has ended: its volume is being taken into use")
    template = template_of(row.name, stack, repository, seen)
    engine, instance = engine_of(row.name, stack), child_name(stack.metadata.name, row.name)
    volumes = data_volumes(stack, seen.objects, instance)
    mine = [obj for obj in volumes.values() if _candidate_of(obj) == restore.metadata.uid]
    before = claim_of(template) or ""
    if not mine:
        spec = engine.instances(stack.spec)[row.name]
        assert isinstance(spec, StoreSpec)  # noqa: S101 - narrows the type; dumpers have data
        # Never the name of a volume that is gone: the pod that waits for it would begin on what is being filled.
        name = claim_name(instance, max(*volumes, serial_of(before), -1) + 1)
        claim = _candidate(restore, stack, copy, engine.kind, name, spec, seen.objects.get(_claim(before)))
        update = {"claim": name, "previous_claim": before, "message": f"volume {name} is made"}
        return _Row(row.model_copy(update=update), claims=(claim,))
    claim_now = mine[0]["metadata"]["name"]
    job = job_of_restore(
        stack,
        restore,
        repository,
        copy,
        claim_now,
        DUMPERS[engine.kind],
        template,
        seen.image,
    )
    update = {
        "claim": claim_now,
        "previous_claim": before,
        "message": seen.problems.get(row.name) or "its Job is made",
    }
    return _Row(row.model_copy(update=update), begin=(Begin(row.name, job, admit=False),))


def _switching_now(component: str, seen: Seen) -> str:
    """The restore whose volume a component is about to run on, "" without."""
    for restore in seen.restores:
        for row in restore.status.components if not is_over(restore) else ():
            if row.name == component and row.switch_time and not row.completion_time:
                return restore.metadata.name
    return ""


def _claim(name: str) -> Ref:
    return Ref("PersistentVolumeClaim", name)


def _candidate_of(claim: Manifest) -> str:
    return str((claim["metadata"].get("annotations") or {}).get(ANNOTATION_CANDIDATE) or "")


def _candidate(
    restore: StackRestore,
    stack: CosStack,
    copy: CopyStatus,
    engine: str,
    name: str,
    spec: StoreSpec,
    before: Manifest | None,
) -> Manifest:
    """A volume like the one before it, and not smaller than the spec asks, that is nobody's yet."""
    had = (before or {}).get("spec") or {}
    sizes = [spec.storage.size]
    if size := ((had.get("resources") or {}).get("requests") or {}).get("storage"):
        sizes.append(size)
    storage_class = had.get("storageClassName") or spec.storage.storage_class_name
    annotations = {ANNOTATION_CANDIDATE: restore.metadata.uid, ANNOTATION_DATA_VERSION: copy.engine_version}
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {
            "name": name,
            "namespace": stack.metadata.namespace,
            "labels": object_labels(stack.metadata.name, copy.name, engine),
            "annotations": annotations,
        },
        "spec": {
            "accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": max(sizes, key=parse_quantity)}},
            **({"storageClassName": storage_class} if storage_class else {}),
        },
    }


def _filling(
    restore: StackRestore, row: RestoredStatus, job: Manifest | None, seen: Seen, now: datetime
) -> _Row:
    """A volume that is filled; once it is, and is proved, it comes into use."""
    began = row.start_time or (job["metadata"]["creationTimestamp"] if job else timestamp(now))
    row = row.model_copy(update={"phase": RestorePhase.RUNNING, "start_time": began, "message": ""})
    seconds = restore.spec.active_deadline_seconds
    found = outcome_of(job, LOAD, seconds, datetime.fromisoformat(began), seen, now)
    if found.failure:
        return _Row(_failed(row, found.failure, now))
    if not found.report:
        progress = seen.progress.get(job["metadata"]["uid"]) if job else None
        update = {"message": found.waits[:1024], "percent": progress.percent if progress else None}
        return _Row(row.model_copy(update=update))
    try:
        loaded = Loaded.model_validate_json(found.report)
    except ValidationError as error:
        return _Row(_failed(row, f"its report cannot be read: {error.errors()[0]['msg']}", now))
    copy = next((item for item in _copies(restore, seen) if item.name == row.name), None)
    update = {
        "phase": RestorePhase.SWITCHING,
        "switch_time": timestamp(now),
        "percent": None,
        "entries": loaded.entries,
        "point_in_time": copy.point_in_time if copy else None,
        "message": f"restarts on volume {row.claim}",
    }
    # The status is written first: a volume that has come into use is never taken for one that is still to be.
    return _Row(row.model_copy(update=update))


def _switching(restore: StackRestore, row: RestoredStatus, seen: Seen, now: datetime) -> _Row:
    """The volume is in use, and its component passes its gates, or goes back."""
    stack = seen.stack
    claim = seen.objects.get(_claim(row.claim))
    if stack is None or claim is None:
        return _Row(_failed(row, seen.why or f"volume {row.claim} is gone", now))
    if _serves(row, stack, seen):
        update = {"phase": RestorePhase.SUCCEEDED, "completion_time": timestamp(now), "message": ""}
        return _Row(row.model_copy(update=update))
    since = datetime.fromisoformat(row.switch_time or timestamp(now))
    limit, marked = stack.spec.progress_deadline_seconds, bool(_candidate_of(claim))
    if now - since < timedelta(seconds=limit):
        update = {"message": f"restarts on volume {row.claim}"}
        return _Row(row.model_copy(update=update), claims=(_unmarked(claim),) if marked else ())
    if not marked:
        # Told only once it is so: a status that has ended is not looked at again.
        update = {"message": f"goes back to volume {row.previous_claim}"}
        return _Row(row.model_copy(update=update), claims=(_marked(claim, restore.metadata.uid),))
    message = (
        f"it did not serve from volume {row.claim} within {limit} s, and goes back to {row.previous_claim}"
    )
    return _Row(_failed(row, message, now))


def _serves(row: RestoredStatus, stack: CosStack, seen: Seen) -> bool:
    """Whether a ready pod is on the new volume, and the stack has seen it serve."""
    known = previous_row(stack, row.name)
    instance = child_name(stack.metadata.name, row.name)
    workload = seen.objects.get(Ref("StatefulSet", instance))
    if known is None or not known.ready or known.serving_since is None or workload is None:
        return False
    uid = workload["metadata"]["uid"]
    return any(
        ref.kind == "Pod"
        and (controller_of(pod) or {}).get("uid") == uid
        and claim_of(pod) == row.claim
        and is_pod_ready(pod)
        and not pod["metadata"].get("deletionTimestamp")
        and (since := ready_since(pod)) is not None
        and since <= datetime.fromisoformat(known.serving_since)
        for ref, pod in seen.objects.items()
    )


def _marked(claim: Manifest, uid: str) -> Manifest:
    own = owned_part(claim)
    annotations = {**(own["metadata"].get("annotations") or {}), ANNOTATION_CANDIDATE: uid}
    return own | {"metadata": own["metadata"] | {"annotations": annotations}}


def _unmarked(claim: Manifest) -> Manifest:
    own = owned_part(claim)
    kept = {k: v for k, v in (own["metadata"].get("annotations") or {}).items() if k != ANNOTATION_CANDIDATE}
    return own | {"metadata": own["metadata"] | {"annotations": kept}}


def _failed(row: RestoredStatus, message: str, now: datetime) -> RestoredStatus:
    update = {"phase": RestorePhase.FAILED, "message": message[:1024], "percent": None}
    return row.model_copy(update={**update, "completion_time": timestamp(now)})


def _summed_up(restore: StackRestore, rows: Sequence[RestoredStatus], now: datetime) -> StackRestoreStatus:
    failed = [row for row in rows if row.phase is RestorePhase.FAILED]
    begun = [row.start_time for row in rows if row.start_time]
    update: dict[str, object] = {"components": list(rows), "start_time": min(begun, default=None)}
    if all(row.completion_time for row in rows):
        told = "; ".join(f"{row.name}: {row.message}" for row in failed)
        kept = ", ".join(row.previous_claim for row in rows if row.previous_claim)
        update |= {
            "phase": RestorePhase.FAILED if failed else RestorePhase.SUCCEEDED,
            "message": (told or f"restored; kept: {kept}")[:1024],
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
    condition = condition_of(
        restore.status.conditions,
        ConditionType.COMPLETE,
        ConditionStatus.TRUE if done else ConditionStatus.FALSE,
        reason=status.phase.value if done else NOT_YET,
        message=status.message,
        generation=restore.metadata.generation,
        now=now,
    )
    update = {"conditions": [condition], "observed_generation": restore.metadata.generation}
    return status.model_copy(update=update)
