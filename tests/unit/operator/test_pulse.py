"""Engines at rest are asked all the time, evenly, and an answer that differs wakes the stack."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from dataclasses import dataclass, field

from cos_controllers.observation import CheckResult, CheckTarget, Outcome
from cos_operator.pulse import Pulse


@dataclass
class Engine:
    """Serves, unless told otherwise; some never answer."""

    outcomes: dict[str, Outcome] = field(default_factory=dict)
    silent: set[str] = field(default_factory=set)
    asked: list[tuple[float, str]] = field(default_factory=list)

    async def check(self, target: CheckTarget) -> CheckResult:
        self.asked.append((asyncio.get_running_loop().time(), target.host))
        if target.host in self.silent:
            await asyncio.sleep(1e9)
        return CheckResult(self.outcomes.get(target.host, Outcome.SERVING))

    async def provision(self, target: CheckTarget) -> None:
        raise AssertionError(f"{target} is only asked")


def target(host: str) -> CheckTarget:
    return CheckTarget(component="redis", engine="redis", host=host, port=6379)


SERVING = {"redis": CheckResult(Outcome.SERVING)}


async def for_seconds(pulse: Pulse[str], seconds: float) -> None:
    running = asyncio.create_task(pulse.run())
    await asyncio.sleep(seconds)
    assert not running.done()
    running.cancel()
    await asyncio.wait([running])


def test_each_engine_is_asked_once_a_period_evenly_spread(virtual_time: Callable[..., object]) -> None:
    async def main() -> None:
        engine, woken = Engine(), list[str]()
        pulse: Pulse[str] = Pulse({"redis": engine}, woken.append, seconds=30)
        for number in range(60):
            pulse.follow(str(number), [target(str(number))], SERVING)
        await for_seconds(pulse, 119.9)
        times = [when for when, _ in engine.asked]
        assert len(times) == 4 * 60
        assert max(later - earlier for earlier, later in itertools.pairwise(times)) < 0.51
        assert woken == []

    virtual_time(main)


def test_another_answer_wakes_the_stack_until_it_has_been_looked_at(
    virtual_time: Callable[..., object],
) -> None:
    async def main() -> None:
        engine, woken = Engine(), list[str]()
        pulse: Pulse[str] = Pulse({"redis": engine}, woken.append, seconds=10)
        pulse.follow("a", [target("a")], SERVING)
        pulse.follow("b", [target("b")], SERVING)
        engine.outcomes["a"] = Outcome.READ_ONLY
        await for_seconds(pulse, 19.9)
        assert woken == ["a", "a"]
        pulse.follow("a", [target("a")], {"redis": CheckResult(Outcome.READ_ONLY)})
        await for_seconds(pulse, 30)
        assert woken == ["a", "a"], "it is known"
        pulse.forget("b")
        engine.outcomes["b"] = Outcome.READ_ONLY
        await for_seconds(pulse, 30)
        assert woken == ["a", "a"]

    virtual_time(main)


def test_an_engine_that_hangs_keeps_nobody_waiting(virtual_time: Callable[..., object]) -> None:
    async def main() -> None:
        engine, woken = Engine(silent={"a"}), list[str]()
        pulse: Pulse[str] = Pulse({"redis": engine}, woken.append, seconds=4)
        pulse.follow("a", [target("a")], SERVING)
        pulse.follow("b", [target("b")], SERVING)
        await for_seconds(pulse, 7.9)
        assert [host for _, host in engine.asked] == ["a", "b", "a", "b"]
        assert woken == ["a", "a"], "no answer is an answer"

    virtual_time(main)
