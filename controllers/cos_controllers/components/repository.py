"""A repository of backups as a pod sees it."""

from __future__ import annotations

from cos_controllers.api.backup import Repository
from cos_controllers.components.parts import mount
from cos_controllers.hashing import digest
from cos_controllers.k8s import (
    V1KeyToPath,
    V1PersistentVolumeClaimVolumeSource,
    V1ProjectedVolumeSource,
    V1SecretProjection,
    V1SecretVolumeSource,
    V1Volume,
    V1VolumeMount,
    V1VolumeProjection,
    manifest,
)
from cos_controllers.mounts import AUTHORITY, BACKUP_KEY, CREDENTIALS_DIR, KEY_DIR, REPOSITORY_DIR, S3_KEYS
from cos_controllers.names import backup_claim, backup_key_secret

#: Readable by the group that owns the pod's volumes, and by nobody else.
SECRET_MODE = 0o440


def key_secret(stack: str, repository: Repository) -> str:
    """Name of the Secret whose key `key` encrypts a repository of a stack."""
    reference = repository.encryption_key_secret_ref
    return reference.name if reference else backup_key_secret(stack)


def of_repository(
    stack: str, repository: Repository, instance: str, *, optional: bool = False
) -> tuple[tuple[V1Volume, ...], tuple[V1VolumeMount, ...]]:
    """What a pod of an instance needs to reach a repository and to read it.

    `optional`: whether it starts without the Secrets, and finds out when it needs them.
    """
    secret = V1SecretVolumeSource(
        secret_name=key_secret(stack, repository),
        items=[V1KeyToPath(key=BACKUP_KEY, path=BACKUP_KEY)],
        default_mode=SECRET_MODE,
        optional=optional or None,
    )
    key, at = V1Volume(name="key", secret=secret), mount("key", KEY_DIR)
    if repository.s3 is None:
        claim = V1PersistentVolumeClaimVolumeSource(claim_name=backup_claim(instance, repository.name))
        volume = V1Volume(name="repository", persistent_volume_claim=claim)
        return (key, volume), (at, mount("repository", REPOSITORY_DIR, read_only=False))
    held = V1ProjectedVolumeSource(
        default_mode=SECRET_MODE,
        sources=[
            _keys_of(repository.s3.credentials_secret_ref.name, *S3_KEYS, optional=optional),
            _keys_of(repository.s3.credentials_secret_ref.name, AUTHORITY, optional=True),
        ],
    )
    return (key, V1Volume(name="credentials", projected=held)), (at, mount("credentials", CREDENTIALS_DIR))


def _keys_of(secret: str, *keys: str, optional: bool = False) -> V1VolumeProjection:
    """These keys of a Secret as files, and no others."""
    items = [V1KeyToPath(key=key, path=key) for key in keys]
    return V1VolumeProjection(secret=V1SecretProjection(name=secret, items=items, optional=optional))


def mounted(stack: str, repository: Repository, instance: str) -> str:
    """A hash of what a pod of an instance mounts of a repository, which no running pod can change."""
    volumes, _ = of_repository(stack, repository, instance, optional=True)
    return digest([manifest(volume) for volume in volumes])
