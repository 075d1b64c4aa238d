"""Engines are asked all the time, also those of stacks at rest, whose objects nobody reads again.

First whether they serve, then what they are like. An answer that says another thing only wakes the stack: what it means
is decided where everything is looked at.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Generic, NamedTuple, TypeVar

from cos_controllers.api.status import GateStatus, Verdict
from cos_controllers.gates import Judgement, Known, judge, learnt
from cos_controllers.observation import CheckResult, CheckTarget, Facts, Outcome
from cos_operator.asking import ask, examine
from cos_operator.engines.base import CHECK_SECONDS, EXAMINE_SECONDS, EngineClient
from cos_operator.queue import WorkQueue

K = TypeVar("K", bound=Hashable)

#: Seconds after which engines are asked again.
PULSE_SECONDS = 30.0
#: Seconds after which they are while something is not as it should be, or not known: twice as long each time, up to
#: `PULSE_SECONDS`.
SOON_SECONDS = 1.0
#: Stacks whose engines are asked at a time: 300 that do not answer are asked within the pulse's period.
_AT_ONCE = 32
#: More than a question takes by its own limits.
_LIMIT_SECONDS = 2 * (CHECK_SECONDS + 2 * EXAMINE_SECONDS)


@dataclass(frozen=True)
class _Followed:
    """`gates`: what the stack's status says of them; `attempts`: how often its present targets were asked in vain."""

    targets: tuple[CheckTarget, ...]
    outcomes: Mapping[str, Outcome]
    gates: Mapping[str, Sequence[GateStatus]]
    attempts: int = 0


class _Found(NamedTuple):
    """What is known of a component, and of which pods: a new one is another engine."""

    pods: frozenset[str]
    known: Known


class Pulse(Generic[K]):
    """Asks the engines of every followed key once in `seconds`; wakes those that say another thing.

    `told` hears after each time what is known of a key's engines, by component. `clock` returns monotonic seconds,
    `random` [0, 1).
    """

    def __init__(
        self,
        clients: Mapping[str, EngineClient],
        wake: Callable[[K], None],
        seconds: float = PULSE_SECONDS,
        *,
        told: Callable[[K, Mapping[str, Facts]], None] = lambda _, __: None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        clock: Callable[[], float] = time.monotonic,
        random: Callable[[], float] = random.random,
    ) -> None:
        self._clients = clients
        self._wake = wake
        self._seconds = seconds
        self._told = told
        self._now = now
        self._random = random
        self._followed: dict[K, _Followed] = {}
        self._found: dict[K, dict[str, _Found]] = {}
        self._queue: WorkQueue[K] = WorkQueue(clock=clock)

    def follow(
        self,
        key: K,
        targets: Sequence[CheckTarget],
        answers: Mapping[str, CheckResult],
        gates: Mapping[str, Sequence[GateStatus]],
    ) -> None:
        """Go on asking `targets`, which have given `answers` and whose `gates` the stack's status tells of."""
        before = self._followed.get(key)
        outcomes = {name: answer.outcome for name, answer in answers.items()}
        followed = _Followed(tuple(targets), outcomes, gates)
        if before and before.targets == followed.targets:
            # It is asked again when it was to be.
            self._followed[key] = replace(followed, attempts=before.attempts)
            return
        self._followed[key] = followed
        if before or not _all_passed(followed):
            self._queue.add(key)
        else:
            # Its status tells of gates that all pass: who begins to lead spreads what it asks over the period.
            self._queue.add_after(key, self._seconds * self._random())

    def forget(self, key: K) -> None:
        """Ask the engines of `key` no more."""
        self._followed.pop(key, None)
        self._found.pop(key, None)

    def known(self, key: K, targets: Sequence[CheckTarget]) -> dict[str, Facts]:
        """What is known of those `targets` that have been examined, by component."""
        found = self._found.get(key, {})
        return {
            target.component: found[target.component].known.facts
            for target in targets
            if target.component in found and found[target.component].pods == target.pods.keys()
        }

    async def run(self) -> None:
        """Ask until cancelled."""
        await self._queue.run(self._ask, _AT_ONCE, _LIMIT_SECONDS)

    async def _ask(self, key: K) -> float | None:
        """Ask once; the seconds until the next time."""
        before = self._followed.get(key)
        if not before:
            return None
        if not before.targets:
            self._learn(key, (), {})
            return None
        answers = await ask(before.targets, self._clients)
        outcomes = {name: answer.outcome for name, answer in answers.items()}
        serving = {name for name, outcome in outcomes.items() if outcome is Outcome.SERVING}
        facts = await examine(before.targets, serving, self._clients)
        if (now := self._followed.get(key)) is None:
            return None
        self._learn(key, before.targets, facts)
        if now is not before:
            # A run of the key meanwhile knows better.
            return SOON_SECONDS
        judged = self._judge(key, before, serving)
        if outcomes != before.outcomes or any(
            judgements
            != tuple(Judgement(gate.name, gate.verdict, gate.message) for gate in before.gates[name])
            for name, judgements in judged.items()
            if name in before.gates
        ):
            self._wake(key)
        well = (
            len(serving) == len(before.targets)
            and all(item.verdict is Verdict.PASSED for items in judged.values() for item in items)
            and not any(found.known.misses for found in self._found[key].values())
        )
        self._followed[key] = replace(before, attempts=0 if well else before.attempts + 1)
        return self._seconds if well else min(SOON_SECONDS * 2.0 ** min(before.attempts, 10), self._seconds)

    def _learn(self, key: K, targets: Sequence[CheckTarget], facts: Mapping[str, Facts]) -> None:
        found = self._found.get(key, {})
        learned = {}
        for target in targets:
            pods, earlier = frozenset(target.pods), found.get(target.component)
            known = earlier.known if earlier and earlier.pods == pods else None
            if target.component in facts:
                learned[target.component] = _Found(pods, learnt(known, facts[target.component]))
        self._found[key] = learned
        self._told(key, {name: item.known.facts for name, item in learned.items()})

    def _judge(self, key: K, followed: _Followed, serving: set[str]) -> dict[str, tuple[Judgement, ...]]:
        """What the gates of the engines that serve say by now."""
        known, now = self.known(key, followed.targets), self._now()
        return {
            target.component: judge(
                target.expected,
                known.get(target.component),
                followed.gates.get(target.component, ()),
                now,
            )
            for target in followed.targets
            if target.component in serving
        }


def _all_passed(followed: _Followed) -> bool:
    """Whether every engine that is asked passes every gate that it has, by the stack's status."""
    return all(
        {gate.name for gate in followed.gates.get(target.component, ()) if gate.verdict is Verdict.PASSED}
        >= set(target.expected.gates)
        for target in followed.targets
    )
