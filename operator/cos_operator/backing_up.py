"""One run for the backups and restores of one stack: read, decide, do. Jobs do what takes long."""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime

import structlog

from cos_controllers.api.backup import BackupPhase, StackBackupStatus
from cos_controllers.api.restore import StackRestoreStatus
from cos_controllers.api.stack import CosStack
from cos_controllers.backups.begin import Begin
from cos_controllers.backups.job import FETCHER, STORE
from cos_controllers.backups.plan import Plan, decide
from cos_controllers.backups.report import Progress, last_progress
from cos_controllers.backups.restore_begin import proved
from cos_controllers.backups.seen import Seen, secrets_of
from cos_controllers.components.registry import stores
from cos_controllers.halts import halted_in
from cos_controllers.jobs import end_of, is_without_pods, pods_of_job
from cos_controllers.k8s import Manifest
from cos_controllers.names import (
    LABEL_BACKED_UP_STACK,
    LABEL_SCHEDULE,
    RESTORER,
    SELECTOR_MANAGED,
    backups_selector,
    stack_selector,
)
from cos_controllers.observation import CheckTarget, ref_of
from cos_controllers.parsing import parse_backups, parse_restores
from cos_controllers.pods import container_statuses
from cos_controllers.protection import good_copies
from cos_operator import metrics, tracing
from cos_operator.engines.base import PROVISION_SECONDS, BackupClient, EngineError
from cos_operator.key import Key
from cos_operator.kube import AlreadyExists, Conflict, Forbidden, Invalid, Kube, KubeError
from cos_operator.lease import NotLeader
from cos_operator.operations import delete, in_brief, job_warnings, usable, write_status

log = structlog.stdlib.get_logger(__name__)

#: What is read of the stack's children.
_CHILDREN = ("StatefulSet", "PersistentVolumeClaim", "Pod")
#: Containers whose logs tell progress.
_TELLING = (STORE, FETCHER)
#: Lines of a Job's log among which its newest progress is.
_LOG_LINES = 5


class NotBegun(Exception):
    """A copy cannot be made yet. The queue tries again."""

    explains_itself = True


