"""Engines at rest are asked all the time, evenly; another answer wakes the stack, and what waits is asked soon."""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime

import pytest

from cos_controllers.api.status import GateName, GateStatus, Verdict
from cos_controllers.gates import judge
from cos_controllers.observation import CheckResult, CheckTarget, Expectation, Facts, Outcome
from cos_operator.pulse import Pulse

EXPECTED = Expectation((GateName.SERVING,))


@dataclass
class Engine:
    """Serves and is in order, unless told otherwise; some never answer."""

    outcomes: dict[str, Outcome] = field(default_factory=dict)
    facts: dict[str, Facts] = field(default_factory=dict)
    silent: set[str] = field(default_factory=set)
    asked: list[tuple[float, str]] = field(default_factory=list)
    examined: list[str] = field(default_factory=list)
    times: list[float] = field(default_factory=list)

    async def check(self, target: CheckTarget) -> CheckResult:
        self.asked.append((asyncio.get_running_loop().time(), target.host))
        if target.host in self.silent:
            await asyncio.sleep(1e9)
        return CheckResult(self.outcomes.get(target.host, Outcome.SERVING))

    async def examine(self, target: CheckTarget) -> Facts:
        self.examined.append(target.host)
        self.times.append(asyncio.get_running_loop().time())
        return self.facts.get(target.host, Facts(serving=""))

    async def tidy(self, target: CheckTarget) -> None:
        raise AssertionError(f"{target} is only asked")

    async def provision(self, target: CheckTarget) -> None:
        raise AssertionError(f"{target} is only asked")


@dataclass
class Stacks:
    """Plays the reconciler: who is woken is looked at, by the plan's own judgement, and followed again."""

    engine: Engine = field(default_factory=Engine)
    woken: list[str] = field(default_factory=list)
    told: list[Mapping[str, Facts]] = field(default_factory=list)
    gates: dict[str, list[GateStatus]] = field(default_factory=dict)
    pods: dict[str, str] = field(default_factory=dict)
    looks: bool = True
    urgent: list[bool] = field(default_factory=list)

    def __post_init__(self) -> None:
        spread = itertools.cycle(number / 240 for number in range(240))
        self.pulse: Pulse[str] = Pulse(
            {"redis": self.engine},
            self._wake,
            told=lambda _, facts: self.told.append(facts),
            clock=asyncio.get_running_loop().time,
            random=lambda: next(spread),
        )

    def _wake(self, key: str, urgent: bool) -> None:  # noqa: FBT001 - as the pulse calls it
        self.urgent.append(urgent)
        self.woken.append(key)
        if self.looks:
            asyncio.get_running_loop().call_later(0.1, self.look, key)

    def look(self, key: str, outcome: Outcome | None = None) -> None:
        """One pass."""
        target = self.target(key)
        found = outcome or self.engine.outcomes.get(key, Outcome.SERVING)
        judged = judge(EXPECTED, self.pulse.known(key, [target]).get("redis"), self.gates.get(key, ()), NOW)
        self.gates[key] = [
            GateStatus(name=item.name, verdict=item.verdict, message=item.message, since=SINCE)
            for item in judged
        ]
        self.pulse.follow(key, [target], {"redis": CheckResult(found)}, {"redis": self.gates[key]})

    def passed(self, *keys: str) -> None:
        """Their status says already that all gates pass."""
        for key in keys:
            self.gates[key] = [GateStatus(name=GateName.SERVING, verdict=Verdict.PASSED, since=SINCE)]
            self.look(key)

    def target(self, key: str) -> CheckTarget:
        return CheckTarget(
            component="redis",
            engine="redis",
            host=key,
            port=6379,
            pods={self.pods.get(key, "uid"): "10.0.0.1"},
            expected=EXPECTED,
        )

    async def run(self, seconds: float) -> None:
        running = asyncio.create_task(self.pulse.run())
        await asyncio.sleep(seconds)
        assert not running.done()
        running.cancel()
        await asyncio.wait([running])


SINCE = "2026-01-01T00:00:00Z"
NOW = datetime.fromisoformat(SINCE)


def test_who_begins_to_lead_asks_each_engine_once_a_period_evenly_spread(
    virtual_time: Callable[..., object],
) -> None:
    async def main() -> None:
        stacks = Stacks()
        stacks.passed(*map(str, range(120)))
        await stacks.run(119.9)
        times = [when for when, _ in stacks.engine.asked]
        assert set(Counter(host for _, host in stacks.engine.asked).values()) == {4}
        assert max(later - earlier for earlier, later in itertools.pairwise(times)) < 1
        assert set(Counter(stacks.engine.examined).values()) == {4}
        assert stacks.woken == []

    virtual_time(main)


@pytest.mark.parametrize(
    ("count", "seconds", "examined"),
    [(1, 2, 30), (5, 2, 30), (10, 4, 30), (75, 30, 30), (200, 30, 40)],
)
def test_a_few_stacks_are_asked_often_and_many_cost_no_more(
    virtual_time: Callable[..., object], count: int, seconds: float, examined: float
) -> None:
    async def main() -> None:
        stacks = Stacks()
        stacks.passed(*map(str, range(count)))
        await stacks.run(30)
        stacks.engine.asked.clear()
        stacks.engine.examined.clear()
        await stacks.run(299.9)
        assert len(stacks.engine.asked) == pytest.approx(count * 300 / seconds, rel=0.03)
        assert len(stacks.engine.examined) == pytest.approx(count * 300 / examined, rel=0.03)

    virtual_time(main)


