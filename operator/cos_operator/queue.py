"""The work queue: which stack is reconciled next, and when.

A key is in at most one place: ready, busy (a worker has it), or only due later. Adding a busy key queues it
again once its worker is done, so that no change is missed and no two workers ever have the same key.
What is urgent (something has happened) goes before what is not (a look to be sure, such as that at every stack after
a start), which however gets a turn now and again. A key whose run has failed waits for the end of its backoff,
unless something urgent happens: being looked at more often helps neither it nor what it failed on.
Not thread-safe: other threads hand keys over by ``loop.call_soon_threadsafe(queue.add, key)``.
"""

from __future__ import annotations

import asyncio
import heapq
import random
import time
from collections import deque
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

import structlog

K = TypeVar("K", bound=Hashable)
#: Serves one key; returns the seconds after which it wants to run again, or None.
Handler = Callable[[K], Awaitable[float | None]]

log = structlog.stdlib.get_logger(__name__)

#: Beyond this many failures the delay is at its cap for any sensible base; it keeps 2**n small.
_MAX_EXPONENT = 30
#: Urgent keys that are served before one that is not gets a turn.
_OVERTAKING = 8
#: Dead heap entries that are tolerated before the heap is rebuilt.
_SLACK = 64


def backoff(failures: int, base: float, cap: float, random: Callable[[], float]) -> float:
    """Seconds to wait after so many `failures` in a row before the last: min(cap, base·2ⁿ), times 0.5 to 1.

    `random` returns [0, 1).
    """
    return min(cap, base * 2.0 ** min(failures, _MAX_EXPONENT)) * (0.5 + 0.5 * random())


