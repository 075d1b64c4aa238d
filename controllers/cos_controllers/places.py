"""Where backups are: what tells one repository from another, whatever a stack calls it."""

from __future__ import annotations

from collections.abc import Mapping

from cos_controllers.api.backup import Repository
from cos_controllers.api.stack import CosStack
from cos_controllers.k8s import Manifest
from cos_controllers.mounts import REPOSITORY_DIR
from cos_controllers.names import backup_claim, child_name
from cos_controllers.observation import Ref


def repositories_of(stack: CosStack) -> list[Repository]:
    """The repositories of a stack; none without `spec.backup`."""
    return stack.spec.backup.repositories if stack.spec.backup else []


def place_of(stack: CosStack, repository: Repository, component: str, objects: Mapping[Ref, Manifest]) -> str:
    """Endpoint, bucket and prefix, or the UID of the claim; "" while there is none.

    A claim that was lost and made anew is another place: nothing is in it.
    """
    if s3 := repository.s3:
        return "/".join(filter(None, (s3.endpoint, s3.bucket, s3.prefix)))
    name = backup_claim(child_name(stack.metadata.name, component), repository.name)
    claim = objects.get(Ref("PersistentVolumeClaim", name)) or {}
    return str((claim.get("metadata") or {}).get("uid") or "")


def path_of(namespace: str, stack: str, component: str) -> str:
    """Where the copies of a component are, in whatever repository."""
    return f"{namespace}/{stack}/{component}"


def location(repository: Repository, path: str) -> str:
    """A place in a repository as restic is told it."""
    if repository.s3 is None:
        return f"{REPOSITORY_DIR}/{path}"
    s3 = repository.s3
    return "/".join(filter(None, (f"s3:{s3.endpoint}", s3.bucket, s3.prefix, path)))


def region(repository: Repository) -> str:
    """The region that requests are signed for, "" for a volume."""
    return repository.s3.region if repository.s3 else ""
