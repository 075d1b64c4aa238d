"""Engines are asked all the time, also those of stacks at rest, whose objects nobody reads again.

First whether they serve, then what they are like. An answer that says another thing only wakes the stack: what it means
is decided where everything is looked at.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Generic, NamedTuple, TypeVar

from cos_controllers.api.status import GateStatus, Verdict
from cos_controllers.gates import Judgement, Known, judge, learnt
from cos_controllers.observation import CheckResult, CheckTarget, Facts, Outcome
from cos_operator.asking import Asker, examine
from cos_operator.engines.base import CHECK_SECONDS, EXAMINE_SECONDS, EngineClient
from cos_operator.queue import WorkQueue

K = TypeVar("K", bound=Hashable)

#: Seconds after which the engines of a stack are asked again whether they serve. Of a few stacks often, so that what
#: only a question can tell is known within 6 s: this, and the 3 s of one that is not answered. Of many, each costing
#: some 20 ms of CPU a time, no more than a twentieth of a core in all, but no stack less often than the latter.
OFTEN_SECONDS = 2.0
SELDOM_SECONDS = 30.0
_SECONDS_A_STACK = 0.4
#: Seconds after which they are examined again; of more than 150 stacks more seldom: one of all six services costs some
#: 35 ms of CPU a time.
EXAMINE_AGAIN_SECONDS = 30.0
_EXAMINE_SECONDS_A_STACK = 0.2
#: Seconds until the next time while something is not as it should be, or not known: twice as long each time, up to what
#: it is else.
SOON_SECONDS = 1.0
#: Stacks whose engines are asked at a time: 300 that do not answer are asked within `SELDOM_SECONDS`.
_AT_ONCE = 32
#: More than a question takes by its own limits.
_LIMIT_SECONDS = 2 * (CHECK_SECONDS + 2 * EXAMINE_SECONDS)


@dataclass(frozen=True)
class _Followed:
    """`gates`: what the stack's status says of them."""

    targets: tuple[CheckTarget, ...]
    outcomes: Mapping[str, Outcome]
    gates: Mapping[str, Sequence[GateStatus]]

    @property
    def serving(self) -> set[str]:
        """The components that serve."""
        return {name for name, outcome in self.outcomes.items() if outcome is Outcome.SERVING}


class _Found(NamedTuple):
    """What is known of a component, and of which pods: a new one is another engine."""

    pods: frozenset[str]
    known: Known


class _Patience(Generic[K]):
    """How long until the next time, by how often in a row it was not well."""

    def __init__(self) -> None:
        self._tries: dict[K, int] = {}

    def until_next(self, key: K, seconds: float, *, well: bool) -> float:
        """`seconds` if it is `well`, else sooner."""
        if well:
            self.reset(key)
            return seconds
        tries = self._tries.get(key, 0)
        self._tries[key] = tries + 1
        return min(SOON_SECONDS * 2.0 ** min(tries, 10), seconds)

    def reset(self, key: K) -> None:
        """Begin anew."""
        self._tries.pop(key, None)


