"""One run for the backups of one stack: read, decide, do. The copies themselves are made by Jobs."""

from __future__ import annotations

import asyncio
import base64
import binascii
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime

import structlog

from cos_controllers.api.backup import BackupPhase, StackBackupStatus
from cos_controllers.api.stack import CosStack
from cos_controllers.backups.begin import Begin
from cos_controllers.backups.job import CONTAINER
from cos_controllers.backups.plan import Plan, decide
from cos_controllers.backups.report import Progress, last_progress
from cos_controllers.backups.seen import Seen, secrets_of
from cos_controllers.jobs import end_of, is_without_pods, pods_of_job
from cos_controllers.k8s import Manifest
from cos_controllers.names import (
    API_VERSION,
    LABEL_BACKED_UP_STACK,
    SELECTOR_MANAGED,
    backups_selector,
    stack_selector,
)
from cos_controllers.observation import CheckTarget, ref_of
from cos_controllers.parsing import parse_backups
from cos_operator import metrics, tracing
from cos_operator.engines.base import PROVISION_SECONDS, BackupClient, EngineError
from cos_operator.key import Key
from cos_operator.kube import AlreadyExists, Kube, NotFound
from cos_operator.lease import NotLeader
from cos_operator.operations import delete, job_warnings, usable

log = structlog.stdlib.get_logger(__name__)

#: Lines of a Job's log among which its newest progress is.
_LOG_LINES = 5


class NotBegun(Exception):
    """A copy cannot be made yet. The queue tries again."""

    explains_itself = True


