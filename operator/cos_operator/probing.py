"""One run for the probes of one stack: read, decide, do. The load itself is made by Jobs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterable, Mapping
from datetime import UTC, datetime

import structlog

from cos_controllers.api.probe import ProbePhase, StackProbeStatus
from cos_controllers.jobs import is_without_pods
from cos_controllers.k8s import Manifest
from cos_controllers.names import LABEL_PROBED_STACK, SELECTOR_MANAGED, probes_selector
from cos_controllers.observation import CheckTarget
from cos_controllers.parsing import parse_probes
from cos_controllers.probes.life import ended
from cos_controllers.probes.plan import Plan, decide
from cos_controllers.probes.seen import Seen
from cos_controllers.samples import measured_of
from cos_operator import metrics, tracing
from cos_operator.engines.base import TIDY_SECONDS, EngineClient, EngineError
from cos_operator.key import Key
from cos_operator.kube import AlreadyExists, Forbidden, Invalid, Kube, NotFound, PreconditionFailed
from cos_operator.lease import NotLeader
from cos_operator.operations import delete, in_brief, job_warnings, usable, write_status

log = structlog.stdlib.get_logger(__name__)


class Untidied(Exception):
    """What a probe left could not be removed yet. The queue tries again."""

    explains_itself = True


class Prober:
    """Looks after the probes of stacks, one call a stack.

    `targets`: the engines of a stack, none while nobody knows them; `image`: what makes load. `measured` hears of each
    stack of which a probe has ended.
    """

    def __init__(
        self,
        kube: Kube,
        clients: Mapping[str, EngineClient],
        targets: Callable[[Key], Iterable[CheckTarget]],
        image: str,
        measured: Callable[[Key], None] = lambda _: None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._kube = kube
        self._clients = clients
        self._targets = targets
        self._image = image
        self._measured = measured
        self._now = now

    async def __call__(self, key: Key) -> float | None:
        """Take each probe of the stack one step on. Returns the seconds until the next look, None if there is no need.

        Raises `KubeError` and `Untidied` for what the queue shall try again.
        """
        with tracing.run("look after probes", namespace=key.namespace, stack=key.name):
            try:
                seen = await self._observe(key)
                plan = decide(seen, self._now())
                # Of a stack that is gone nothing is told, whatever people have kept of it.
                told = measured_of(seen.stack, seen.probes) if seen.stack else ()
                metrics.set_probes(key.namespace, key.name, list(told))
                return await self._execute(key, seen, plan)
            except NotLeader:
                return None

    async def _observe(self, key: Key) -> Seen:
        selector = probes_selector(key.name)
        raw, probes, jobs, pods = await asyncio.gather(
            self._kube.get("CosStack", key.namespace, key.name),
            self._kube.list("StackProbe", key.namespace),
            self._kube.list("Job", key.namespace, selector),
            self._kube.list("Pod", key.namespace, selector),
        )
        stack, why = usable(raw)
        lonely = [job["metadata"]["uid"] for job in jobs if is_without_pods(job, pods)]
        warnings = await job_warnings(self._kube, key.namespace, lonely)
        return Seen(stack, parse_probes(key.name, probes), jobs, pods, self._image, why, warnings)

    async def _execute(self, key: Key, seen: Seen, plan: Plan) -> float | None:
        versions = {probe.metadata.name: probe.metadata.resource_version for probe in seen.probes}
        for name, status in plan.statuses.items():
            await self._report(key, name, versions[name], status)
        for name, uid in plan.suspend:
            await self._suspend(key, name, uid)
        problems = await self._tidy(key, plan.tidy)
        if plan.job and not problems:
            await self._begin(key, plan.job, seen)
        for job, components in plan.clear:
            left = await self._tidy(key, components)
            if not left:
                await delete(self._kube, "Job", key.namespace, job)
            problems += left
        if plan.create:
            await self._create(plan.create)
        for probe in plan.probes:
            await delete(self._kube, "StackProbe", key.namespace, probe)
        if problems:
            raise Untidied("; ".join(problems))
        return plan.again

    async def _report(self, key: Key, name: str, version: str, status: StackProbeStatus) -> None:
        if not await write_status(self._kube, "StackProbe", key, name, version, status):
            return
        log.info("probe", probe=name, phase=status.phase.value, message=status.message)
        if status.completion_time:
            metrics.PROBES.labels(key.namespace, key.name, status.phase.value).inc()
            self._trace(key, name, status)
            self._measured(key)

    def _trace(self, key: Key, name: str, status: StackProbeStatus) -> None:
        """A span of the run, which others made."""
        if status.start_time and status.completion_time:
            tracing.record(
                "StackProbe",
                status.start_time,
                status.completion_time,
                failed="" if status.phase is ProbePhase.SUCCESSFUL else status.message or status.phase.value,
                namespace=key.namespace,
                stack=key.name,
                probe=name,
                phase=status.phase.value,
                checks=len(status.checks),
            )

    async def _suspend(self, key: Key, name: str, uid: str) -> None:
        body = {
            "apiVersion": "batch/v1",
            "kind": "Job",
            "metadata": {"name": name, "namespace": key.namespace},
            "spec": {"suspend": True},
        }
        try:
            await self._kube.apply(body, force=True, precondition_uid=uid)
        except (NotFound, PreconditionFailed):
            return
        log.info("stopped a probe's Job that nobody waits for", job=name)

    async def _tidy(self, key: Key, components: Collection[str]) -> list[str]:
        """What kept it from being done, nothing if it was done in every component."""
        known = {target.component: target for target in self._targets(key)}
        if components and self._kube.write_guard:
            self._kube.write_guard()
        targets = [known[component] for component in components if component in known]
        done = await asyncio.gather(*map(self._tidy_one, targets))
        missing = [f"{component}: it does not serve" for component in components if component not in known]
        return [*missing, *filter(None, done)]

    async def _tidy_one(self, target: CheckTarget) -> str:
        try:
            async with asyncio.timeout(TIDY_SECONDS):
                await self._clients[target.engine].tidy(target)
        except TimeoutError:
            return f"{target.component}: not cleared within {TIDY_SECONDS:g} s"
        except EngineError as error:
            return f"{target.component}: {error}"
        return ""

    async def _begin(self, key: Key, job: Manifest, seen: Seen) -> None:
        name = job["metadata"]["name"]
        try:
            await self._kube.create(job)
        except AlreadyExists:
            ours = await self._kube.list("Job", key.namespace, probes_selector(key.name))
            if any(found["metadata"]["name"] == name for found in ours):
                return
            await self._refuse(
                key, seen, name, f"a Job {name} exists that is not the operator's: choose another name"
            )
        except (Invalid, Forbidden) as error:
            await self._refuse(key, seen, name, f"its Job was refused: {error}")
        else:
            log.info("probe's Job created", job=name)

    async def _refuse(self, key: Key, seen: Seen, name: str, message: str) -> None:
        probe = next(probe for probe in seen.probes if probe.metadata.name == name)
        version = probe.metadata.resource_version
        await self._report(key, name, version, ended(probe, ProbePhase.ERROR, message, self._now()))

    async def _create(self, probe: Manifest) -> None:
        try:
            await self._kube.create(probe)
        except AlreadyExists:
            return
        log.info("probe created", probe=probe["metadata"]["name"])


async def probed(kube: Kube, namespace: str | None) -> dict[Key, bool]:
    """Stacks of a namespace, or of the cluster, that have probes, or a Job of one that is gone."""
    probes, jobs = await asyncio.gather(
        kube.list("StackProbe", namespace, keep=in_brief),
        kube.list("Job", namespace, f"{SELECTOR_MANAGED},{LABEL_PROBED_STACK}"),
    )
    found = {Key(home, name): False for home, name in metrics.probed_stacks() if namespace in {None, home}}
    for probe in probes:
        key = Key(probe["metadata"]["namespace"], probe["spec"]["stackRef"]["name"])
        found[key] = found.get(key, False) or not (probe.get("status") or {}).get("completionTime")
    for job in jobs:
        found[Key(job["metadata"]["namespace"], job["metadata"]["labels"][LABEL_PROBED_STACK])] = True
    return found
