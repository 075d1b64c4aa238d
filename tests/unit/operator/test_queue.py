"""The work queue: the rules as a state machine, then its workers in virtual time."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable

import pytest
import structlog
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from cos_operator.queue import WorkQueue

KEYS = st.sampled_from("abc")


class QueueRules(RuleBasedStateMachine):
    """Every order of calls against the plainest model: who wants a run at what time, and who is being run.

    What is urgent is kept apart: it alone is not held up by a backoff.
    """

    @initialize()
    def start(self) -> None:
        self.now = 0.0
        self.queue: WorkQueue[str] = WorkQueue(clock=lambda: self.now, random=lambda: 1.0)
        self.wanted: dict[str, float] = {}
        self.urgent: set[str] = set()
        self.backoff: dict[str, float] = {}
        self.busy: set[str] = set()

    def want(self, key: str, when: float) -> None:
        when = max(when, self.backoff.get(key, when))
        self.wanted[key] = min(when, self.wanted.get(key, when))

    def runnable(self) -> set[str]:
        return self.urgent | {key for key, when in self.wanted.items() if when <= self.now}

    @rule(key=KEYS, urgent=st.booleans())
    def add(self, key: str, *, urgent: bool) -> None:
        self.queue.add(key, urgent=urgent)
        if urgent:
            self.urgent.add(key)
        else:
            self.want(key, self.now)

    @rule(key=KEYS, seconds=st.integers(-1, 10))
    def add_after(self, key: str, seconds: int) -> None:
        self.queue.add_after(key, seconds)
        self.want(key, self.now + max(0, seconds))

    @rule(key=KEYS)
    def retry(self, key: str) -> None:
        self.wanted[key] = self.backoff[key] = self.now + self.queue.retry(key)

    @rule(key=KEYS)
    def forget(self, key: str) -> None:
        self.queue.forget(key)
        self.backoff.pop(key, None)

    @rule(seconds=st.integers(0, 20))
    def time_passes(self, seconds: int) -> None:
        self.now += seconds

    @rule()
    def take(self) -> None:
        runnable = self.runnable() - self.busy
        key = self.queue.take()
        if key is None:
            assert not runnable, "a key that was due is not handed out"
            return
        assert key in runnable, "a key is handed out that is busy, or that nobody wanted by now"
        self.urgent.discard(key)
        self.wanted.pop(key, None)
        self.backoff.pop(key, None)
        self.busy.add(key)

    @precondition(lambda self: self.busy)
    @rule(data=st.data())
    def done(self, data: st.DataObject) -> None:
        key = data.draw(st.sampled_from(sorted(self.busy)))
        self.queue.done(key)
        self.busy.remove(key)

    @invariant()
    def nothing_is_ready_twice(self) -> None:
        if hasattr(self, "queue"):
            assert self.queue.depth <= len(self.runnable() - self.busy)

    def teardown(self) -> None:
        """Whatever was wanted comes out once the time has come and the workers are done."""
        if not hasattr(self, "queue"):
            return
        for key in self.busy:
            self.queue.done(key)
        self.now += 1000.0
        left = []
        while (taken := self.queue.take()) is not None:
            left.append(taken)
            self.queue.done(taken)
        assert sorted(left) == sorted(self.urgent | set(self.wanted))


QueueRules.TestCase.settings = settings(max_examples=300, stateful_step_count=40, deadline=None)
TestQueueRules = QueueRules.TestCase


def taken(queue: WorkQueue[str]) -> list[str]:
    found = []
    while (key := queue.take()) is not None:
        found.append(key)
        queue.done(key)
    return found


def test_what_is_urgent_goes_first_each_once() -> None:
    queue: WorkQueue[str] = WorkQueue()
    for key in "abcd":
        queue.add(key, urgent=False)
    for key in "xcx":
        queue.add(key)
    queue.add("c", urgent=False)
    assert queue.depth == 5
    assert taken(queue) == ["x", "c", "a", "b", "d"]
    assert queue.depth == 0


def test_what_is_not_urgent_gets_a_turn_now_and_again() -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.add("patient", urgent=False)
    for number in range(30):
        queue.add(f"urgent-{number}")
    assert taken(queue).index("patient") == 8


def test_a_key_that_has_become_urgent_is_not_handed_out_twice() -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.add("a", urgent=False)
    queue.add("a")
    assert queue.take() == "a"
    queue.add("a", urgent=False)
    assert queue.take() is None, "it is in a worker's hands"
    queue.done("a")
    assert taken(queue) == ["a"]


def test_backoff_doubles_up_to_its_cap_and_is_reset_by_forget() -> None:
    queue: WorkQueue[str] = WorkQueue(base=1.0, cap=10.0, random=lambda: 1.0)
    assert [queue.retry("a") for _ in range(6)] == [1, 2, 4, 8, 10, 10]
    queue.forget("a")
    assert queue.retry("a") == 1


def test_jitter_is_between_half_and_the_whole_delay() -> None:
    assert WorkQueue[str](base=8.0, random=lambda: 0.0).retry("a") == 4
    assert WorkQueue[str](base=8.0, random=lambda: 0.5).retry("a") == 6


def test_a_thousandth_failure_still_has_a_finite_delay() -> None:
    queue: WorkQueue[str] = WorkQueue(cap=60.0, random=lambda: 1.0)
    assert [queue.retry("a") for _ in range(2000)][-1] == 60


def test_a_servers_retry_after_is_the_shortest_delay() -> None:
    assert WorkQueue[str](random=lambda: 1.0).retry("a", at_least=30.0) == 30


def test_replaced_delays_do_not_pile_up() -> None:
    queue: WorkQueue[str] = WorkQueue(clock=lambda: 0.0)
    for seconds in range(10_000, 0, -1):
        queue.add_after("a", seconds)
    assert len(queue._due) < 100


def test_every_key_is_served_and_never_by_two_workers(virtual_time: Callable[..., object]) -> None:
    """4 workers, 20 keys, each added 50 times at odd moments, also while it is being served."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        queue: WorkQueue[int] = WorkQueue(clock=loop.time)
        serving: Counter[int] = Counter()
        last_seen: dict[int, float] = {}
        last_added: dict[int, float] = {}
        overlaps = []

        async def handler(key: int) -> None:
            serving[key] += 1
            if serving[key] > 1:
                overlaps.append(key)
            last_seen[key] = loop.time()
            await asyncio.sleep(0.01 * (key % 7))
            serving[key] -= 1

        async def producer(key: int) -> None:
            for number in range(50):
                queue.add(key) if number % 2 else queue.add_after(key, 0.005 * (number % 5))
                last_added[key] = loop.time()
                await asyncio.sleep(0.003 * (key + 1))

        served = asyncio.create_task(queue.run(handler, workers=4, timeout=60))
        await asyncio.gather(*(producer(key) for key in range(20)))
        await asyncio.sleep(5)
        assert queue.running
        served.cancel()
        await asyncio.wait([served])
        assert not overlaps
        assert set(last_seen) == set(range(20))
        assert all(last_seen[key] >= last_added[key] for key in range(20)), "a change was never seen"
        assert not queue.running

    virtual_time(main)


