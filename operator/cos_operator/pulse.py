"""Engines are asked all the time, also those of stacks at rest, whose objects nobody reads again.

An answer only wakes the stack: what it means is decided where everything is looked at.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Generic, NamedTuple, TypeVar

from cos_controllers.observation import CheckResult, CheckTarget, Outcome
from cos_operator.engines.base import EngineClient
from cos_operator.observe import ask

K = TypeVar("K", bound=Hashable)

#: Seconds in which each engine is asked once.
PULSE_SECONDS = 30.0
#: Seconds until somebody is there to be asked.
_IDLE_SECONDS = 1.0


class _Followed(NamedTuple):
    targets: tuple[CheckTarget, ...]
    outcomes: Mapping[str, Outcome]


class Pulse(Generic[K]):
    """Asks the engines of every followed key once in `seconds`, evenly spread; wakes those that say another thing."""

    def __init__(
        self,
        clients: Mapping[str, EngineClient],
        wake: Callable[[K], None],
        seconds: float = PULSE_SECONDS,
    ) -> None:
        self._clients = clients
        self._wake = wake
        self._seconds = seconds
        self._followed: dict[K, _Followed] = {}

    def follow(self, key: K, targets: Sequence[CheckTarget], answers: Mapping[str, CheckResult]) -> None:
        """Go on asking `targets`, which have given `answers`."""
        outcomes = {name: answer.outcome for name, answer in answers.items()}
        self._followed[key] = _Followed(tuple(targets), outcomes)

    def forget(self, key: K) -> None:
        """Ask the engines of `key` no more."""
        self._followed.pop(key, None)

    async def run(self) -> None:
        """Ask until cancelled."""
        async with asyncio.TaskGroup() as group:
            while True:
                keys = list(self._followed)
                for key in keys:
                    group.create_task(self._ask(key))
                    # An engine that does not answer in time keeps nobody else waiting.
                    await asyncio.sleep(self._seconds / len(keys))
                if not keys:
                    await asyncio.sleep(_IDLE_SECONDS)

    async def _ask(self, key: K) -> None:
        before = self._followed.get(key)
        if before is None:
            return
        answers = await ask(before.targets, self._clients)
        outcomes = {name: answer.outcome for name, answer in answers.items()}
        # A run of the key meanwhile knows better.
        if self._followed.get(key) is before and outcomes != before.outcomes:
            self._wake(key)
