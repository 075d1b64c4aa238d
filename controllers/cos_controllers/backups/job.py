"""The Job that copies the data of one component: the engine's own tool writes a file, restic carries it off."""

from __future__ import annotations

from cos_controllers.api.backup import Repository, StackBackup
from cos_controllers.api.common import Resources
from cos_controllers.api.stack import CosStack
from cos_controllers.backups.order import (
    CREDENTIALS_DIR,
    DATA_DIR,
    FACTS_FILE,
    KEY_DIR,
    ORDER,
    REPOSITORY_DIR,
    WORK_DIR,
    Order,
)
from cos_controllers.components.base import Dump
from cos_controllers.components.parts import env, mount, requirements, scratch
from cos_controllers.jobs import OPERATOR_UID, Work, job_of_work
from cos_controllers.k8s import (
    Manifest,
    V1Container,
    V1EnvVar,
    V1KeyToPath,
    V1PersistentVolumeClaimVolumeSource,
    V1SecretVolumeSource,
    V1Volume,
    V1VolumeMount,
)
from cos_controllers.names import (
    backup_claim,
    backup_job,
    backup_key_secret,
    backup_labels,
    backup_secret,
    child_name,
)
from cos_controllers.resolve import BACKUP_KEY

#: The container whose report counts.
CONTAINER = "store"
_LOGIN_DIR = "/login"
#: What restic holds on its way: packs of 16 MiB, a few at a time.
_SCRATCH = "512Mi"
#: Readable by the group that owns the pod's volumes, and by nobody else.
_MODE = 0o440


def key_secret(stack: CosStack, repository: Repository) -> str:
    """Name of the Secret whose key `key` encrypts a repository."""
    reference = repository.encryption_key_secret_ref
    return reference.name if reference else backup_key_secret(stack.metadata.name)


def path_of(stack: CosStack, component: str, lineage: str) -> str:
    """Where the copies of a component's volume are, in whatever repository."""
    return f"{stack.metadata.namespace}/{stack.metadata.name}/{component}/{lineage}"


def location(repository: Repository, path: str) -> str:
    """A place in a repository as restic is told it."""
    if repository.s3 is None:
        return f"{REPOSITORY_DIR}/{path}"
    s3 = repository.s3
    return "/".join(filter(None, (f"s3:{s3.endpoint}", s3.bucket, s3.prefix, path)))


def job_of_copy(
    stack: CosStack,
    backup: StackBackup,
    repository: Repository,
    order: Order,
    dump: Dump,
    images: tuple[str, str],
    resources: Resources,
) -> Manifest:
    """The Job. `images`: the engine's that runs, and the operator's own."""
    instance = child_name(stack.metadata.name, order.component)
    work, tmp = mount("work", WORK_DIR, read_only=False), mount("tmp", "/tmp", read_only=False)  # noqa: S108 - of the container
    engine = dump.container.model_copy(
        update={
            "image": images[0],
            "image_pull_policy": stack.spec.images.pull_policy.value,
            "env": [
                *(dump.container.env or ()),
                *env(DATA=DATA_DIR, FACTS=FACTS_FILE, LOGIN=_LOGIN_DIR),
            ],
            "resources": requirements(resources),
            "volume_mounts": [work, tmp, mount("login", _LOGIN_DIR)],
        }
    )
    volumes, mounts = _of_repository(repository, instance)
    store = V1Container(
        name=CONTAINER,
        image=images[1],
        image_pull_policy="IfNotPresent",
        args=["backup"],
        env=[V1EnvVar(name=ORDER, value=order.model_dump_json())],
        resources=requirements(resources),
        volume_mounts=[work, tmp, mount("key", KEY_DIR), *mounts],
    )
    key = V1SecretVolumeSource(
        secret_name=key_secret(stack, repository),
        items=[V1KeyToPath(key=BACKUP_KEY, path=BACKUP_KEY)],
        default_mode=_MODE,
    )
    login = V1SecretVolumeSource(secret_name=backup_secret(instance), default_mode=_MODE)
    return job_of_work(
        stack,
        Work(
            name=backup_job(instance),
            labels=backup_labels(
                stack.metadata.name, order.component, backup.metadata.name, backup.metadata.uid
            ),
            uid=OPERATOR_UID,
            # Each of the two ends by itself within it.
            limit=2 * order.limit,
            containers=(store,),
            init_containers=(engine,),
            volumes=(
                scratch("work", dump.size),
                scratch("tmp", _SCRATCH),
                V1Volume(name="login", secret=login),
                V1Volume(name="key", secret=key),
                *volumes,
            ),
        ),
    )


def _of_repository(
    repository: Repository, instance: str
) -> tuple[tuple[V1Volume, ...], tuple[V1VolumeMount, ...]]:
    """What a pod needs to reach a repository."""
    if repository.s3 is None:
        claim = V1PersistentVolumeClaimVolumeSource(claim_name=backup_claim(instance, repository.name))
        volume = V1Volume(name="repository", persistent_volume_claim=claim)
        return (volume,), (mount("repository", REPOSITORY_DIR, read_only=False),)
    secret = V1SecretVolumeSource(secret_name=repository.s3.credentials_secret_ref.name, default_mode=_MODE)
    return (V1Volume(name="credentials", secret=secret),), (mount("credentials", CREDENTIALS_DIR),)
