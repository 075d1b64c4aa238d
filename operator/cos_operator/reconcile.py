"""One run for one stack: read, decide, do, report. Every exit writes what is known."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from functools import partial
from typing import TypeVar

import structlog

from cos_controllers.api.metadata import Metadata
from cos_controllers.api.stack import CosStack
from cos_controllers.api.status import CosStackStatus, Reason
from cos_controllers.conditions import (
    Notice,
    refused_status,
    rolled_back,
    turned,
    unknown_status,
    with_refusals,
)
from cos_controllers.k8s import Manifest
from cos_controllers.names import API_VERSION, MANAGER
from cos_controllers.parsing import InvalidStack, parse_stack
from cos_controllers.plan import WHEN_STUCK, decide
from cos_operator import metrics, tracing
from cos_operator.echoes import Echoes, state
from cos_operator.engines.base import EngineClient
from cos_operator.execute import execute
from cos_operator.key import Key
from cos_operator.kube import Kube, KubeError
from cos_operator.lease import NotLeader
from cos_operator.observe import children, observe
from cos_operator.pulse import Pulse

log = structlog.stdlib.get_logger(__name__)

T = TypeVar("T")


class Reconciler:
    """Brings stacks to their spec, one call a stack.

    `pulse` is told which engines to go on asking, `echoes` as what each stack is left, `looked` of each stack that was
    looked at, with the status that it is left with.
    """

    def __init__(
        self,
        kube: Kube,
        clients: Mapping[str, EngineClient],
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        pulse: Pulse[Key] | None = None,
        echoes: Echoes[Key] | None = None,
        looked: Callable[[Key, CosStack, CosStackStatus], None] = lambda *_: None,
    ) -> None:
        self._kube = kube
        self._clients = clients
        self._now = now
        self._pulse = pulse or Pulse(clients, lambda _, __: None)
        self._echoes: Echoes[Key] = echoes or Echoes()
        self._looked = looked

    async def __call__(self, key: Key) -> float | None:
        """Reconcile once. Returns the seconds until the next look, None for a stack that is gone.

        Raises `KubeError` for what the queue shall try again with backoff.
        """
        began = time.monotonic()
        result = "error"
        context = {"namespace": key.namespace, "stack": key.name, "reconcile": secrets.token_hex(4)}
        try:
            with tracing.run("reconcile", **context):
                again = await self._reconcile(key)
            result = "ok"
        except NotLeader:
            result = "not_leader"
            return None
        finally:
            metrics.RECONCILES.labels(result).inc()
            metrics.RECONCILE_SECONDS.labels(result).observe(time.monotonic() - began)
            if result != "not_leader":
                metrics.set_failing(key.namespace, key.name, failing=result == "error")
        return again

    async def _reconcile(self, key: Key) -> float | None:
        # Side by side: nothing that is decided rests on which of the two was read first.
        raw, objects = await asyncio.gather(
            self._kube.get_known("CosStack", key.namespace, key.name),
            _or_error(children(self._kube, key.namespace, key.name)),
        )
        if raw is None or raw["metadata"].get("deletionTimestamp"):
            # Deletion needs nothing of us: the garbage collector follows owner references.
            metrics.remove_stack(key.namespace, key.name)
            self._pulse.forget(key)
            self._echoes.forget(key)
            return None
        try:
            stack = parse_stack(raw)
        except InvalidStack as error:
            status = refused_status(error.stack, Reason.INVALID_SPEC, str(error), self._now())
            await self._report(error.stack, raw, status)
            self._pulse.forget(key)
            metrics.set_usages(*key, {})
            return None
        try:
            if isinstance(objects, KubeError):
                raise objects
            with tracing.step("observe"):
                known = partial(self._pulse.known, key)
                seen = await observe(self._kube, stack, objects, self._pulse.asker, known)
        except KubeError as error:
            await self._report(stack, raw, unknown_status(stack, str(error), self._now()))
            raise
        with tracing.step("decide"):
            decided = decide(stack, seen.resolution, seen.snapshot, self._now())
        gates = {row.name: row.gates for row in decided.status.components}
        self._pulse.follow(key, decided.targets, seen.snapshot.checks, gates)
        with tracing.step("execute", applies=len(decided.applies), deletes=len(decided.deletes)):
            outcome = await execute(self._kube, key.namespace, decided, self._clients)
        status = with_refusals(stack, decided.status, outcome.refusals, self._now())
        await self._report(stack, raw, status)
        self._looked(key, stack, status)
        for row in rolled_back(stack, status):
            metrics.ROLLBACKS.labels(key.namespace, key.name, row.name).inc()
        for notice in (*decided.notices, *turned(stack, status)):
            await self._notify(stack, notice)
        if outcome.failure:
            raise outcome.failure
        return WHEN_STUCK if outcome.refusals else decided.requeue_after

    async def _report(self, stack: CosStack, raw: Manifest, status: CosStackStatus) -> None:
        """Write the status if it says something new."""
        metadata = stack.metadata
        metrics.set_stack(metadata.namespace, metadata.name, status)
        wanted = status.model_dump(by_alias=True, exclude_none=True, mode="json")
        self._echoes.left(Key(metadata.namespace, metadata.name), state(raw["metadata"], wanted))
        if raw.get("status") == wanted:
            return
        body = {
            "apiVersion": API_VERSION,
            "kind": "CosStack",
            "metadata": {"name": metadata.name, "namespace": metadata.namespace},
            "status": wanted,
        }
        await self._kube.apply(body, force=True, subresource="status")

    async def _notify(self, stack: CosStack, notice: Notice) -> None:
        """An Event on the stack. One that cannot be written is logged: the status says the same."""
        metadata: Metadata = stack.metadata
        now = self._now()
        event = {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {
                "generateName": f"{metadata.name}-",
                "namespace": metadata.namespace,
            },
            "involvedObject": {
                "apiVersion": API_VERSION,
                "kind": "CosStack",
                "name": metadata.name,
                "namespace": metadata.namespace,
                "uid": metadata.uid,
            },
            "type": notice.type,
            "reason": notice.reason,
            "message": notice.message[:1024],
            "firstTimestamp": now.strftime("%Y-%m-%dT%H:%M:%SZ"),
            "lastTimestamp": now.strftime("%Y-%m-%dT%H:%M:%SZ"),
            "count": 1,
            "source": {"component": MANAGER},
            "reportingComponent": MANAGER,
        }
        try:
            await self._kube.create(event)
        except KubeError as error:
            log.warning("event not written", reason=notice.reason, error=str(error))


async def _or_error(reading: Awaitable[T]) -> T | KubeError:
    """What was read, or why it could not be."""
    try:
        return await reading
    except KubeError as error:
        return error