class Pulse(Generic[K]):
    """Asks the engines of every followed key whether they serve, and examines them; wakes those that say another thing.

    `asker`: by which others shall ask too, so that no engine is asked twice at a time.
    `wake` is told whether it is urgent, which it is once: a stack whose run has failed since waits for its next one.
    `told` hears after each examination what is known of a key's engines, by component. `clock` returns monotonic
    seconds, `random` [0, 1).
    """

    def __init__(
        self,
        clients: Mapping[str, EngineClient],
        wake: Callable[[K, bool], None],
        *,
        told: Callable[[K, Mapping[str, Facts]], None] = lambda _, __: None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        clock: Callable[[], float] = time.monotonic,
        random: Callable[[], float] = random.random,
    ) -> None:
        self.asker = Asker(clients)
        self._clients = clients
        self._wake = wake
        self._told = told
        self._now = now
        self._random = random
        self._followed: dict[K, _Followed] = {}
        self._found: dict[K, dict[str, _Found]] = {}
        # Apart: an examination may take longer than a check is to wait for its turn.
        self._checks: WorkQueue[K] = WorkQueue(clock=clock)
        self._examinations: WorkQueue[K] = WorkQueue(clock=clock)
        self._woken: dict[K, _Followed] = {}
        self._check_patience: _Patience[K] = _Patience()
        self._examine_patience: _Patience[K] = _Patience()

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
        followed = self._followed[key] = _Followed(tuple(targets), outcomes, gates)
        if before and (before.targets, before.serving) == (followed.targets, followed.serving):
            # It is asked again when it was to be.
            return
        self._check_patience.reset(key)
        self._examine_patience.reset(key)
        self._checks.add_after(key, self._check_seconds * (1.0 if before else self._random()))
        if before or not _all_passed(followed):
            self._examinations.add(key)
        else:
            # Its status tells of gates that all pass: who begins to lead spreads what it asks over the period.
            self._examinations.add_after(key, self._examine_seconds * self._random())

    def forget(self, key: K) -> None:
        """Ask the engines of `key` no more."""
        for known in (self._followed, self._found, self._woken):
            known.pop(key, None)
        self._check_patience.reset(key)
        self._examine_patience.reset(key)

    def targets(self, key: K) -> tuple[CheckTarget, ...]:
        """The engines of `key` that are asked; none before its first run."""
        followed = self._followed.get(key)
        return followed.targets if followed else ()

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
        async with asyncio.TaskGroup() as group:
            group.create_task(self._checks.run(self._check, _AT_ONCE, _LIMIT_SECONDS))
            group.create_task(self._examinations.run(self._examine, _AT_ONCE, _LIMIT_SECONDS))

    @property
    def _check_seconds(self) -> float:
        return min(max(OFTEN_SECONDS, _SECONDS_A_STACK * len(self._followed)), SELDOM_SECONDS)

    @property
    def _examine_seconds(self) -> float:
        return max(EXAMINE_AGAIN_SECONDS, _EXAMINE_SECONDS_A_STACK * len(self._followed))

    async def _check(self, key: K) -> float | None:
        """Ask once whether they serve; the seconds until the next time."""
        before = self._followed.get(key)
        if not before or not before.targets:
            return None
        answers = await self.asker.ask(before.targets)
        outcomes = {name: answer.outcome for name, answer in answers.items()}
        # A run of the key meanwhile knows better.
        if self._followed.get(key) is before and outcomes != before.outcomes:
            self._tell(key, before)
        well = all(outcome is Outcome.SERVING for outcome in outcomes.values())
        return self._check_patience.until_next(key, self._check_seconds, well=well)

    async def _examine(self, key: K) -> float | None:
        """Find out once what those that serve are like; the seconds until the next time."""
        before = self._followed.get(key)
        if not before:
            return None
        facts = await examine(before.targets, before.serving, self._clients)
        if (now := self._followed.get(key)) is None:
            return None
        self._learn(key, before.targets, facts)
        if not facts:
            # Nobody serves: as soon as somebody does, the stack is followed anew.
            return None
        if (now.targets, now.serving) != (before.targets, before.serving):
            # A run of the key meanwhile knows better.
            return SOON_SECONDS
        judged = self._judge(key, now)
        if any(
            items != tuple(Judgement(gate.name, gate.verdict, gate.message) for gate in now.gates[name])
            for name, items in judged.items()
            if name in now.gates
        ):
            self._tell(key, now)
        well = all(item.verdict is Verdict.PASSED for items in judged.values() for item in items) and not any(
            found.known.doubts for found in self._found[key].values()
        )
        return self._examine_patience.until_next(key, self._examine_seconds, well=well)

    def _tell(self, key: K, followed: _Followed) -> None:
        self._wake(key, self._woken.get(key) is not followed)
        self._woken[key] = followed

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

    def _judge(self, key: K, followed: _Followed) -> dict[str, tuple[Judgement, ...]]:
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
            if target.component in followed.serving
        }


def _all_passed(followed: _Followed) -> bool:
    """Whether every engine that is asked passes every gate that it has, by the stack's status."""
    return all(
        {gate.name for gate in followed.gates.get(target.component, ()) if gate.verdict is Verdict.PASSED}
        >= set(target.expected.gates)
        for target in followed.targets
    )