class BackupMaker:
    """Looks after the backups of stacks, one call a stack.

    `targets`: the engines of a stack, none while nobody knows them; `image`: the operator's own. `recorded` hears of
    each stack of which a backup has ended.
    """

    def __init__(
        self,
        kube: Kube,
        clients: Mapping[str, BackupClient],
        targets: Callable[[Key], Iterable[CheckTarget]],
        image: str,
        recorded: Callable[[Key], None] = lambda _: None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._kube = kube
        self._clients = clients
        self._targets = targets
        self._image = image
        self._recorded = recorded
        self._now = now

    async def __call__(self, key: Key) -> float | None:
        """Take each backup of the stack one step on. Returns the seconds until the next look, None if there is no need.

        Raises `KubeError` and `NotBegun` for what the queue shall try again.
        """
        with tracing.run("look after backups", namespace=key.namespace, stack=key.name):
            try:
                seen = await self._observe(key)
                plan = decide(seen, self._now())
                metrics.set_backups(key.namespace, key.name, seen.backups if seen.stack else ())
                return await self._execute(key, seen, plan)
            except NotLeader:
                return None

    async def _observe(self, key: Key) -> Seen:
        kube, selector = self._kube, backups_selector(key.name)
        raw, backups, jobs, pods, workloads, claims = await asyncio.gather(
            kube.get("CosStack", key.namespace, key.name),
            kube.list("StackBackup", key.namespace),
            kube.list("Job", key.namespace, selector),
            kube.list("Pod", key.namespace, selector),
            kube.list("StatefulSet", key.namespace, stack_selector(key.name)),
            kube.list("PersistentVolumeClaim", key.namespace, stack_selector(key.name)),
        )
        stack, why = usable(raw)
        lonely = [job["metadata"]["uid"] for job in jobs if is_without_pods(job, pods)]
        warnings, secrets, progress = await asyncio.gather(
            job_warnings(kube, key.namespace, lonely),
            self._secrets(stack),
            self._progress(key, jobs, pods),
        )
        return Seen(
            stack=stack,
            backups=parse_backups(key.name, backups),
            jobs=jobs,
            pods=pods,
            objects={ref_of(obj): obj for obj in (*workloads, *claims)},
            secrets=secrets,
            progress=progress,
            image=self._image,
            why=why,
            warnings=warnings,
        )

    async def _secrets(self, stack: CosStack | None) -> dict[str, dict[str, int]]:
        """How long each value is in the Secrets that repositories name: what is in them is for Jobs alone."""
        if stack is None:
            return {}
        names = sorted(secrets_of(stack))
        found = await asyncio.gather(
            *(self._kube.get("Secret", stack.metadata.namespace, name) for name in names)
        )
        return {
            name: {key: _length(value) for key, value in (secret.get("data") or {}).items()}
            for name, secret in zip(names, found, strict=True)
            if secret
        }

    async def _progress(
        self, key: Key, jobs: Iterable[Manifest], pods: list[Manifest]
    ) -> dict[str, Progress]:
        """How far the Jobs are whose pods run."""
        sources = {
            job["metadata"]["uid"]: pod["metadata"]["name"]
            for job in jobs
            if not end_of(job)
            for pod in pods_of_job(job, pods)
            if _stores(pod)
        }
        logs = await asyncio.gather(
            *(self._kube.log(key.namespace, pod, CONTAINER, lines=_LOG_LINES) for pod in sources.values())
        )
        found = {uid: last_progress(text) for uid, text in zip(sources, logs, strict=True)}
        return {uid: progress for uid, progress in found.items() if progress}

    async def _execute(self, key: Key, seen: Seen, plan: Plan) -> float | None:
        versions = {backup.metadata.name: backup.metadata.resource_version for backup in seen.backups}
        for name, status in plan.statuses.items():
            await self._report(key, name, versions[name], status)
        for job in plan.jobs:
            # The Job is gone only after its pods: until then its name keeps others from the same data.
            await delete(self._kube, "Job", key.namespace, job, "Foreground")
        problems = [await self._begin(key, item) for item in plan.begin]
        if any(problems):
            raise NotBegun("; ".join(filter(None, problems)))
        return plan.again

    async def _report(self, key: Key, name: str, version: str, status: StackBackupStatus) -> None:
        body = {
            "apiVersion": API_VERSION,
            "kind": "StackBackup",
            # Only of the very backup that was read: another one of its name may have come.
            "metadata": {"name": name, "namespace": key.namespace, "resourceVersion": version},
            "status": status.model_dump(by_alias=True, exclude_none=True, mode="json"),
        }
        try:
            await self._kube.apply(body, force=True, subresource="status")
        except NotFound:
            return  # it has been deleted meanwhile
        log.info("backup", backup=name, phase=status.phase.value, message=status.message)
        if status.completion_time:
            metrics.BACKUPS.labels(key.namespace, key.name, status.phase.value).inc()
            self._trace(key, name, status)
            self._recorded(key)

    def _trace(self, key: Key, name: str, status: StackBackupStatus) -> None:
        """A span of the run, which others made."""
        if status.start_time and status.completion_time:
            tracing.record(
                "StackBackup",
                status.start_time,
                status.completion_time,
                failed="" if status.phase is BackupPhase.SUCCEEDED else status.message,
                namespace=key.namespace,
                stack=key.name,
                backup=name,
                components=len(status.components),
            )

    async def _begin(self, key: Key, begin: Begin) -> str:
        """Create a Job once the engine lets its backup user in; else why not."""
        target = next((item for item in self._targets(key) if item.component == begin.component), None)
        if target is None:
            return f"{begin.component}: it does not serve"
        if self._kube.write_guard:
            self._kube.write_guard()
        try:
            async with asyncio.timeout(PROVISION_SECONDS):
                await self._clients[target.engine].admit_backup(target)
        except TimeoutError:
            return f"{begin.component}: the backup user was not let in within {PROVISION_SECONDS:g} s"
        except EngineError as error:
            return f"{begin.component}: {error}"
        try:
            await self._kube.create(begin.job)
        except AlreadyExists:
            return f"{begin.component}: a Job {begin.job['metadata']['name']} exists already"
        log.info("backup's Job created", job=begin.job["metadata"]["name"])
        return ""


async def backed_up(kube: Kube, namespace: str | None) -> dict[Key, bool]:
    """Stacks of a namespace, or of the cluster, that have backups, or a Job of one that is gone."""
    backups, jobs = await asyncio.gather(
        kube.list("StackBackup", namespace),
        kube.list("Job", namespace, f"{SELECTOR_MANAGED},{LABEL_BACKED_UP_STACK}"),
    )
    found = {Key(home, name): False for home, name in metrics.backed_up_stacks() if namespace in {None, home}}
    for backup in backups:
        key = Key(backup["metadata"]["namespace"], backup["spec"]["stackRef"]["name"])
        found[key] = found.get(key, False) or not (backup.get("status") or {}).get("completionTime")
    for job in jobs:
        found[Key(job["metadata"]["namespace"], job["metadata"]["labels"][LABEL_BACKED_UP_STACK])] = True
    return found


def _length(value: str) -> int:
    """Of what a Secret holds, in bytes; 0 if that is not base64."""
    try:
        return len(base64.b64decode(value, validate=True))
    except binascii.Error:
        return 0


def _stores(pod: Manifest) -> bool:
    """Whether the container runs whose log tells progress."""
    statuses = (pod.get("status") or {}).get("containerStatuses") or ()
    return any(item["name"] == CONTAINER and "running" in (item.get("state") or {}) for item in statuses)
