"""Making load: by a schedule that waits for nobody, and what is counted of it."""

from __future__ import annotations

import threading
import time
from array import array
from collections import Counter
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cos_operator.probe.load import Broken, Measured, make_load, percentiles


@dataclass
class Engine:
    """An engine whose answers take as long as a test says; what it was asked, by connection."""

    delay: float = 0.0
    stall: tuple[int, float] = (-1, 0.0)
    failing: range = range(0)
    refuses: int = -1
    asked: Counter[int] = field(default_factory=Counter)
    warmed: int = 0
    numbers: list[int] = field(default_factory=list)
    opened: int = 0
    closed: int = 0

    def connect(self) -> Session:
        if self.opened == self.refuses:
            raise ConnectionError("too many clients")
        self.opened += 1
        return Session(self, self.opened)


@dataclass
class Session:
    engine: Engine
    name: int

    def request(self, number: int) -> None:
        engine = self.engine
        engine.asked[self.name] += number >= 0
        engine.warmed += number < 0
        if number >= 0:
            engine.numbers.append(number)
        if number in engine.failing:
            raise OSError("gone\nfor good")
        if number == engine.stall[0]:
            time.sleep(engine.stall[1])
        if engine.delay:
            time.sleep(engine.delay)

    def close(self) -> None:
        self.engine.closed += 1


def load(engine: Engine, *, rate: float = 200, connections: int = 1, seconds: float = 0.5) -> Measured:
    stop = threading.Event()
    return make_load(
        engine.connect, rate=rate, connections=connections, seconds=seconds, stop=stop, warm_up=0.001
    )


def test_each_request_of_the_schedule_is_made_once_whoever_is_free() -> None:
    engine = Engine(delay=0.001)
    seen = load(engine, connections=3)
    assert sorted(engine.numbers) == list(range(100))
    assert (len(seen.sent), len(seen.due), seen.errors, seen.missed) == (100, 100, 0, 0)
    assert len(engine.asked) > 1
    assert engine.closed >= engine.opened == 3


def test_those_behind_a_slow_request_are_counted_from_when_they_were_due() -> None:
    """One answer takes 200 ms, in which 40 more are due: a closed loop would count one slow request."""
    seen = load(Engine(stall=(10, 0.2)))
    assert sum(value > 0.05 for value in seen.sent) == 1
    assert sum(value > 0.05 for value in seen.due) >= 25


def test_what_could_not_be_sent_in_time_is_told_and_counts() -> None:
    seen = load(Engine(stall=(50, 0.4)))
    assert seen.missed + len(seen.sent) == 100
    assert seen.missed > 20
    assert len(seen.due) == 100


def test_without_a_rate_it_asks_as_often_as_it_is_answered() -> None:
    engine = Engine(delay=0.005)
    seen = load(engine, rate=0, connections=2, seconds=0.3)
    assert 30 <= len(seen.sent) <= 130
    assert list(seen.due) == list(seen.sent)
    assert not seen.lag


def test_what_is_not_counted_yet_is_asked_no_faster_than_what_is() -> None:
    engine = Engine()
    make_load(engine.connect, rate=100, connections=2, seconds=0.05, stop=threading.Event(), warm_up=0.2)
    assert 2 <= engine.warmed <= 22


def test_errors_are_counted_with_the_first_ones_words_and_others_go_on() -> None:
    engine = Engine(failing=range(5, 6))
    seen = load(engine, seconds=1.0)
    assert (seen.errors, seen.first_error) == (1, "gone for good")
    assert engine.opened == 2, "whatever became of a connection that failed, it is not used again"
    assert len(seen.sent) + seen.missed == 199
    assert engine.closed >= 2


def test_one_connection_that_is_reset_delays_nothing_that_follows() -> None:
    seen = load(Engine(failing=range(50, 51)), rate=100, seconds=1.0)
    assert (seen.errors, seen.missed) == (1, 0)
    found = percentiles(seen.due)
    assert found
    assert found.p95 < 50_000, "no pause of the prober's own is counted"


def test_one_answer_that_comes_late_makes_the_others_no_fewer_a_second() -> None:
    seen = load(Engine(stall=(99, 1.5)), rate=200, connections=4)
    assert len(seen.sent) == 100
    assert seen.elapsed <= 0.5


def test_a_prober_that_is_not_let_run_notices_whatever_its_workers_do() -> None:
    """Its requests burn CPU, so that no worker ever sleeps, and none wakes up late."""

    class Burning(Engine):
        def connect(self) -> Session:
            return Burn(self, 1)

    class Burn(Session):
        def request(self, number: int) -> None:
            self.engine.numbers.append(number)
            end = time.thread_time() + 0.02
            while time.thread_time() < end:
                pass

    seen = load(Burning(), rate=400, connections=4, seconds=1.0)
    assert seen.missed > 100
    late = percentiles(seen.pulse)
    assert late
    # It took a core; or it was not given one, on a machine that has other work.
    assert seen.client_cpu > 0.8 * seen.elapsed or late.p95 > 2000


def test_an_engine_that_takes_no_connection_breaks_the_check_and_none_is_left_open() -> None:
    engine = Engine(refuses=2)
    with pytest.raises(Broken, match="connection 3 of 4 failed: too many clients"):
        load(engine, connections=4)
    assert (engine.opened, engine.closed) == (2, 2)


def test_an_engine_that_refuses_every_request_is_measured_as_one_that_does() -> None:
    engine = Engine(failing=range(-100_000, 100_000))
    seen = load(engine)
    assert (len(seen.sent), seen.errors > 0, seen.first_error) == (0, True, "gone for good")
    assert engine.closed >= engine.opened


def test_it_ends_early_when_it_is_told_to() -> None:
    stop, engine = threading.Event(), Engine()
    threading.Timer(0.2, stop.set).start()
    began = time.monotonic()
    make_load(engine.connect, rate=50, connections=2, seconds=30, stop=stop, warm_up=0.001)
    assert time.monotonic() - began < 5


@given(st.lists(st.floats(0, 10), min_size=1, max_size=300))
def test_percentiles_are_values_that_were_measured_by_nearest_rank(values: list[float]) -> None:
    found = percentiles(array("d", values))
    assert found
    ordered = [round(value * 1e6) for value in sorted(values)]
    for share, value in ((0.5, found.p50), (0.95, found.p95), (0.99, found.p99)):
        assert value in ordered
        assert sum(item <= value for item in ordered) >= share * len(ordered) - 1e-9
        assert sum(item < value for item in ordered) < share * len(ordered)
    assert found.max == ordered[-1]


def test_nothing_has_no_percentiles() -> None:
    assert percentiles(array("d")) is None