class BackupMaker:
    """Looks after the backups and restores of stacks, one call a stack.

    `targets`: the engines of a stack, none while nobody knows them; `image`: the operator's own. `recorded` hears of
    each stack of which one has ended, or which is to stop a component or to start it again.
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
        #: Why Jobs could not be made last time, by component: told in the next status.
        self._problems: dict[Key, dict[str, str]] = {}
        #: The newest backup of each schedule and the newest verification, by name: who deletes it does not want
        #: another one of its time.
        self._made: dict[Key, dict[str, str]] = {}
        #: The backups that were there at the last look.
        self._known: dict[Key, frozenset[str]] = {}

    async def __call__(self, key: Key) -> float | None:
        """Take each of them one step on. Returns the seconds until the next look, None if there is no need.

        Raises `KubeError` and `NotBegun` for what the queue shall try again.
        """
        with tracing.run("look after backups", namespace=key.namespace, stack=key.name):
            try:
                seen = await self._observe(key)
                plan = decide(seen, self._now())
                self._tell(key, seen)
                return await self._execute(key, seen, plan)
            except NotLeader:
                return None

    def _tell(self, key: Key, seen: Seen) -> None:
        """What is known of good copies, also of one that somebody has deleted the object of."""
        stack = seen.stack
        found = {
            name: copies[-1]
            for name in (stores(stack.spec) if stack else ())
            if stack and (copies := good_copies(stack, name, seen.objects, seen.backups))
        }
        metrics.set_backups(key.namespace, key.name, found, proved(seen.restores))
        for kind, items in (("StackBackup", seen.backups), ("StackRestore", seen.restores)):
            if items:
                # A first failure is one more than none only if none was told of before.
                metrics.OPERATIONS[kind].labels(key.namespace, key.name, BackupPhase.FAILED.value)
        known = frozenset(item.metadata.uid for item in seen.backups)
        if self._known.get(key, known) - known:
            self._recorded(key)
        if known:
            self._known[key] = known
        else:
            self._known.pop(key, None)

    async def _observe(self, key: Key) -> Seen:
        kube, selector, children_of = self._kube, backups_selector(key.name), stack_selector(key.name)
        raw, backups, restores, jobs, pods, children = await asyncio.gather(
            kube.get("CosStack", key.namespace, key.name),
            kube.list("StackBackup", key.namespace),
            kube.list("StackRestore", key.namespace),
            kube.list("Job", key.namespace, selector),
            kube.list("Pod", key.namespace, selector),
            asyncio.gather(*(kube.list(kind, key.namespace, children_of) for kind in _CHILDREN)),
        )
        stack, why = usable(raw)
        if stack is None:
            self._made.pop(key, None)
        lonely = [job["metadata"]["uid"] for job in jobs if is_without_pods(job, pods)]
        warnings, secrets, progress = await asyncio.gather(
            job_warnings(kube, key.namespace, lonely),
            self._secrets(stack),
            self._progress(key, jobs, pods),
        )
        return Seen(
            stack=stack,
            backups=parse_backups(key.name, backups),
            restores=parse_restores(key.name, restores),
            jobs=jobs,
            pods=pods,
            objects={ref_of(obj): obj for found in children for obj in found},
            secrets=secrets,
            progress=progress,
            image=self._image,
            why=why,
            warnings=warnings,
            problems=self._problems.get(key, {}),
            made=frozenset(self._made.get(key, {}).values()),
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
            job["metadata"]["uid"]: (pod["metadata"]["name"], container)
            for job in jobs
            if not end_of(job)
            for pod in pods_of_job(job, pods)
            if (container := _telling(pod))
        }
        logs = await asyncio.gather(*(self._log(key, *source) for source in sources.values()))
        found = {uid: last_progress(text) for uid, text in zip(sources, logs, strict=True)}
        return {uid: progress for uid, progress in found.items() if progress}

    async def _log(self, key: Key, pod: str, container: str) -> str:
        """The end of a log. One that cannot be read only tells nothing of progress: a node may be gone."""
        try:
            return await self._kube.log(key.namespace, pod, container, lines=_LOG_LINES)
        except KubeError as error:
            log.warning("log not read", pod=pod, error=str(error))
            return ""

    async def _execute(self, key: Key, seen: Seen, plan: Plan) -> float | None:
        backups = {item.metadata.name: item for item in seen.backups}
        for name, status in plan.statuses.items():
            version, before = backups[name].metadata.resource_version, backups[name].status
            await self._report("StackBackup", key, name, version, status)
            if halted_in(status) != halted_in(before):
                self._recorded(key)
        restores = {item.metadata.name: item.metadata.resource_version for item in seen.restores}
        for name, restored in plan.restored.items():
            await self._report("StackRestore", key, name, restores[name], restored)
        for job in plan.jobs:
            # The Job is gone only after its pods: until then its name keeps others from the same data.
            await delete(self._kube, "Job", key.namespace, job, "Foreground")
        problems = {claim.component: await self._write(claim.volume) for claim in plan.claims}
        problems |= {item.component: await self._begin(key, item) for item in plan.begin}
        refused = await self._by_schedule(key, plan)
        if told := {name: why for name, why in problems.items() if why}:
            self._problems[key] = told
            raise NotBegun("; ".join(f"{name}: {why}" for name, why in told.items()))
        self._problems.pop(key, None)
        if refused:
            raise NotBegun("; ".join(refused))
        return plan.again

    async def _by_schedule(self, key: Key, plan: Plan) -> list[str]:
        """What comes and goes by itself, last of all: why what could not, which keeps nothing else from being done."""
        problems = []
        doomed = [("StackBackup", item) for item in plan.backups]
        doomed += [("StackRestore", item) for item in plan.restores]
        for kind, item in doomed:
            try:
                await delete(self._kube, kind, key.namespace, item)
            except (Forbidden, Conflict) as error:
                problems.append(f"{kind} {item.name} was not deleted: {error}")
        for wanted in plan.create:
            try:
                await self._create(key, wanted)
            except (Invalid, Forbidden, Conflict) as error:
                problems.append(f"{wanted['kind']} {wanted['metadata']['name']} was refused: {error}")
        return problems

    async def _create(self, key: Key, wanted: Manifest) -> None:
        """Create what is due. One of its name, which somebody else has made, is left as it is."""
        name = wanted["metadata"]["name"]
        with contextlib.suppress(AlreadyExists):
            await self._kube.create(wanted)
            log.info("created", kind=wanted["kind"], object=name)
        self._made.setdefault(key, {})[wanted["metadata"]["labels"][LABEL_SCHEDULE]] = name

    async def _report(
        self,
        kind: str,
        key: Key,
        name: str,
        version: str,
        status: StackBackupStatus | StackRestoreStatus,
    ) -> None:
        if not await write_status(self._kube, kind, key, name, version, status):
            return
        log.info(kind, object=name, phase=status.phase.value, message=status.message)
        if status.completion_time and status.phase is not BackupPhase.EXPIRED:
            metrics.OPERATIONS[kind].labels(key.namespace, key.name, status.phase.value).inc()
            self._trace(kind, key, name, status)
            self._recorded(key)

    def _trace(self, kind: str, key: Key, name: str, status: StackBackupStatus | StackRestoreStatus) -> None:
        """A span of the run, which others made."""
        if status.start_time and status.completion_time:
            tracing.record(
                kind,
                status.start_time,
                status.completion_time,
                failed="" if status.phase == BackupPhase.SUCCEEDED else status.message,
                namespace=key.namespace,
                stack=key.name,
                object=name,
                components=len(status.components),
            )

    async def _write(self, claim: Manifest) -> str:
        """Make a volume, or say something of one: why it could not be, else ""."""
        metadata = claim["metadata"]
        name, known = metadata["name"], "uid" in metadata
        if not known and await self._kube.get("PersistentVolumeClaim", metadata["namespace"], name):
            return f"a volume {name} exists that is not the operator's: remove or rename it"
        try:
            # Without force: what has been written since it was read is not written over.
            await self._kube.apply(claim, force=False, manager=RESTORER)
        except (Invalid, Forbidden, Conflict) as error:
            return f"volume {name} was refused: {error}"
        log.info("applied", kind="PersistentVolumeClaim", object=name)
        return ""

    async def _begin(self, key: Key, begin: Begin) -> str:
        """Create a Job, for a copy once the engine lets its backup user in; else why not."""
        if begin.admit and (problem := await self._admit(key, begin)):
            return problem
        try:
            await self._kube.create(begin.job)
        except AlreadyExists:
            return f"a Job {begin.job['metadata']['name']} exists that is not the operator's: remove it"
        except (Invalid, Forbidden) as error:
            return f"its Job was refused: {error}"
        log.info("Job created", job=begin.job["metadata"]["name"])
        return ""

    async def _admit(self, key: Key, begin: Begin) -> str:
        target = next((item for item in self._targets(key) if item.component == begin.component), None)
        if target is None:
            return "it does not serve"
        if self._kube.write_guard:
            self._kube.write_guard()
        try:
            async with asyncio.timeout(PROVISION_SECONDS):
                await self._clients[target.engine].admit_backup(target)
        except TimeoutError:
            return f"the backup user was not let in within {PROVISION_SECONDS:g} s"
        except EngineError as error:
            return str(error)
        return ""


async def backed_up(kube: Kube, namespace: str | None) -> dict[Key, bool]:
    """Stacks of a namespace, or of the cluster, that have backups or restores, or a Job of one that is gone."""
    backups, restores, jobs = await asyncio.gather(
        kube.list("StackBackup", namespace, keep=in_brief),
        kube.list("StackRestore", namespace, keep=in_brief),
        kube.list("Job", namespace, f"{SELECTOR_MANAGED},{LABEL_BACKED_UP_STACK}"),
    )
    found = {Key(home, name): False for home, name in metrics.backed_up_stacks() if namespace in {None, home}}
    for item in (*backups, *restores):
        key = Key(item["metadata"]["namespace"], item["spec"]["stackRef"]["name"])
        found[key] = found.get(key, False) or not (item.get("status") or {}).get("completionTime")
    for job in jobs:
        found[Key(job["metadata"]["namespace"], job["metadata"]["labels"][LABEL_BACKED_UP_STACK])] = True
    return found


def _length(value: str) -> int:
    """Characters of what a Secret holds, without space around it; 0 if it is no text."""
    try:
        return len(base64.b64decode(value, validate=True).decode().strip())
    except (binascii.Error, UnicodeDecodeError):
        return 0


def _telling(pod: Manifest) -> str:
    """The container that runs and whose log tells progress, "" without."""
    for item in container_statuses(pod):
        if item["name"] in _TELLING and "running" in (item.get("state") or {}):
            return str(item["name"])
    return ""
