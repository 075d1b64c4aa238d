"""Which writes may still have an effect: who hands leading over waits for them, so that no two leaders' overlap."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from cos_operator.kube_errors import KubeError


class Writes:
    """The writes of one client: those under way, and those that ended without an answer.

    The API server may still carry out the latter, also one that was cancelled here, until `limit` seconds after it
    began.
    """

    def __init__(self, limit: float) -> None:
        self._limit = limit
        self._unsettled: set[asyncio.Future[None]] = set()

    @contextmanager
    def one(self) -> Iterator[None]:
        """Around a write. A `KubeError` with the API server's code is an answer, any other exception is none."""
        loop = asyncio.get_running_loop()
        write = loop.create_future()
        passed_at = loop.time() + self._limit
        self._unsettled.add(write)
        answered = False
        try:
            yield
            answered = True
        except KubeError as error:
            answered = error.code is not None
            raise
        finally:
            if answered:
                self._settle(write)
            else:
                loop.call_at(passed_at, self._settle, write)

    async def settled(self) -> None:
        """Return once each write that has begun by now has been answered, or its time has passed."""
        if self._unsettled:
            await asyncio.wait(self._unsettled)

    def _settle(self, write: asyncio.Future[None]) -> None:
        self._unsettled.discard(write)
        write.set_result(None)