def test_a_new_stack_is_examined_at_once_and_then_rests(virtual_time: Callable[..., object]) -> None:
    async def main() -> None:
        stacks = Stacks()
        stacks.look("a")
        await stacks.run(29)
        assert stacks.woken == ["a"]
        assert [gate.verdict for gate in stacks.gates["a"]] == [Verdict.PASSED]
        assert len(stacks.engine.examined) == 1
        assert stacks.told == [{"redis": Facts(serving="")}]

    virtual_time(main)


def test_another_answer_wakes_the_stack_until_it_has_been_looked_at(
    virtual_time: Callable[..., object],
) -> None:
    async def main() -> None:
        stacks = Stacks(looks=False)
        stacks.passed("a", "b")
        stacks.engine.outcomes["a"] = Outcome.READ_ONLY
        await stacks.run(10)
        woken = stacks.woken
        assert set(woken) == {"a"}
        assert len(woken) > 1
        assert stacks.urgent == [True, *[False] * (len(woken) - 1)], "its run may have failed"
        stacks.look("a", Outcome.READ_ONLY)
        stacks.woken = []
        await stacks.run(30)
        assert stacks.woken == [], "it is known"
        stacks.pulse.forget("b")
        stacks.engine.outcomes["b"] = Outcome.READ_ONLY
        await stacks.run(30)
        assert stacks.woken == []

    virtual_time(main)


def test_what_does_not_pass_is_asked_soon_and_ever_more_seldom(virtual_time: Callable[..., object]) -> None:
    async def main() -> None:
        stacks = Stacks()
        stacks.passed("a")
        stacks.engine.facts["a"] = Facts(serving="OOM")
        await stacks.run(100)
        times = stacks.engine.times
        waits = [round(later - earlier) for earlier, later in itertools.pairwise(times)]
        assert waits[:6] == [1, 2, 4, 8, 16, 30]
        assert stacks.woken == ["a"], "told once"
        assert [(gate.verdict, gate.message) for gate in stacks.gates["a"]] == [(Verdict.FAILED, "OOM")]
        del stacks.engine.facts["a"]
        await stacks.run(31)
        assert stacks.woken == ["a", "a"]
        assert [gate.verdict for gate in stacks.gates["a"]] == [Verdict.PASSED]

    virtual_time(main)


def test_a_look_that_finds_nothing_out_is_repeated_soon_and_forgiven(
    virtual_time: Callable[..., object],
) -> None:
    async def main() -> None:
        stacks = Stacks()
        stacks.passed("a")
        await stacks.run(29)
        stacks.engine.facts["a"] = Facts(unknown="slow")
        await stacks.run(4)
        assert len(stacks.engine.examined) > 2
        assert stacks.woken == []
        del stacks.engine.facts["a"]
        await stacks.run(30)
        assert stacks.woken == []
        stacks.engine.facts["a"] = Facts(unknown="slow")
        await stacks.run(60)
        assert stacks.woken == ["a"]
        assert [(gate.verdict, gate.message) for gate in stacks.gates["a"]] == [(Verdict.UNKNOWN, "slow")]

    virtual_time(main)


def test_another_pod_is_another_engine(virtual_time: Callable[..., object]) -> None:
    async def main() -> None:
        stacks = Stacks()
        stacks.passed("a")
        await stacks.run(31)
        assert stacks.pulse.known("a", [stacks.target("a")])
        stacks.pods["a"] = "another"
        assert not stacks.pulse.known("a", [stacks.target("a")])
        stacks.engine.examined.clear()
        stacks.look("a")
        await stacks.run(1)
        assert stacks.engine.examined == ["a"], "at once"

    virtual_time(main)


def test_what_does_not_serve_is_not_examined(virtual_time: Callable[..., object]) -> None:
    async def main() -> None:
        stacks = Stacks()
        stacks.engine.outcomes["a"] = Outcome.NOT_ANSWERING
        stacks.look("a")
        await stacks.run(10)
        assert stacks.engine.examined == []
        assert set(map(len, stacks.told)) == {0}, "and nothing is known of it any more"
        stacks.told.clear()
        stacks.pulse.follow("a", [], {}, {})
        await stacks.run(40)
        assert stacks.told == [{}], "no pod is ready: nobody is asked"

    virtual_time(main)


def test_an_engine_that_hangs_keeps_nobody_waiting_and_is_told_within_six_seconds(
    virtual_time: Callable[..., object],
) -> None:
    async def main() -> None:
        stacks = Stacks(looks=False)
        stacks.passed("a", "b")
        await stacks.run(30)
        stacks.engine.asked.clear()
        stacks.engine.silent = {"a"}
        await stacks.run(5.9)
        assert set(stacks.woken) == {"a"}, "no answer is an answer"
        assert Counter(host for _, host in stacks.engine.asked)["b"] >= 2

    virtual_time(main)
