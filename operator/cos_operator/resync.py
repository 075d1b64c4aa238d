"""The net under missed hints: every stack is looked at now and again, and all of them when somebody asks.

Each scope (a namespace, or all of the cluster) is on its own: one that cannot be listed holds up no other one, and is
tried again by itself, later and later.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from typing import Generic, Protocol, TypeVar

import structlog

from cos_operator.kube_errors import KubeError
from cos_operator.queue import backoff

K = TypeVar("K")
K_contra = TypeVar("K_contra", contravariant=True)

log = structlog.stdlib.get_logger(__name__)

#: Seconds until a scope that could not be listed is tried again, the first time and at most.
_FIRST_RETRY, _LAST_RETRY = 5.0, 60.0
#: Scopes that are listed at the same time.
_LISTED_AT_ONCE = 4


class Look(Protocol[K_contra]):
    """How a look at a stack is asked for: `queue.WorkQueue.add`."""

    def __call__(self, key: K_contra, /, *, urgent: bool) -> None:
        """Soon, or at the next turn that nobody else needs."""


class Resync(Generic[K]):
    """Calls `look` for each of the `stacks` of each scope once in `seconds`, evenly spread; for all of them when asked.

    `scopes` are namespaces, None for all of the cluster. `stacks` lists one of them, with whether each has news, and
    raises `KubeError` if it cannot. A look is urgent when it was asked for, at a stack with news; all others leave a
    backoff alone: everything is asked for just when the API server is in trouble.
    `random` returns [0, 1).
    """

    def __init__(
        self,
        scopes: Iterable[str | None],
        stacks: Callable[[str | None], Awaitable[Mapping[K, bool]]],
        look: Look[K],
        seconds: float,
        *,
        random: Callable[[], float] = random.random,
    ) -> None:
        self._asked = {scope: asyncio.Event() for scope in scopes}
        self._stacks = stacks
        self._look = look
        self._seconds = seconds
        self._random = random
        self._turn = asyncio.Semaphore(_LISTED_AT_ONCE)

    def ask(self) -> None:
        """Look at every stack, once and as soon as its scope can be listed; also in a later `run`."""
        for asked in self._asked.values():
            asked.set()

    async def run(self) -> None:
        """Go on until cancelled."""
        async with asyncio.TaskGroup() as group:
            for number, (scope, asked) in enumerate(self._asked.items(), start=1):
                # Many scopes of one stack each are as evenly spread as one scope of many.
                group.create_task(self._cover(scope, asked, phase=number / len(self._asked)))

    async def _cover(self, scope: str | None, asked: asyncio.Event, phase: float) -> None:
        failures = 0
        while True:
            at_once = asked.is_set()
            asked.clear()
            try:
                async with self._turn:
                    stacks = await self._stacks(scope)
            except KubeError as error:
                delay = backoff(failures, _FIRST_RETRY, _LAST_RETRY, self._random)
                failures += 1
                log.warning("resync failed", namespace=scope, error=str(error), retry_in=round(delay, 2))
                if at_once:
                    asked.set()
                # Whoever asks meanwhile is content with that: asking more often makes nothing listable.
                await asyncio.sleep(delay)
                continue
            failures = 0
            for key, news in stacks.items() if at_once else ():
                self._look(key, urgent=news)
            await self._spread(stacks, asked, phase)

    async def _spread(self, keys: Collection[K], asked: asyncio.Event, phase: float) -> None:
        """Look at one after the other, over the whole period or until asked for all."""
        step = self._seconds / max(1, len(keys))
        wait = phase * step
        for key in keys:
            if await _is_set_within(asked, wait):
                return
            self._look(key, urgent=False)
            wait = step
        await _is_set_within(asked, (1 - phase) * step if keys else step)


async def _is_set_within(event: asyncio.Event, seconds: float) -> bool:
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return False
    return True
