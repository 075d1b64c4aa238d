"""The event loop of a command, which ends when the person wants it to."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from concurrent.futures.thread import ThreadPoolExecutor
from threading import Thread
from typing import Any, TypeVar

T = TypeVar("T")


class _Abandoned(ThreadPoolExecutor):
    """Threads that nobody waits for in the end.

    The system's resolver may take half a minute for a name and cannot be interrupted; neither Ctrl-C nor a time limit
    may wait for it.
    """

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        """Run the function in a thread of its own."""
        future: Future[T] = Future()

        def work() -> None:
            try:
                future.set_result(fn(*args, **kwargs))
            except BaseException as error:  # noqa: BLE001 - it is handed on
                future.set_exception(error)

        future.set_running_or_notify_cancel()
        Thread(target=work, daemon=True).start()
        return future


def run(command: Coroutine[Any, Any, T]) -> T:
    """The result of a coroutine. Raises `KeyboardInterrupt` at Ctrl-C, and what the coroutine raises."""

    async def main() -> T:
        asyncio.get_running_loop().set_default_executor(_Abandoned())
        return await command

    return asyncio.run(main())
