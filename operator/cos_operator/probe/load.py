"""Making load by a schedule, and measuring it: threads, since a sleeping one wakes within 0.1 ms.

An event loop wakes up to a millisecond late (epoll), which is as long as an engine takes to answer. The drivers used
here are the synchronous ones for the same reason.
"""

from __future__ import annotations

import math
import sys
import threading
import time
from array import array
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import count
from typing import Protocol, Self

from cos_controllers.probes.results import Percentiles

#: Seconds for what is under way when the time is over; the drivers' own limits are shorter.
_END_SECONDS = 10.0
#: Seconds between two looks at whether the prober is let run.
_PULSE_SECONDS = 0.005
#: Seconds between two attempts to connect anew, so that an engine that is gone is not flooded.
_RECONNECT_SECONDS = 0.5
#: Seconds of requests before any is counted: first statements are parsed, first pages are read.
WARM_UP_SECONDS = 0.5
#: Seconds for which Python lets one thread run while another one waits: an answer that came is to be seen at once.
_SWITCH_SECONDS = 0.0005


class Broken(Exception):
    """A check cannot run. The message is for a person and holds no secret."""


class Connection(Protocol):
    """One connection, used by one thread."""

    def request(self, number: int) -> None:
        """One request; `number` is unique in the check. Raises what the driver raises; ends within 5 s."""

    def close(self) -> None:
        """Close it. Never raises."""


@dataclass
class Measured:
    """What connections saw. Times are seconds: since a request was due, since it was sent, of the prober's delay.

    `pulse`: how late the prober was let run, whatever it was doing.
    """

    due: array[float] = field(default_factory=lambda: array("d"))
    sent: array[float] = field(default_factory=lambda: array("d"))
    lag: array[float] = field(default_factory=lambda: array("d"))
    pulse: array[float] = field(default_factory=lambda: array("d"))
    errors: int = 0
    missed: int = 0
    first_error: str = ""
    elapsed: float = 0.0
    client_cpu: float = 0.0

    def merge(self, other: Measured) -> None:
        """Add what another connection saw."""
        self.due.extend(other.due)
        self.sent.extend(other.sent)
        self.lag.extend(other.lag)
        self.errors += other.errors
        self.first_error = self.first_error or other.first_error


def percentiles(seconds: array[float]) -> Percentiles | None:
    """Exact percentiles by nearest rank, in microseconds; None of nothing."""
    if not seconds:
        return None
    ordered = sorted(seconds)

    def at(share: float) -> int:
        return round(ordered[math.ceil(share * len(ordered)) - 1] * 1e6)

    return Percentiles(at(0.5), at(0.95), at(0.99), round(ordered[-1] * 1e6))


class _Pulse:
    """Whether a thread of the prober is let run when it wants to: what its requests' lateness alone does not tell.

    Workers that are behind do not sleep, and so never wake up late, whoever is to blame.
    """

    def __init__(self) -> None:
        self.lag = array("d")
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._over.is_set():
            due = time.perf_counter() + _PULSE_SECONDS
            time.sleep(_PULSE_SECONDS)
            self.lag.append(time.perf_counter() - due)


class _Schedule:
    """Whose turn is next: request n is due at n / rate, whoever is free takes it. Without a rate, at once."""

    def __init__(self, began: float, rate: float, seconds: float) -> None:
        self.end = began + seconds
        self._began = began
        self._rate = rate
        self._numbers = count()

    def next(self) -> tuple[int, float | None] | None:
        """The number of the next request and when it is due (None: now); None if the time is over."""
        number = next(self._numbers)
        if not self._rate:
            return (number, None) if time.perf_counter() < self.end else None
        due = self._began + number / self._rate
        return (number, due) if due < self.end else None


