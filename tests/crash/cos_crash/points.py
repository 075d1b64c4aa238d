"""Which cases there are, in which order they are tried, and which are left."""

from __future__ import annotations

import functools
import itertools
import random
from collections import deque
from collections.abc import Collection, Hashable, Iterable, Mapping
from typing import NamedTuple

from cos_crash.covering import covering
from cos_crash.faults import KILLS, Case, Fault, FaultKind, Stream
from cos_crash.lane import Result
from cos_crash.lifecycles import LIFE_CYCLES

#: Places of faults in pairs, as shares of a fault-free run: early, in the middle, late.
_SHARES = (0.1, 0.5, 0.85)
#: Share of the writes of a fault-free run that surely are in another run.
_SURE = 0.8


class Pair(NamedTuple):
    """Two faults in one life cycle, their places as shares of the fault-free run."""

    cycle: str
    kinds: tuple[FaultKind, FaultKind]
    shares: tuple[float, float]


@functools.cache
def pairs(cycles: tuple[str, ...], seed: int) -> tuple[Pair, ...]:
    """Few pairs in which every two faults meet, and every fault strikes every life cycle at every place."""
    rows = (
        Pair(cycle, kinds, shares)
        for cycle in cycles
        for kinds in itertools.combinations_with_replacement(FaultKind, 2)
        for shares in itertools.product(_SHARES, repeat=2)
        # Two faults of one kind at one place are one.
        if kinds[0] is not kinds[1] or shares[0] < shares[1]
    )
    return tuple(covering(rows, _covers, seed))


def _covers(pair: Pair) -> Iterable[Hashable]:
    yield pair.kinds
    for kind, share in zip(pair.kinds, pair.shares, strict=True):
        yield pair.cycle, kind, share


def resolved(pair: Pair, totals: Mapping[Stream, int]) -> Case:
    """The case of a pair, its places counted in a fault-free run. No two faults have the same place."""
    faults: list[Fault] = []
    for kind, share in zip(pair.kinds, pair.shares, strict=True):
        n = 1 + int(share * max(totals[kind.stream] - 1, 0))
        while any(other.kind.stream is kind.stream and other.n == n for other in faults):
            n += 1
        faults.append(Fault(kind, n))
    return Case(pair.cycle, tuple(faults))


class Points:
    """The cases to try, handed out life cycle by life cycle.

    Without `chosen` these are, for each life cycle, a crash before and after each write, and the pairs. The first two
    of each are a crash before and one after a write, so that however few are tried, these are among them; the rest
    is in an order that the seed gives. `finished` ones are left out.
    """

    def __init__(
        self, seed: int, chosen: Collection[Case] | None = None, finished: Collection[str] = ()
    ) -> None:
        self._seed = seed
        self._chosen = chosen
        self._finished = finished
        names = tuple(cycle.name for cycle in LIFE_CYCLES)
        self._pairs = () if chosen is not None else pairs(names, seed)
        self._queues: dict[str, deque[Case]] = {}
        self._last_write: dict[str, int] = {}
        self.all: set[Case] = set(chosen or ())

    def prepare(self, cycle: str, totals: Mapping[Stream, int]) -> None:
        """Say what a fault-free run of the life cycle counted."""
        if self._chosen is not None:
            cases = [case for case in self._chosen if case.cycle == cycle]
        else:
            self._last_write[cycle] = totals[Stream.WRITES]
            cases = self._in_order(cycle, totals)
        self.all |= set(cases)
        self._queues[cycle] = deque(case for case in cases if str(case) not in self._finished)

    def outstanding(self, cycle: str) -> bool:
        """Whether there is a case of it left, or may be: before `prepare` it is not known."""
        if cycle in self._queues:
            return bool(self._queues[cycle])
        return self._chosen is None or any(case.cycle == cycle for case in self._chosen)

    def take(self, cycle: str) -> Case:
        """The next case of a life cycle; the one without faults if none is left."""
        queue = self._queues[cycle]
        return queue.popleft() if queue else Case(cycle)

    def note(self, result: Result) -> None:
        """A case is done. If it killed at the last known write, there may be another one behind it."""
        cycle, last = result.case.cycle, self._last_write.get(result.case.cycle)
        if result.unreached or [fault.n for fault in result.case.faults] != [last]:
            return
        self._last_write[cycle] = last + 1
        more = [Case(cycle, (Fault(kind, last + 1),)) for kind in KILLS]
        self.all |= set(more)
        self._queues[cycle].extend(case for case in more if str(case) not in self._finished)

    def _in_order(self, cycle: str, totals: Mapping[Stream, int]) -> list[Case]:
        chooser = random.Random(f"{self._seed} {cycle}")  # noqa: S311 - a sample, not a secret
        kills = [
            Case(cycle, (Fault(kind, n),)) for kind in KILLS for n in range(1, totals[Stream.WRITES] + 1)
        ]
        # The last writes may be fewer the next time.
        sure = [case for case in kills if case.faults[0].n <= _SURE * totals[Stream.WRITES]]
        first = [chooser.choice([case for case in sure if case.faults[0].kind is kind]) for kind in KILLS]
        found = kills + [resolved(pair, totals) for pair in self._pairs if pair.cycle == cycle]
        rest = sorted(set(found) - set(first))
        chooser.shuffle(rest)
        return [*first, *rest]
