"""The Jobs that work on the data of one component: the engine's own tools, and restic or pgBackRest."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from cos_controllers.api.backup import CopyStatus, Repository, StackBackup
from cos_controllers.api.common import Resources
from cos_controllers.api.quantity import MI
from cos_controllers.api.restore import StackRestore
from cos_controllers.api.stack import CosStack, EngineSpec
from cos_controllers.backups.order import (
    DATA_DIR,
    FACTS_FILE,
    LOGIN_DIR,
    VARIABLES,
    WORK_DIR,
    Fetch,
    Find,
    Order,
    Tidy,
    Tool,
)
from cos_controllers.components.base import Copied, Dump, Dumper
from cos_controllers.components.parts import env, mount, requirements, scratch
from cos_controllers.components.repository import SECRET_MODE, of_repository
from cos_controllers.jobs import OPERATOR_UID, Work, job_of_work
from cos_controllers.k8s import (
    Manifest,
    V1Container,
    V1EphemeralVolumeSource,
    V1PersistentVolumeClaimSpec,
    V1PersistentVolumeClaimTemplate,
    V1PersistentVolumeClaimVolumeSource,
    V1ResourceRequirements,
    V1SecretVolumeSource,
    V1SecurityContext,
    V1Volume,
    V1VolumeMount,
    V1VolumeResourceRequirements,
)
from cos_controllers.mounts import TARGET_DIR
from cos_controllers.names import (
    backup_job,
    backup_labels,
    backup_secret,
    child_name,
    selector_labels,
)
from cos_controllers.places import location, region
from cos_controllers.pods import claim_of

M = TypeVar("M", bound=BaseModel)

#: The container of the engine that reads its data.
DUMP = "dump"
#: The containers whose reports count, and the one that fetches a copy.
STORE = "store"
TIDIER = "tidy"
FINDER = "find"
LOAD = "load"
FETCHER = "fetch"
#: What restic holds on its way: packs of 16 MiB, a few at a time.
_SCRATCH = "512Mi"
_SHARED = (
    mount("work", WORK_DIR, read_only=False),
    mount("tmp", "/tmp", read_only=False),  # noqa: S108 - of the container
)


def job_of_copy(
    stack: CosStack,
    backup: StackBackup,
    repository: Repository,
    order: Order,
    dumper: Dumper,
    dump: Dump,
    *,
    template: Manifest,
    image: str,
    tidy: Tidy | None = None,
) -> Manifest:
    """The Job that copies, and then tidies up. `template`: of the engine's pod; `image`: the operator's own."""
    instance = child_name(stack.metadata.name, order.component)
    volumes, mounts = of_repository(stack.metadata.name, repository, instance)
    given = [
        *(() if dumper.offline else (mount("login", LOGIN_DIR),)),
        *([mount("source", dump.source, read_only=not dumper.offline)] if dump.source else []),
    ]
    uid, steps = _uid_with(dumper), []
    if dump.container:
        known = [*(dump.container.env or ()), *env(DATA=DATA_DIR, FACTS=FACTS_FILE)]
        known += [] if dumper.offline else env(LOGIN=LOGIN_DIR)
        update = {"env": known, "volume_mounts": [*_SHARED, *given]}
        steps.append(_of_engine(dump.container, stack, template).model_copy(update=update))
        given = []
    steps.append(_of_operator(STORE, "backup", image, stack, order, [*mounts, *given], uid))
    if tidy:
        # Apart, so that whatever becomes of it the copy is stored.
        steps.append(_of_operator(TIDIER, "tidy", image, stack, tidy, mounts, uid))
    login = V1SecretVolumeSource(secret_name=backup_secret(instance), default_mode=SECRET_MODE)
    job = job_of_work(
        stack,
        Work(
            name=backup_job(instance),
            labels=backup_labels(
                stack.metadata.name, order.component, backup.metadata.name, backup.metadata.uid
            ),
            uid=OPERATOR_UID,
            # As in a restore: kubelet gives all of a repository to another group whenever that changes.
            group=dumper.uid,
            # Each of them ends by itself within it.
            limit=2 * order.limit + (tidy.limit if tidy else 0),
            containers=(steps[-1],),
            init_containers=tuple(steps[:-1]),
            volumes=(
                *_scratches(dump.size),
                *(() if dumper.offline else (V1Volume(name="login", secret=login),)),
                *(_source(template, read_only=not dumper.offline) if dump.source else ()),
                *volumes,
            ),
        ),
    )
    placed = _placed(job, template)
    # Where nobody runs, the volume itself says which nodes may mount it.
    if not dump.source or dumper.offline:
        return placed
    return beside(placed, stack, order.component, order.engine)


def job_of_restore(
    stack: CosStack,
    restore: StackRestore,
    repository: Repository,
    copy: CopyStatus,
    *,
    volume: V1Volume,
    spec: EngineSpec,
    dumper: Dumper,
    template: Manifest,
    image: str,
) -> Manifest:
    """The Job that fills a volume (`kept` or `thrown_away`): restic fetches the copy, the engine's own tools load it.

    `template` and `image` as for `job_of_copy`.
    """
    instance, limit = child_name(stack.metadata.name, copy.name), restore.spec.active_deadline_seconds
    volumes, mounts = of_repository(stack.metadata.name, repository, instance)
    place, signed_for = location(repository, copy.path), region(repository)
    folder = dumper.folder(spec)
    order = Fetch(
        tool=tool_of(dumper),
        repository=place,
        region=signed_for,
        snapshot=copy.snapshot,
        sha256=copy.sha256,
        limit=limit,
        lineage=copy.lineage,
        folder=f"{TARGET_DIR}/{folder}" if folder else "",
    )
    target = mount("target", TARGET_DIR, read_only=False)
    fetched_to = [*mounts, target] if folder else mounts
    fetch = _of_operator(FETCHER, "restore", image, stack, order, fetched_to, _uid_with(dumper))
    asked = restore.spec.sql
    if asked and asked.component not in {"", copy.name}:
        asked = None
    known = Copied(
        entries=copy.entries or 0,
        sha256=copy.sha256,
        lineage=copy.lineage,
        repository=place,
        region=signed_for,
        until=restore.spec.point_in_time,
        run=asked.run if asked else "",
        check=asked.check if asked else "",
    )
    container = dumper.load(instance, spec, known, limit)
    load = _of_engine(container, stack, template).model_copy(
        update={
            "env": [*(container.env or ()), *env(DATA=DATA_DIR, TARGET=TARGET_DIR)],
            # Its log is fetched as it is needed.
            "volume_mounts": [*_SHARED, target, *(mounts if dumper.keeps_log else ())],
        }
    )
    # As large as the copy, and its manifest.
    size = _SCRATCH if folder else f"{(copy.bytes or 0) // MI + 2}Mi"
    job = job_of_work(
        stack,
        Work(
            name=backup_job(instance),
            labels=backup_labels(stack.metadata.name, copy.name, restore.metadata.name, restore.metadata.uid),
            # What it writes is the engine's.
            uid=dumper.uid,
            limit=2 * limit,
            containers=(load,),
            init_containers=(fetch,),
            volumes=(
                *_scratches(size),
                volume,
                *volumes,
            ),
        ),
    )
    return _placed(job, template)


def kept(claim: str) -> V1Volume:
    """A volume that a restore fills and that stays."""
    source = V1PersistentVolumeClaimVolumeSource(claim_name=claim)
    return V1Volume(name="target", persistent_volume_claim=source)


def thrown_away(claim: Manifest) -> V1Volume:
    """A volume like a claim, which goes with the Job's pod."""
    spec = claim["spec"]
    template = V1PersistentVolumeClaimTemplate(
        spec=V1PersistentVolumeClaimSpec(
            access_modes=spec["accessModes"],
            resources=V1VolumeResourceRequirements(requests=spec["resources"]["requests"]),
            storage_class_name=spec.get("storageClassName"),
        )
    )
    return V1Volume(name="target", ephemeral=V1EphemeralVolumeSource(volume_claim_template=template))