class WorkQueue(Generic[K]):
    """Deduplicated keys in order of urgency and arrival, with delayed adds and exponential backoff.

    `base` and `cap`, in seconds, and `random` are those of `backoff`. `clock` returns monotonic seconds.
    """

    def __init__(
        self,
        *,
        base: float = 1.0,
        cap: float = 120.0,
        clock: Callable[[], float] = time.monotonic,
        random: Callable[[], float] = random.random,
    ) -> None:
        self._base = base
        self._cap = cap
        self._clock = clock
        self._random = random
        self._urgent: deque[K] = deque()
        # May hold keys that have become urgent since: those count where they are urgent.
        self._patient: deque[K] = deque()
        self._overtaken = 0
        self._dirty: dict[K, bool] = {}
        self._waiting = 0
        self._busy: set[K] = set()
        self._due: list[tuple[float, int, K]] = []
        self._deadlines: dict[K, float] = {}
        # Those of `_deadlines` that end a backoff.
        self._backing_off: set[K] = set()
        self._failures: dict[K, int] = {}
        self._sequence = 0
        self._changed = asyncio.Event()
        self._workers: list[asyncio.Task[None]] = []

    @property
    def depth(self) -> int:
        """Keys that wait for a worker now; delayed ones are not counted before they are due."""
        return self._waiting

    @property
    def running(self) -> bool:
        """True while `run` is active and each of its workers is alive."""
        return bool(self._workers) and not any(worker.done() for worker in self._workers)

    def add(self, key: K, *, urgent: bool = True) -> None:
        """Ask for a run of `key` as soon as possible; before all that is not `urgent`, or after all that is.

        If `key` waits for the end of its backoff, what is not `urgent` is content with that run.
        """
        if key in self._backing_off and not urgent:
            return
        known = self._dirty.get(key)
        if known or known is urgent:
            return
        self._dirty[key] = urgent
        if key not in self._busy:
            self._waiting += known is None
            self._line_up(key, urgent=urgent)

    def add_after(self, key: K, seconds: float) -> None:
        """Ask for a run of `key` in `seconds`, not urgently. Of several delays of a key the earliest wins.

        None shortens a backoff.
        """
        if seconds <= 0:
            self.add(key, urgent=False)
            return
        deadline = self._clock() + seconds
        if key not in self._backing_off and deadline < self._deadlines.get(key, float("inf")):
            self._schedule(key, deadline)

    def take(self) -> K | None:
        """The next key that is ready, in the caller's hands until `done`; None if there is none.

        A pending delay of the key is dropped: the run that begins now decides anew when it is wanted again.
        """
        self._promote()
        key = self._next()
        if key is None:
            return None
        self._waiting -= 1
        del self._dirty[key]
        self._deadlines.pop(key, None)
        self._backing_off.discard(key)
        self._busy.add(key)
        return key

    async def get(self) -> K:
        """Wait for the next key; it is in the caller's hands until `done`."""
        while True:
            self._changed.clear()
            key = self.take()
            if key is not None:
                if self._waiting:
                    self._changed.set()
                return key
            try:
                async with asyncio.timeout(self._until_due()):
                    await self._changed.wait()
            except TimeoutError:
                continue

    def done(self, key: K) -> None:
        """Give `key` back. If it was added meanwhile, it is ready again."""
        self._busy.discard(key)
        if (urgent := self._dirty.get(key)) is not None:
            self._waiting += 1
            self._line_up(key, urgent=urgent)

    def retry(self, key: K, *, at_least: float = 0.0) -> float:
        """Ask for a run of `key` after its backoff, and lengthen the next one. Returns the delay in seconds.

        It takes the place of all that was asked for before and is not urgent, also while the run that failed was
        under way. `at_least` is a shortest delay, for example a server's Retry-After.
        """
        failures = self._failures.get(key, 0)
        self._failures[key] = failures + 1
        delay = max(backoff(failures, self._base, self._cap, self._random), at_least)
        if self._dirty.get(key) is False:
            del self._dirty[key]
            self._waiting -= key not in self._busy
        self._backing_off.add(key)
        self._schedule(key, self._clock() + delay)
        return delay

    def forget(self, key: K) -> None:
        """Reset the backoff of `key`."""
        self._failures.pop(key, None)
        self._backing_off.discard(key)

    async def run(
        self,
        handler: Handler[K],
        workers: int,
        timeout: float,  # noqa: ASYNC109 of each run, not of this call
    ) -> None:
        """Serve the queue until cancelled.

        `handler` returns the seconds after which it wants to run again, or None. An exception, or a run of
        more than `timeout` seconds (it is cancelled), is logged and retried with backoff; an exception's
        attribute `retry_after` (seconds) is the shortest delay, and with `explains_itself` it is logged without its
        traceback. Keys whose run is cut by cancellation stay queued.
        """
        if self._workers:
            raise RuntimeError("the queue is already being served")
        try:
            async with asyncio.TaskGroup() as group:
                self._workers = [
                    group.create_task(self._work(handler, timeout), name=f"queue-worker-{number}")
                    for number in range(workers)
                ]
        finally:
            self._workers = []

    async def _work(self, handler: Handler[K], seconds: float) -> None:
        while True:
            key = await self.get()
            try:
                await self._serve(key, handler, seconds)
            except asyncio.CancelledError:
                self.add(key)
                raise
            finally:
                self.done(key)

    async def _serve(self, key: K, handler: Handler[K], seconds: float) -> None:
        limit = asyncio.timeout(seconds)
        try:
            async with limit:
                again = await handler(key)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            # Something that the handler waited for was cancelled, not this worker: it must live on.
            log.warning("run was cancelled from within", key=str(key), retry_in=round(self.retry(key), 2))
        except Exception as error:
            delay = self.retry(key, at_least=getattr(error, "retry_after", None) or 0.0)
            reason = f"run took longer than {seconds:g} s" if limit.expired() else "run failed"
            about = {"key": str(key), "retry_in": round(delay, 2)}
            if getattr(error, "explains_itself", False):
                log.warning(reason, error=str(error), **about)
            else:
                log.exception(reason, **about)
        else:
            self.forget(key)
            if again is not None:
                self.add_after(key, again)

    def _schedule(self, key: K, deadline: float) -> None:
        self._deadlines[key] = deadline
        if len(self._due) > 2 * len(self._deadlines) + _SLACK:
            self._due = [entry for entry in self._due if self._deadlines.get(entry[2]) == entry[0]]
            heapq.heapify(self._due)
        self._sequence += 1
        heapq.heappush(self._due, (deadline, self._sequence, key))
        self._changed.set()

    def _line_up(self, key: K, *, urgent: bool) -> None:
        (self._urgent if urgent else self._patient).append(key)
        self._changed.set()

    def _next(self) -> K | None:
        """The next of the urgent, and after some of them one of the others."""
        while self._patient and (
            self._dirty.get(self._patient[0]) is not False or self._patient[0] in self._busy
        ):
            self._patient.popleft()
        if self._urgent and (not self._patient or self._overtaken < _OVERTAKING):
            self._overtaken += 1
            return self._urgent.popleft()
        self._overtaken = 0
        return self._patient.popleft() if self._patient else None

    def _promote(self) -> None:
        """Make the keys ready whose time has come."""
        now = self._clock()
        while self._due and self._due[0][0] <= now:
            deadline, _, key = heapq.heappop(self._due)
            # A dropped or shortened delay leaves its entry in the heap.
            if self._deadlines.get(key) == deadline:
                del self._deadlines[key]
                self._backing_off.discard(key)
                self.add(key, urgent=False)

    def _until_due(self) -> float | None:
        """Seconds to the earliest delay; None without one."""
        while self._due and self._deadlines.get(self._due[0][2]) != self._due[0][0]:
            heapq.heappop(self._due)
        return max(0.0, self._due[0][0] - self._clock()) if self._due else None
