"""The running operator: watches feed the queue, the leader serves it, a resync is the net under missed hints."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version

import structlog

from cos_controllers.api.stack import CosStack
from cos_controllers.api.status import ConditionType, CosStackStatus
from cos_controllers.backups.schedules import until_due
from cos_operator import collector, fence, metrics
from cos_operator.backing_up import BackupMaker, backed_up
from cos_operator.echoes import Echoes
from cos_operator.engines.base import EngineClient
from cos_operator.engines.registry import BACKUP_CLIENTS, CLIENTS
from cos_operator.key import Key
from cos_operator.kube import Kube
from cos_operator.lease import Elector
from cos_operator.probing import Prober, probed
from cos_operator.pulse import Pulse
from cos_operator.queue import WorkQueue
from cos_operator.reconcile import Reconciler
from cos_operator.resync import Resync
from cos_operator.server import HealthServer, Verdict
from cos_operator.settings import OperatorSettings
from cos_operator.watch import Hint, Watcher

#: Longest delay until what could not be done for a probe or backup is tried again.
_OPERATION_RETRY_SECONDS = 30.0

log = structlog.stdlib.get_logger(__name__)


async def run(settings: OperatorSettings) -> None:
    """Run until SIGTERM or SIGINT. Raises `CredentialsError` if there is no way to log in."""
    collector.calm()
    metrics.register_process(version("cos-operator"))
    async with (
        Kube.connect(settings.kubeconfig, settings.context) as kube,
        # The lease has connections of its own: its renewal must not wait behind a hundred reads.
        Kube.connect(settings.kubeconfig, settings.context) as lease_kube,
    ):
        await Operator(settings, kube, lease_kube, fence=fence.arm).run()


class Operator:
    """The parts of one process, and how they hold together.

    `clients`: of each engine, by its name. `fence`: see `Elector`.
    """

    def __init__(
        self,
        settings: OperatorSettings,
        kube: Kube,
        lease_kube: Kube,
        clients: Mapping[str, EngineClient] = CLIENTS,
        *,
        fence: Callable[[float | None], None] = lambda _: None,
    ) -> None:
        self._settings = settings
        self._kube = kube
        self._clients = clients
        self._queue: WorkQueue[Key] = WorkQueue()
        self._echoes: Echoes[Key] = Echoes()
        self._resync: Resync[Key] = Resync(
            settings.namespaces or (None,),
            self._stacks,
            self._queue.add,
            settings.resync_seconds,
        )
        # Of their own: a run that waits for an engine must keep no stack waiting.
        self._probes: WorkQueue[Key] = WorkQueue(cap=_OPERATION_RETRY_SECONDS)
        self._probe_resync: Resync[Key] = Resync(
            settings.namespaces or (None,),
            partial(probed, kube),
            self._probes.add,
            settings.resync_seconds,
        )
        self._backups: WorkQueue[Key] = WorkQueue(cap=_OPERATION_RETRY_SECONDS)
        self._backup_resync: Resync[Key] = Resync(
            settings.namespaces or (None,),
            partial(backed_up, kube),
            self._backups.add,
            settings.resync_seconds,
        )
        self._settled: dict[Key, tuple[object, ...]] = {}
        self._elector = Elector(
            lease_kube,
            settings.home_namespace(),
            settings.lease_name,
            settings.identity,
            settled=kube.writes.settled,
            fence=fence,
        )
        self._watcher = Watcher(settings.namespaces, settings.kubeconfig, settings.context)
        self._health = HealthServer(
            settings.http_host,
            settings.http_port,
            live={"process": self._is_alive},
            ready={
                "api": self._api_answers,
                "watches": self._watches_are_fresh,
                "leadership": self._leadership_is_settled,
            },
            leader=lambda: self._leading,
        )
        # What a former leader has left in its queue, nobody waits for.
        metrics.QUEUE_DEPTH.set_function(lambda: self._queue.depth if self._leading else 0)
        metrics.LEADER.set_function(lambda: self._leading)

    @property
    def _leading(self) -> bool:
        return self._elector.is_leader or not self._settings.leader_elect

    async def run(self) -> None:
        """Start the parts in order; stop them in the opposite one, the lease handed back."""
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        async with self._health:
            self._watcher.start(self._hint, self._ask)
            log.info(
                "started",
                version=version("cos-operator"),
                namespaces=list(self._settings.namespaces) or "all",
            )
            try:
                await self._until(stop)
            finally:
                await self._watcher.stop()
        log.info("stopped")

    async def _until(self, stop: asyncio.Event) -> None:
        """Lead, as often as the lease allows, until `stop` is set."""
        if self._settings.leader_elect:
            self._kube.write_guard = self._elector.guard
            leading = self._elector.run(self._lead)
        else:
            leading = self._lead()
        tasks = [asyncio.create_task(leading, name="lead"), asyncio.create_task(stop.wait(), name="stop")]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _lead(self) -> None:
        """The leader's work: serve the queue and fill it with every stack there is, now and again."""
        # What another leader wrote until now may not have come to the cache that a read is answered from.
        self._kube.versions.forget()
        self._echoes.forget()
        self._settled.clear()
        self._ask()
        pulse: Pulse[Key] = Pulse(
            self._clients,
            lambda key, urgent: self._queue.add(key, urgent=urgent),
            told=lambda key, facts: metrics.set_usages(key.namespace, key.name, facts),
        )
        serve = self._queue.run(
            Reconciler(self._kube, self._clients, pulse=pulse, echoes=self._echoes, looked=self._looked),
            self._settings.workers,
            self._settings.reconcile_timeout_seconds,
        )
        probe = self._probes.run(
            Prober(self._kube, self._clients, pulse.targets, self._settings.probe_image, self._queue.add),
            self._settings.workers,
            self._settings.reconcile_timeout_seconds,
        )
        back_up = self._backups.run(
            BackupMaker(
                self._kube, BACKUP_CLIENTS, pulse.targets, self._settings.probe_image, self._queue.add
            ),
            self._settings.workers,
            self._settings.reconcile_timeout_seconds,
        )
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._resync.run())
                group.create_task(self._probe_resync.run())
                group.create_task(self._backup_resync.run())
                group.create_task(serve)
                group.create_task(probe)
                group.create_task(back_up)
                group.create_task(pulse.run())
        finally:
            # Another process tells of the stacks from now on.
            for key in metrics.stacks():
                metrics.remove_stack(*key)
            for key in metrics.probed_stacks():
                metrics.set_probes(*key, ())
            for key in metrics.backed_up_stacks():
                metrics.set_backups(*key, {})

    async def _stacks(self, namespace: str | None) -> dict[Key, bool]:
        """Every stack of a namespace, or of the cluster, and whether nobody has looked at its present spec yet."""
        found = await self._kube.list("CosStack", namespace)
        # Stacks whose deletion was not seen, too: one more run takes their metrics away.
        stacks = {Key(home, name): False for home, name in metrics.stacks() if namespace in {None, home}}
        for item in found:
            metadata, status = item["metadata"], item.get("status") or {}
            key = Key(metadata["namespace"], metadata["name"])
            stacks[key] = status.get("observedGeneration") != metadata.get("generation")
        return stacks

    def _ask(self) -> None:
        """Look at everything: nobody knows what was missed."""
        self._resync.ask()
        self._probe_resync.ask()
        self._backup_resync.ask()

    def _looked(self, key: Key, stack: CosStack, status: CosStackStatus) -> None:
        """A stack that is to be probed or backed up by itself, and has come to rest, or changed, may be due."""
        wanted, scheduled = stack.spec.probes, until_due(stack, datetime.now(UTC)) is not None
        probed = wanted.after_change or wanted.interval_seconds is not None
        if not (probed or scheduled):
            self._settled.pop(key, None)
            return
        ready = [item.status for item in status.conditions if item.type == ConditionType.READY]
        settled = (stack.metadata.generation, status.revision, *ready)
        if self._settled.get(key) != settled:
            self._settled[key] = settled
            if probed:
                self._probes.add(key)
            if scheduled:
                self._backups.add(key)

    def _hint(self, hint: Hint) -> None:
        # Who begins to lead looks at every stack, so a standby needs to remember none.
        key = Key(hint.namespace, hint.stack)
        if self._leading:
            self._kube.versions.met(hint.kind, hint.version)
            if hint.about == "StackProbe":
                self._probes.add(key)
            elif hint.about == "StackBackup":
                self._backups.add(key)
            elif not self._echoes.is_echo(key, hint.state):
                self._queue.add(key)

    async def _is_alive(self) -> Verdict:
        if self._elector.is_leader and not self._queue.running:
            return Verdict(ok=False, message="this process leads, and nobody serves the queue")
        return Verdict(ok=True, message="the event loop answers")

    async def _api_answers(self) -> Verdict:
        await self._kube.ping()
        return Verdict(ok=True, message="the API server is ready")

    async def _leadership_is_settled(self) -> Verdict:
        """A standby is ready. A process that could not lead if it had to is not."""
        if self._leading:
            return Verdict(ok=True, message="this process leads")
        problem = self._elector.problem
        return Verdict(ok=not problem, message=problem or f"standing by: {self._elector.holder} leads")

    async def _watches_are_fresh(self) -> Verdict:
        problem = self._watcher.problem()
        return Verdict(ok=not problem, message=problem or "every watch is heard")
