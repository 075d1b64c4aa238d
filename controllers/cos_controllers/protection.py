"""Whether the data of a stack is protected: what `BackupHealthy` says."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import NamedTuple

from cos_controllers.api.backup import BackupPhase, CopyStatus, StackBackup
from cos_controllers.api.restore import RestorePhase, StackRestore
from cos_controllers.api.stack import CosStack
from cos_controllers.api.status import ConditionStatus, Reason
from cos_controllers.components.registry import kept_in, stores, why_no_copies
from cos_controllers.hashing import digest
from cos_controllers.k8s import Manifest
from cos_controllers.mounts import BACKUP_KEY
from cos_controllers.names import ANNOTATION_ESCROWED, backup_key_secret, child_name
from cos_controllers.observation import Problem, Ref, Snapshot
from cos_controllers.places import place_of, repositories_of
from cos_controllers.timetable import VERIFICATION, age, late, verification_of, verifications
from cos_controllers.volumes import current_claim


class Protection(NamedTuple):
    """The verdict, in the parts of a condition."""

    status: ConditionStatus
    reason: Reason
    message: str


def protection(stack: CosStack, snapshot: Snapshot, now: datetime) -> Protection | None:
    """Whether each component's volume has a good copy, in time, in a sound repository, and the key is kept elsewhere.

    None without `spec.backup`.
    """
    if stack.spec.backup is None:
        return None
    if snapshot.backups is None or snapshot.restores is None:
        return Protection(
            ConditionStatus.UNKNOWN,
            Reason.BACKUP_UNKNOWN,
            "the StackBackups or StackRestores could not be read",
        )
    problems = [
        *_of_logs(stack, snapshot),
        *_of_components(stack, snapshot, snapshot.backups),
        *_of_repositories(stack, snapshot, snapshot.backups),
        *_of_verification(stack, snapshot.restores),
        *_of_schedules(stack, snapshot.backups, snapshot.restores, now),
        *_of_key(stack, snapshot),
    ]
    if not problems:
        return Protection(ConditionStatus.TRUE, Reason.BACKED_UP, "")
    return Protection(ConditionStatus.FALSE, problems[0].reason, "; ".join(item.message for item in problems))


def good_copies(
    stack: CosStack, component: str, objects: Mapping[Ref, Manifest], backups: Sequence[StackBackup]
) -> list[CopyStatus]:
    """The copies of a component's present volume that are in a repository of the stack, the newest last."""
    name = current_claim(stack, objects, child_name(stack.metadata.name, component))
    claim = objects.get(Ref("PersistentVolumeClaim", name)) or {}
    lineage = (claim.get("metadata") or {}).get("uid")
    places = _places(stack, component, objects)
    rows = (
        row
        for backup in backups
        if backup.status.phase is not BackupPhase.EXPIRED
        for row in backup.status.components
        if row.name == component
        and row.phase is BackupPhase.SUCCEEDED
        and row.lineage == lineage
        and row.place in places
    )
    return sorted(rows, key=lambda row: row.point_in_time or "")


def _places(stack: CosStack, component: str, objects: Mapping[Ref, Manifest]) -> frozenset[str]:
    """Every place in which a component's copies can be: those elsewhere lead to no other moment than their own."""
    found = (place_of(stack, item, component, objects) for item in kept_in(component, stack.spec))
    return frozenset(filter(None, found))


def _of_logs(stack: CosStack, snapshot: Snapshot) -> Iterator[Problem]:
    """Components whose log is to be kept, and is kept back."""
    for component in stores(stack.spec):
        facts = snapshot.facts.get(component)
        if facts and facts.archive:
            yield Problem(Reason.ARCHIVING_FAILED, f"{component}: {facts.archive}")


