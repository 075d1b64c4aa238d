"""Every stack is looked at in time, evenly; what cannot be listed costs nobody else anything."""

from __future__ import annotations

import asyncio
import itertools
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence

import pytest

from cos_operator.kube_errors import Forbidden, Request
from cos_operator.resync import Resync

PERIOD = 600.0
VirtualTime = Callable[[Callable[[], object]], object]


class World:
    """Stacks by namespace, some of which cannot be listed; it notes when what was listed and looked at."""

    def __init__(self, stacks: Mapping[str, Sequence[str]]) -> None:
        self.stacks = stacks
        self.refused: set[str] = set()
        self.news: set[str] = set()
        self.urgent: list[str] = []
        self.listings: defaultdict[str, list[float]] = defaultdict(list)
        self.looks: defaultdict[str, list[float]] = defaultdict(list)
        self.now = asyncio.get_running_loop().time
        self.began = self.now()
        self.resync: Resync[str] = Resync(stacks, self._list, self._look, PERIOD, random=lambda: 1.0)

    async def _list(self, namespace: str | None) -> dict[str, bool]:
        assert namespace is not None
        self.listings[namespace].append(self.now() - self.began)
        await asyncio.sleep(0.01)
        if namespace in self.refused:
            raise Forbidden(Request("list", "CosStack", namespace), "a right is missing", code=403)
        return {key: key in self.news for key in self.stacks[namespace]}

    def _look(self, key: str, *, urgent: bool) -> None:
        if urgent:
            self.urgent.append(key)
        self.looks[key].append(self.now() - self.began)

    async def for_seconds(self, seconds: float) -> None:
        running = asyncio.create_task(self.resync.run())
        await asyncio.sleep(seconds)
        assert not running.done()
        running.cancel()
        await asyncio.wait([running])


def names(prefix: str, count: int) -> list[str]:
    return [f"{prefix}-{number}" for number in range(count)]


@pytest.mark.parametrize(
    ("sizes", "pause"),
    [((60,), 10), ((30, 30), 10), ((1,) * 60, 10), ((40, 0, 15, 5), 15)],
    ids=["one", "two", "many", "uneven"],
)
def test_each_stack_is_looked_at_once_a_period_evenly_spread(
    virtual_time: VirtualTime, sizes: tuple[int, ...], pause: float
) -> None:
    async def main() -> None:
        world = World({f"ns-{number}": names(f"ns-{number}", size) for number, size in enumerate(sizes)})
        await world.for_seconds(3.1 * PERIOD)
        assert len(world.looks) == sum(sizes)
        for times in world.looks.values():
            assert max(later - earlier for earlier, later in itertools.pairwise((0, *times))) < PERIOD + 1
            assert len(times) <= 4
        looks = sorted(itertools.chain((0,), *world.looks.values()))
        assert max(later - earlier for earlier, later in itertools.pairwise(looks)) < pause + 0.5

    virtual_time(main)


def test_who_asks_gets_a_look_at_each_stack_at_once_and_then_evenly_again(virtual_time: VirtualTime) -> None:
    async def main() -> None:
        world = World({"one": names("one", 6), "two": names("two", 4)})
        world.resync.ask()
        running = asyncio.create_task(world.for_seconds(1.95 * PERIOD))
        await asyncio.sleep(PERIOD / 2)
        world.resync.ask()
        await running
        for times in world.looks.values():
            first, *evenly, second = (when for when in times if when < PERIOD / 2 + 1)
            assert first < 1
            assert PERIOD / 2 < second < PERIOD / 2 + 1
            assert len(evenly) <= 1
        assert [round(when) for when in world.listings["one"]] == [0, PERIOD / 2, PERIOD * 1.5]

    virtual_time(main)


def test_a_look_is_urgent_if_it_was_asked_for_and_there_is_news(virtual_time: VirtualTime) -> None:
    async def main() -> None:
        world = World({"one": names("one", 6)})
        world.news.add("one-3")
        await world.for_seconds(2 * PERIOD)
        assert world.looks["one-3"]
        assert not world.urgent, "in its course, it ends no backoff"
        world.resync.ask()
        await world.for_seconds(1)
        assert world.urgent == ["one-3"]

    virtual_time(main)


def test_only_what_cannot_be_listed_is_tried_again_later_and_later(virtual_time: VirtualTime) -> None:
    async def main() -> None:
        world = World({"good": names("good", 10), "bad": names("bad", 10)})
        world.refused.add("bad")
        world.resync.ask()
        await world.for_seconds(PERIOD - 1)
        assert {key: len(times) for key, times in world.looks.items()} == dict.fromkeys(
            world.stacks["good"], 1 + 1
        ), "at once, and in the course of the period"
        assert len(world.listings["good"]) == 1
        delays = [later - earlier for earlier, later in itertools.pairwise(world.listings["bad"])]
        assert delays[:5] == pytest.approx([5, 10, 20, 40, 60], abs=0.1)
        assert delays[5:] == pytest.approx([60] * len(delays[5:]), abs=0.1)

    virtual_time(main)


def test_a_request_stands_until_its_scope_can_be_listed_and_then_is_done(virtual_time: VirtualTime) -> None:
    async def main() -> None:
        world = World({"good": ["good"], "bad": names("bad", 3)})
        world.refused.add("bad")
        world.resync.ask()
        running = asyncio.create_task(world.for_seconds(200))
        await asyncio.sleep(50)
        for _ in range(10):
            world.resync.ask()
            await asyncio.sleep(1)
        assert len(world.looks["good"]) == 11, "each request is one look"
        assert len(world.listings["bad"]) == 4, "none is tried before its time"
        world.refused.clear()
        await running
        assert [len(world.looks[key]) for key in world.stacks["bad"]] == [1, 1, 1]
        assert len(world.looks["good"]) == 11

    virtual_time(main)
