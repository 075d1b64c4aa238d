"""Whether a restore can begin, the volume that it fills, and the Job that does."""

from __future__ import annotations

from typing import NamedTuple

from cos_controllers.api.backup import BackupPhase, CopyStatus, StackBackup
from cos_controllers.api.restore import ExistingData, RestoredStatus, StackRestore
from cos_controllers.api.stack import CosStack, StoreSpec
from cos_controllers.backups.begin import Begin, Claim, Obstacle, Waits, engine_of, template_of
from cos_controllers.backups.candidates import candidate, candidate_of, claim_ref
from cos_controllers.backups.job import job_of_restore
from cos_controllers.backups.seen import Seen, age, is_over, repository_of
from cos_controllers.components.registry import DUMPERS
from cos_controllers.conditions import previous_row
from cos_controllers.jobs import NO_IMAGE
from cos_controllers.names import child_name, claim_name
from cos_controllers.observation import Ref
from cos_controllers.places import place_of
from cos_controllers.pods import claim_of
from cos_controllers.volumes import data_version, data_volumes, is_candidate, serial_of


class Stage(NamedTuple):
    """One component one step on: its row, volumes to write, and the Jobs that it begins, after the volumes."""

    row: RestoredStatus
    claims: tuple[Claim, ...] = ()
    begin: tuple[Begin, ...] = ()


def backup_of(restore: StackRestore, seen: Seen) -> StackBackup | None:
    """The backup that a restore names."""
    return next((item for item in seen.backups if item.metadata.name == restore.spec.backup), None)


def copies_of(restore: StackRestore, seen: Seen) -> list[CopyStatus]:
    """The copies to restore."""
    backup = backup_of(restore, seen)
    wanted = restore.spec.components
    return [row for row in backup.status.components if not wanted or row.name in wanted] if backup else []


def obstacle_to_restore(restore: StackRestore, seen: Seen) -> Obstacle | None:
    """Why nobody can say what is to be restored."""
    stack, backup = seen.stack, backup_of(restore, seen)
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
    if not copies:
        return f"backup {backup.metadata.name} has no copies: {backup.status.message}"
    if bad := [row.name for row in copies_of(restore, seen) if row.phase is not BackupPhase.SUCCEEDED]:
        return f"backup {backup.metadata.name} has no good copy of {', '.join(bad)}"
    name = backup.status.repository
    repository = repository_of(name, stack)
    for copy in copies_of(restore, seen):
        if repository is None or place_of(stack, repository, copy.name, seen.objects) != copy.place:
            return f"the copy of {copy.name} is at {copy.place}, which is not what the stack calls {name} now"
    if not seen.image:
        return NO_IMAGE
    return next(filter(None, (refusal(restore, row, stack, seen) for row in copies_of(restore, seen))), "")


def refusal(restore: StackRestore, copy: CopyStatus, stack: CosStack, seen: Seen) -> str:
    """Why a copy must not come into the place of what a component has."""
    try:
        engine = engine_of(copy.name, stack)
    except Waits:
        return f"the stack has no component {copy.name} that this version can restore"
    row = previous_row(stack, copy.name)
    runs = row.version if row and row.version else engine.instances(stack.spec)[copy.name].version
    if why := engine.may_open(copy.engine_version, runs):
        return f"{copy.name}: {why}"
    if restore.spec.existing_data is ExistingData.REFUSE and (used := _used_volume(copy.name, stack, seen)):
        return (
            f"{copy.name} has data on volume {used}: write existingData: SetAside to put the copy in its place and to "
            "keep the volume"
        )
    return ""


def _used_volume(component: str, stack: CosStack, seen: Seen) -> str:
    """A volume that an engine was ever started on, and that nobody is only filling; "" without."""
    instance = child_name(stack.metadata.name, component)
    workload = seen.objects.get(Ref("StatefulSet", instance))
    mounted = claim_of(workload["spec"]["template"]) if workload else None
    for obj in data_volumes(stack, seen.objects, instance).values():
        name = str(obj["metadata"]["name"])
        if (name == mounted or not is_candidate(obj)) and data_version(name, seen.objects):
            return name
    return ""


def begin_restore(restore: StackRestore, row: RestoredStatus, seen: Seen) -> Stage:
    """The volume to fill, then the Job that fills it. Raises `Waits`."""
    stack, backup = seen.stack, backup_of(restore, seen)
    copy = next((item for item in copies_of(restore, seen) if item.name == row.name), None)
    if stack is None or backup is None or copy is None:
        raise Waits(seen.why or "the stack or the backup has been deleted")
    repository = repository_of(backup.status.repository, stack)
    if mistake := _mistake(restore, stack, backup, seen):
        # Since it was looked at first the stack, or the backup, has become another.
        raise Waits(mistake)
    if repository is None or stack.spec.backup is None or stack.spec.paused:
        raise Waits("a change waits: spec.paused")
    if other := _earlier(restore, row.name, seen):
        raise Waits(f"waits until {other} has ended: one restore of a component is made at a time")
    template = template_of(row.name, stack, repository, seen)
    engine, instance = engine_of(row.name, stack), child_name(stack.metadata.name, row.name)
    volumes = data_volumes(stack, seen.objects, instance)
    mine = [obj for obj in volumes.values() if candidate_of(obj) == restore.metadata.uid]
    runs_on = claim_of(template) or ""
    old = seen.objects.get(claim_ref(runs_on))
    if old and old["metadata"].get("deletionTimestamp"):
        raise Waits(f"volume {runs_on} is being deleted and could not be set aside: copy its data away first")
    before = runs_on if old else ""
    if not mine:
        spec = engine.instances(stack.spec)[row.name]
        assert isinstance(spec, StoreSpec)  # noqa: S101 - narrows the type; dumpers have data
        # Never the name of a volume that is gone: the pod that waits for it would begin on what is being filled.
        name = claim_name(instance, max(*volumes, serial_of(runs_on), -1) + 1)
        claim = candidate(restore, stack, copy, engine.kind, name, spec, old)
        update = {
            "claim": name,
            "previous_claim": before,
            "message": seen.problems.get(row.name) or f"volume {name} is made",
        }
        return Stage(row.model_copy(update=update), claims=(Claim(row.name, claim),))
    claim_now = mine[0]["metadata"]["name"]
    job = job_of_restore(
        stack,
        restore,
        repository,
        copy,
        claim_now,
        engine.instances(stack.spec)[row.name],
        DUMPERS[engine.kind],
        template=template,
        image=seen.image,
    )
    update = {
        "claim": claim_now,
        "previous_claim": before,
        "message": seen.problems.get(row.name) or "its Job is made",
    }
    return Stage(row.model_copy(update=update), begin=(Begin(row.name, job, admit=False),))


def _earlier(restore: StackRestore, component: str, seen: Seen) -> str:
    """An earlier restore that has not ended with a component, "" without."""
    for other in sorted(seen.restores, key=age):
        if other.metadata.uid == restore.metadata.uid:
            return ""
        rows = other.status.components if not is_over(other) else ()
        if any(row.name == component and not row.completion_time for row in rows):
            return other.metadata.name
    return ""
