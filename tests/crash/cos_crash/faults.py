"""The faults that can be injected, where, and how a case is written down."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum


class Stream(StrEnum):
    """What a fault counts to find its place."""

    WRITES = "writes"
    """PATCH, POST, PUT and DELETE, those of the Lease aside."""
    LISTS = "lists"
    """Answers to GETs of a collection."""
    EVENTS = "events"
    """Watch events of all watches together, bookmarks aside."""


class FaultKind(StrEnum):
    """What happens at the n-th write, list or watch event."""

    KILL_BEFORE = "kill-before"
    """The operator dies, and the write never reaches the API server."""
    KILL_AFTER = "kill-after"
    """The write is done, and the operator dies before it hears of that."""
    CONFLICT = "conflict"
    """409: somebody else was faster. Nothing is written."""
    THROTTLED = "throttled"
    """429 with Retry-After. Nothing is written."""
    ERROR = "error"
    """500. Nothing is written."""
    UNAVAILABLE = "unavailable"
    """503. Nothing is written."""
    TIMEOUT = "timeout"
    """The write is done, and the answer never comes."""
    STALE = "stale"
    """A list is answered with an earlier answer to the same question; from the n-th on, where there is one."""
    DROPPED = "dropped"
    """The event does not arrive."""
    DELAYED = "delayed"
    """The event and those behind it in its watch arrive seconds later."""
    DUPLICATED = "duplicated"
    """The event arrives twice."""
    SILENT = "silent"
    """From this event on the watch says nothing more, and stays open."""
    GONE = "gone"
    """410 in place of the event: the watch ends, and what is older is lost."""

    @property
    def stream(self) -> Stream:
        """What the fault counts."""
        if self is FaultKind.STALE:
            return Stream.LISTS
        return Stream.EVENTS if self in _OF_EVENTS else Stream.WRITES


_OF_EVENTS = frozenset(
    {FaultKind.DROPPED, FaultKind.DELAYED, FaultKind.DUPLICATED, FaultKind.SILENT, FaultKind.GONE}
)
KILLS = (FaultKind.KILL_BEFORE, FaultKind.KILL_AFTER)


@dataclass(frozen=True, order=True)
class Fault:
    """A fault at the n-th item (from 1) of its stream, counted from the beginning of the life cycle."""

    kind: FaultKind
    n: int

    def __str__(self) -> str:
        return f"{self.kind}.{self.n}"


@dataclass(frozen=True, order=True)
class Case:
    """A life cycle and the faults in it. As text ``CYCLE.FAULT.N[+FAULT.N]``, without faults ``CYCLE.none``."""

    cycle: str
    faults: tuple[Fault, ...] = ()

    def __str__(self) -> str:
        return f"{self.cycle}.{'+'.join(map(str, self.faults)) or 'none'}"

    @classmethod
    def parse(cls, text: str) -> Case:
        """The case with this id. Raises ValueError."""
        cycle, _, rest = text.partition(".")
        if rest == "none":
            return cls(cycle)
        found = [re.fullmatch(r"([a-z-]+)\.([1-9]\d*)", part) for part in rest.split("+")]
        if not all(found):
            raise ValueError(f"{text!r} is not CYCLE.FAULT.N[+FAULT.N]")
        return cls(cycle, tuple(Fault(FaultKind(match[1]), int(match[2])) for match in found if match))


class Injection:
    """The faults of the case under way, and what has been counted since it began."""

    def __init__(self, faults: Iterable[Fault] = ()) -> None:
        self._pending = list(faults)
        self.counts: dict[Stream, int] = dict.fromkeys(Stream, 0)

    @property
    def unreached(self) -> tuple[Fault, ...]:
        """The faults whose place did not come."""
        return tuple(self._pending)

    def next(self, stream: Stream) -> tuple[int, FaultKind | None]:
        """Count one item; its number, and the fault that strikes it. `STALE` is taken by `take_stale`."""
        self.counts[stream] += 1
        number = self.counts[stream]
        for fault in self._pending:
            if fault.kind.stream is stream and fault.n == number and fault.kind is not FaultKind.STALE:
                self._pending.remove(fault)
                return number, fault.kind
        return number, None

    def take_stale(self) -> bool:
        """Whether the present list may be answered with an older one; once."""
        number = self.counts[Stream.LISTS]
        for fault in self._pending:
            if fault.kind is FaultKind.STALE and fault.n <= number:
                self._pending.remove(fault)
                return True
        return False
