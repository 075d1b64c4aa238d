"""Leader election by a Lease: one process reconciles, the others stand by.

No clock is compared between machines: a process that leads trusts its own monotonic clock for `renew_deadline`
seconds from *before* the last renewal was sent; one that stands by takes over when it has seen the Lease unchanged
for the Lease's duration. The first is shorter than the second by more than a write may take, so that the writes of
two leaders never overlap, whatever hangs. A process that was frozen meanwhile is ended by its fence before it can
send what it had in hand. `docs/adr/0004-watching-and-leading.md` says why this is our own.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Protocol

import structlog

from cos_controllers.k8s import Manifest
from cos_operator.kube_errors import Conflict, KubeError

log = structlog.stdlib.get_logger(__name__)

#: Seconds for the leading work to end once it is cancelled. A query of an engine takes up to 5 to be called off.
_STOP_LIMIT = 10.0
#: Seconds for handing the Lease back at stop.
_RELEASE_LIMIT = 3.0


class NotLeader(Exception):
    """This process does not lead, or cannot be sure that it still does: it must not write."""


class LeaseClient(Protocol):
    """What is needed of `Kube`."""

    write_timeout: float

    async def get(self, kind: str, namespace: str, name: str) -> Manifest | None:
        """See `Kube.get`."""

    async def create(self, obj: Manifest) -> Manifest:
        """See `Kube.create`."""

    async def replace(self, obj: Manifest) -> Manifest:
        """See `Kube.replace`."""


class Elector:
    """Competes for the Lease `namespace`/`name` as `identity`, which no other process may use.

    Durations are seconds, `clock` is monotonic. Raises ValueError if they do not keep two leaders apart. `settled` is
    awaited before the Lease is handed back: it returns once no write of the leading work that has begun by then can
    have an effect any more, see `Writes`. `fence` is called with the seconds after which this process must have ended
    unless it is called again, and with None once nothing of the leading work is left: see `fence.arm`.

    `problem` tells a person why the Lease cannot be had or watched, "" if it can; `holder` who holds it.
    """

    def __init__(
        self,
        kube: LeaseClient,
        namespace: str,
        name: str,
        identity: str,
        *,
        settled: Callable[[], Awaitable[object]],
        lease_duration: float = 15.0,
        renew_deadline: float = 10.0,
        retry_period: float = 2.0,
        clock: Callable[[], float] = time.monotonic,
        fence: Callable[[float | None], None] = lambda _: None,
    ) -> None:
        if not retry_period < renew_deadline < renew_deadline + kube.write_timeout < lease_duration:
            raise ValueError(
                f"retry period {retry_period} s, renew deadline {renew_deadline} s and lease duration"
                f" {lease_duration} s must rise, the last two by more than a write may take,"
                f" {kube.write_timeout} s"
            )
        self._kube = kube
        self._namespace = namespace
        self._name = name
        self._identity = identity
        self._settled = settled
        self._lease_duration = lease_duration
        self._renew_deadline = renew_deadline
        self._retry_period = retry_period
        self._clock = clock
        self._fence = fence
        self.problem = "the lease has not been read yet"
        self.holder = ""
        self._deadline = float("-inf")
        self._held: Manifest | None = None
        self._observed: tuple[object, ...] = ()
        self._observed_at = 0.0
        self._reported = ""

    @property
    def is_leader(self) -> bool:
        """True while this process leads for certain."""
        return self._clock() < self._deadline

    def guard(self) -> None:
        """Raise `NotLeader` unless this process leads for certain. To be called before each write."""
        if not self.is_leader:
            raise NotLeader(f"{self._identity} does not hold the lease {self._namespace}/{self._name}")

    async def run(self, on_started: Callable[[], Awaitable[object]]) -> None:
        """Stand by; lead while the Lease is ours, as often as it becomes so; until cancelled or the work ends.

        `on_started` is the leading work: awaited as a task while leading, cancelled when the Lease is lost. If it
        returns or raises, so does `run`. On the way out the Lease is handed back, so that another leads at once.
        """
        while True:
            await self._acquire()
            work = asyncio.ensure_future(on_started())
            try:
                await self._renew(work)
                lost = not work.done()
            finally:
                await self._stop(work)
            if not lost or not work.cancelled():
                work.result()
            if not lost:
                return

    async def _acquire(self) -> None:
        while True:
            try:
                async with asyncio.timeout(self._kube.write_timeout):
                    if await self._try():
                        break
            except (KubeError, TimeoutError) as error:
                self.problem = f"the lease cannot be read or written: {str(error) or 'no answer'}"
                self._report(self.problem)
            await asyncio.sleep(self._retry_period)
        self._report("leading")

    async def _renew(self, work: asyncio.Future[object]) -> None:
        """Return when the work is done, or the Lease is lost."""
        while True:
            remaining = self._deadline - self._clock()
            if remaining <= 0:
                self._report("the lease could not be renewed in time: no longer leading")
                return
            done, _ = await asyncio.wait([work], timeout=min(self._retry_period, remaining))
            if done:
                return
            try:
                # A hung attempt must leave time for another before the deadline.
                async with asyncio.timeout(min(self._kube.write_timeout, self._deadline - self._clock())):
                    if not await self._try():
                        return
                self._reported = ""
            except (KubeError, TimeoutError) as error:
                self._report(f"the lease was not renewed: {str(error) or 'no answer'}")

    async def _stop(self, work: asyncio.Future[object]) -> None:
        """End the leading work, then hand the Lease back if it is still ours, once none of its writes is left.

        No write begins any more. Those under way are not cut as long as this process leads for certain: their
        answers come in a moment, while what was cut may be carried out until its time has passed.
        """
        certain = max(0.0, self._deadline - self._clock())
        self._deadline = float("-inf")
        try:
            async with asyncio.timeout(certain):
                await self._settled()
        except TimeoutError:
            pass
        finally:
            work.cancel()
        await asyncio.wait([work], timeout=_STOP_LIMIT)
        if not work.done():
            raise RuntimeError(f"the leading work did not stop within {_STOP_LIMIT:g} s")
        self._fence(None)
        await self._settled()
        try:
            async with asyncio.timeout(_RELEASE_LIMIT):
                await self._release()
        except (KubeError, TimeoutError) as error:
            self._report(f"the lease was not handed back, it will expire: {str(error) or 'no answer'}")

    async def _release(self) -> None:
        while True:
            held, self._held = self._held, None
            # Unknown if a renewal was under way, which may still change the Lease now.
            live = held or await self._kube.get("Lease", self._namespace, self._name)
            if live is None or (live.get("spec") or {}).get("holderIdentity") != self._identity:
                return
            try:
                await self._kube.replace(self._lease(live, holder=None))
            except Conflict:
                continue
            self._report("the lease is handed back")
            return

    async def _try(self) -> bool:
        """Acquire or renew once. False if another process holds the Lease; `KubeError` if it is not known."""
        asked_at = self._clock()
        held, self._held = self._held, None
        live = held or await self._kube.get("Lease", self._namespace, self._name)
        if live is None:
            self._held = await self._kube.create(self._lease(None, holder=self._identity))
        elif self._may_take(live):
            self._held = await self._kube.replace(self._lease(live, holder=self._identity))
        else:
            self._deadline = float("-inf")
            self.problem, self.holder = "", live["spec"]["holderIdentity"]
            self._report(f"standing by: {self.holder} leads")
            return False
        self.problem, self.holder = "", self._identity
        self._deadline = asked_at + self._renew_deadline
        # The last write that the guard lets through has been answered or given up by then.
        self._fence(self._deadline + self._kube.write_timeout - self._clock())
        return True

    def _may_take(self, live: Manifest) -> bool:
        spec = live.get("spec") or {}
        observed = (live["metadata"]["uid"], live["metadata"]["resourceVersion"])
        if observed != self._observed:
            self._observed, self._observed_at = observed, self._clock()
        if spec.get("holderIdentity") in {None, "", self._identity}:
            return True
        duration = spec.get("leaseDurationSeconds") or self._lease_duration
        return self._clock() - self._observed_at > duration

    def _lease(self, live: Manifest | None, *, holder: str | None) -> Manifest:
        """The Lease to write over `live`; without a holder it is free."""
        now = datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
        spec = dict(live.get("spec") or {}) if live else {}
        if spec.get("holderIdentity") != holder and holder is not None:
            spec |= {"acquireTime": now, "leaseTransitions": spec.get("leaseTransitions", -1) + 1}
        spec |= {"renewTime": now, "leaseDurationSeconds": round(self._lease_duration)}
        spec.pop("holderIdentity", None)
        if holder is not None:
            spec["holderIdentity"] = holder
        metadata = live["metadata"] if live else {"namespace": self._namespace, "name": self._name}
        return {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": metadata, "spec": spec}

    def _report(self, message: str) -> None:
        """Log what has changed, once and not every retry period."""
        if message != self._reported:
            self._reported = message
            log.info(message, lease=f"{self._namespace}/{self._name}", identity=self._identity)
