"""The least that a Kopf operator can do: hear the events of the kinds that the operator watches, and nothing else.

Its settings are the operator's own, which are cheaper than Kopf's defaults. Prints `READY` once it hears every kind.
"""

from __future__ import annotations

import asyncio
import os
import sys
from typing import Any

import kopf

from cos_operator.kube import KINDS, Kube
from cos_operator.watch import Watcher, _settings

READY = "watching"
_POLL = 0.2


def registry(watcher: Watcher, server: str, session: Any) -> kopf.OperatorRegistry:
    """One handler a kind, which does nothing."""
    made = kopf.OperatorRegistry()

    @kopf.on.login(registry=made)
    async def login(**_: Any) -> kopf.AiohttpSession:
        return kopf.AiohttpSession(server=server, aiohttp_session=session)

    for kind in {stream.kind for stream in watcher._streams._by_path.values()}:
        place = KINDS[kind]

        @kopf.on.event(group=place.group, version=place.version, plural=place.plural, id=kind, registry=made)
        async def hear(**_: Any) -> None:
            return

    return made


async def tell(watcher: Watcher) -> None:
    """Print `READY` once every watch is connected."""
    while watcher._streams.problem():
        await asyncio.sleep(_POLL)
    sys.stdout.write(f"{READY}\n")
    sys.stdout.flush()


async def run() -> None:
    """Watch until the process is told to stop."""
    # Never started: it only knows the kinds, the way to the server and whether its streams are connected.
    watcher = Watcher()
    async with Kube.connect(os.environ["COS_KUBECONFIG"]) as kube:
        session = watcher._session(kube.endpoint)
        telling = asyncio.create_task(tell(watcher))
        try:
            handlers = registry(watcher, kube.endpoint.server, session)
            await kopf.operator(registry=handlers, settings=_settings(), clusterwide=True)
        finally:
            telling.cancel()
            await session.close()


if __name__ == "__main__":
    asyncio.run(run())