def job_of_search(
    stack: CosStack,
    restore: StackRestore,
    repository: Repository,
    component: str,
    find: Find,
    dumper: Dumper,
    *,
    template: Manifest,
    image: str,
) -> Manifest:
    """The Job that says which copies of a component a repository has. `template` and `image` as for `job_of_copy`."""
    instance = child_name(stack.metadata.name, component)
    volumes, mounts = of_repository(stack.metadata.name, repository, instance)
    metadata = restore.metadata
    job = job_of_work(
        stack,
        Work(
            name=backup_job(instance),
            labels=backup_labels(stack.metadata.name, component, metadata.name, metadata.uid),
            uid=OPERATOR_UID,
            # As in a copy.
            group=dumper.uid,
            limit=find.limit,
            containers=(_of_operator(FINDER, "find", image, stack, find, mounts, _uid_with(dumper)),),
            volumes=(*_scratches(_SCRATCH), *volumes),
        ),
    )
    return _placed(job, template)


def tool_of(dumper: Dumper) -> Tool:
    """What keeps the copies of an engine."""
    return Tool.PGBACKREST if dumper.keeps_log else Tool.RESTIC


def _uid_with(dumper: Dumper) -> int:
    """Who works with a repository: where the engine writes to it too, and its data is read as it lies, the engine."""
    return dumper.uid if dumper.keeps_log else OPERATOR_UID