def make_load(
    connect: Callable[[], Connection],
    *,
    rate: float,
    connections: int,
    seconds: float,
    stop: threading.Event,
    warm_up: float = WARM_UP_SECONDS,
) -> Measured:
    """Make `rate` requests a second (0: as many as are answered) over `connections` for `seconds`.

    `connect` opens one; an error of any of the first ones raises `Broken`. Requests that are due while every
    connection is busy are sent as soon as one is free, and counted from when they were due; those that are not sent
    when the time is over count as having taken until then. `stop` ends it early.
    """
    sys.setswitchinterval(_SWITCH_SECONDS)
    opened = _open(connect, connections)
    workers: list[_Worker] = []
    try:
        pause = 1 / rate if rate else 0.0
        warm = [_warm_up(connection, warm_up / connections, pause, stop) for connection in opened]
        began = time.perf_counter() + 0.01
        schedule = _Schedule(began, rate, seconds)
        workers = [
            _Worker(connection if usable else None, connect, schedule, stop)
            for connection, usable in zip(opened, warm, strict=True)
        ]
        cpu = time.process_time()
        with _Pulse() as pulse:
            for worker in workers:
                worker.thread.start()
            for worker in workers:
                worker.thread.join(max(schedule.end + _END_SECONDS - time.perf_counter(), 0.0))
        # Without a schedule there is nothing to be late for.
        total = Measured(client_cpu=time.process_time() - cpu, pulse=pulse.lag if rate else array("d"))
        if any(worker.thread.is_alive() for worker in workers):
            raise Broken(f"requests took more than {_END_SECONDS:g} s longer than the check")
        for worker in workers:
            total.merge(worker.measured)
            total.missed += worker.measured.missed
        # One answer that comes late makes the others no fewer a second.
        ended = max((worker.ended for worker in workers), default=began)
        total.elapsed = max(min(ended, schedule.end) - began, 1e-6)
        return total
    finally:
        _close([*opened, *(worker.connection for worker in workers if worker.connection)])


def _close(connections: Iterable[Connection]) -> None:
    for connection in connections:
        connection.close()


def _open(connect: Callable[[], Connection], connections: int) -> list[Connection]:
    opened: list[Connection] = []
    try:
        opened.extend(connect() for _ in range(connections))
    except Exception as error:
        _close(opened)
        raise Broken(f"connection {len(opened) + 1} of {connections} failed: {said(error)}") from error
    return opened


def _warm_up(connection: Connection, seconds: float, pause: float, stop: threading.Event) -> bool:
    """Whether the connection can be used afterwards. What fails here fails again where it is counted.

    No faster than the check itself: as many requests as an engine answers are what applications notice most.
    """
    end = time.perf_counter() + seconds
    numbers = count(start=-1, step=-1)
    try:
        while time.perf_counter() < end and not stop.is_set():
            connection.request(next(numbers))
            if pause:
                stop.wait(pause)
    except Exception:  # noqa: BLE001 - whatever a driver raises
        return False
    return True


class _Worker:
    """One connection and its thread."""

    def __init__(
        self,
        connection: Connection | None,
        connect: Callable[[], Connection],
        schedule: _Schedule,
        stop: threading.Event,
    ) -> None:
        self.measured = Measured()
        self.ended = 0.0
        self.thread = threading.Thread(target=self._run, daemon=True)
        #: None after an error.
        self.connection = connection
        self._connect = connect
        self._schedule = schedule
        self._stop = stop

    def _run(self) -> None:
        seen, failing = self.measured, False
        while not self._stop.is_set() and (turn := self._schedule.next()):
            number, due = turn
            now = time.perf_counter()
            if due is not None and now >= self._schedule.end:
                seen.missed += 1
                seen.due.append(now - due)
                continue
            if due is not None and now < due:
                time.sleep(due - now)
                now = time.perf_counter()
                seen.lag.append(now - due)
            try:
                self._connected().request(number)
            except Exception as error:  # noqa: BLE001 - whatever a driver raises is a request that failed
                seen.errors += 1
                seen.first_error = seen.first_error or said(error)
                self._drop(again=failing)
                failing = True
                continue
            failing = False
            after = time.perf_counter()
            seen.sent.append(after - now)
            seen.due.append(after - (now if due is None else due))
        self.ended = time.perf_counter()

    def _connected(self) -> Connection:
        if self.connection is None:
            self.connection = self._connect()
        return self.connection

    def _drop(self, *, again: bool) -> None:
        """The state of a connection after an error is not known; the next request opens another one.

        At once, so that one that was reset does not delay what follows; if that fails too, a little later.
        """
        if self.connection is not None:
            self.connection.close()
            self.connection = None
        if again:
            self._stop.wait(_RECONNECT_SECONDS)


def said(error: BaseException) -> str:
    """An error in one line."""
    text = " ".join(str(error).split())
    return text or type(error).__name__
