"""Runs life cycles, one after the other on one site, and judges how they end."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from cos_crash.api import Manifest
from cos_crash.differ import State, diff, identities, lost, normalise
from cos_crash.faults import Case, Injection, Stream
from cos_crash.lifecycles import STACK, LifeCycle, Step, stack_path
from cos_crash.operator_process import OperatorEnded
from cos_crash.pods import PodLedger
from cos_crash.site import RESYNC, Site

#: Seconds that a life cycle may take longer than without a fault, the start of a killed operator's successor aside:
#: silent watches alone take 70 s to be noticed.
PATIENCE = 150.0
#: Seconds for a step without a fault.
_FAULT_FREE_LIMIT = 300.0
#: Seconds that the starts of operators may take in a case, on a machine that does much else.
_START_LIMIT = 240.0
#: Seconds without a write after which a fault-free run is over: longer than the 10 s after which a revision counts
#: as good.
_RESTING = 12.0
#: Seconds without a write after which a pass is over.
_QUIET = 3.0
#: Seconds in which a pass that was asked for has written what it has to write.
_PASS = 2.0
_PASSES = 2
_INTERVAL = 0.5
_POKE = "crash-test/poke"


@dataclass(frozen=True)
class Reference:
    """How a life cycle goes without a fault.

    `states`: after each step. `totals`: writes, lists and events. `pods`: made, by component. `seconds`: in all.
    """

    states: tuple[State, ...]
    totals: Mapping[Stream, int]
    pods: Mapping[str, int]
    seconds: float
    writes: tuple[str, ...]


@dataclass(frozen=True)
class Result:
    """How a case ended. No problems: well. `unreached`: the place of a fault did not come, so it proves less."""

    case: Case
    problems: tuple[str, ...]
    unreached: bool
    seconds: float
    writes: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """Whether it ended as the fault-free run."""
        return not self.problems


class Deviation(Exception):
    """The life cycle did not end as it should; the arguments are lines for a person."""


class Lane:
    """One site, on which life cycles follow each other. `patience`: seconds that a fault may cost."""

    def __init__(self, site: Site, patience: float = PATIENCE) -> None:
        self._site = site
        self._patience = patience
        self._objects: list[Manifest] = []

    async def record(self, cycle: LifeCycle) -> Reference:
        """Run without a fault and say how it went. Raises `Deviation` or `OperatorEnded`."""
        began = time.monotonic()
        states = []
        self._site.proxy.begin(Injection())
        async with PodLedger(self._site.api, self._site.namespace) as pods:
            for step in cycle.steps:
                await step.act(self._site.api, self._site.namespace)
                await self._until_resting(step)
                states.append(await self._state())
            totals = dict(self._site.proxy.injection.counts)
            await self._require_rest(states[-1])
        return Reference(tuple(states), totals, pods.made, time.monotonic() - began, self._writes())

    async def run(self, cycle: LifeCycle, case: Case, reference: Reference) -> Result:
        """Run with the case's faults and compare."""
        began = time.monotonic()
        injection = Injection(case.faults)
        self._site.proxy.begin(injection)
        problems: tuple[str, ...] = ()
        try:
            await self._compare(cycle, reference)
        except (Deviation, OperatorEnded) as error:
            problems = tuple(map(str, error.args))
        return Result(case, problems, bool(injection.unreached), time.monotonic() - began, self._writes())

    async def _compare(self, cycle: LifeCycle, reference: Reference) -> None:
        objects = await self._site.api.objects(self._site.namespace)
        before = identities(objects)
        async with PodLedger(self._site.api, self._site.namespace) as pods:
            for step, expected in zip(cycle.steps, reference.states, strict=True):
                await step.act(self._site.api, self._site.namespace)
                await self._until_equal(expected, reference.seconds + self._patience)
            await self._require_rest(reference.states[-1])
        if f"CosStack/{STACK}" not in reference.states[-1]:
            # A pass that has begun before the deletion may still make a pod, which is collected with all the rest.
            return
        if changed := lost(before, identities(self._objects)):
            raise Deviation(*changed)
        if wrong := diff(reference.pods, pods.made, "pods made"):
            raise Deviation(*wrong)

    async def _until_resting(self, step: Step) -> None:
        deadline = time.monotonic() + _FAULT_FREE_LIMIT
        quiet_since, written = time.monotonic(), -1
        while True:
            self._site.require_alive()
            now, writes = time.monotonic(), len(self._site.proxy.journal.writes)
            stack = await self._site.api.get(stack_path(self._site.namespace))
            if writes != written or not step.reached(stack):
                quiet_since, written = now, writes
            elif now - quiet_since > _RESTING:
                return
            if now > deadline:
                raise Deviation(f"no rest within {_FAULT_FREE_LIMIT:g} s; {(stack or {}).get('status')}")
            await asyncio.sleep(_INTERVAL)

    async def _until_equal(self, expected: State, seconds: float) -> None:
        """Wait until all is as expected and the operator has stopped writing: its last pass may still be under way."""
        began = time.monotonic()
        quiet_since, written = began, -1
        while True:
            self._site.require_alive()
            differences = diff(expected, await self._state())
            now, writes = time.monotonic(), len(self._site.proxy.journal.writes)
            if writes != written or differences:
                quiet_since, written = now, writes
            elif now - quiet_since > _QUIET:
                return
            away = min(self._site.proxy.away(), _START_LIMIT)
            if now > began + seconds + away:
                raise Deviation(
                    f"not as without a fault, and quiet, within {seconds:.0f} s; {writes} writes",
                    *differences,
                )
            await asyncio.sleep(_INTERVAL)

    async def _require_rest(self, expected: State) -> None:
        """Ask for passes of the operator, which must write nothing: its work is done, and it does not loop."""
        journal = self._site.proxy.journal
        written = len(journal.writes)
        if f"CosStack/{STACK}" in expected:
            for number in range(_PASSES):
                reads = journal.stack_reads
                patch = {"metadata": {"annotations": {_POKE: f"{time.time()}.{number}"}}}
                await self._site.api.merge(stack_path(self._site.namespace), patch)
                await self._until(
                    lambda reads=reads: journal.stack_reads > reads, 4 * RESYNC, "a pass that was asked for"
                )
                await asyncio.sleep(_PASS)
        else:
            await asyncio.sleep(_PASS)
        self._site.require_alive()
        if late := journal.writes[written:]:
            raise Deviation("writes although all was done:", *map(str, late))
        if differences := diff(expected, await self._state()):
            raise Deviation("changed although all was done:", *differences)

    async def _until(self, true: Callable[[], bool], seconds: float, what: str) -> None:
        deadline = time.monotonic() + seconds
        while not true():
            self._site.require_alive()
            if time.monotonic() > deadline:
                raise Deviation(f"not within {seconds:g} s: {what}")
            await asyncio.sleep(_INTERVAL / 5)

    async def _state(self) -> State:
        self._objects = await self._site.api.objects(self._site.namespace)
        return normalise(self._objects, self._site.namespace)

    def _writes(self) -> tuple[str, ...]:
        return tuple(map(str, self._site.proxy.journal.writes))