def is_search(job: Manifest) -> bool:
    """Whether a Job only says which copies there are."""
    return any(item["name"] == FINDER for item in job["spec"]["template"]["spec"]["containers"])


def told(job: Manifest | None, model: type[M]) -> M | None:
    """What a Job was told to do of this kind; None if it was not."""
    spec = job["spec"]["template"]["spec"] if job else {}
    for container in (*(spec.get("initContainers") or ()), *(spec.get("containers") or ())):
        for item in container.get("env") or ():
            if item["name"] == VARIABLES[model]:
                # Of another version it may be another order.
                with contextlib.suppress(ValidationError):
                    return model.model_validate_json(item.get("value") or "")
    return None


def _resources(stack: CosStack) -> Resources:
    return stack.spec.backup.resources if stack.spec.backup else Resources()


def _placed(job: Manifest, template: Manifest) -> Manifest:
    """A Job whose pod may go where the engine's pod may: a volume that it binds must be of use there."""
    pod, like = job["spec"]["template"], template["spec"]
    where = {key: like[key] for key in ("nodeSelector", "tolerations", "affinity") if like.get(key)}
    placed = pod | {"spec": pod["spec"] | where}
    return job | {"spec": job["spec"] | {"template": placed}}


def beside(job: Manifest, stack: CosStack, component: str, engine: str) -> Manifest:
    """A Job whose pod runs where the engine's does, whatever else that one is to be near to or far from.

    Its volume may be one that a single node mounts.
    """
    labels = selector_labels(stack.metadata.name, component, engine)
    near = {"labelSelector": {"matchLabels": labels}, "topologyKey": "kubernetes.io/hostname"}
    pod = job["spec"]["template"]
    affinity = {"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [near]}}
    placed = pod | {"spec": pod["spec"] | {"affinity": affinity}}
    return job | {"spec": job["spec"] | {"template": placed}}


def _source(template: Manifest, *, read_only: bool) -> tuple[V1Volume]:
    """The data volume of the engine's pod. Read-only, nobody here gives it to another group or label either."""
    claim = V1PersistentVolumeClaimVolumeSource(
        claim_name=claim_of(template) or "", read_only=True if read_only else None
    )
    return (V1Volume(name="source", persistent_volume_claim=claim),)


def _of_engine(container: V1Container, stack: CosStack, template: Manifest) -> V1Container:
    # Its tools need what the engine may, if they hold its values or run the engine itself. Of the processor they get
    # what others leave, by their request: that is what shares go by where there is not enough.
    engine = V1ResourceRequirements(**template["spec"]["containers"][0].get("resources") or {})
    found = container.resources or engine
    cpu = _resources(stack).requests.cpu
    requests = {**(found.requests or {}), **({"cpu": cpu} if cpu else {})}
    return container.model_copy(
        update={
            "image": template["spec"]["containers"][0]["image"],
            "image_pull_policy": stack.spec.images.pull_policy.value,
            "resources": V1ResourceRequirements(requests=requests or None, limits=found.limits),
        }
    )


def _of_operator(
    name: str,
    command: str,
    image: str,
    stack: CosStack,
    order: BaseModel,
    mounts: Sequence[V1VolumeMount],
    uid: int,
) -> V1Container:
    """A container that carries out an order with a repository."""
    return V1Container(
        name=name,
        image=image,
        image_pull_policy="IfNotPresent",
        args=[command],
        env=env(**{VARIABLES[type(order)]: order.model_dump_json()}),
        volume_mounts=[*_SHARED, *mounts],
        resources=requirements(_resources(stack)),
        # Whoever the pod is otherwise: what it has written into a repository is its own.
        security_context=V1SecurityContext(run_as_user=uid),
    )


def _scratches(size: str) -> tuple[V1Volume, V1Volume]:
    """What the two containers share: the data on its way, and room for what they need besides."""
    return scratch("work", size), scratch("tmp", _SCRATCH)
