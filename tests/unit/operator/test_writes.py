"""A write has no effect any more once it has been answered, or its time has passed; nothing else says so."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from cos_operator.kube_errors import Conflict, Request, Unavailable
from cos_operator.writes import Writes

LIMIT = 4.0
REQUEST = Request("apply", "Pod")


@pytest.mark.parametrize(
    ("ends", "settled_at"),
    [
        (None, 1.0),
        (Conflict(REQUEST, "somebody was faster", code=409), 1.0),
        (Unavailable(REQUEST, "connection reset"), LIMIT),
        (asyncio.CancelledError(), LIMIT),
    ],
    ids=["answered", "refused", "cut off", "cancelled"],
)
def test_what_ends_a_write(
    virtual_time: Callable[..., object], ends: BaseException | None, settled_at: float
) -> None:
    async def main() -> float:
        loop = asyncio.get_running_loop()
        began = loop.time()
        writes = Writes(LIMIT)

        async def write() -> None:
            with writes.one():
                await asyncio.sleep(1)
                if ends:
                    raise ends

        writing = asyncio.create_task(write())
        await asyncio.sleep(0.5)
        await writes.settled()
        assert writing.done()
        settled = loop.time() - began
        await writes.settled()
        assert loop.time() - began == settled
        return settled

    assert virtual_time(main) == pytest.approx(settled_at)


def test_the_last_one_counts_and_what_begins_later_does_not(virtual_time: Callable[..., object]) -> None:
    async def main() -> float:
        loop = asyncio.get_running_loop()
        began = loop.time()
        writes = Writes(LIMIT)

        async def write(delay: float) -> None:
            await asyncio.sleep(delay)
            with writes.one():
                await asyncio.sleep(3)

        tasks = [asyncio.create_task(write(delay)) for delay in (0, 0.5, 2)]
        await asyncio.sleep(1)
        await writes.settled()
        settled = loop.time() - began
        await asyncio.wait(tasks)
        return settled

    assert virtual_time(main) == pytest.approx(3.5)
