"""What was read of one stack's backups and restores, and how to read it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from cos_controllers.api.backup import Repository, StackBackup, named
from cos_controllers.api.restore import StackRestore
from cos_controllers.api.stack import CosStack
from cos_controllers.backups.report import Progress
from cos_controllers.components.repository import key_secret
from cos_controllers.k8s import Manifest
from cos_controllers.names import LABEL_BACKUP, LABEL_BACKUP_UID, LABEL_STACK_COMPONENT
from cos_controllers.observation import Ref
from cos_controllers.ownership import controller_of
from cos_controllers.places import repositories_of
from cos_controllers.pods import claim_of
from cos_controllers.timetable import Operation


@dataclass(frozen=True)
class Seen:
    """Everything that was read of one stack's backups and restores.

    `stack` is None if there is none, or it is being deleted, or its spec cannot be used (`why`). `jobs` and `pods`
    carry `LABEL_BACKED_UP_STACK`. `objects`: StatefulSets, claims and pods of the stack. `secrets`: those that its
    repositories name, by name, with the length of each value that is text. `progress`: of Jobs that run, by UID.
    `image` is the operator's own, "" if nobody knows it. `warnings`: the newest warning Event of Jobs without pods, by
    UID. `problems`: why the Job of a component could not be made last time. `made`: names of backups that were made by
    schedule, which may be gone.
    """

    stack: CosStack | None
    backups: Sequence[StackBackup] = ()
    restores: Sequence[StackRestore] = ()
    jobs: Sequence[Manifest] = ()
    pods: Sequence[Manifest] = ()
    objects: Mapping[Ref, Manifest] = field(default_factory=dict)
    secrets: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    progress: Mapping[str, Progress] = field(default_factory=dict)
    image: str = ""
    why: str = ""
    warnings: Mapping[str, str] = field(default_factory=dict)
    problems: Mapping[str, str] = field(default_factory=dict)
    made: frozenset[str] = frozenset()


def label(job: Manifest, name: str) -> str:
    """A label of a Job, "" without."""
    return str((job["metadata"].get("labels") or {}).get(name) or "")


def job_of(item: Operation, component: str, seen: Seen) -> Manifest | None:
    """The Job that works on a component for this very backup or restore."""
    for job in seen.jobs:
        if (
            label(job, LABEL_BACKUP_UID) == item.metadata.uid
            and label(job, LABEL_STACK_COMPONENT) == component
        ):
            return job
    return None


def holder(job_name: str, seen: Seen) -> str:
    """The backup or restore whose Job has this name, "" without: two must not work on the same data."""
    return next((label(job, LABEL_BACKUP) for job in seen.jobs if job["metadata"]["name"] == job_name), "")


def repository_of(name: str, stack: CosStack) -> Repository | None:
    """The repository of this name, the first for ""; None if the stack has no such repository."""
    return named(repositories_of(stack), name)


def secrets_of(stack: CosStack) -> frozenset[str]:
    """Names of the Secrets that the stack's repositories need."""
    repositories = repositories_of(stack)
    return frozenset(
        {
            *(key_secret(stack.metadata.name, item) for item in repositories),
            *(item.s3.credentials_secret_ref.name for item in repositories if item.s3),
        }
    )


def pods_left(instance: str, seen: Seen) -> list[Manifest]:
    """The pods of an instance, those too that are being deleted or have ended."""
    workload = seen.objects.get(Ref("StatefulSet", instance))
    uid = workload["metadata"]["uid"] if workload else ""
    return [
        pod
        for ref, pod in seen.objects.items()
        if ref.kind == "Pod" and (controller_of(pod) or {}).get("uid") == uid
    ]


def pods_on(claim: str, instance: str, seen: Seen) -> list[Manifest]:
    """The pods of an instance that mount a volume, those that are being deleted left out."""
    return [
        pod
        for pod in pods_left(instance, seen)
        if claim_of(pod) == claim and not pod["metadata"].get("deletionTimestamp")
    ]