def test_handlers_result_is_the_time_of_the_next_run(virtual_time: Callable[..., object]) -> None:
    async def main() -> list[float]:
        loop = asyncio.get_running_loop()
        queue: WorkQueue[str] = WorkQueue(clock=loop.time)
        runs: list[float] = []

        async def handler(_: str) -> float | None:
            runs.append(loop.time())
            return 30.0 if len(runs) < 3 else None

        queue.add("a")
        async with asyncio.TaskGroup() as group:
            served = group.create_task(queue.run(handler, workers=2, timeout=60))
            await asyncio.sleep(3600)
            served.cancel()
        return [run - runs[0] for run in runs]

    assert virtual_time(main) == pytest.approx([0, 30, 60])


def test_a_failing_run_is_retried_with_backoff_until_it_succeeds(virtual_time: Callable[..., object]) -> None:
    async def main() -> list[float]:
        loop = asyncio.get_running_loop()
        queue: WorkQueue[str] = WorkQueue(clock=loop.time, random=lambda: 1.0)
        runs: list[float] = []

        async def handler(_: str) -> None:
            runs.append(loop.time())
            if len(runs) < 4:
                raise RuntimeError("not yet")

        queue.add("a")
        served = asyncio.create_task(queue.run(handler, workers=1, timeout=60))
        await asyncio.sleep(3600)
        served.cancel()
        await asyncio.wait([served])
        assert queue.retry("a") == 1, "success resets the backoff"
        return [run - runs[0] for run in runs]

    assert virtual_time(main) == pytest.approx([0, 1, 3, 7])


def test_only_news_runs_a_failing_key_before_its_backoff_is_over(virtual_time: Callable[..., object]) -> None:
    async def main() -> list[float]:
        loop = asyncio.get_running_loop()
        queue: WorkQueue[str] = WorkQueue(base=8.0, clock=loop.time, random=lambda: 1.0)
        runs: list[float] = []

        async def handler(_: str) -> None:
            runs.append(loop.time())
            await asyncio.sleep(2)
            raise RuntimeError("not yet")

        async def look_at_everything() -> None:
            while True:
                queue.add("a", urgent=False)
                queue.add_after("a", 0.5)
                await asyncio.sleep(1)

        queue.add("a")
        tasks = [asyncio.create_task(queue.run(handler, workers=1, timeout=60))]
        tasks.append(asyncio.create_task(look_at_everything()))
        await asyncio.sleep(50)
        queue.add("a")
        await asyncio.sleep(1)
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        return [run - runs[0] for run in runs]

    assert virtual_time(main) == pytest.approx([0, 10, 28, 50]), "after 8 and 16 s, and the news after 20"