def _of_components(stack: CosStack, snapshot: Snapshot, backups: Sequence[StackBackup]) -> Iterator[Problem]:
    missing, failed = [], []
    for component, why_not in why_no_copies(stack.spec).items():
        if why_not:
            missing.append(f"{component}: {why_not}")
            continue
        if not good_copies(stack, component, snapshot.objects, backups):
            missing.append(f"{component}: its volume has no good copy here: create a StackBackup")
        newest = _newest_end(stack, component, backups)
        if newest and newest.phase is BackupPhase.FAILED:
            failed.append(f"{component}: the newest copy failed: {newest.message}")
    ended = [item for item in backups if item.status.completion_time]
    last = max(ended, key=lambda item: item.status.completion_time or "", default=None)
    if last and last.status.phase is BackupPhase.FAILED and not last.status.components:
        failed.append(f"the newest backup failed: {last.status.message}")
    # What has gone wrong comes before what nobody has asked for yet.
    yield from (Problem(Reason.BACKUP_FAILED, text) for text in failed)
    yield from (Problem(Reason.NOT_BACKED_UP, text) for text in missing)


def _of_repositories(
    stack: CosStack, snapshot: Snapshot, backups: Sequence[StackBackup]
) -> Iterator[Problem]:
    """Repositories that the newest copy in them says something bad of."""
    for component in stores(stack.spec):
        for place in _places(stack, component, snapshot.objects):
            rows = [
                row
                for backup in backups
                for row in backup.status.components
                if row.name == component and row.place == place and row.snapshot and row.completion_time
            ]
            newest = max(rows, key=lambda row: row.completion_time or "", default=None)
            if newest and newest.maintenance_failure:
                text = f"{component}: its copies could not be looked after: {newest.maintenance_failure}"
                yield Problem(Reason.REPOSITORY_UNSOUND, text)


def _of_verification(stack: CosStack, restores: Sequence[StackRestore]) -> Iterator[Problem]:
    """The newest verification that has ended, if it found that a copy cannot be restored, or could not find out."""
    ended = [item for item in verifications(restores) if item.status.completion_time]
    newest = max(ended, key=age, default=None)
    if verification_of(stack) and newest and newest.status.phase is RestorePhase.FAILED:
        yield Problem(
            Reason.VERIFICATION_FAILED, f"{newest.metadata.name} has failed: {newest.status.message}"
        )


def _of_schedules(
    stack: CosStack, backups: Sequence[StackBackup], restores: Sequence[StackRestore], now: datetime
) -> Iterator[Problem]:
    for schedule, since in late(stack, backups, restores, now):
        what = (
            "verification: no copy was proved"
            if schedule == VERIFICATION
            else f"schedule {schedule}: no backup of it has succeeded"
        )
        yield Problem(Reason.BACKUP_LATE, f"{what} since {since:%Y-%m-%dT%H:%M:%SZ}, and two should have")


def _newest_end(stack: CosStack, component: str, backups: Sequence[StackBackup]) -> CopyStatus | None:
    """The copy of a component that ended last, of backups of this very stack."""
    rows = [
        row
        for backup in backups
        if backup.metadata.creation_timestamp >= stack.metadata.creation_timestamp
        for row in backup.status.components
        if row.name == component and row.completion_time
    ]
    return max(rows, key=lambda row: row.completion_time or "", default=None)


def _of_key(stack: CosStack, snapshot: Snapshot) -> Iterator[Problem]:
    """A generated key that is kept nowhere else, as far as anybody has said: of this very key, by a hash of it."""
    name, namespace = backup_key_secret(stack.metadata.name), stack.metadata.namespace
    if all(item.encryption_key_secret_ref for item in repositories_of(stack)):
        return
    secret = snapshot.objects.get(Ref("Secret", name)) or {"metadata": {}}
    said = (secret["metadata"].get("annotations") or {}).get(ANNOTATION_ESCROWED)
    mark = digest((secret.get("data") or {}).get(BACKUP_KEY))
    if said == mark:
        return
    yield Problem(
        Reason.KEY_NOT_ESCROWED,
        f"the key of the backups is only in Secret {name}: keep what `kubectl get secret -n {namespace} {name} -o "
        "jsonpath='{.data.key}' | base64 -d` prints outside of this cluster, then say so: "
        f"`kubectl annotate secret -n {namespace} {name} {ANNOTATION_ESCROWED}={mark} --overwrite`",
    )
