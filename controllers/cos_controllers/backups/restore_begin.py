"""Whether a restore can begin, the volume that it fills, and the Job that does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import NamedTuple

from cos_controllers.api.backup import BackupPhase, CopyStatus, Repository, StackBackup
from cos_controllers.api.restore import (
    LATEST,
    ExistingData,
    Into,
    RestoredStatus,
    RestorePhase,
    RestoreSource,
    StackRestore,
)
from cos_controllers.api.stack import CosStack, StoreSpec
from cos_controllers.backups.begin import (
    Begin,
    Claim,
    Obstacle,
    Waits,
    copied,
    engine_of,
    place_in,
    template_of,
)
from cos_controllers.backups.candidates import candidate, candidate_of, claim_ref
from cos_controllers.backups.job import beside, job_of_restore, job_of_search, kept, thrown_away, tool_of
from cos_controllers.backups.order import Find
from cos_controllers.backups.report import FoundCopy, of_facts
from cos_controllers.backups.seen import Seen, pods_left, repository_of
from cos_controllers.components.base import Dumper, Engine
from cos_controllers.components.registry import DUMPERS, dumper_of
from cos_controllers.conditions import previous_row
from cos_controllers.jobs import NO_IMAGE
from cos_controllers.k8s import Manifest, V1Volume
from cos_controllers.names import child_name, claim_name
from cos_controllers.observation import Ref
from cos_controllers.places import location, path_of, place_of, region
from cos_controllers.pods import claim_of
from cos_controllers.timetable import age, is_over
from cos_controllers.volumes import data_version, data_volumes, is_candidate, serial_of

#: For a list of what a repository has.
_SEARCH_SECONDS = 300


class Stage(NamedTuple):
    """One component one step on: its row, volumes to write, and the Jobs that it begins, after the volumes.

    `found`: the copies among which one is to be chosen for it.
    """

    row: RestoredStatus
    claims: tuple[Claim, ...] = ()
    begin: tuple[Begin, ...] = ()
    found: tuple[FoundCopy, ...] = ()


def copies_named(restore: StackRestore, seen: Seen) -> list[CopyStatus]:
    """The copies to restore, of the backup that a restore names."""
    backup = _backup_of(restore, seen)
    wanted = restore.spec.components
    return [row for row in backup.status.components if not wanted or row.name in wanted] if backup else []


def is_proof(restore: StackRestore) -> bool:
    """Whether it only proves that copies can be restored: nothing of the stack changes."""
    return restore.spec.into is Into.THROWAWAY


def proved(restores: Sequence[StackRestore]) -> dict[str, RestoredStatus]:
    """The newest proof of each component that its copies can be restored."""
    rows = [
        row
        for restore in restores
        if is_proof(restore)
        for row in restore.status.components
        if row.phase is RestorePhase.SUCCEEDED
    ]
    return {row.name: row for row in sorted(rows, key=lambda row: row.completion_time or "")}


def is_held(restore: StackRestore, stack: CosStack) -> bool:
    """Whether the stack is paused, and the restore would change it."""
    return stack.spec.paused and not is_proof(restore)


def rows_of(restore: StackRestore, stack: CosStack, seen: Seen) -> list[RestoredStatus]:
    """What is to be restored: the copies of a backup, or those that are still to be looked for."""
    if restore.spec.source is None:
        return [RestoredStatus(name=copy.name, source=copy) for copy in copies_named(restore, seen)]
    return [RestoredStatus(name=name) for name in copied(stack, restore.spec.components)]


def repository_in(restore: StackRestore, stack: CosStack, seen: Seen) -> Repository | None:
    """The repository in which the copies are; None if the stack has no such repository (any more)."""
    if name := restore.status.repository:
        return repository_of(name, stack)
    if restore.spec.source:
        return repository_of(restore.spec.source.repository, stack)
    backup = _backup_of(restore, seen)
    return repository_of(backup.status.repository, stack) if backup and backup.status.repository else None


def obstacle_to_restore(restore: StackRestore, seen: Seen) -> Obstacle | None:
    """Why nobody can say what is to be restored."""
    stack, backup = seen.stack, _backup_of(restore, seen)
    if stack is None:
        return Obstacle(seen.why or f"there is no CosStack {restore.spec.stack_ref.name} in this namespace")
    if restore.spec.source is None and backup is None:
        name = restore.spec.backup
        return Obstacle(
            f"there is no StackBackup {name} of stack {stack.metadata.name} in this namespace; `source` looks for a "
            "copy in a repository instead"
        )
    if backup and not backup.status.completion_time:
        return Obstacle(f"waits until backup {restore.spec.backup} has ended")
    if mistake := _mistake(restore, stack, backup, seen):
        return Obstacle(mistake, lasting=True)
    return Obstacle("a change waits: spec.paused") if is_held(restore, stack) else None


def _backup_of(restore: StackRestore, seen: Seen) -> StackBackup | None:
    if restore.spec.source:
        return None
    return next((item for item in seen.backups if item.metadata.name == restore.spec.backup), None)


def _mistake(restore: StackRestore, stack: CosStack, backup: StackBackup | None, seen: Seen) -> str:
    """What cannot be as the spec asks."""
    known = [row.name for row in backup.status.components] if backup else copied(stack)
    if unknown := sorted(set(restore.spec.components) - set(known)):
        what = "backup" if backup else "stack"
        return f"spec.components: the {what} has no {', '.join(unknown)}; it has {', '.join(known)}"
    copies = copies_named(restore, seen)
    if backup and (why := _bad(backup, copies)):
        return f"backup {backup.metadata.name} {why}"
    if repository_in(restore, stack, seen) is None:
        wanted = (
            restore.spec.source.repository if restore.spec.source else backup and backup.status.repository
        )
        return f"the stack has no repository {wanted or 'at all: name one in spec.backup'}"
    if not seen.image:
        return NO_IMAGE
    sought = [row.name for row in rows_of(restore, stack, seen)] if restore.spec.source else []
    names = sought or [copy.name for copy in copies]
    dumpers = {name: dumper_of(name, stack.spec) for name in names}
    if why := _no_moment(restore, copies, dumpers) or _no_server(restore, dumpers):
        return why
    obstacles = [in_use(restore, name, stack, seen) for name in sought]
    obstacles += [unfit(restore, copy, stack, seen) for copy in copies]
    return next(filter(None, obstacles), "")


def _no_server(restore: StackRestore, dumpers: Mapping[str, Dumper | None]) -> str:
    """Why nobody could be asked what is to be asked of a restored server. `dumpers`: of what is to be restored."""
    asked = restore.spec.sql
    servers = [name for name, dumper in dumpers.items() if dumper and dumper.keeps_log]
    if asked is None or (asked.component in servers if asked.component else servers):
        return ""
    what = f"{asked.component} is not" if asked.component else "no Postgres is"
    return f"spec.sql: {what} among what is restored"


def _no_moment(
    restore: StackRestore, copies: Sequence[CopyStatus], dumpers: Mapping[str, Dumper | None]
) -> str:
    """Why the components cannot be brought to the moment that is asked for. `dumpers`: of what is to be restored."""
    until = restore.spec.point_in_time
    if not until:
        return ""
    if without := [name for name, dumper in dumpers.items() if dumper and not dumper.keeps_log]:
        others = ", ".join(name for name in dumpers if name not in without) or "none of them"
        told = f"no log is kept of {', '.join(without)}: name in components those that have one ({others})"
        return f"spec.pointInTime: {told}"
    if until == LATEST:
        return ""
    moment = datetime.fromisoformat(until)
    if moment > datetime.fromisoformat(restore.metadata.creation_timestamp):
        return f"spec.pointInTime: {until} is later than the restore itself"
    late = [
        f"{copy.name} at {copy.point_in_time}"
        for copy in copies
        if copy.point_in_time and datetime.fromisoformat(copy.point_in_time) > moment
    ]
    if not late:
        return ""
    return f"spec.pointInTime: {until} is before the end of the copy of {late[0]}: take an earlier backup"


def _bad(backup: StackBackup, copies: Sequence[CopyStatus]) -> str:
    """Why these copies of a backup cannot be restored."""
    if not backup.status.components:
        return f"has no copies: {backup.status.message}"
    if backup.status.phase is BackupPhase.EXPIRED:
        return "is kept no longer: its copies are being removed"
    bad = [copy.name for copy in copies if copy.phase is not BackupPhase.SUCCEEDED]
    return f"has no good copy of {', '.join(bad)}" if bad else ""


def unfit(restore: StackRestore, copy: CopyStatus, stack: CosStack, seen: Seen) -> str:
    """Why a copy cannot be restored: it is elsewhere, or must not come into the place of what there is."""
    repository = repository_in(restore, stack, seen)
    if repository is None or place_of(stack, repository, copy.name, seen.objects) != copy.place:
        name = repository.name if repository else restore.status.repository
        return f"the copy of {copy.name} is at {copy.place}, which is not what the stack calls {name} now"
    return refusal(restore, copy, stack, seen)


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
    return in_use(restore, copy.name, stack, seen)


def in_use(restore: StackRestore, component: str, stack: CosStack, seen: Seen) -> str:
    """Why a component is not to get other data than it has, unless somebody says so."""
    if restore.spec.existing_data is not ExistingData.REFUSE or is_proof(restore):
        return ""
    used = _used_volume(component, stack, seen)
    return (
        f"{component} has data on volume {used}: write existingData: SetAside to put the copy in its place and to keep "
        "the volume"
        if used
        else ""
    )


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


def begin_search(restore: StackRestore, row: RestoredStatus, seen: Seen) -> Begin:
    """The Job that says which copies there are. Raises `Waits`."""
    stack, source = seen.stack, restore.spec.source
    if stack is None or source is None:
        raise Waits(seen.why or "the stack has been deleted")
    repository = repository_in(restore, stack, seen)
    if repository is None:
        raise Waits("the stack no longer has the repository")
    template = template_of(row.name, stack, repository, seen)
    engine = engine_of(row.name, stack)
    place_in(repository, row.name, stack, seen)
    dumper = DUMPERS[engine.kind]
    order = Find(
        tool=tool_of(dumper),
        repository=location(repository, _path_in(restore, row.name, stack)),
        region=region(repository),
        limit=_SEARCH_SECONDS,
        before=_not_after(restore, source),
        backup=source.backup,
    )
    job = job_of_search(
        stack, restore, repository, row.name, order, dumper, template=template, image=seen.image
    )
    return Begin(row.name, _reaching(repository, job, row.name, engine, stack, seen), admit=False)


def _not_after(restore: StackRestore, source: RestoreSource) -> int:
    """The latest moment of which a copy may be, in seconds since 1970.

    Never later than the restore itself: what a stack that came back empty has copied since is not what was lost.
    """
    until = restore.spec.point_in_time
    moments = [restore.metadata.creation_timestamp, *([source.before] if source.before else [])]
    moments += [until] if until not in {"", LATEST} else []
    return int(min(map(datetime.fromisoformat, moments)).timestamp())


def as_status(
    restore: StackRestore, component: str, copy: FoundCopy, stack: CosStack, seen: Seen
) -> CopyStatus:
    """A copy that was found in a repository."""
    repository = repository_in(restore, stack, seen)
    return CopyStatus(
        name=component,
        phase=BackupPhase.SUCCEEDED,
        lineage=copy.lineage,
        path=_path_in(restore, component, stack),
        place=place_of(stack, repository, component, seen.objects) if repository else "",
        snapshot=copy.snapshot,
        key_fingerprint=copy.key,
        **of_facts(copy.facts),
    )


def _path_in(restore: StackRestore, component: str, stack: CosStack) -> str:
    source = restore.spec.source or RestoreSource()
    metadata = stack.metadata
    return path_of(
        source.namespace or metadata.namespace, source.stack or metadata.name, source.component or component
    )


def begin_restore(restore: StackRestore, row: RestoredStatus, seen: Seen) -> Stage:
    """The volume to fill, then the Job that fills it. Raises `Waits`."""
    stack, copy = seen.stack, row.source
    if stack is None or copy is None:
        raise Waits(seen.why or "the stack has been deleted")
    repository = repository_in(restore, stack, seen)
    if why := unfit(restore, copy, stack, seen):
        # Since it was looked at first the stack has become another.
        raise Waits(why)
    if repository is None or stack.spec.backup is None or is_held(restore, stack):
        raise Waits("a change waits: spec.paused")
    if other := _earlier(restore, row.name, seen):
        raise Waits(f"waits until {other} has ended: one restore of a component is made at a time")
    template = template_of(row.name, stack, repository, seen)
    engine, instance = engine_of(row.name, stack), child_name(stack.metadata.name, row.name)
    spec = engine.instances(stack.spec)[row.name]
    assert isinstance(spec, StoreSpec)  # noqa: S101 - narrows the type; dumpers have data

    def begin(volume: V1Volume) -> Begin:
        job = job_of_restore(
            stack,
            restore,
            repository,
            copy,
            volume=volume,
            spec=spec,
            dumper=DUMPERS[engine.kind],
            template=template,
            image=seen.image,
        )
        return Begin(row.name, _reaching(repository, job, row.name, engine, stack, seen), admit=False)

    volumes = data_volumes(stack, seen.objects, instance)
    mine = [obj for obj in volumes.values() if candidate_of(obj) == restore.metadata.uid]
    runs_on = claim_of(template) or ""
    old = seen.objects.get(claim_ref(runs_on))
    if old and old["metadata"].get("deletionTimestamp") and not is_proof(restore):
        raise Waits(f"volume {runs_on} is being deleted and could not be set aside: copy its data away first")
    before = runs_on if old else ""
    # Never the name of a volume that is gone: the pod that waits for it would begin on what is being filled.
    name = claim_name(instance, max(*volumes, serial_of(runs_on), -1) + 1)
    claim = candidate(restore, stack, copy, engine.kind, name, spec, old)
    made = seen.problems.get(row.name) or "its Job is made"
    if is_proof(restore):
        return Stage(row.model_copy(update={"message": made}), begin=(begin(thrown_away(claim)),))
    if not mine:
        told = seen.problems.get(row.name) or f"volume {name} is made"
        update = {"claim": name, "previous_claim": before, "message": told}
        return Stage(row.model_copy(update=update), claims=(Claim(row.name, claim),))
    name = mine[0]["metadata"]["name"]
    update = {"claim": name, "previous_claim": before, "message": made}
    return Stage(row.model_copy(update=update), begin=(begin(kept(name)),))


def _reaching(
    repository: Repository, job: Manifest, component: str, engine: Engine, stack: CosStack, seen: Seen
) -> Manifest:
    """A Job that can reach a repository: a volume that the engine's own pod has, on the node where that is."""
    held = repository.volume is not None and DUMPERS[engine.kind].keeps_log
    pods = pods_left(child_name(stack.metadata.name, component), seen)
    return beside(job, stack, component, engine.kind) if held and pods else job


def _earlier(restore: StackRestore, component: str, seen: Seen) -> str:
    """An earlier restore that has not ended with a component, "" without."""
    for other in sorted(seen.restores, key=age):
        if other.metadata.uid == restore.metadata.uid:
            return ""
        if is_proof(other):
            continue
        rows = other.status.components if not is_over(other) else ()
        if any(row.name == component and not row.completion_time for row in rows):
            return other.metadata.name
    return ""
