"""Whether the copies of a backup can begin, and the Jobs that make them."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime, timedelta
from typing import NamedTuple

from cos_controllers.api.backup import Backup, CopyStatus, Repository, StackBackup
from cos_controllers.api.stack import CosStack
from cos_controllers.backups.job import job_of_copy, tool_of
from cos_controllers.backups.order import Order, Tidy
from cos_controllers.backups.retention import Upkeep, upkeep
from cos_controllers.backups.seen import Seen, holder, pods_left, pods_on, repository_of
from cos_controllers.components.base import Engine
from cos_controllers.components.registry import DUMPERS, ENGINES, dumper_of, kept_in, stores, why_no_copies
from cos_controllers.components.repository import key_secret
from cos_controllers.conditions import previous_row
from cos_controllers.halts import halted_by, halting
from cos_controllers.jobs import NO_IMAGE
from cos_controllers.k8s import Manifest
from cos_controllers.mounts import BACKUP_KEY, S3_KEYS
from cos_controllers.names import backup_job, child_name
from cos_controllers.observation import Ref
from cos_controllers.places import location, path_of, place_of, region
from cos_controllers.pods import claim_of, is_pod_ready
from cos_controllers.timetable import is_over

#: Characters of a key that is worth the name.
_LEAST_KEY = 16


class Begin(NamedTuple):
    """A Job to create; with `admit` once the engine lets its backup user in."""

    component: str
    job: Manifest
    admit: bool = True


class Claim(NamedTuple):
    """A volume of a component to make, or to say something of."""

    component: str
    volume: Manifest


class Obstacle(NamedTuple):
    """Why nothing can be copied; `lasting` if only another backup could."""

    message: str
    lasting: bool = False


class Waits(Exception):
    """Something cannot begin yet, for the reason in the message."""


def late(created: str, seconds: int, now: datetime) -> str:
    """Whether the time in which everything must have begun is over, in words."""
    over = now - datetime.fromisoformat(created) >= timedelta(seconds=seconds)
    return f"not begun within {seconds} s (startingDeadlineSeconds)" if over else ""


def obstacle_to(backup: StackBackup, seen: Seen) -> Obstacle | None:
    """Why nobody can say what is to be copied."""
    stack = seen.stack
    if stack is None:
        return Obstacle(seen.why or f"there is no CosStack {backup.spec.stack_ref.name} in this namespace")
    if stack.spec.backup is None:
        return Obstacle("the stack has no spec.backup: name a repository there")
    if repository_of(backup.spec.repository, stack) is None:
        known = ", ".join(item.name for item in stack.spec.backup.repositories)
        return Obstacle(
            f"spec.repository: the stack has no repository {backup.spec.repository}; it has {known}"
        )
    if mistake := _mistake(backup, stack) or ("" if seen.image else NO_IMAGE):
        return Obstacle(mistake, lasting=True)
    return None


def copied(stack: CosStack, wanted: Collection[str] = ()) -> list[str]:
    """The components of which there are copies; of those that are `wanted`, if any are named."""
    known = why_no_copies(stack.spec).items()
    return [name for name, why_not in known if not why_not and (not wanted or name in wanted)]


def chosen(backup: StackBackup, stack: CosStack) -> list[str]:
    """The components to copy."""
    return copied(stack, backup.spec.components)


def needs_halt(component: str, seen: Seen) -> bool:
    """Whether a component must be stopped while it is read."""
    dumper = dumper_of(component, seen.stack.spec) if seen.stack else None
    return dumper is not None and dumper.offline


def beginning(backup: StackBackup, row: CopyStatus, seen: Seen, now: datetime) -> Begin | str:
    """The Job of a copy, or why it cannot be made yet. Of a component that is yet to be stopped: whether it may be."""
    if seen.stack is None:
        return seen.why or "the stack has been deleted"
    try:
        job = _job(backup, row, seen.stack, seen, now)
    except Waits as why:
        return str(why)
    # Who is stopped cannot be logged in to.
    return Begin(row.name, job, admit=not needs_halt(row.name, seen))


def _mistake(backup: StackBackup, stack: CosStack) -> str:
    """What the spec asks for that the stack does not have."""
    known = stores(stack.spec)
    if unknown := sorted(set(backup.spec.components) - set(known)):
        return f"spec.components: the stack has no data of {', '.join(unknown)}; it has {', '.join(known)}"
    reasons = why_no_copies(stack.spec)
    if without := [f"{name}: {reasons[name]}" for name in backup.spec.components if reasons[name]]:
        return f"spec.components: there are no copies of {'; '.join(without)}"
    if not chosen(backup, stack):
        told = "; ".join(f"{name}: {why}" for name, why in reasons.items())
        return f"the stack has no component of which there are copies{': ' if told else ''}{told}"
    if elsewhere := _kept_elsewhere(backup, stack):
        return elsewhere
    return "" if backup.spec.allow_downtime else _unallowed(backup, stack)


def _kept_elsewhere(backup: StackBackup, stack: CosStack) -> str:
    """The components of which no copy can be in the repository that is asked for."""
    asked = repository_of(backup.spec.repository, stack)
    for name in chosen(backup, stack):
        found = kept_in(name, stack.spec)
        if asked and asked not in found:
            kept = ", ".join(item.name for item in found) or "none"
            others = ", ".join(item for item in chosen(backup, stack) if item != name)
            return (
                f"copies of {name} are kept where its log goes, in {kept}, not in {asked.name}: write that "
                f"repository{', or name the components without it: ' + others if others else ''}"
            )
    return ""


def _unallowed(backup: StackBackup, stack: CosStack) -> str:
    """The components that would have to be stopped, which nobody has allowed."""
    known = stores(stack.spec)
    stopped = [name for name in chosen(backup, stack) if DUMPERS[known[name]].offline]
    if not stopped:
        return ""
    told = f"{', '.join(stopped)} can only be copied while it is stopped: write allowDowntime: true"
    if backup.spec.components:
        return f"spec.components: {told}"
    others = [name for name in chosen(backup, stack) if name not in stopped]
    return f"{told}, or name the components without it: {', '.join(others)}" if others else told


def _job(backup: StackBackup, row: CopyStatus, stack: CosStack, seen: Seen, now: datetime) -> Manifest:
    """The Job of a copy. Raises `Waits`."""
    component = row.name
    repository = repository_of(backup.spec.repository, stack)
    if repository is None or stack.spec.backup is None:
        raise Waits("the stack no longer has the repository")
    engine = engine_of(component, stack)
    instance = child_name(stack.metadata.name, component)
    template = template_of(component, stack, repository, seen, backup.metadata.uid)
    name = claim_of(template) or ""
    claim = seen.objects.get(Ref("PersistentVolumeClaim", name))
    if claim is None:
        raise Waits(f"waits for volume {name}")
    if row.halt_time:
        _must_be_stopped(backup, component, seen)
    else:
        _must_serve(component, name, stack, seen)
    place = place_in(repository, component, stack, seen)
    lineage, limit = claim["metadata"]["uid"], backup.spec.active_deadline_seconds
    path = path_of(stack.metadata.namespace, stack.metadata.name, component)
    host = f"{instance}.{stack.metadata.namespace}.svc"
    dumper = DUMPERS[engine.kind]
    spec = engine.instances(stack.spec)[component]
    dump, folder = dumper.dump(host, spec, limit), dumper.folder(spec)
    order = Order(
        tool=tool_of(dumper),
        namespace=stack.metadata.namespace,
        stack=stack.metadata.name,
        component=component,
        engine=engine.kind,
        lineage=lineage,
        backup=backup.metadata.name,
        repository=location(repository, path),
        place=place,
        path=path,
        region=region(repository),
        limit=limit,
        host=host if folder else "",
        folder=f"{dump.source}/{folder}" if folder else "",
    )
    return job_of_copy(
        stack,
        backup,
        repository,
        order,
        dumper,
        dump,
        template=template,
        image=seen.image,
        tidy=_tidy(order, stack.spec.backup, upkeep(stack, component, place, path, seen, now)),
    )


def _must_serve(component: str, claim: str, stack: CosStack, seen: Seen) -> None:
    """Raises `Waits` unless a component serves from a volume; one that is yet to be stopped can be."""
    row = previous_row(stack, component)
    if row is None or row.serving_since is None:
        raise Waits(f"waits until {component} serves")
    if not any(map(is_pod_ready, pods_on(claim, child_name(stack.metadata.name, component), seen))):
        raise Waits(f"waits until {component} runs on volume {claim}")
    if stack.spec.paused and needs_halt(component, seen):
        raise Waits(f"waits to stop {component}: spec.paused")


def _must_be_stopped(backup: StackBackup, component: str, seen: Seen) -> None:
    """Raises `Waits` unless a component has no pods and will have none: its workload knows that it is stopped."""
    instance = child_name(backup.spec.stack_ref.name, component)
    workload = seen.objects.get(Ref("StatefulSet", instance)) or {"metadata": {}, "spec": {}}
    seen_by_its_controller = (workload.get("status") or {}).get("observedGeneration", 0)
    if (
        halted_by(workload) != backup.metadata.uid
        or workload["spec"].get("replicas") != 0
        or seen_by_its_controller < workload["metadata"].get("generation", 0)
        or pods_left(instance, seen)
    ):
        raise Waits(f"{component} is being stopped")


def place_in(repository: Repository, component: str, stack: CosStack, seen: Seen) -> str:
    """Where the copies of a component are. Raises `Waits` while there is no such place."""
    if place := place_of(stack, repository, component, seen.objects):
        return place
    raise Waits(f"waits until the volume of repository {repository.name} is there")


def _tidy(order: Order, spec: Backup, due: Upkeep) -> Tidy | None:
    """What is done to the repository once the copy is stored; None if nothing is."""
    if due == Upkeep():
        return None
    return Tidy(
        tool=order.tool,
        repository=order.repository,
        region=order.region,
        limit=spec.maintenance.active_deadline_seconds,
        **due._asdict(),
    )


def template_of(
    component: str, stack: CosStack, repository: Repository, seen: Seen, uid: str = ""
) -> Manifest:
    """The pod template of a component to which nothing else is done, its repository being usable. Raises `Waits`.

    `uid`: of the backup that it is for, which may have stopped it.
    """
    instance = child_name(stack.metadata.name, component)
    if busy := holder(backup_job(instance), seen):
        raise Waits(f"waits until {busy} has ended: one thing is done to the data of a component at a time")
    if halt := halting(component, seen.backups, but=uid):
        raise Waits(f"waits until {halt.backup} has read {component}, which is stopped for it")
    if other := switching(component, seen):
        raise Waits(f"waits until {other} has ended, which takes another volume into use")
    if missing := _missing(repository, stack, seen):
        raise Waits(missing)
    workload = seen.objects.get(Ref("StatefulSet", instance))
    if workload is None:
        raise Waits(f"waits until {component} is there")
    found: Manifest = workload["spec"]["template"]
    return found


def switching(component: str, seen: Seen) -> str:
    """The restore whose volume a component is about to run on, "" without: what runs then is of neither for sure."""
    for restore in seen.restores:
        for row in restore.status.components if not is_over(restore) else ():
            if row.name == component and row.switch_time and not row.completion_time:
                return restore.metadata.name
    return ""


def engine_of(component: str, stack: CosStack) -> Engine:
    """The engine of a component. Raises `Waits` if the stack does not have it any more."""
    for engine in ENGINES:
        if component in engine.instances(stack.spec) and dumper_of(component, stack.spec):
            return engine
    raise Waits("the stack no longer has the component")


def _missing(repository: Repository, stack: CosStack, seen: Seen) -> str:
    """What a repository needs and has not, in words that name the fix."""
    return _missing_key(repository, stack, seen) or _missing_credentials(repository, seen)


def _missing_key(repository: Repository, stack: CosStack, seen: Seen) -> str:
    name = key_secret(stack.metadata.name, repository)
    held = seen.secrets.get(name)
    if held is None and repository.encryption_key_secret_ref is None:
        return f"waits for Secret {name} with the generated key"
    if held is None:
        return f"Secret {name} (encryptionKeySecretRef) does not exist: create it with a key {BACKUP_KEY}"
    if held.get(BACKUP_KEY, 0) < _LEAST_KEY:
        return f"Secret {name} needs a key {BACKUP_KEY} of at least {_LEAST_KEY} characters of text"
    return ""


def _missing_credentials(repository: Repository, seen: Seen) -> str:
    if repository.s3 is None:
        return ""
    name = repository.s3.credentials_secret_ref.name
    held = seen.secrets.get(name)
    if held is None:
        return f"Secret {name} (credentialsSecretRef) does not exist: create it with {' and '.join(S3_KEYS)}"
    lacks = [key for key in S3_KEYS if not held.get(key)]
    return f"Secret {name} (credentialsSecretRef) lacks {' and '.join(lacks)}" if lacks else ""