def test_what_asks_patiently_during_a_backoff_is_served_by_the_retry(
    virtual_time: Callable[..., object],
) -> None:
    async def main() -> list[float]:
        loop = asyncio.get_running_loop()
        queue: WorkQueue[str] = WorkQueue(clock=loop.time, random=lambda: 1.0)
        runs: list[float] = []

        async def handler(_: str) -> None:
            runs.append(loop.time())
            if len(runs) < 5:
                queue.add("a", urgent=len(runs) == 3)
            if len(runs) < 4:
                raise RuntimeError("not yet")

        queue.add("a")
        task = asyncio.create_task(queue.run(handler, workers=1, timeout=60))
        await asyncio.sleep(3)
        assert queue.depth == 0
        await asyncio.sleep(60)
        task.cancel()
        await asyncio.wait([task])
        return [run - runs[0] for run in runs]

    assert virtual_time(main) == pytest.approx([0, 1, 3, 3, 3]), "news meanwhile runs it at once"


@pytest.mark.parametrize("explains_itself", [True, False])
def test_only_a_failure_that_explains_itself_is_logged_without_its_traceback(
    virtual_time: Callable[..., object],
    explains_itself: bool,  # noqa: FBT001
) -> None:
    class Refused(Exception):
        pass

    Refused.explains_itself = explains_itself  # type: ignore[attr-defined]

    async def main() -> None:
        queue: WorkQueue[str] = WorkQueue()

        async def handler(_: str) -> None:
            raise Refused("cannot list Secrets")

        queue.add("a")
        with structlog.testing.capture_logs() as lines:
            task = asyncio.create_task(queue.run(handler, 1, 10))
            await asyncio.sleep(0.1)
            task.cancel()
            await asyncio.wait([task])
        (line,) = lines
        assert (line["event"], line["key"]) == ("run failed", "a")
        assert (line.get("error") == "cannot list Secrets") is explains_itself
        assert bool(line.get("exc_info")) is not explains_itself

    virtual_time(main)


def test_a_run_over_its_time_limit_is_cut_and_retried(virtual_time: Callable[..., object]) -> None:
    async def main() -> list[str]:
        loop = asyncio.get_running_loop()
        queue: WorkQueue[str] = WorkQueue(clock=loop.time, random=lambda: 1.0)
        log: list[str] = []

        async def handler(key: str) -> None:
            if key == "hangs" and "cut" not in log:
                try:
                    await asyncio.sleep(1e9)
                finally:
                    log.append("cut")
            log.append(key)

        queue.add("hangs")
        queue.add("b")
        served = asyncio.create_task(queue.run(handler, workers=1, timeout=60))
        await asyncio.sleep(65)
        served.cancel()
        await asyncio.wait([served])
        return log

    assert virtual_time(main) == ["cut", "b", "hangs"]


def test_cancellation_ends_the_workers_and_keeps_the_interrupted_key(
    virtual_time: Callable[..., object],
) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        queue: WorkQueue[str] = WorkQueue(clock=loop.time)

        async def handler(_: str) -> None:
            await asyncio.sleep(50)

        queue.add("a")
        served = asyncio.create_task(queue.run(handler, workers=2, timeout=60))
        await asyncio.sleep(1)
        assert queue.take() is None
        served.cancel()
        with pytest.raises(asyncio.CancelledError):
            await served
        assert queue.take() == "a"

    virtual_time(main)


def test_a_cancellation_inside_the_handler_does_not_cost_a_worker(
    virtual_time: Callable[..., object],
) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        queue: WorkQueue[str] = WorkQueue(clock=loop.time)
        runs = 0

        async def handler(_: str) -> None:
            nonlocal runs
            runs += 1
            if runs == 1:
                raise asyncio.CancelledError

        queue.add("a")
        served = asyncio.create_task(queue.run(handler, workers=1, timeout=60))
        await asyncio.sleep(60)
        assert runs == 2
        assert queue.running
        served.cancel()
        await asyncio.wait([served])

    virtual_time(main)


def test_a_second_run_at_once_is_refused(virtual_time: Callable[..., object]) -> None:
    async def main() -> None:
        queue: WorkQueue[str] = WorkQueue(clock=asyncio.get_running_loop().time)

        async def handler(_: str) -> None: ...

        served = asyncio.create_task(queue.run(handler, workers=1, timeout=60))
        await asyncio.sleep(1)
        with pytest.raises(RuntimeError, match="already being served"):
            await queue.run(handler, workers=1, timeout=60)
        served.cancel()
        await asyncio.wait([served])

    virtual_time(main)
